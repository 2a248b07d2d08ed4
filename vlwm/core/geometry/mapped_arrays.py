"""Arrays in nameless mapped files instead of memory, for everything that grows with a city.

The kernel drops pages of a mapped file when memory is short, and forked workers share them. The
files have no name in their folder, so they disappear with the process, however it ends. Space is
allocated before a file is mapped and rows are plain writes, so a full disk is an error and not a
signal.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Generic, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlwm.core.files import explain_os_error

Kind = TypeVar("Kind", bound=np.generic)
"""type of the numbers of an array"""

PIECE_ROWS = 1 << 15
"""rows that a pass over a long array looks at together"""
_BUFFER_BYTES = 1 << 18


class Scratch:
    """Makes arrays in files of the disk that holds a folder.

    Args:
        folder: it or its nearest existing parent takes the files; None, and a file system that
            cannot map files, is the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        near = Path(tempfile.gettempdir() if folder is None else folder).absolute()
        self.folder = next(p for p in (near, *near.parents) if p.is_dir())
        if not _can_map(self.folder):
            self.folder = Path(tempfile.gettempdir())

    @overload
    def zeros(self, shape: int | tuple[int, ...]) -> NDArray[np.float64]: ...
    @overload
    def zeros(self, shape: int | tuple[int, ...], dtype: type[Kind]) -> NDArray[Kind]: ...
    def zeros(
        self, shape: int | tuple[int, ...], dtype: type[np.generic] = np.float64
    ) -> NDArray[np.generic]:
        """Return an array of zeros.

        Raises:
            MachineError: the disk has no room, or the folder cannot be written.
        """
        kind: np.dtype[np.generic] = np.dtype(dtype)
        count = math.prod(shape) if isinstance(shape, tuple) else shape
        # a file of zero bytes cannot be mapped
        if not count:
            return np.zeros(shape, kind)
        try:
            with self.file() as file:
                # reserve the space: a write into a hole on a full disk would be a SIGBUS
                os.posix_fallocate(file.fileno(), 0, count * kind.itemsize)
                return _mapped(file, shape, kind)
        except OSError as error:
            raise explain_os_error(error, self.folder) from error

    def rows(self, dtype: type[Kind], shape: tuple[int, ...] = ()) -> Rows[Kind]:
        """Return an array that begins empty and grows by rows of a shape."""
        return Rows(self, np.dtype(dtype), shape)

    def file(self) -> IO[bytes]:
        """Return a new file without a name.

        Raises:
            MachineError: the folder cannot be written.
        """
        try:
            return tempfile.TemporaryFile(dir=self.folder, buffering=0)
        except OSError as error:
            raise explain_os_error(error, self.folder) from error


class Rows(Generic[Kind]):
    """An array in a file that grows by plain writes. Made by `Scratch.rows`."""

    def __init__(self, scratch: Scratch, dtype: np.dtype[Kind], shape: tuple[int, ...]) -> None:
        self.dtype, self.shape = dtype, shape
        self._scratch, self._file = scratch, scratch.file()
        self._row_bytes = dtype.itemsize * math.prod(shape)
        self._count = 0
        self._pending = bytearray()

    def __len__(self) -> int:
        return self._count

    def append(self, rows: ArrayLike) -> None:
        """Add rows (N, *shape).

        Raises:
            MachineError: the disk is full.
        """
        # (N, *shape); a single row is one of N = 1
        added = np.ascontiguousarray(rows, dtype=self.dtype).reshape(-1, *self.shape)
        self._count += len(added)
        self._pending += added.tobytes()
        if len(self._pending) > _BUFFER_BYTES:
            self.flush()

    def read(self, start: int, stop: int) -> NDArray[Kind]:
        """Return a copy of rows `start` to `stop`."""
        self.flush()
        size = (stop - start) * self._row_bytes
        # pread leaves the position alone, at which `flush` appends
        raw = os.pread(self._file.fileno(), size, start * self._row_bytes)
        return np.frombuffer(raw, self.dtype).reshape(-1, *self.shape)

    def put(self, index: int, row: ArrayLike) -> None:
        """Overwrite one row."""
        self.flush()
        value = np.asarray(row, dtype=self.dtype).tobytes()
        os.pwrite(self._file.fileno(), value, index * self._row_bytes)

    def array(self) -> NDArray[Kind]:
        """Return all rows so far, mapped."""
        self.flush()
        shape = (self._count, *self.shape)
        if not self._count:
            return np.zeros(shape, self.dtype)
        return _mapped(self._file, shape, self.dtype)

    def flush(self) -> None:
        """Write what is pending; due before a fork, where reader and writer part.

        Raises:
            MachineError: the disk is full.
        """
        try:
            # a write may take less than it was given
            while self._pending:
                del self._pending[: self._file.write(self._pending)]
        except OSError as error:
            self._pending.clear()
            raise explain_os_error(error, self._scratch.folder) from error

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


def pieces(array: NDArray[Kind], rows: int | None = None) -> Iterator[tuple[int, NDArray[Kind]]]:
    """Yield (first row, view of at most `rows` rows) over an array; pages are dropped after use."""
    rows = rows or PIECE_ROWS
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]
        let_go(array)


def let_go(*arrays: NDArray[np.generic]) -> None:
    """Take the pages of mapped arrays out of this process; they come back when they are read."""
    for array in arrays:
        # follow the views down to the buffer that they share
        base: object = array
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, mmap.mmap):
            base.madvise(mmap.MADV_DONTNEED)


def _can_map(folder: Path) -> bool:
    """Return True if files of a folder can be mapped; some network file systems cannot."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, mmap.PAGESIZE)
            mmap.mmap(file.fileno(), mmap.PAGESIZE).close()
    except OSError as error:
        return error.errno not in (errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP)
    return True


def _mapped(file: IO[bytes], shape: int | tuple[int, ...], kind: np.dtype[Kind]) -> NDArray[Kind]:
    return np.ndarray(shape, kind, buffer=mmap.mmap(file.fileno(), 0))
