"""A shard: one session in one file, with every frame compressed on its own.

    bytes 0-8      magic "VLWMSHRD"
          8-12     uint32 version, 1
          12-16    uint32 H, size of the header
          16-24    uint64 T, size of the tables
          24-32    uint64 size of the file
          32-36    uint32 CRC-32 of header and tables
          36-40    uint32 CRC-32 of bytes 0 to 36
          40-40+H  header: JSON, UTF-8
          then T   tables: the arrays that the header lists, one after another
          rest     data: compressed frames, a layer after the other

All numbers are little-endian. The header lists the layers and the tables with their types, so a
reader skips what it does not know. Each layer has four tables, a row per frame: `offset` into the
data, `size` (0: the frame lacks the layer), `crc` of the compressed bytes and `content`, the CRC-32
of the decompressed ones. Every byte of the file is covered by a checksum, and the bytes depend on
the content and the version of zstd alone.
"""

from __future__ import annotations

import json
import math
import re
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from isal import isal_zlib
from numpy.typing import NDArray

from vlwm.core.errors import DataError
from vlwm.core.text import plain_reason

SUFFIX = ".shard"
BITS = "bits"
BYTES = "uint8"
PREFIX_BYTES = 40

_MAGIC = b"VLWMSHRD"
_VERSION = 1
_LEVEL = 9  # measured: 2.3 kB a frame and 1 ms; decoding is as fast as at level 1
_PREFIX = struct.Struct("<8sIIQQI")
_TYPE = re.compile(r"^(<[iuf][248]|\|[iu]1)$")
_LAYER_TABLES = ("offset", "size", "crc", "content")
_codec = threading.local()  # a zstd context serves one thread


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a shard.

    Attributes:
        name: for example 'truth.occupied'.
        kind: 'bits' (eight cells a byte, little-endian) or 'uint8' (a byte a cell).
        offset: uint64 (N,), place of each compressed frame in the data.
        size: uint32 (N,), its bytes; 0 where the frame lacks the layer.
        crc: uint32 (N,), CRC-32 of the compressed bytes.
        content: uint32 (N,), CRC-32 of the decompressed bytes.
    """

    name: str
    kind: str
    offset: NDArray[np.uint64]
    size: NDArray[np.uint32]
    crc: NDArray[np.uint32]
    content: NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Everything of a shard but its frames.

    Attributes:
        header: JSON values: at least session, frames, layers, tables.
        tables: arrays with a row per frame, by name.
        layers: by name.
        data_at: offset of the data in the file.
        file_bytes: size of the whole file.
    """

    header: dict[str, Any]
    tables: dict[str, NDArray[Any]]
    layers: dict[str, Layer]
    data_at: int
    file_bytes: int


class ShardBuilder:
    """Collects the compressed frames of a session and writes the shard.

    Args:
        kinds: kind of each layer by name.
    """

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._kinds = dict(kinds)
        self._frames: dict[str, list[bytes]] = {name: [] for name in kinds}
        self._content: dict[str, list[int]] = {name: [] for name in kinds}

    def add(self, layers: Mapping[str, bytes]) -> None:
        """Add a frame; a layer that it lacks is left out of `layers`."""
        for name in self._kinds:
            raw = layers.get(name)
            self._frames[name].append(b"" if raw is None else compress(raw))
            self._content[name].append(0 if raw is None else isal_zlib.crc32(raw))

    def to_bytes(self, header: Mapping[str, Any], tables: Mapping[str, NDArray[Any]]) -> bytes:
        """Return the whole shard.

        Args:
            header: JSON values of the session.
            tables: arrays of int64, uint64, uint32, uint8 or float64 with a row per frame.
        """
        names = [name for name in self._kinds if any(self._frames[name])]
        every = {name: np.ascontiguousarray(table) for name, table in tables.items()}
        data: list[bytes] = []
        at = 0
        for name in names:
            frames = self._frames[name]
            sizes = np.array([len(f) for f in frames], dtype="<u4")
            ends = at + np.cumsum(sizes, dtype="<u8")
            crcs = [isal_zlib.crc32(f) if f else 0 for f in frames]
            every[f"{name}/offset"] = ends - sizes
            every[f"{name}/size"] = sizes
            every[f"{name}/crc"] = np.array(crcs, dtype="<u4")
            every[f"{name}/content"] = np.array(self._content[name], dtype="<u4")
            data += frames
            at = int(ends[-1]) if len(ends) else at
        listed = [
            {"name": n, "type": t.dtype.newbyteorder("<").str, "shape": list(t.shape)}
            for n, t in every.items()
        ]
        layers = [{"name": n, "kind": self._kinds[n], "codec": "zstd"} for n in names]
        text = {**header, "layers": layers, "tables": listed}
        head = json.dumps(text, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        body = head.encode() + b"".join(
            table.astype(table.dtype.newbyteorder("<"), copy=False).tobytes()
            for table in every.values()
        )
        size = len(head.encode())
        prefix = _PREFIX.pack(
            _MAGIC, _VERSION, size, len(body) - size, PREFIX_BYTES + len(body) + at,
            isal_zlib.crc32(body),
        )  # fmt: skip
        prefix += struct.pack("<I", isal_zlib.crc32(prefix))
        return b"".join((prefix, body, *data))


def compress(raw: bytes) -> bytes:
    """Return bytes as one zstd frame that records its size."""
    if not hasattr(_codec, "compressor"):
        _codec.compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False)
    packed: bytes = _codec.compressor.compress(raw)
    return packed


def decompress(packed: bytes, size: int, where: str | Path) -> bytes:
    """Return the `size` bytes of one zstd frame.

    Raises:
        DataError: the frame is damaged or holds another number of bytes.
    """
    if not hasattr(_codec, "decompressor"):
        _codec.decompressor = zstandard.ZstdDecompressor()
    try:
        if zstandard.get_frame_parameters(packed).content_size != size:
            raise damaged(where, "a frame has another size")
        raw: bytes = _codec.decompressor.decompress(packed)
    except zstandard.ZstdError as error:
        raise damaged(where, f"a frame cannot be decompressed ({error})") from error
    return raw


def index_bytes(prefix: bytes, where: str | Path) -> int:
    """Return how many bytes of a shard come before its data.

    Raises:
        DataError: `prefix`, the first 40 bytes, does not begin a shard of a known version.
    """
    if len(prefix) < PREFIX_BYTES or prefix[:8] != _MAGIC:
        raise damaged(where, "it does not begin like a shard")
    (crc,) = struct.unpack_from("<I", prefix, _PREFIX.size)
    if crc != isal_zlib.crc32(prefix[: _PREFIX.size]):
        raise damaged(where, "the checksum of its first bytes differs")
    _, version, header, tables, _, _ = _PREFIX.unpack_from(prefix)
    if version != _VERSION:
        raise DataError(
            f"a shard of version {version}, and this vlwm reads version {_VERSION}",
            where=where,
            remedy="update vlwm on this machine",
        )
    return PREFIX_BYTES + int(header) + int(tables)


def parse_index(raw: bytes, where: str | Path) -> ShardIndex:
    """Return the index of a shard from its first bytes, at least `index_bytes` of them.

    Raises:
        DataError: a checksum differs, or the header does not describe the tables.
    """
    data_at = index_bytes(raw[:PREFIX_BYTES], where)
    _, _, header_size, _, file_bytes, crc = _PREFIX.unpack_from(raw)
    body = memoryview(raw)[PREFIX_BYTES:data_at]
    if len(body) != data_at - PREFIX_BYTES or isal_zlib.crc32(body) != crc:
        raise damaged(where, "the checksum of its index differs")
    try:
        header = json.loads(bytes(body[:header_size]))
        tables = _tables(header, body[header_size:])
        layers = {v["name"]: _layer(v, tables) for v in header["layers"]}
        data_bytes = int(file_bytes) - data_at
        for layer in layers.values():
            if len(layer.size) and int((layer.offset + layer.size).max()) > data_bytes:
                raise ValueError(f"the layer {layer.name} ends after the file")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise damaged(where, f"its header makes no sense ({plain_reason(error)})") from error
    plain = {name: table for name, table in tables.items() if "/" not in name}
    return ShardIndex(header, plain, layers, data_at, int(file_bytes))


def damaged(where: str | Path, reason: str) -> DataError:
    """Return the error of a damaged shard."""
    return DataError(
        f"a shard is damaged: {reason}",
        where=where,
        remedy="delete it; vlwm prepare makes it again, vlwm download fetches it again",
    )


def _tables(header: dict[str, Any], raw: memoryview) -> dict[str, NDArray[Any]]:
    """Return the arrays that a header lists, as views of the tables' bytes."""
    tables = {}
    at = 0
    frames = header["frames"]
    for entry in header["tables"]:
        kind = _dtype(entry["type"])
        shape = tuple(entry["shape"])
        if not shape or shape[0] != frames or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"a table of shape {shape}")
        count = math.prod(shape)
        table = np.frombuffer(raw, kind, count, at)
        tables[entry["name"]] = table.reshape(shape) if len(shape) > 1 else table
        at += count * kind.itemsize
    if at != len(raw):
        raise ValueError(f"tables of {at} bytes in {len(raw)}")
    return tables


@lru_cache(32)
def _dtype(name: str) -> np.dtype[np.generic]:
    if not _TYPE.match(name):
        raise ValueError(f"a table of type {name}")
    return np.dtype(name)


def _layer(entry: dict[str, Any], tables: dict[str, NDArray[Any]]) -> Layer:
    name, kind = str(entry["name"]), str(entry["kind"])
    if kind not in (BITS, BYTES) or entry["codec"] != "zstd":
        raise ValueError(f"the layer {name} is {kind} in {entry['codec']}")
    return Layer(name, kind, **{key: tables[f"{name}/{key}"] for key in _LAYER_TABLES})
