"""Objects of a city in a store: their names, and arrays as bytes."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.store.shard import compress, decompress

INDEX = "city.json"
SUFFIX = ".city"
VERSION = 2
TILE_M = 1000.0
GROUND_NODES = 256
"""nodes of the terrain along one side of its blocks"""
FEATURES = 1 << 16
"""features whose names are one object"""


def pack(arrays: Mapping[str, Any]) -> bytes:
    """Return arrays as an uncompressed npz file inside one zstd frame, behind its size."""
    out = io.BytesIO()
    np.savez(out, **dict(arrays))  # numpy dates the members 1980: the same bytes every time
    raw = out.getvalue()
    return len(raw).to_bytes(8, "little") + compress(raw)


def unpack(packed: bytes, where: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of `pack`.

    Raises:
        DataError: the bytes are damaged.
    """
    raw = decompress(packed[8:], int.from_bytes(packed[:8], "little"), where)
    with np.load(io.BytesIO(raw), allow_pickle=False) as opened:
        return {name: opened[name] for name in opened.files}


def as_text(value: object) -> NDArray[np.uint8]:
    """Return plain values as an array of the bytes of their JSON."""
    return np.frombuffer(json.dumps(value, ensure_ascii=False).encode(), np.uint8)


def from_text(array: NDArray[np.generic]) -> Any:
    """Return the plain values of `as_text`."""
    return json.loads(array.tobytes())


def hash_of(index: dict[str, Any]) -> str:
    """Return the hash of the content of `city.json`."""
    plain = {k: v for k, v in index.items() if k != "hash"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
