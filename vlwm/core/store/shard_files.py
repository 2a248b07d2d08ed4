"""Read shards of a local folder with few open files: one handle per shard, the newest kept open."""

from __future__ import annotations

import gc
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

from isal import isal_zlib

from vlwm.core.files import explain_os_error
from vlwm.core.store.shard import PREFIX_BYTES, ShardIndex, damaged, index_bytes, parse_index

_OPEN_FILES = 32
_FIRST_READ = 1 << 17  # holds the index of a session of 500 frames


class ShardFiles:
    """Byte ranges of many files, of which at most `limit` are open.

    A copy in another process (fork or spawn) opens its own handles.

    Args:
        bring: called with a file before it is opened; fetches frames that are not here yet.
    """

    def __init__(
        self, limit: int = _OPEN_FILES, bring: Callable[[Path], None] | None = None
    ) -> None:
        self._limit, self._bring = limit, bring
        self._handles: OrderedDict[Path, int] = OrderedDict()
        self._owner = os.getpid()

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """Return `size` bytes of a file.

        Raises:
            DataError: the file is missing or ends too early.
            MachineError: its frames are still in a store that does not answer.
        """
        try:
            raw = os.pread(self._handle(path), size, offset)
        except OSError as error:
            raise explain_os_error(error, path) from error
        if len(raw) != size:
            raise damaged(path, "the file ends too early")
        return raw

    def close(self) -> None:
        """Close every handle."""
        if self._owner == os.getpid():
            for handle in self._handles.values():
                os.close(handle)
        self._handles.clear()

    def _handle(self, path: Path) -> int:
        if self._owner != os.getpid():  # the parent closes the handles that a fork inherits
            self._handles = OrderedDict()
            self._owner = os.getpid()
        handle = self._handles.pop(path, None)
        if handle is None:
            if self._bring is not None:
                self._bring(path)
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._handles[path] = handle
        while len(self._handles) > self._limit:
            os.close(self._handles.popitem(last=False)[1])
        return handle

    def __reduce__(self) -> tuple[type[ShardFiles], tuple[object, ...]]:
        # a copy opens its own files: it is made as a new object is
        return type(self), (self._limit, self._bring)

    def __del__(self) -> None:
        self.close()


def read_index(path: Path) -> ShardIndex:
    """Return the index of a shard file.

    Raises:
        DataError: the file is missing, damaged or cut short.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            raw = os.pread(handle, _FIRST_READ, 0)
            need = index_bytes(raw[:PREFIX_BYTES], path)
            if len(raw) < need:
                raw += os.pread(handle, need - len(raw), len(raw))
            size = os.fstat(handle).st_size
        finally:
            os.close(handle)
    except OSError as error:
        raise explain_os_error(error, path) from error
    index = parse_index(raw, path)
    if index.file_bytes != size:
        raise damaged(path, f"it has {size} bytes instead of {index.file_bytes}")
    return index


def read_indexes(paths: Iterable[Path]) -> list[ShardIndex]:
    """Return the indexes of many shards, in order.

    Raises:
        DataError: one is missing, damaged or cut short.
    """
    running = gc.isenabled()
    gc.disable()  # else it walks all headers again and again while they pile up
    try:
        return [read_index(path) for path in paths]
    finally:
        if running:
            gc.enable()


def check_shard(path: Path) -> ShardIndex:
    """Compare every byte of a shard file with its checksums and return its index.

    Raises:
        DataError: a checksum differs.
    """
    index = read_index(path)
    raw = path.read_bytes()
    covered = index.data_at
    for layer in index.layers.values():
        for offset, size, crc in zip(layer.offset, layer.size, layer.crc, strict=True):
            start = index.data_at + int(offset)
            if size and isal_zlib.crc32(raw[start : start + int(size)]) != crc:
                raise damaged(path, f"a frame of {layer.name} differs from its checksum")
            covered += int(size)
    if covered != len(raw):
        raise damaged(path, "it holds bytes that no checksum covers")
    return index
