"""Names and kinds of a city's features, in files: lists of strings that take no memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from vlwm.core.geometry.mapped_arrays import PIECE_ROWS, Rows, Scratch


class _Texts(Sequence[str]):
    """A sequence that equals every sequence of the same strings; it has no hash, as lists."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._text(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._text(index % len(self))

    def __iter__(self) -> Iterator[str]:
        return (self._text(i) for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:5]))
        return f"[{shown}, … {len(self)} in all]" if len(self) > 5 else f"[{shown}]"

    def _text(self, index: int) -> str:
        raise NotImplementedError


class Names(_Texts):
    """Strings, end to end in one file."""

    def __init__(self, scratch: Scratch) -> None:
        self._bytes: Rows = scratch.rows(np.uint8)
        self._ends: Rows = scratch.rows(np.int64)

    def append(self, name: str) -> None:
        """Add one at the end."""
        self._bytes.append(np.frombuffer(name.encode("utf-8", "surrogatepass"), np.uint8))
        self._ends.append(len(self._bytes))

    def flush(self) -> None:
        """Write what is pending: afterwards forked processes may read it."""
        self._bytes.flush()
        self._ends.flush()

    def extend(self, other: Names, keep: NDArray[np.bool_]) -> None:
        """Add the names of another that `keep` (N,) marks."""
        for start in range(0, len(other), PIECE_ROWS):
            some = other._read(start, min(start + PIECE_ROWS, len(other)))
            for name, kept in zip(some, keep[start : start + PIECE_ROWS], strict=True):
                if kept:
                    self.append(name)

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), PIECE_ROWS):
            yield from self._read(start, min(start + PIECE_ROWS, len(self)))

    def _text(self, index: int) -> str:
        return self._read(index, index + 1)[0]

    def _read(self, start: int, stop: int) -> list[str]:
        first = int(self._ends.read(start - 1, start)[0]) if start else 0
        ends = self._ends.read(start, stop) - first
        raw = self._bytes.read(first, first + int(ends[-1])).tobytes()
        begins = np.concatenate([[0], ends[:-1]])
        texts = zip(begins.tolist(), ends.tolist(), strict=True)
        return [raw[a:b].decode("utf-8", "surrogatepass") for a, b in texts]


class Kinds(_Texts):
    """A word of a small vocabulary for each feature.

    Args:
        codes: unsigned (G,), places in the vocabulary.
    """

    def __init__(self, codes: NDArray[np.unsignedinteger], words: tuple[str, ...]) -> None:
        self.codes, self.words = codes, words

    def __len__(self) -> int:
        return len(self.codes)

    def _text(self, index: int) -> str:
        return self.words[int(self.codes[index])]
