"""3D Tiles: leaves only, heights above the sea, and every tile that is not here is named."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyproj import Transformer

from tests.core.city.readers.test_source_files import pack
from tests.measures import base_heights
from vlwm.core.city.area import Area
from vlwm.core.city.read import read_city
from vlwm.core.city.readers.source_files import Folder, Source
from vlwm.core.city.readers.tiles.b3dm import BrokenTile, read_b3dm
from vlwm.core.city.readers.tiles.tiles3d import find_leaves
from vlwm.core.errors import DataError

PLACE = (35.68, 139.76)
GEOID_M = 36.7


def padded(data: bytes, fill: bytes) -> bytes:
    return data + fill * (-len(data) % 8)


def b3dm(
    corners: np.ndarray, faces: np.ndarray, rows: np.ndarray, table: dict[str, Any], **extra: Any
) -> bytes:
    """A tile without Draco; `corners` (P, 3) earth-centred metres."""
    center = corners.mean(axis=0)
    local = (corners - center)[:, [0, 2, 1]] * (1, 1, -1)
    blobs = [
        local.astype("<f4").tobytes(),
        rows.astype("<f4").tobytes(),
        faces.astype("<u2").tobytes(),
    ]
    starts = np.cumsum([0, *(len(b) for b in blobs)])
    views = [
        {"buffer": 0, "byteOffset": int(s), "byteLength": len(b)}
        for s, b in zip(starts, blobs, strict=False)
    ]
    scene = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "_BATCHID": 1}, "indices": 2}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": len(corners), "type": "VEC3"},
            {"bufferView": 1, "componentType": 5126, "count": len(corners), "type": "SCALAR"},
            {"bufferView": 2, "componentType": 5123, "count": faces.size, "type": "SCALAR"},
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": int(starts[-1])}],
        "extensions": {"CESIUM_RTC": {"center": center.tolist()}},
        **extra,
    }
    text, binary = padded(json.dumps(scene).encode(), b" "), padded(b"".join(blobs), b"\0")
    size = 12 + 8 + len(text) + 8 + len(binary)
    model = struct.pack("<4sIIII", b"glTF", 2, size, len(text), 0x4E4F534A) + text
    model += struct.pack("<II", len(binary), 0x004E4942) + binary
    features = padded(json.dumps({"BATCH_LENGTH": int(rows.max()) + 1}).encode(), b" ")
    batch = padded(json.dumps(table).encode(), b" ")
    total = 28 + len(features) + len(batch) + len(model)
    head = struct.pack("<4sIIIIII", b"b3dm", 1, total, len(features), 0, len(batch), 0)
    return head + features + batch + model


def blocks(heights: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Upright sheets (base, top) above sea level, 100 m apart: corners, faces, rows."""
    corners, faces, rows = [], [], []
    for i, (base, top) in enumerate(heights):
        east = PLACE[1] + i * 0.001
        sheet = [
            (PLACE[0], east, base),
            (PLACE[0] + 1e-4, east, base),
            (PLACE[0], east + 1e-4, top),
        ]
        faces.append([3 * i, 3 * i + 1, 3 * i + 2])
        corners += sheet
        rows += [i] * 3
    lat, lon, height = np.array(corners).T
    to_earth = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    xyz = np.column_stack(to_earth.transform(lon, lat, height + GEOID_M))
    return xyz, np.array(faces), np.array(rows)


def write_set(folder: Path, tiles: dict[str, bytes], root: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in tiles.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "tileset.json").write_text(json.dumps({"asset": {"version": "1.0"}, "root": root}))
    return folder


def leaf(uri: str, **more: Any) -> dict[str, Any]:
    return {"geometricError": 0, "boundingVolume": {}, "content": {"uri": uri}, **more}


def test_real_tiles_stand_at_the_heights_of_their_table(plateau: Path) -> None:
    city = read_city([plateau / "tiles3d/lod1"])
    assert city.report.buildings == 263 and city.origin.crs == "EPSG:6677"
    tile = read_b3dm((plateau / "tiles3d/lod1/data/data87.b3dm").read_bytes())
    low, high = tile.column("_zmin"), tile.column("_zmax")
    names = tile.column("gml_id")
    assert low and high and names and city.feature_ids == names
    top = np.full(len(names), -np.inf)
    np.maximum.at(top, np.repeat(city.feature_of_face, 3), city.mesh.triangles()[:, :, 2].ravel())
    assert np.abs(base_heights(city) - np.array(low, float)).max() < 0.03
    assert np.abs(top - np.array(high, float)).max() < 0.03


def test_real_tiles_stand_where_their_table_says(plateau: Path) -> None:
    city = read_city([plateau / "tiles3d/lod1"])
    tile = read_b3dm((plateau / "tiles3d/lod1/data/data87.b3dm").read_bytes())
    west, east = tile.column("_xmin"), tile.column("_xmax")
    south, north = tile.column("_ymin"), tile.column("_ymax")
    to_metres = Transformer.from_crs("EPSG:6668", "EPSG:6677", always_xy=True)
    corners = [to_metres.transform(x, y) for x, y in ((west, south), (east, north))]
    for i in range(0, 263, 20):
        found = city.mesh.triangles()[city.feature_of_face == i].reshape(-1, 3)[:, :2]
        found = found + np.array([city.origin.easting, city.origin.northing])
        middle = [(corners[0][k][i] + corners[1][k][i]) / 2 for k in range(2)]
        np.testing.assert_allclose((found.min(axis=0) + found.max(axis=0)) / 2, middle, atol=0.1)


def test_only_leaves_are_read_and_the_missing_are_named(plateau: Path) -> None:
    source = Source(Folder(plateau / "tiles3d/lod2"), "tileset.json")
    leaves = find_leaves(source)
    assert [entry.source.member for entry in leaves.found] == [
        "data/data68.b3dm",
        "data/data87.b3dm",
    ]
    assert len(leaves.missing) == 180 and "data/data0.b3dm" in leaves.missing
    assert "data/data253.b3dm" not in leaves.missing, "the root is a simplified parent"
    city = read_city([plateau / "tiles3d/lod2"])
    assert (city.report.buildings, city.report.lod2, city.report.missing_tiles) == (666, 98, 180)
    assert "180 of 182 leaf tiles are not here: data/data0.b3dm" in city.report.notes[0]
    with pytest.raises(DataError, match="180 of 182"):
        read_city([plateau / "tiles3d/lod2"], strict=True)


def test_both_levels_together_take_each_building_once(plateau: Path) -> None:
    city = read_city([plateau / "tiles3d"])
    assert city.report.buildings == len(set(city.feature_ids)) == 666
    assert city.report.duplicates + city.report.superseded == 263


def test_a_zip_of_tiles_is_the_folder(plateau: Path, tmp_path: Path) -> None:
    path = pack(tmp_path / "12100_chiba-shi_2024_3dtiles.zip", plateau / "tiles3d/lod1", "x/")
    zipped, loose = read_city([path]), read_city([plateau / "tiles3d/lod1"])
    np.testing.assert_array_equal(zipped.mesh.vertices, loose.mesh.vertices)
    assert "chiba-shi" in zipped.attribution


def test_tiles_outside_the_area_are_not_asked_for(plateau: Path) -> None:
    area = Area.parse("35.6047,140.107,200")
    source = Source(Folder(plateau / "tiles3d/lod1"), "tileset.json")
    assert len(find_leaves(source, area).missing) < 60
    city = read_city([plateau / "tiles3d/lod1"], area=area)
    assert 20 < city.report.buildings < 263


def test_tiles_without_draco(tmp_path: Path) -> None:
    heights = [(3.0 + 0.1 * i, 20.0) for i in range(8)]
    table = {"gml_id": [f"g{i}" for i in range(8)], "_zmin": [base for base, _ in heights]}
    write_set(tmp_path, {"a.b3dm": b3dm(*blocks(heights), table)}, leaf("a.b3dm"))
    city = read_city([tmp_path])
    assert city.feature_ids == [f"g{i}" for i in range(8)]
    np.testing.assert_allclose(base_heights(city), [base for base, _ in heights], atol=0.02)
    assert city.mesh.bounds[1, 2] == pytest.approx(20.0, abs=0.02)


def test_without_a_height_in_the_table_the_lowest_stands_at_zero(tmp_path: Path) -> None:
    tile = b3dm(*blocks([(3.0, 20.0), (5.0, 9.0)]), {"gml_id": ["a", "b"]})
    write_set(tmp_path, {"a.b3dm": tile}, leaf("a.b3dm"))
    city = read_city([tmp_path])
    np.testing.assert_allclose(base_heights(city), [0.0, 2.0], atol=0.02)
    assert any("heights" in note for note in city.report.notes)


def test_refinement_nesting_and_transforms(tmp_path: Path) -> None:
    def tile(name: str, base: float) -> bytes:
        return b3dm(*blocks([(base, base + 9)]), {"gml_id": [name], "_zmin": [base]})

    tiles = {"parent.b3dm": tile("p", 1), "sub/child.b3dm": tile("c", 2), "add.b3dm": tile("a", 3)}
    write_set(tmp_path / "sub", {}, leaf("child.b3dm"))
    root = leaf(
        "parent.b3dm",
        refine="REPLACE",
        children=[leaf("sub/tileset.json"), leaf("add.b3dm", refine="ADD")],
    )
    write_set(tmp_path, tiles, root)
    assert set(read_city([tmp_path]).feature_ids) == {"c", "a"}
    added = leaf("parent.b3dm", refine="ADD", children=[leaf("add.b3dm")])
    write_set(tmp_path, tiles, added)
    (tmp_path / "sub/tileset.json").unlink()
    assert set(read_city([tmp_path]).feature_ids) == {"p", "a"}


@pytest.mark.parametrize("uri", ["../secret.b3dm", "http://127.0.0.1:9/a.b3dm", "/etc/passwd"])
def test_nothing_outside_is_read_or_fetched(tmp_path: Path, uri: str) -> None:
    (tmp_path / "secret.b3dm").write_bytes(b"")
    with pytest.raises(DataError, match="1 of 1 leaf tiles are not here"):
        read_city([write_set(tmp_path / "set", {}, leaf(uri))])


def test_a_broken_tile_is_counted_and_a_broken_set_stops(plateau: Path, tmp_path: Path) -> None:
    whole = (plateau / "tiles3d/lod1/data/data87.b3dm").read_bytes()
    good = b3dm(*blocks([(3.0, 9.0)]), {"gml_id": ["a"], "_zmin": [3.0]})
    root = {"children": [leaf("cut.b3dm"), leaf("good.b3dm")]}
    write_set(tmp_path, {"cut.b3dm": whole[:5000], "good.b3dm": good}, root)
    city = read_city([tmp_path])
    assert city.feature_ids == ["a"] and city.report.skipped[0][1] == "cut.b3dm"
    (tmp_path / "tileset.json").write_text("{}")
    with pytest.raises(DataError, match="not a tile set"):
        read_city([tmp_path])


@pytest.mark.parametrize("cut", [0, 10, 100, 800_000, -1])
def test_cut_tiles_are_broken_tiles(plateau: Path, cut: int) -> None:
    whole = (plateau / "tiles3d/lod1/data/data87.b3dm").read_bytes()
    with pytest.raises(BrokenTile):
        read_b3dm(whole[:cut])


def test_an_unknown_extension_is_named() -> None:
    tile = b3dm(*blocks([(3.0, 9.0)]), {}, extensionsRequired=["EXT_meshopt_compression"])
    with pytest.raises(BrokenTile, match="EXT_meshopt_compression"):
        read_b3dm(tile)
