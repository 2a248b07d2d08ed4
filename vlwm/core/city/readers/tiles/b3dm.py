"""One tile of 3D Tiles: triangles in earth-centred metres and the table of its features.

Content is known by its first bytes, not by its name: b3dm (3D Tiles 1.0: a feature table, a batch
table with one row a building, and a binary glTF), glb and gltf (1.1), cmpt (several of them), each
gzipped or not. Meshes have a centre (`CESIUM_RTC`, or `RTC_CENTER` of the feature table). glTF is y
up unless the tile set states another axis, so earth-centred = (x, −z, y) + centre.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.readers.tiles.gltf import Mesh, read_gltf
from vlwm.core.city.readers.tiles.gltf_buffers import BrokenTile, ReadFile
from vlwm.core.text import plain_reason
from vlwm.core.tile_tree import parse_json

__all__ = ["BrokenTile", "Tile", "read_b3dm", "read_tiles"]

_HEADER = struct.Struct("<4sIIIIII")
_CONTAINER = struct.Struct("<4sIII")
_TABLE_TYPES = {"BYTE": "i1", "UNSIGNED_BYTE": "u1", "SHORT": "<i2", "UNSIGNED_SHORT": "<u2",
                "INT": "<i4", "UNSIGNED_INT": "<u4", "FLOAT": "<f4", "DOUBLE": "<f8"}  # fmt: skip
_NOT_READ = {b"pnts": "a point cloud (pnts)", b"i3dm": "instanced models (i3dm)",
             b"vctr": "vector data (vctr)", b"geom": "plain shapes (geom)",
             b"subt": "a subtree of implicit tiling", b"glTF": "a glTF"}  # fmt: skip
_OLD_HEADER = 570_425_344
"""a table size of a b3dm from this on is the text of another field: the header is older than 1.0"""
_MOST_ROWS = 10_000_000
_MOST_BYTES = 2_000_000_000
_DEEPEST = 8


@dataclass(frozen=True, eq=False)
class Tile:
    """One set of features of a tile.

    Attributes:
        triangles: (T, 3, 3) earth-centred metres.
        rows: int64 (T,) row of the table of each triangle.
        count: rows of the table.
        table: its columns.
        has_rows: False where the tile does not tell features apart.
        passed_over: primitives that are not read, by their kind.
    """

    triangles: NDArray[np.float64]
    rows: NDArray[np.int64]
    count: int
    table: dict[str, Any]
    has_rows: bool = True
    passed_over: Counter[str] = field(default_factory=Counter)
    copyright: str = ""

    def column(self, *names: str) -> list[Any] | None:
        """Return the first of the named columns that the table has, as `count` values.

        Rows that the table lacks are None.
        """
        for name in names:
            values = self.table.get(name)
            if isinstance(values, list | np.ndarray) and 0 < len(values) <= self.count:
                return list(values) + [None] * (self.count - len(values))
        return None


def read_b3dm(data: bytes, up_axis: str = "Y") -> Tile:
    """Parse the one set of features of a tile.

    Raises:
        BrokenTile: as `read_tiles`.
    """
    return read_tiles(data, up_axis)[0]


def read_tiles(
    data: bytes, up_axis: str = "Y", read_file: ReadFile = lambda name: None
) -> list[Tile]:
    """Parse a tile's content; a composite holds several.

    Args:
        up_axis: the axis of its glTF that points up: X, Y or Z.
        read_file: reads the files that a plain glTF names.

    Raises:
        BrokenTile: truncated, another format, or an extension that is not read.
    """
    try:
        return _read(_unpacked(data), up_axis, read_file, 0)
    except (
        struct.error, LookupError, ValueError, TypeError, AttributeError, OverflowError,
        MemoryError,
    ) as error:  # fmt: skip
        raise BrokenTile(f"the tile is damaged: {plain_reason(error)}") from error


def _unpacked(data: bytes) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    stream = zlib.decompressobj(wbits=31)
    try:
        unpacked = stream.decompress(data, _MOST_BYTES)
    except zlib.error as error:
        raise BrokenTile(f"its gzip is damaged: {error}") from error
    if not stream.eof:
        raise BrokenTile(f"its gzip is cut off after {len(unpacked)} bytes")
    return unpacked


def _read(data: bytes, up_axis: str, read_file: ReadFile, depth: int) -> list[Tile]:
    magic = data[:4]
    if magic == b"b3dm":
        return [_read_b3dm(data, up_axis, read_file)]
    if magic == b"glTF" or data[:1] == b"{":
        mesh = read_gltf(data, read_file)
        return [_tile(mesh, up_axis, np.zeros(3), _length(mesh.table), mesh.table)]
    if magic == b"cmpt":
        return _read_composite(data, up_axis, read_file, depth)
    kind = _NOT_READ.get(magic, f"{magic!r}")
    raise BrokenTile(f"not a b3dm, glb, gltf or cmpt but {kind}, which is not read")


def _read_composite(data: bytes, up_axis: str, read_file: ReadFile, depth: int) -> list[Tile]:
    """Read the tiles of a composite; those of other kinds are counted."""
    _, _, length, count = _CONTAINER.unpack_from(data)
    if length > len(data) or depth > _DEEPEST:
        raise BrokenTile(f"the tile is cut off: {len(data)} of {length} bytes")
    tiles: list[Tile] = []
    at, passed_over = _CONTAINER.size, Counter[str]()
    for _ in range(count):
        magic, _, size = struct.unpack_from("<4sII", data, at)
        if size < 12:
            raise BrokenTile("an inner tile has no length")
        if magic in (b"pnts", b"i3dm", b"vctr", b"geom"):
            passed_over[_NOT_READ[magic]] += 1
        else:
            tiles += _read(data[at : at + size], up_axis, read_file, depth + 1)
        at += size
    empty = Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64), np.zeros(0, np.int64), np.zeros(3))
    empty.passed_over.update(passed_over)
    return (
        [*tiles, _tile(empty, up_axis, np.zeros(3), 0, {})] if passed_over or not tiles else tiles
    )


def _read_b3dm(data: bytes, up_axis: str, read_file: ReadFile) -> Tile:
    magic, version, length, *sizes = _HEADER.unpack_from(data)
    if version != 1:
        raise BrokenTile(f"not a b3dm of version 1 but {magic!r} {version}")
    if length > len(data):
        raise BrokenTile(f"the tile is cut off: {len(data)} of {length} bytes")
    if max(sizes[0], sizes[2]) >= _OLD_HEADER:
        raise BrokenTile("its header is older than 3D Tiles 1.0, which is not read")
    parts, at = [], _HEADER.size
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    features = parse_json(parts[0] or b"{}")
    count = int(_global(features, "BATCH_LENGTH", 0, "<u4", parts[1]))
    if not 0 <= count <= _MOST_ROWS:
        raise BrokenTile(f"a table of {count} features")
    table = _columns(parse_json(parts[2] or b"{}"), parts[3], count)
    center = np.asarray(_global(features, "RTC_CENTER", (0.0, 0.0, 0.0), "<f4", parts[1]))
    mesh = read_gltf(data[at:length], read_file)
    return _tile(mesh, up_axis, center.astype(np.float64).reshape(3), count, table)


def _global(features: dict[str, Any], name: str, otherwise: Any, kind: str, binary: bytes) -> Any:
    """Return a value of the feature table, from its text or its binary part."""
    value = features.get(name, otherwise)
    if isinstance(value, dict):
        size = np.size(otherwise)
        numbers = np.frombuffer(binary, kind, size, int(value["byteOffset"]))
        return numbers if size > 1 else numbers[0]
    return value


def _length(table: dict[str, Any]) -> int:
    return max((len(v) for v in table.values()), default=0)


def _tile(
    mesh: Mesh, up_axis: str, center: NDArray[np.float64], count: int, table: dict[str, Any]
) -> Tile:
    """Return a mesh in earth-centred metres, each triangle with the row of its first corner."""
    points = _turned(mesh.points, up_axis) + mesh.center + center
    faces = mesh.faces
    rows = mesh.rows[faces[:, 0]] if len(faces) else np.zeros(0, dtype=np.int64)
    has_rows = bool(table) or count > 1 or bool(len(rows) and rows.max() > 0)
    if len(rows) and rows.min() < 0:  # corners without a feature are one more
        rows = np.where(rows < 0, max(count, int(rows.max()) + 1), rows)
    count = max(count, int(rows.max()) + 1 if len(rows) else 0)
    if count > _MOST_ROWS:
        raise BrokenTile(f"a feature has the number {count}")
    return Tile(points[faces], rows, count, table, has_rows, mesh.passed_over, mesh.copyright)


def _turned(points: NDArray[np.float64], up_axis: str) -> NDArray[np.float64]:
    """Return points (P, 3) of a glTF with z up."""
    if up_axis == "Z":
        return points
    if up_axis == "X":
        return points[:, [2, 1, 0]] * (-1.0, 1.0, 1.0)
    return points[:, [0, 2, 1]] * (1.0, -1.0, 1.0)


def _columns(table: dict[str, Any], binary: bytes, count: int) -> dict[str, Any]:
    found = {}
    for name, value in table.items():
        if isinstance(value, dict) and value.get("type") == "SCALAR":
            kind = _TABLE_TYPES[value["componentType"]]
            value = np.frombuffer(binary, kind, count, int(value["byteOffset"]))
        found[name] = value
    return found
