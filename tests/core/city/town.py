"""A small town on a slope in every format: 36 blocks, and what each writer makes of them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pyproj import Transformer

from vlwm.core.city.city import City
from vlwm.core.city.read import read_city

Point = tuple[float, float, float]
Block = tuple[float, float, float, float, float, float]
"""x, y, width, depth, base, height; metres"""

QUADS = ((3, 2, 1, 0), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7))
ORIGIN = (-8000.0, -36000.0)
"""of the town in zone IX, metres"""
GEOID_M = 36.7
_TO_DEGREES = Transformer.from_crs("EPSG:6677", "EPSG:6668", always_xy=True)
_TO_EARTH = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)


def _town() -> list[Block]:
    rng = np.random.default_rng(0)
    found = []
    for i in range(6):
        for j in range(6):
            x, y = 40 * i + rng.uniform(0, 5), 40 * j + rng.uniform(0, 5)
            found.append(
                (x, y, rng.uniform(12, 22), rng.uniform(12, 22), 20 + 0.04 * x, rng.uniform(6, 30))
            )
    return found


TOWN = _town()


def corners(block: Block) -> list[Point]:
    """The eight corners, floor first, counter-clockwise from above."""
    x, y, w, d, z, h = block
    return [
        (x + a, y + b, z + c) for c in (0, h) for a, b in ((0.0, 0.0), (w, 0.0), (w, d), (0.0, d))
    ]


def obj_text(
    blocks: Sequence[Block] = TOWN,
    *,
    head: str = "# EPSG:6677\n",
    mark: Callable[[int], str] = lambda k: f"o b{k}\n",
    turned: Callable[[Point], Sequence[float]] = lambda p: p,
    quads: bool = False,
    negative: bool = False,
    digits: int = 3,
) -> str:
    """The town as an OBJ in local metres."""
    lines = [head]
    for k, block in enumerate(blocks):
        lines.append(mark(k))
        for point in corners(block):
            lines.append("v " + " ".join(f"{v:.{digits}f}" for v in turned(point)) + "\n")
        for quad in QUADS:
            index = [i - 8 if negative else 8 * k + i + 1 for i in quad]
            parts = [index] if quads else [index[:3], [index[0], *index[2:]]]
            lines += ["f " + " ".join(map(str, part)) + "\n" for part in parts]
    return "".join(lines)


def degrees(point: Point) -> str:
    """Latitude, longitude, height of a point of the town."""
    lon, lat = _TO_DEGREES.transform(point[0] + ORIGIN[0], point[1] + ORIGIN[1])
    return f"{lat:.10f} {lon:.10f} {point[2]:.4f}"


def polygon(points: Sequence[str]) -> str:
    """A polygon as CityGML 2 writes it."""
    text = " ".join([*points, points[0]])
    ring = f"<gml:LinearRing><gml:posList>{text}</gml:posList></gml:LinearRing>"
    return f"<gml:Polygon><gml:exterior>{ring}</gml:exterior></gml:Polygon>"


def building(
    block: Block,
    name: str,
    place: Callable[[Point], str] = degrees,
    surface: Callable[[Sequence[str]], str] = polygon,
) -> str:
    """A closed LOD1 building."""
    at = [place(p) for p in corners(block)]
    members = "".join(
        f"<gml:surfaceMember>{surface([at[i] for i in quad])}</gml:surfaceMember>" for quad in QUADS
    )
    shell = f"<gml:CompositeSurface>{members}</gml:CompositeSurface>"
    return (
        f'<bldg:Building gml:id="{name}"><bldg:lod1Solid><gml:Solid><gml:exterior>{shell}'
        "</gml:exterior></gml:Solid></bldg:lod1Solid></bldg:Building>"
    )


def gml_text(
    features: Sequence[str],
    system: str | None = "http://www.opengis.net/def/crs/EPSG/0/6697",
    member: str = "core:cityObjectMember",
) -> str:
    """A CityGML document of features."""
    envelope = f'<gml:boundedBy><gml:Envelope srsName="{system}"/></gml:boundedBy>'
    body = "".join(f"<{member}>{f}</{member}>" for f in features)
    return (
        '<core:CityModel xmlns:core="http://www.opengis.net/citygml/2.0" '
        'xmlns:bldg="http://www.opengis.net/citygml/building/2.0" '
        'xmlns:dem="http://www.opengis.net/citygml/relief/2.0" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:gml="http://www.opengis.net/gml">'
        f"{envelope if system else ''}{body}</core:CityModel>"
    )


def town_gml(blocks: Sequence[Block] = TOWN, name: str = "b", **how: Any) -> list[str]:
    """The buildings of the town."""
    return [building(block, f"{name}{k}", **how) for k, block in enumerate(blocks)]


def relief(low_x: float = -300, high_x: float = 500) -> str:
    """The slope under the town as relief."""
    at = [
        degrees((x, y, 20 + 0.04 * x))
        for x, y in ((low_x, -300), (high_x, -300), (high_x, 500), (low_x, 500))
    ]
    patches = "".join(
        polygon([at[i] for i in t]).replace("gml:Polygon", "gml:Triangle")
        for t in ((0, 1, 2), (0, 2, 3))
    )
    return (
        "<dem:ReliefFeature><dem:reliefComponent><dem:TINRelief><dem:tin><gml:TriangulatedSurface>"
        f"<gml:trianglePatches>{patches}</gml:trianglePatches></gml:TriangulatedSurface></dem:tin>"
        "</dem:TINRelief></dem:reliefComponent></dem:ReliefFeature>"
    )


def glb(
    blocks: Sequence[Block] = TOWN,
    *,
    up: str = "Y",
    mode: int = 4,
    ids: str | None = "_FEATURE_ID_0",
    named: bool = False,
) -> bytes:
    """The town as a binary glTF, earth-centred about its middle.

    Args:
        mode: 4 triangles, 5 one strip, 1 lines.
        named: with EXT_mesh_features and a property table of names and lowest heights.
    """
    points = np.array([p for b in blocks for p in corners(b)])
    lon, lat = _TO_DEGREES.transform(points[:, 0] + ORIGIN[0], points[:, 1] + ORIGIN[1])
    earth = np.column_stack(_TO_EARTH.transform(lon, lat, points[:, 2] + GEOID_M))
    center = earth.mean(axis=0)
    x, y, z = (earth - center).T
    local = {"Y": (x, z, -y), "Z": (x, y, z), "X": (z, y, -x)}[up]
    faces = [
        [8 * k + q[i] for i in t]
        for k in range(len(blocks)) for q in QUADS for t in ((0, 1, 2), (0, 2, 3))
    ]  # fmt: skip
    index = _strip(faces) if mode == 5 else [i for face in faces for i in face]
    parts = [np.column_stack(local).astype("<f4").tobytes(),
             np.repeat(np.arange(len(blocks)), 8).astype("<f4").tobytes(),
             np.array(index, dtype="<u4").tobytes()]  # fmt: skip
    primitive: dict[str, Any] = {"attributes": {"POSITION": 0}, "indices": 2, "mode": mode}
    extensions: dict[str, Any] = {"CESIUM_RTC": {"center": center.tolist()}}
    if ids:
        primitive["attributes"][ids] = 1
    if named:
        names = [f"bldg-{b[0]:.2f}-{b[1]:.2f}" for b in blocks]
        parts += ["".join(names).encode(),
                  np.cumsum([0, *map(len, names)]).astype("<u4").tobytes(),
                  np.array([b[4] for b in blocks], dtype="<f8").tobytes()]  # fmt: skip
        primitive["extensions"] = {"EXT_mesh_features": {"featureIds": [{"attribute": 0}]}}
        extensions["EXT_structural_metadata"] = _table(len(blocks))
    return _packed(parts, primitive, extensions, len(points), len(index))


def _strip(faces: list[list[int]]) -> list[int]:
    """All triangles as one strip, joined by triangles without area."""
    strip: list[int] = []
    for face in faces:
        if strip:
            strip += [strip[-1], face[0]]
            if len(strip) % 2:
                strip.append(face[0])
        strip += face
    return strip


def _table(count: int) -> dict[str, Any]:
    properties = {"gml_id": {"type": "STRING"},
                  "_zmin": {"type": "SCALAR", "componentType": "FLOAT64"}}  # fmt: skip
    values = {"gml_id": {"values": 3, "stringOffsets": 4}, "_zmin": {"values": 5}}
    return {"schema": {"classes": {"building": {"properties": properties}}},
            "propertyTables": [{"class": "building", "count": count,
                                "properties": values}]}  # fmt: skip


def _packed(
    parts: list[bytes],
    primitive: dict[str, Any],
    extensions: dict[str, Any],
    points: int,
    index: int,
) -> bytes:
    body, views = b"", []
    for part in parts:
        views.append({"buffer": 0, "byteOffset": len(body), "byteLength": len(part)})
        body += part + b"\0" * (-len(part) % 8)
    accessors = [
        {"bufferView": 0, "componentType": 5126, "count": points, "type": "VEC3"},
        {"bufferView": 1, "componentType": 5126, "count": points, "type": "SCALAR"},
        {"bufferView": 2, "componentType": 5125, "count": index, "type": "SCALAR"},
    ]
    scene = {
        "asset": {"version": "2.0", "copyright": "Town of blocks"}, "scene": 0,
        "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}], "accessors": accessors, "bufferViews": views,
        "buffers": [{"byteLength": len(body)}], "extensions": extensions,
    }  # fmt: skip
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 8)
    head = struct.pack("<4sIIII", b"glTF", 2, 28 + len(text) + len(body), len(text), 0x4E4F534A)
    return head + text + struct.pack("<II", len(body), 0x004E4942) + body


def b3dm(model: bytes, count: int, table: dict[str, Any]) -> bytes:
    """A binary glTF as a b3dm with a batch table."""
    parts = [json.dumps({"BATCH_LENGTH": count}).encode(), json.dumps(table).encode()]
    parts = [p + b" " * (-len(p) % 8) for p in parts]
    total = 28 + sum(map(len, parts)) + len(model)
    sizes = (len(parts[0]), 0, len(parts[1]), 0)
    return struct.pack("<4sIIIIII", b"b3dm", 1, total, *sizes) + b"".join(parts) + model


def write_tiles(folder: Path, tiles: dict[str, bytes], **asset: str) -> Path:
    """A tile set of leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in tiles.items():
        (folder / name).write_bytes(data)
    children = [{"content": {"uri": name}} for name in tiles]
    tree = {"asset": asset, "root": {"refine": "ADD", "children": children}}
    (folder / "tileset.json").write_text(json.dumps(tree))
    return folder


def whole(city: City, buildings: int = len(TOWN)) -> None:
    """Assert that a city is the town: every building, its size, and the slope below."""
    assert city.report.buildings == buildings, city.report
    east, north = (city.bounds_xy[k + 2] - city.bounds_xy[k] for k in (0, 1))
    if buildings == len(TOWN):
        assert abs(east - 226) < 2 and abs(north - 224) < 2, (east, north)
    points = city.mesh.triangles().reshape(-1, 3)
    owner = np.repeat(city.feature_of_face, 3)
    low = np.full(len(city.feature_ids), np.inf)
    np.minimum.at(low, owner, points[:, 2])
    middles = np.array([points[owner == i, :2].mean(axis=0) for i in range(len(low))])
    assert np.abs(low - city.terrain.height(middles)).max() < 2.0  # the ground is smoothed


def read_text(path: Path, text: str | bytes, **how: Any) -> City:
    """Write a file and read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_city([path], **how)
