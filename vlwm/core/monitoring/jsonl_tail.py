"""Follow a file of JSON lines that another process appends to, cuts, or replaces.

A resumed run cuts its metrics at the checkpoint's offset and writes on; a new run in the same
folder starts a new file. Both are noticed, also where the file has grown past the old place
meanwhile: the last bytes read must still stand where they stood. A last line without its newline
is left for the next time; a damaged line is passed over and counted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_TAIL = 256  # bytes compared


@dataclass(frozen=True)
class News:
    """What came since the last look."""

    records: tuple[dict[str, Any], ...] = ()
    restarted: bool = False
    """the file was cut or replaced: forget what was read before, `records` holds all of it"""


class LineFollower:
    """Reads a growing file piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        """lines passed over so far"""
        self._offset = 0
        self._tail = b""

    def read(self) -> News:
        """Whole lines since the last call; a file that is not there yet has none."""
        try:
            with open(self.path, "rb") as handle:
                restarted = self._offset > 0 and not self._unchanged(handle)
                if restarted:
                    self._offset, self._tail, self.damaged = 0, b"", 0
                handle.seek(self._offset)
                block = handle.read()
        except OSError:
            restarted = self._offset > 0
            self._offset, self._tail, self.damaged = 0, b"", 0
            return News((), restarted)
        return News(self._take(block[: block.rfind(b"\n") + 1]), restarted)

    def _unchanged(self, handle: BinaryIO) -> bool:
        handle.seek(self._offset - len(self._tail))
        return handle.read(len(self._tail)) == self._tail

    def _take(self, block: bytes) -> tuple[dict[str, Any], ...]:
        self._offset += len(block)
        self._tail = (self._tail + block)[-_TAIL:]
        parsed = [_parse(line) for line in block.splitlines() if line.strip()]
        records = tuple(record for record in parsed if record is not None)
        self.damaged += len(parsed) - len(records)
        return records


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
