"""Follow a file of JSON lines that another process appends to, cuts, or replaces.

A resumed run cuts its metrics at the checkpoint's offset and writes on; a new run in the same
folder starts a new file. Both are noticed, even where the file has grown past the old place: the
last bytes read must still be where they were. A last line without its newline is left for the next
call; a damaged line is passed over and counted.

A long file is read in blocks, so that one call never takes long, and of the lines far from its end
only every n-th is parsed: a curve of a million lines needs a few thousand of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_TAIL = 256  # bytes compared
_BLOCK = 1 << 18  # bytes of one call
_NEAR_END = 1 << 18  # bytes whose lines are all parsed
_PARSED = 10_000  # lines of the rest that are parsed, about
_LINE_BYTES = 400  # of one line, about
_VALIDATION = b'"kind": "val"'


@dataclass(frozen=True)
class News:
    """Records since the last call."""

    records: tuple[dict[str, Any], ...] = ()
    restarted: bool = False
    """the file was cut or replaced: forget earlier records, `records` begins at its start"""
    behind: int = 0
    """bytes of the file that are not read yet: call again"""
    skipped: int = 0
    """lines that were counted and not parsed"""


class LineFollower:
    """Reads a growing file piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        """damaged lines so far"""
        self._offset = 0
        self._tail = b""
        self._lines = 0

    def read(self) -> News:
        """Return the whole lines since the last call; none while the file is missing."""
        try:
            with open(self.path, "rb") as handle:
                restarted = self._offset > 0 and not self._unchanged(handle)
                if restarted:
                    self._forget()
                size = handle.seek(0, 2)
                handle.seek(self._offset)
                block = handle.read(_BLOCK)
        except OSError:
            restarted = self._offset > 0
            self._forget()
            return News((), restarted)
        whole = block[: block.rfind(b"\n") + 1]
        if not whole and len(block) == _BLOCK:  # one endless line: damaged
            self.damaged += 1
            self._offset += len(block)
            self._tail = block[-_TAIL:]
            return News((), restarted, size - self._offset)
        records, skipped = self._take(whole, size)
        return News(records, restarted, size - self._offset if len(block) == _BLOCK else 0, skipped)

    def _forget(self) -> None:
        self._offset, self._lines, self.damaged = 0, 0, 0
        self._tail = b""

    def _unchanged(self, handle: BinaryIO) -> bool:
        handle.seek(self._offset - len(self._tail))
        return handle.read(len(self._tail)) == self._tail

    def _take(self, block: bytes, size: int) -> tuple[tuple[dict[str, Any], ...], int]:
        """Parse a block's lines; far from the end of the file every n-th and all validations."""
        self._offset += len(block)
        self._tail = (self._tail + block)[-_TAIL:]
        lines = [line for line in block.splitlines() if line.strip()]
        stride = 1
        if size - self._offset > _NEAR_END:
            stride = max(1, size // _LINE_BYTES // _PARSED)
        chosen = [
            line
            for number, line in enumerate(lines, self._lines)
            if number % stride == 0 or _VALIDATION in line
        ]
        self._lines += len(lines)
        parsed = [_parse(line) for line in chosen]
        records = tuple(record for record in parsed if record is not None)
        self.damaged += len(parsed) - len(records)
        return records, len(lines) - len(chosen)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
