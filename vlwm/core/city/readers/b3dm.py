"""One tile of 3D Tiles 1.0 (b3dm): triangles in earth-centred metres and the table beside them.

A b3dm is a header, a feature table, a batch table (one row a building) and a binary glTF. PLATEAU's
meshes are packed with Draco and lie about a centre (`CESIUM_RTC`, or `RTC_CENTER` of the feature
table); glTF is y up, so earth-centred = (x, −z, y) + centre.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER = struct.Struct("<4sIIIIII")
_COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_TABLE_TYPES = {"BYTE": "i1", "UNSIGNED_BYTE": "u1", "SHORT": "<i2", "UNSIGNED_SHORT": "<u2",
                "INT": "<i4", "UNSIGNED_INT": "<u4", "FLOAT": "<f4", "DOUBLE": "<f8"}  # fmt: skip
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_TRIANGLES = 4
_DRACO = "KHR_draco_mesh_compression"
_KNOWN = frozenset({_DRACO, "CESIUM_RTC", "KHR_materials_unlit", "KHR_texture_transform"})


class BrokenTile(Exception):
    """A tile that cannot be used, and why."""


@dataclass(frozen=True, eq=False)
class Tile:
    """Triangles (T, 3, 3) earth-centred metres, the row (T,) of each, and the table's columns."""

    triangles: NDArray[np.float64]
    rows: NDArray[np.int64]
    count: int
    table: dict[str, Any]

    def column(self, *names: str) -> list[Any] | None:
        """The first of the named columns that the table has, as a list of `count` values."""
        for name in names:
            values = self.table.get(name)
            if isinstance(values, list | np.ndarray) and len(values) == self.count:
                return list(values)
        return None


def read_b3dm(data: bytes) -> Tile:
    """Parse one tile.

    Raises:
        BrokenTile: truncated, another format, or an extension that is not known.
    """
    try:
        return _read(data)
    except (struct.error, LookupError, ValueError, TypeError, AttributeError) as error:
        raise BrokenTile(f"the tile is damaged: {error!r}") from error


def _read(data: bytes) -> Tile:
    magic, version, length, *sizes = _HEADER.unpack_from(data)
    if magic != b"b3dm" or version != 1:
        raise BrokenTile(f"not a b3dm of version 1 but {magic!r} {version}")
    if length > len(data):
        raise BrokenTile(f"the tile is cut off: {len(data)} of {length} bytes")
    parts, at = [], _HEADER.size
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    features = json.loads(parts[0] or b"{}")
    count = int(features.get("BATCH_LENGTH", 0))
    table = _columns(json.loads(parts[2] or b"{}"), parts[3], count)
    points, faces, rows = _Model(data[at:length]).triangles()
    center = np.asarray(features.get("RTC_CENTER", (0.0, 0.0, 0.0)), dtype=np.float64)
    rows = rows[faces[:, 0]] if len(faces) else np.zeros(0, dtype=np.int64)
    count = max(count, int(rows.max()) + 1 if len(rows) else 0)
    return Tile((points + center)[faces], rows, count, table)


def _columns(table: dict[str, Any], binary: bytes, count: int) -> dict[str, Any]:
    found = {}
    for name, value in table.items():
        if isinstance(value, dict) and value.get("type") == "SCALAR":
            kind = _TABLE_TYPES[value["componentType"]]
            value = np.frombuffer(binary, kind, count, int(value["byteOffset"]))
        found[name] = value
    return found


class _Model:
    """The binary glTF inside a tile."""

    def __init__(self, data: bytes) -> None:
        magic, version, _ = struct.unpack_from("<4sII", data)
        if magic != b"glTF" or version != 2:
            raise BrokenTile(f"not a binary glTF of version 2 but {magic!r} {version}")
        size = struct.unpack_from("<I", data, 12)[0]
        self.scene = json.loads(data[20 : 20 + size])
        self.binary = data[20 + size + 8 :]
        unknown = set(self.scene.get("extensionsRequired", ())) - _KNOWN
        if unknown:
            raise BrokenTile(f"it needs {', '.join(sorted(unknown))}, which is not read")

    def triangles(self) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """Points (P, 3) earth-centred, faces (F, 3), batch row of each point (P,)."""
        points: list[NDArray] = [np.zeros((0, 3))]
        faces: list[NDArray] = [np.zeros((0, 3), dtype=np.int64)]
        rows: list[NDArray] = [np.zeros(0, dtype=np.int64)]
        start = 0
        for matrix, mesh in self._placed():
            for primitive in mesh["primitives"]:
                if primitive.get("mode", _TRIANGLES) != _TRIANGLES:
                    continue
                position, index, row = self._primitive(primitive)
                turned = position @ matrix[:3, :3].T + matrix[:3, 3]
                points.append(turned[:, [0, 2, 1]] * (1.0, -1.0, 1.0))
                faces.append(index.reshape(-1, 3) + start)
                rows.append(row)
                start += len(position)
        rtc = self.scene.get("extensions", {}).get("CESIUM_RTC", {}).get("center", (0.0, 0.0, 0.0))
        return np.concatenate(points) + np.asarray(rtc), np.concatenate(faces), np.concatenate(rows)

    def _placed(self) -> list[tuple[NDArray[np.float64], dict[str, Any]]]:
        """(matrix 4×4, mesh) of every node of the scene."""
        nodes, meshes = self.scene.get("nodes", []), self.scene.get("meshes", [])
        scenes = self.scene.get("scenes", [{}])
        roots = scenes[self.scene.get("scene", 0)].get("nodes", range(len(nodes)))
        found, stack = [], [(np.eye(4), index, 0) for index in roots]
        while stack:
            above, index, depth = stack.pop()
            node = nodes[index]
            matrix = above @ _matrix(node)
            if "mesh" in node:
                found.append((matrix, meshes[node["mesh"]]))
            if depth < 64:
                stack += [(matrix, child, depth + 1) for child in node.get("children", ())]
        return found

    def _primitive(
        self, primitive: dict[str, Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """Position (P, 3), index (3F,), batch row (P,) of one primitive."""
        packed = primitive.get("extensions", {}).get(_DRACO)
        if packed is not None:
            position, index, row = self._unpack(packed)
        else:
            names = primitive["attributes"]
            position = self._accessor(names["POSITION"])
            batch = names.get("_BATCHID")
            row = None if batch is None else self._accessor(batch).reshape(-1)
            given = primitive.get("indices")
            index = np.arange(len(position)) if given is None else self._accessor(given)
        if row is None:
            row = np.zeros(len(position))
        return (
            position.astype(np.float64),
            index.reshape(-1).astype(np.int64),
            row.astype(np.int64),
        )

    def _unpack(self, packed: dict[str, Any]) -> tuple[NDArray, NDArray, NDArray | None]:
        import DracoPy

        view = self.scene["bufferViews"][packed["bufferView"]]
        start = view.get("byteOffset", 0)
        try:
            mesh = DracoPy.decode(self.binary[start : start + view["byteLength"]])
        except (DracoPy.FileTypeException, DracoPy.EncodingFailedException) as error:
            raise BrokenTile(f"Draco: {error}") from error
        by_id = {a["unique_id"]: a["data"] for a in mesh.attributes}
        batch = packed["attributes"].get("_BATCHID")
        row = None if batch is None else np.asarray(by_id[batch]).reshape(-1)
        return np.asarray(mesh.points), np.asarray(mesh.faces), row

    def _accessor(self, index: int) -> NDArray:
        accessor = self.scene["accessors"][index]
        view = self.scene["bufferViews"][accessor["bufferView"]]
        kind = np.dtype(_COMPONENTS[accessor["componentType"]])
        width, count = _WIDTHS[accessor["type"]], accessor["count"]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        stride = view.get("byteStride", kind.itemsize * width)
        rows = np.ndarray((count, width), kind, self.binary, start, (stride, kind.itemsize))
        return rows.copy()


def _matrix(node: dict[str, Any]) -> NDArray[np.float64]:
    """4×4 of a glTF node: its matrix, or translation, rotation (x, y, z, w) and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(node.get("rotation", (0, 0, 0, 1))).as_matrix()
    matrix[:3, :3] *= np.asarray(node.get("scale", (1, 1, 1)))
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix
