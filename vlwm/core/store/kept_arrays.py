"""Keep arrays that were gathered from many files in one file, while those files stay the same.

    line 1   JSON: the key, plain values; name, type and shape of each array; ends with a newline
    then     the arrays, one after another
    last 4   uint32 CRC-32 of all bytes before

The key is whatever decides the content, such as names, sizes and times of the files. A file with
another key, of another version or with a wrong checksum is passed over, and is written again.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from vlwm.core.errors import VlwmError
from vlwm.core.files import atomic_path, make_folder

_VERSION = 1
_CRC_BYTES = 4

Arrays = Mapping[str, NDArray[Any]]


def keep_arrays(path: Path, key: object, values: object, arrays: Arrays) -> None:
    """Write arrays and plain values under a key; a disk that refuses costs only time later."""
    listed = [[n, a.dtype.newbyteorder("<").str, list(a.shape)] for n, a in arrays.items()]
    head = json.dumps({"version": _VERSION, "key": key, "values": values, "arrays": listed})
    crc = 0
    with suppress(OSError, VlwmError):
        make_folder(path.parent)
        with atomic_path(path) as temporary, open(temporary, "wb") as handle:
            for block in (head.encode() + b"\n", *map(_bytes, arrays.values())):
                handle.write(block)
                crc = isal_zlib.crc32(block, crc)
            handle.write(struct.pack("<I", crc))


def _bytes(array: NDArray[np.generic]) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def kept_arrays(path: Path, key: object) -> tuple[Any, dict[str, NDArray[Any]]] | None:
    """Return plain values and arrays that were kept under a key, or None.

    The arrays belong to the caller and can be written to.
    """
    try:
        raw = bytearray(os.stat(path).st_size)
        with open(path, "rb", buffering=0) as handle:
            size = handle.readinto(raw)
    except OSError:
        return None
    body = memoryview(raw)[:-_CRC_BYTES]
    if size != len(raw) or size < _CRC_BYTES:
        return None
    if struct.unpack("<I", raw[-_CRC_BYTES:])[0] != isal_zlib.crc32(body):
        return None
    end = raw.index(b"\n")
    head = json.loads(raw[:end])
    if head["version"] != _VERSION or head["key"] != json.loads(json.dumps(key)):
        return None
    arrays = {}
    at = end + 1
    for name, kind, shape in head["arrays"]:
        count = int(np.prod(shape, dtype=np.int64))
        array = np.frombuffer(body, np.dtype(kind), count, at).reshape(shape)
        # arrays in the middle of the file may begin at any byte: copies are aligned
        arrays[name] = array.copy() if not array.flags.aligned else array
        at += array.nbytes
    return head["values"], arrays
