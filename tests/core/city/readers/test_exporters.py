"""The town as public exporters write it: Blender, SketchUp, OSM2World, FME, Windows' tools."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from pyproj import Transformer

from tests.core.city.town import (
    ORIGIN,
    QUADS,
    TOWN,
    Point,
    corners,
    glb,
    gml_text,
    obj_text,
    read_text,
    town_gml,
    whole,
    write_tiles,
)
from vlwm.core.city.read import read_city
from vlwm.core.errors import DataError

_LON_LAT = Transformer.from_crs("EPSG:6677", "EPSG:4326", always_xy=True)
_UTM = Transformer.from_crs("EPSG:6677", "EPSG:32654", always_xy=True)
PLANE = "o {}\nv -300 -300 8\nv 500 -300 40\nv 500 500 40\nv -300 500 8\nf -4 -3 -2\nf -4 -2 -1\n"
STREET = "o RoadJunction7\nv -9 9 20\nv 200 9 28\nv 200 5 28\nv -9 5 20\nf -4 -3 -2 -1\n"


def lon_lat(point: Point) -> Sequence[float]:
    return (*_LON_LAT.transform(point[0] + ORIGIN[0], point[1] + ORIGIN[1]), point[2])


def utm(point: Point) -> Sequence[float]:
    return (*_UTM.transform(point[0] + ORIGIN[0], point[1] + ORIGIN[1]), point[2])


def inches(point: Point) -> Sequence[float]:
    return [v / 0.0254 for v in (point[0], point[2], -point[1])]


def surfaces(mark: str = "o b{k}_{name}Surface\n", *, floors: bool = True) -> str:
    """An object for the walls, the roof and the floor of each building, as FME writes them."""
    lines = ["# EPSG:6677\n"]
    for k, block in enumerate(TOWN):
        lines += ["v {:.3f} {:.3f} {:.3f}\n".format(*point) for point in corners(block)]
        parts = (("Wall", QUADS[2:]), ("Roof", QUADS[1:2]), ("Ground", QUADS[:1]))
        for name, quads in parts if floors else parts[:2]:
            lines.append(mark.format(k=k, name=name))
            lines += ["f " + " ".join(str(8 * k + c + 1) for c in q) + "\n" for q in quads]
    return "".join(lines)


SKETCHUP = "# Exported from SketchUp\n# File units = inches\n"
OBJS: dict[str, tuple[str, str, str]] = {
    "SketchUp": (obj_text(head=SKETCHUP, turned=inches), "EPSG:6677", "a unit is taken as 0.0254"),
    "decimal commas": (re.sub(r"(\d)\.(\d)", r"\1,\2", obj_text()), "EPSG:6677", ""),
    "a surface an object": (surfaces(), "EPSG:6677", ""),
    "surfaces without floors": (surfaces(floors=False), "EPSG:6677", ""),
    "groups without floors": (surfaces("g {name}\n", floors=False), "EPSG:6677", ""),
    "degrees": (obj_text(head="", turned=lon_lat, digits=8), "EPSG:6677", "longitude, latitude"),
    "EPSG:4326": (obj_text(head="# EPSG:4326\n", turned=lon_lat, digits=8), "EPSG:6677", "degrees"),
    "UTM by name": (
        obj_text(head="# WGS 84 / UTM zone 54N\n", turned=utm), "EPSG:32654", ""
    ),
    "UTM without a word": (obj_text(head="", turned=utm), "EPSG:6677", "are outside it"),
    "WKT without a code": (
        obj_text(head='# PROJCS["JGD2011 / Japan Plane Rectangular CS VI",GEOGCS[]]\n'),
        "EPSG:6674", "",
    ),
    "a scene": (obj_text() + PLANE.format("Terrain") + STREET, "EPSG:6677", "taken as the ground"),
    "a plane below": (obj_text() + PLANE.format("Plane.001"), "EPSG:6677", "taken as the ground"),
    "curves": (obj_text() + "curv 0 1 1 2 3\nsurf 0 1 0 1 1 2 3 4\n", "EPSG:6677",
               "not read: 2 free-form curves or surfaces"),
    "a lake": (obj_text() + STREET.replace("Road", "Water"), "EPSG:6677", "flat and not read"),
}  # fmt: skip


@pytest.mark.parametrize("form", OBJS)
def test_obj(tmp_path: Path, form: str) -> None:
    text, crs, note = OBJS[form]
    city = read_text(tmp_path / "city.obj", text)
    whole(city)
    assert city.origin.crs == crs and note in " ".join(city.report.notes)
    assert city.report.skipped == () and set(city.feature_kinds) == {"building"}
    if form == "a scene":
        assert city.report.ground.startswith("relief") and city.report.roads == 1
    if form == "a surface an object":
        assert city.feature_ids[5] == "b5"


def test_a_slab_is_ground_by_its_top(tmp_path: Path) -> None:
    slab = [*TOWN, (-300.0, -300.0, 800.0, 800.0, -10.0, 15.0)]
    city = read_text(
        tmp_path / "a.obj", obj_text(slab, mark=lambda k: f"o b{k}\n" if k < 36 else "o Terrain\n")
    )
    assert city.report.buildings == 36 and city.terrain.height([0.0, 0.0]) == pytest.approx(5.0)


def test_a_sheet_alone_in_its_file_is_the_ground(tmp_path: Path) -> None:
    """Nothing in the file or its name says so; it is far wider than a roof."""
    lines = ["# EPSG:6677\n", "o Untitled\n"]
    for k, (i, j) in enumerate((i, j) for i in range(6) for j in range(6)):
        for a, b in ((0, 0), (1, 0), (1, 1), (0, 1)):
            x, y = 100.0 * (i + a) - 100, 100.0 * (j + b) - 100
            lines.append(f"v {x + ORIGIN[0]} {y + ORIGIN[1]} {20 + 0.04 * x}\n")
        lines.append("f " + " ".join(str(4 * k + n) for n in (1, 2, 3, 4)) + "\n")
    (tmp_path / "z_6677.obj").write_text("".join(lines))
    city = read_text(tmp_path / "a.gml", gml_text(town_gml()))
    both = read_city([tmp_path])
    whole(both)
    assert both.report.ground.startswith("relief") and city.report.ground != both.report.ground
    assert "Untitled: taken as the ground" in " ".join(both.report.notes)


def test_a_system_in_a_prj_file(tmp_path: Path) -> None:
    (tmp_path / "a.prj").write_text('PROJCS["x",AUTHORITY["EPSG","6674"]]')
    assert read_text(tmp_path / "a.obj", obj_text(head="")).origin.crs == "EPSG:6674"


def feet(point: Point) -> str:
    x, y, z = (v / (1200 / 3937) for v in point)
    return f"{980_000 + x:.4f} {200_000 + y:.4f} {z:.4f}"


def with_zone(point: Point) -> str:
    return f"{32_565_000 + point[0]:.3f} {5_930_000 + point[1]:.3f} {point[2]:.3f}"


DECLARED = '<?xml version="1.0" encoding="UTF-8"?>'
GMLS: dict[str, tuple[bytes, str]] = {
    "feet": (gml_text(town_gml(place=feet), "EPSG:2263").encode(), "in units of 0.3048 m"),
    "zone before the easting": (
        gml_text(town_gml(place=with_zone), "EPSG:25832").encode(), "begin with the number"
    ),
    "a name": (gml_text(town_gml(), "JGD2011").encode(), ""),
    "Latin-1 called UTF-8": (
        (DECLARED + gml_text(["<!-- Größe -->" + f for f in town_gml()])).encode("latin-1"),
        "not in the encoding that it states",
    ),
    "a blank line first": (("\n" + DECLARED + gml_text(town_gml())).encode(), ""),
    "UTF-16": ((DECLARED.replace("8", "16") + gml_text(town_gml())).encode("utf-16"), ""),
}  # fmt: skip


@pytest.mark.parametrize("form", GMLS)
@pytest.mark.parametrize("name", ["a.gml", "city.xml"])
def test_gml(tmp_path: Path, form: str, name: str) -> None:
    if name == "city.xml" and form != "UTF-16":
        pytest.skip("only the look at the beginning differs")
    text, note = GMLS[form]
    read_text(tmp_path / name, text)
    city = read_city([tmp_path])
    whole(city)
    assert note in " ".join(city.report.notes)


@pytest.mark.parametrize(("name", "uri"), [
    ("tiles/a.glb", "tiles\\a.glb"), ("a#1.glb", "a#1.glb"), ("Data/A.GLB", "data/a.glb"),
])  # fmt: skip
def test_names_of_tiles_as_windows_writes_them(tmp_path: Path, name: str, uri: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(glb())
    (tmp_path / "tileset.json").write_text(json.dumps({"root": {"content": {"uri": uri}}}))
    whole(read_city([tmp_path]))


def test_a_3tz_is_an_archive(tmp_path: Path) -> None:
    tiles = write_tiles(tmp_path / "x", {"a.glb": glb()})
    with zipfile.ZipFile(tmp_path / "city.3tz", "w") as archive:
        for path in tiles.iterdir():
            archive.write(path, path.name)
    whole(read_city([tmp_path / "city.3tz"]))


def test_two_models_of_one_place_are_one(tmp_path: Path) -> None:
    (tmp_path / "2020").mkdir()
    (tmp_path / "2020/a.gml").write_text(gml_text(town_gml()))
    moved = [(x + 0.3, y - 0.2, w, d, z, h + 0.5) for x, y, w, d, z, h in TOWN[:30]]
    new = [(300.0, 40.0 * k, 20.0, 20.0, 32.0, 9.0) for k in range(3)]
    city = read_text(tmp_path / "2023/a.gml", gml_text(town_gml([*moved, *new], "n")))
    assert city.report.buildings == 33
    city = read_city([tmp_path])
    assert city.report.buildings == 39
    assert "30 of 33 buildings of 2023/a.gml cover buildings" in " ".join(city.report.notes)
    (tmp_path / "2023/a.gml").unlink()
    mixed = read_text(tmp_path / "b.gml", gml_text(town_gml(new, "m")))
    assert mixed.report.notes == () or "cover" not in " ".join(mixed.report.notes)


@pytest.mark.parametrize(("name", "data", "words"), [
    ("a.gml", b"<!DOCTYPE html><html>Sign in</html>", "a web page"),
    ("tileset.json", b"<html>no</html>", "a web page"),
    ("a.gml", b"<ows:ExceptionReport><ows:ExceptionText>no quota</ows:ExceptionText>", "no quota"),
    ("a.gml", b"<?xml version='1.0'?><Error><Message>Denied</Message></Error>", "Denied"),
    ("a.obj", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "git lfs pull"),
    ("a.obj", b"", "is empty"),
    ("a.gml", b"PK\x03\x04" + bytes(60), "a zip archive"),
    ("a.gml", b"\x28\xb5\x2f\xfd" + bytes(60), "packed by Zstandard"),
    ("a.obj", b"BZh91AY&SY" + bytes(60), "packed by bzip2, which is not read"),
    ("a.gml", b"\xfd7zXZ\0" + bytes(60), "unpack it first"),
    ("a.obj", b"d\x86\x02\x00" + bytes(60), "not a text"),
    ("delft.json", b'{"type":"CityJSON","version":"1.1"}', "citygml-tools"),
])  # fmt: skip
def test_other_things_under_a_models_name(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_city([tmp_path / name])
    assert words in str(caught.value)


def test_heights_and_models_in_other_forms_are_named(tmp_path: Path) -> None:
    (tmp_path / "dem").mkdir()
    for name, text in {
        "dem/a.tif": "II*", "texture.tif": "II*", "b.json": '{"type": "CityJSON"}', "c.slpk": "",
        "FG-GML-DEM5A.xml": '<Dataset xmlns="http://fgd.gsi.go.jp/spec/2008/FGD_GMLSchema"/>',
        "t.xml": '<LandXML xmlns="http://www.landxml.org/schema/LandXML-1.2"/>',
        "codelists.xml": "<gml:Dictionary/>",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    notes = read_text(tmp_path / "a.gml", gml_text(town_gml())).report.notes
    assert notes == ()
    notes = read_city([tmp_path]).report.notes
    assert {n.partition(" files of ")[2] for n in notes} == {
        ".slpk", ".tif (heights of the ground)", "CityJSON", "LandXML",
        "the base map of Japan (FGD_GMLSchema)",
    }  # fmt: skip
