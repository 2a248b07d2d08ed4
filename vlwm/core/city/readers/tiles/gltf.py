"""The glTF 2.0 inside a tile: triangles, and the feature that each belongs to.

Every primitive mode that has area is read (triangles, strips, fans), with or without indices, Draco
or quantised. A feature id is `_BATCHID` (3D Tiles 1.0) or a `_FEATURE_ID_n` of EXT_mesh_features,
whose table of names is EXT_structural_metadata (3D Tiles 1.1).

Letters: P points, F faces.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.readers.tiles.gltf_buffers import (
    MOST_NUMBERS,
    BrokenTile,
    Lists,
    ReadFile,
    buffers_of,
)
from vlwm.core.text import safe_text
from vlwm.core.tile_tree import parse_json

_TABLE_KINDS = {"INT8": "i1", "UINT8": "u1", "INT16": "<i2", "UINT16": "<u2", "INT32": "<i4",
                "UINT32": "<u4", "INT64": "<i8", "UINT64": "<u8", "FLOAT32": "<f4",
                "FLOAT64": "<f8"}  # fmt: skip
_MODES = {0: "points", 1: "lines", 2: "line loops", 3: "line strips"}
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_DRACO = "KHR_draco_mesh_compression"
_FEATURES, _TABLES = "EXT_mesh_features", "EXT_structural_metadata"
_KNOWN = frozenset(
    {
        _DRACO, "CESIUM_RTC", "KHR_materials_unlit", "KHR_texture_transform",
        "KHR_mesh_quantization",
        _FEATURES, _TABLES, "KHR_texture_basisu", "EXT_texture_webp", "EXT_instance_features",
        "KHR_materials_pbrSpecularGlossiness", "KHR_materials_specular", "KHR_techniques_webgl",
        "CESIUM_primitive_outline", "KHR_materials_emissive_strength", "KHR_materials_ior",
    }
)  # fmt: skip
"""extensions that are read, or that change nothing about the shape"""
_DEEPEST = 64
_JSON_CHUNK, _BIN_CHUNK = 0x4E4F534A, 0x004E4942  # "JSON" and "BIN\0", low byte first


@dataclass
class Mesh:
    """Content of a glTF file.

    Attributes:
        points: (P, 3) in the axes of the glTF, centred as by `CESIUM_RTC`.
        faces: int64 (F, 3).
        rows: int64 (P,) row of the feature table of each point; -1 is none.
        center: (3,) `CESIUM_RTC`, in the axes of the tile.
        table: columns of EXT_structural_metadata.
        passed_over: primitives that have no area, by their mode.
    """

    points: NDArray[np.float64]
    faces: NDArray[np.int64]
    rows: NDArray[np.int64]
    center: NDArray[np.float64]
    table: dict[str, Any] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)
    copyright: str = ""


def read_gltf(data: bytes, read_file: ReadFile = lambda name: None) -> Mesh:
    """Parse a binary (.glb) or plain (.gltf) glTF.

    Raises:
        BrokenTile: another version, an extension that is not read, or a missing buffer.
    """
    scene, binary = _chunks(data)
    if not isinstance(scene, dict):
        raise BrokenTile("its glTF is not a JSON object")
    version = str((scene.get("asset") or {}).get("version", "2.0"))
    if not version.startswith("2"):
        raise BrokenTile(f"not a glTF of version 2 but {safe_text(version, 20)}")
    unknown = set(map(str, scene.get("extensionsRequired") or ())) - _KNOWN
    if unknown:
        raise BrokenTile(f"it needs {safe_text(', '.join(sorted(unknown)))}, which is not read")
    return _Scene(scene, buffers_of(scene, binary, read_file)).mesh()


def _chunks(data: bytes) -> tuple[Any, bytes | None]:
    """Return the JSON and the binary chunk of a glTF."""
    if data[:1] == b"{":
        return parse_json(data), None
    magic, version, length = struct.unpack_from("<4sII", data)
    if magic != b"glTF" or version != 2:
        raise BrokenTile(f"not a binary glTF of version 2 but {magic!r} {version}")
    if length > len(data):
        raise BrokenTile(f"the glTF is cut off: {len(data)} of {length} bytes")
    scene, binary, at = None, None, 12
    while at + 8 <= length:
        size, kind = struct.unpack_from("<II", data, at)
        chunk = data[at + 8 : at + 8 + size]
        if len(chunk) < size:
            raise BrokenTile(f"the glTF is cut off: {len(chunk)} of {size} bytes of a chunk")
        if kind == _JSON_CHUNK and scene is None:
            scene = parse_json(chunk)
        elif kind == _BIN_CHUNK and binary is None:
            binary = chunk
        at += 8 + size + (-size % 4)
    return scene, binary


class _Scene(Lists):
    """A parsed glTF and its buffers."""

    def __init__(self, scene: dict[str, Any], buffers: list[bytes]) -> None:
        super().__init__(scene, buffers)
        self.passed_over: Counter[str] = Counter()

    def mesh(self) -> Mesh:
        """Return all triangles of the scene."""
        points: list[NDArray] = [np.zeros((0, 3))]
        faces: list[NDArray] = [np.zeros((0, 3), dtype=np.int64)]
        rows: list[NDArray] = [np.zeros(0, dtype=np.int64)]
        start = 0
        for matrix, mesh in self._placed():
            for primitive in mesh.get("primitives") or ():
                mode = primitive.get("mode", _TRIANGLES)
                if mode not in (_TRIANGLES, _STRIP, _FAN):
                    self.passed_over[_MODES.get(mode, f"mode {safe_text(mode, 20)}")] += 1
                    continue
                position, index, row = self._primitive(primitive)
                face = _faces(index, mode)
                if len(face) and (face.min() < 0 or face.max() >= len(position)):
                    raise BrokenTile("a face names a point that does not exist")
                points.append(position @ matrix[:3, :3].T + matrix[:3, 3])
                faces.append(face + start)
                rows.append(row)
                start += len(position)
        rtc = ((self.scene.get("extensions") or {}).get("CESIUM_RTC") or {}).get(
            "center", (0, 0, 0)
        )
        return Mesh(
            np.concatenate(points),
            np.concatenate(faces),
            np.concatenate(rows),
            np.asarray(rtc, dtype=np.float64).reshape(3),
            self._table(),
            self.passed_over,
            safe_text((self.scene.get("asset") or {}).get("copyright") or ""),
        )

    def _placed(self) -> Iterator[tuple[NDArray[np.float64], dict[str, Any]]]:
        """Yield (matrix 4 x 4, mesh) of every node of the scene."""
        nodes, meshes = self.scene.get("nodes") or [], self.scene.get("meshes") or []
        scenes = self.scene.get("scenes") or [{}]
        roots = scenes[self.scene.get("scene") or 0].get("nodes")
        if roots is None:
            below = {c for node in nodes for c in node.get("children") or ()}
            roots = [i for i in range(len(nodes)) if i not in below]
        stack = [(np.eye(4), index, 0) for index in roots]
        visited = 0
        while stack:
            above, index, depth = stack.pop()
            node = nodes[index]
            visited += 1
            if visited > 64 * len(nodes) + 64:
                raise BrokenTile("its nodes go in a circle")
            matrix = above @ _matrix(node)
            if "EXT_mesh_gpu_instancing" in (node.get("extensions") or {}):
                self.passed_over["instanced meshes"] += 1
            elif "mesh" in node:
                yield matrix, meshes[node["mesh"]]
            if depth < _DEEPEST:
                stack += [(matrix, child, depth + 1) for child in node.get("children") or ()]

    def _primitive(
        self, primitive: dict[str, Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """Return position (P, 3), index (N,) and feature row (P,) of one primitive."""
        extensions = primitive.get("extensions") or {}
        packed = extensions.get(_DRACO)
        names = primitive["attributes"]
        if packed is not None:
            read = self._unpack(packed)
            index: NDArray | None = read("")
        else:

            def read(name: str) -> NDArray:
                return self.accessor(names[name])

            number = primitive.get("indices")
            index = None if number is None else self.accessor(number)
        position = read("POSITION").astype(np.float64)
        if index is None:
            index = np.arange(len(position))
        row = self._rows(extensions.get(_FEATURES), names, read, len(position))
        return position, index.reshape(-1).astype(np.int64), row

    def _rows(
        self,
        features: dict[str, Any] | None,
        names: dict[str, Any],
        read: Callable[[str], NDArray],
        count: int,
    ) -> NDArray[np.int64]:
        """Return the feature row (P,) of each point; -1 for points without a feature."""
        # KHR attributes before 1.1 was final were called _FEATURE_ID_0 without the extension
        name: str | None = next(
            (n for n in ("_BATCHID", "_FEATURE_ID_0", "_FEATURE_ID") if n in names), None
        )
        null = None
        for ids in (features or {}).get("featureIds") or ():
            if "attribute" in ids:
                name, null = f"_FEATURE_ID_{int(ids['attribute'])}", ids.get("nullFeatureId")
            elif "texture" in ids:
                self.passed_over["feature ids in textures"] += 1
                continue
            else:
                return np.arange(count, dtype=np.int64)  # implicit: a feature is a point
            break
        if name is None or name not in names:
            return np.zeros(count, dtype=np.int64)
        values = read(name).reshape(-1)
        if len(values) != count:
            raise BrokenTile(f"{len(values)} feature ids for {count} points")
        if values.dtype.kind == "f" and not (np.abs(values) < MOST_NUMBERS).all():
            raise BrokenTile("a feature id is not a number")
        row = (
            np.round(values).astype(np.int64)
            if values.dtype.kind == "f"
            else values.astype(np.int64)
        )
        return row if null is None else np.where(row == null, -1, row)

    def _unpack(self, packed: dict[str, Any]) -> Callable[[str], NDArray]:
        """Return the attributes of a Draco mesh by name; the indices by the empty name."""
        import DracoPy

        try:
            mesh = DracoPy.decode(self.view(packed["bufferView"]))
        except (DracoPy.FileTypeException, DracoPy.EncodingFailedException) as error:
            raise BrokenTile(f"Draco: {error}") from error
        by_id = {a["unique_id"]: a["data"] for a in mesh.attributes}

        def read(name: str) -> NDArray:
            if not name:
                return np.asarray(mesh.faces)
            if name == "POSITION":
                return np.asarray(mesh.points)
            return np.asarray(by_id[packed["attributes"][name]])

        return read

    def _table(self) -> dict[str, Any]:
        """Return the columns of the first property table: texts and plain numbers."""
        metadata = (self.scene.get("extensions") or {}).get(_TABLES) or {}
        tables = metadata.get("propertyTables") or ()
        if not tables:
            return {}
        table = tables[0]
        classes = (metadata.get("schema") or {}).get("classes") or {}
        kinds = (classes.get(table.get("class")) or {}).get("properties") or {}
        count = int(table["count"])
        found: dict[str, Any] = {}
        for name, column in (table.get("properties") or {}).items():
            kind = kinds.get(name) or {}
            if kind.get("array"):
                continue
            values = self.view(column["values"])
            if kind.get("type") == "STRING":
                found[str(name)] = self._texts(column, values, count)
            elif kind.get("type") == "SCALAR":
                found[str(name)] = np.frombuffer(values, _TABLE_KINDS[kind["componentType"]], count)
        return found

    def _texts(self, column: dict[str, Any], values: bytes, count: int) -> list[str]:
        kind = _TABLE_KINDS[column.get("stringOffsetType") or "UINT32"]
        ends = np.frombuffer(self.view(column["stringOffsets"]), kind, count + 1).astype(np.int64)
        pairs = zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        return [values[a:b].decode("utf-8", "replace") for a, b in pairs]


def _faces(index: NDArray[np.int64], mode: int) -> NDArray[np.int64]:
    """Return faces (F, 3) of a list of corners, wound as defined by glTF 2.0 (3.7.2.1)."""
    if mode == _TRIANGLES:
        if len(index) % 3:
            raise BrokenTile("a list of triangles is not a multiple of three")
        return index.reshape(-1, 3)
    if len(index) < 3:
        return np.zeros((0, 3), dtype=np.int64)
    first = np.arange(len(index) - 2)
    if mode == _FAN:
        corners = np.stack([first + 1, first + 2, np.zeros_like(first)], axis=1)
    else:  # every second triangle of a strip is turned, so that all look the same way
        odd = first % 2
        corners = np.stack([first, first + 1 + odd, first + 2 - odd], axis=1)
    faces = index[corners]
    a, b, c = faces.T
    return faces[(a != b) & (b != c) & (a != c)]  # strips are joined by triangles without area


def _matrix(node: dict[str, Any]) -> NDArray[np.float64]:
    """Return the 4 x 4 of a glTF node: its matrix, or translation, rotation (x, y, z, w), scale."""
    if node.get("matrix") is not None:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(node.get("rotation") or (0, 0, 0, 1)).as_matrix()
    matrix[:3, :3] *= np.asarray(node.get("scale") or (1, 1, 1))
    matrix[:3, 3] = node.get("translation") or (0, 0, 0)
    return matrix
