"""The same town in every form that writers give it is the same town."""

from __future__ import annotations

import gzip
import itertools
import os
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.core.city.town import (
    ORIGIN,
    TOWN,
    b3dm,
    building,
    degrees,
    glb,
    gml_text,
    obj_text,
    polygon,
    read_text,
    relief,
    town_gml,
    whole,
    write_tiles,
)
from tests.measures import signed_volume
from vlwm.core.city.read import read_city
from vlwm.core.errors import DataError

FIRST, SECOND = TOWN[:18], TOWN[18:]


def tab(text: str) -> str:
    return text.replace(" ", "\t")


OBJS: dict[str, str | bytes] = {
    "tabs": tab(obj_text()),
    "indented, CR": ("  " + obj_text().replace("\n", "\n  ")).replace("\n", "\r"),
    "continued": obj_text().replace("f ", "f \\\n  "),
    "quads, negative": obj_text(quads=True, negative=True),
    "weights and colours": obj_text().replace("\nf", " 1.0 0.5 0.5 0.5\nf", 1),
    "utf-16": obj_text().encode("utf-16"),
    "one object": obj_text(mark=lambda k: "" if k else "o tile\n"),
    "one group": obj_text(mark=lambda k: "" if k else "g default\n"),
    "groups of one object": obj_text(mark=lambda k: f"g b{k}\n" if k else "o tile\ng b0\n"),
    "materials": obj_text(mark=lambda k: f"g m{k % 2}\n" if k else "o tile\ng m0\n"),
    "two halves": obj_text(mark=lambda k: f"o half{k}\n" if k % 18 == 0 else ""),
    "Shift_JIS": obj_text(mark=lambda k: f"o 建物{k}\n").encode("cp932"),
}


@pytest.mark.parametrize("form", OBJS)
def test_obj(tmp_path: Path, form: str) -> None:
    city = read_text(tmp_path / "t_6677.obj", OBJS[form])
    whole(city)
    assert city.report.skipped == ()
    if form == "Shift_JIS":
        assert city.feature_ids[3] == "建物3"


TURNED: dict[str, tuple[str, str]] = {
    "Blender": (obj_text(turned=lambda p: (p[0], p[2], -p[1])), "y is taken as up and z as south"),
    "EUN": (obj_text(turned=lambda p: (p[0], p[2], p[1])), "y is taken as up and z as north"),
    "x up": (obj_text(turned=lambda p: (p[2], p[0], p[1])), "x is taken as up and z as north"),
    "mm": (obj_text(turned=lambda p: [1000 * v for v in p]), "a unit is taken as 0.001 m"),
    "cm": (obj_text(turned=lambda p: [100 * v for v in p]), "a unit is taken as 0.01 m"),
    "km": (obj_text(turned=lambda p: [v / 1000 for v in p], digits=7), "is taken as 1000 m"),
    "feet": (
        obj_text(turned=lambda p: [v / 0.3048 for v in p], head="# EPSG:6677\n# units: feet\n"),
        "a unit is taken as 0.3048 m",
    ),
}


@pytest.mark.parametrize("form", TURNED)
def test_axes_and_units_are_found_and_noted(tmp_path: Path, form: str) -> None:
    text, words = TURNED[form]
    city = read_text(tmp_path / "t.obj", text)
    whole(city)
    assert words in " ".join(city.report.notes) and signed_volume(city.mesh) > 0


def test_stated_axes_and_units_come_first(tmp_path: Path) -> None:
    text = obj_text(turned=lambda p: (p[0] / 0.3048, p[2] / 0.3048, -p[1] / 0.3048))
    whole(read_text(tmp_path / "a.obj", text, up="y", scale=0.3048))
    valley = [(40.0 * i, 7.0 * (i % 9), 15.0, 15.0, 9.0 * i, 8.0) for i in range(30)]
    city = read_text(tmp_path / "b.obj", obj_text(valley))
    assert city.report.notes == (), "a steep narrow valley is z up"
    flat = read_text(tmp_path / "c.obj", text, up="z", scale=1.0)
    assert flat.mesh.bounds[1, 1] - flat.mesh.bounds[0, 1] < 150


def test_broken_lines_leave_out_their_own_buildings(tmp_path: Path) -> None:
    lines = obj_text().splitlines()
    faces = [i for i, line in enumerate(lines) if line.startswith("f")]
    lines[faces[40]], lines[faces[200]] = "f 1 2 oops", "f 1 2 999999"
    city = read_text(tmp_path / "a.obj", "\n".join(lines))
    whole(city, 34)
    assert [name for _, name, _ in city.report.skipped] == ["b3", "b16"]
    unused = obj_text() + "v nan nan nan\nwhat is this\n"
    notes = read_text(tmp_path / "b.obj", unused).report.notes
    assert "1 broken lines belong to no building" in notes[0]
    assert "'what' are not understood" in notes[1]


def _ring(points: Sequence[str]) -> str:
    at = [*points, points[0]]
    curves = "".join(
        f"<gml:curveMember><gml:LineString><gml:posList>{a} {b}</gml:posList></gml:LineString>"
        "</gml:curveMember>"
        for a, b in itertools.pairwise(at)
    )
    return f"<gml:Polygon><gml:exterior><gml:Ring>{curves}</gml:Ring></gml:exterior></gml:Polygon>"


def _patch(points: Sequence[str]) -> str:
    patch = polygon(points).replace("gml:Polygon", "gml:PolygonPatch")
    return f"<gml:Surface><gml:patches>{patch}</gml:patches></gml:Surface>"


def _triangles(points: Sequence[str]) -> str:
    """Inside in front, and turned around."""
    points = points[::-1]
    cut = (points[:3], [points[0], *points[2:]])
    both = "".join(polygon(p).replace("gml:Polygon", "gml:Triangle") for p in cut)
    surface = f"<gml:TriangulatedSurface><gml:trianglePatches>{both}</gml:trianglePatches>"
    return (
        f'<gml:OrientableSurface orientation="-"><gml:baseSurface>{surface}'
        "</gml:TriangulatedSurface></gml:baseSurface></gml:OrientableSurface>"
    )


def _rectangle(points: Sequence[str]) -> str:
    ring = "".join(f"<gml:pos>{p}</gml:pos>" for p in [*points, points[0]])
    return f"<gml:Rectangle><gml:exterior><gml:LinearRing>{ring}</gml:LinearRing></gml:exterior>" \
           "</gml:Rectangle>"  # fmt: skip


def _old(points: Sequence[str]) -> str:
    text = " ".join(p.replace(" ", ",") for p in [*points, points[0]])
    return (
        "<gml:Polygon><gml:outerBoundaryIs><gml:LinearRing><gml:coordinates>"
        f"{text}</gml:coordinates></gml:LinearRing></gml:outerBoundaryIs></gml:Polygon>"
    )


def _turned(inner: str, times: int = 1) -> str:
    for _ in range(times):
        inner = f'<gml:OrientableSurface orientation="-"><gml:baseSurface>{inner}' \
                "</gml:baseSurface></gml:OrientableSurface>"  # fmt: skip
    return inner


_SURFACES = [
    _ring, _patch, _triangles, _rectangle, _old,
    lambda p: _turned(polygon(p[::-1])), lambda p: _turned(_ring(p), 2),
    lambda p: _turned(_patch(p[::-1]), 3),
]  # fmt: skip


@pytest.mark.parametrize("surface", _SURFACES)
def test_surfaces_of_gml(tmp_path: Path, surface: Callable[[Sequence[str]], str]) -> None:
    city = read_text(tmp_path / "a.gml", gml_text(town_gml(surface=surface)))
    whole(city)
    assert signed_volume(city.mesh) > 0 and city.report.notes == ()


@pytest.mark.parametrize("member", ["gml:featureMember", "gml:featureMembers", "gml:member"])
def test_members_below_any_element(tmp_path: Path, member: str) -> None:
    whole(read_text(tmp_path / "a.xml", gml_text(town_gml(), member=member)))


def test_what_has_no_surface_tells_why(tmp_path: Path) -> None:
    arc = town_gml(TOWN[:1], "arc", surface=_ring)[0].replace("LineString", "Arc")
    flat = town_gml(TOWN[1:2], "flat")[0].replace("<gml:Solid>", '<gml:Solid srsDimension="2">')
    tree = "<bldg:Building><bldg:lod2ImplicitRepresentation/></bldg:Building>"
    city = read_text(tmp_path / "a.gml", gml_text([arc, flat, tree, *town_gml(TOWN[2:])]))
    reasons = " ".join(reason for _, _, reason in city.report.skipped)
    assert "bounded by a Arc" in reasons and "srsDimension 2" in reasons
    assert "an implicit representation is not read" in reasons
    whole(city, 34)


def test_links_lead_to_surfaces_of_another_level(tmp_path: Path) -> None:
    features = []
    for k, text in enumerate(town_gml()):
        parts = text.split("<gml:Polygon>")
        named = "".join(
            f'<gml:Polygon gml:id="p{k}_{i}">{p}' if i else p for i, p in enumerate(parts)
        )
        shell = named.replace("lod1Solid", "lod3Solid").replace("</bldg:Building>", "")
        links = "".join(f'<gml:surfaceMember xlink:href="#p{k}_{i}"/>' for i in range(1, 7))
        features.append(
            f"{shell}<bldg:lod2Solid><gml:Solid><gml:exterior><gml:CompositeSurface>{links}"
            "</gml:CompositeSurface></gml:exterior></gml:Solid></bldg:lod2Solid></bldg:Building>"
        )
    city = read_text(tmp_path / "a.gml", gml_text(features))
    whole(city)
    assert city.report.lod2 == 36


def test_rooms_are_not_the_building(tmp_path: Path) -> None:
    low = (*TOWN[0][:4], -50.0, 10.0)
    room = building(low, "room").replace("lod1", "lod4")
    inside = room.split(">", 1)[1].removesuffix("</bldg:Building>")
    shell = town_gml(TOWN[:1])[0].replace("lod1", "lod4").removesuffix("</bldg:Building>")
    indoors = f"<bldg:interiorRoom><bldg:Room>{inside}</bldg:Room></bldg:interiorRoom>"
    text = gml_text([f"{shell}{indoors}</bldg:Building>", *town_gml(TOWN[1:], "c")])
    whole(read_text(tmp_path / "a.gml", text))


def _names(blocks: Sequence[tuple[float, ...]]) -> dict[str, list[object]]:
    return {"gml_id": [f"n{b[0]:.3f} {b[1]:.3f}" for b in blocks], "_zmin": [b[4] for b in blocks]}


def _cmpt() -> bytes:
    inner = [b3dm(glb(h, ids="_BATCHID"), 18, _names(h)) for h in (FIRST, SECOND)]
    points = struct.pack("<4sII", b"pnts", 1, 28) + bytes(16)
    size = 16 + sum(map(len, inner)) + len(points)
    return struct.pack("<4sIII", b"cmpt", 1, size, 3) + inner[0] + points + inner[1]


def _old_tiles(up: str, mode: int = 4) -> dict[str, bytes]:
    return {
        f"{k}.b3dm": b3dm(glb(half, up=up, mode=mode, ids="_BATCHID"), 18, _names(half))
        for k, half in enumerate((FIRST, SECOND))
    }


TILES: dict[str, tuple[dict[str, bytes], dict[str, str]]] = {
    "X up": (_old_tiles("X"), {"gltfUpAxis": "X"}),
    "Z up, strips": (_old_tiles("Z", 5), {"gltfUpAxis": "z"}),
    "gzipped": ({n: gzip.compress(d) for n, d in _old_tiles("Y").items()}, {}),
    "glb with names": ({"a.glb": glb(named=True)}, {"version": "1.1"}),
    "glb with ids": ({"a.glb": glb()}, {"version": "1.1"}),
    "glb without ids": ({"a.glb": glb(ids=None)}, {"version": "1.1"}),
    "composite": ({"a.cmpt": _cmpt()}, {}),
    "ids of each tile": (
        {
            f"{k}.b3dm": b3dm(glb(half, ids="_BATCHID"), 18, {"id": list(range(18))})
            for k, half in enumerate((FIRST, SECOND))
        },
        {},
    ),
    "one name for all": (
        {
            f"{k}.b3dm": b3dm(glb(half, ids="_BATCHID"), 18, {"gml_id": ["x"] * 18})
            for k, half in enumerate((FIRST, SECOND))
        },
        {},
    ),
}


@pytest.mark.parametrize("form", TILES)
def test_tiles(tmp_path: Path, form: str) -> None:
    tiles, asset = TILES[form]
    city = read_city([write_tiles(tmp_path, tiles, **asset)])
    whole(city)
    assert city.attribution == "Town of blocks"
    if form == "composite":
        assert "not read: 1 primitives of a point cloud (pnts) in tiles" in city.report.notes
    if form == "glb with names":
        assert city.feature_ids[0].startswith("bldg-")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"pnts" + bytes(60), "a point cloud"),
        (glb(mode=1), "primitives of lines"),
        (glb().replace(b"CESIUM_RTC", b"CESIUM_RTX"), "no place on the earth"),
        (gzip.compress(glb())[:-9], "the file is damaged"),
        (glb().replace(b'"POSITION": 0', b'"POSITION": 9'), "the tile is damaged"),
    ],
)
def test_tiles_that_are_not_read_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=f"no building in any file.*{words}"):
        read_city([write_tiles(tmp_path, {"a.glb": content})])


@pytest.mark.parametrize("order", [("0_dtm.gml", "town.gml"), ("z.gml", "a_dem.gml"), ("b.gml",)])
def test_relief_is_laid_last(tmp_path: Path, order: tuple[str, ...]) -> None:
    if len(order) == 1:
        texts = [gml_text([relief(), *town_gml(), relief(-300, 0)])]
    else:
        texts = [gml_text([relief()]), gml_text(town_gml())]
        texts = texts if order[0].startswith("0") else texts[::-1]
    for name, text in zip(order, texts, strict=True):
        (tmp_path / name).write_text(text)
    city = read_city([tmp_path])
    whole(city)
    assert city.report.ground == "relief, 100 % of the area"
    assert abs(float(city.terrain.height([0.0, 0.0])) - 20 - 0.04 * 113) < 0.2


def test_relief_of_another_place_is_noted(tmp_path: Path) -> None:
    city = read_text(tmp_path / "a.gml", gml_text([relief(90_000, 91_000), *town_gml()]))
    assert "the relief is elsewhere: the ground is made without it" in city.report.notes
    points = "<dem:ReliefFeature><dem:MassPointRelief/></dem:ReliefFeature>"
    city = read_text(tmp_path / "b.gml", gml_text([points, *town_gml()]))
    assert city.report.skipped[0][2] == "its ground is a MassPointRelief, which is not read"


def test_one_place_in_two_formats_is_taken_once(tmp_path: Path) -> None:
    (tmp_path / "a.gml").write_text(gml_text(town_gml()))
    moved = [(b[0] + ORIGIN[0], b[1] + ORIGIN[1], *b[2:]) for b in TOWN]
    (tmp_path / "t_6677.obj").write_text(obj_text(moved, mark=lambda k: f"o obj{k}\n"))
    write_tiles(tmp_path / "tiles", _old_tiles("Y"))
    city = read_city([tmp_path])
    whole(city)
    assert len([n for n in city.report.notes if "one place in two formats" in n]) == 2
    (tmp_path / "a.gml").write_text(gml_text(town_gml(FIRST)))
    whole(read_city([tmp_path]))


def test_strays_are_left_out_and_two_cities_refused(tmp_path: Path) -> None:
    far = building(TOWN[0], "far", place=lambda p: f"26.2{p[0]:.0f} 127.68 {p[2]}")
    wide = building(TOWN[1], "wide", place=lambda p: "0 0 0" if p[0] > 20 else degrees(p))
    high = building((*TOWN[2][:4], 99_999.0, 9.0), "high")
    city = read_text(tmp_path / "a.gml", gml_text([far, wide, high, *town_gml(TOWN[3:])]))
    whole(city, 33)
    assert city.origin.crs == "EPSG:6677", "the first building does not choose the zone"
    reasons = {name: reason for _, name, reason in city.report.skipped}
    assert "km away" in reasons["far"] and "km wide" in reasons["wide"]
    assert "heights are 99999" in reasons["high"]
    other = town_gml(place=lambda p: f"35.1{int(p[1]):04d} 135.7{int(p[0]):04d} {p[2]}", name="k")
    (tmp_path / "b.gml").write_text(gml_text(other))
    with pytest.raises(DataError, match=r"places 3\d\d km apart: 36 buildings.*one by one"):
        read_city([tmp_path])


def test_what_is_passed_over_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.gml").write_text(gml_text(town_gml(FIRST)))
    with zipfile.ZipFile(tmp_path / "B.ZIP", "w") as archive:
        archive.writestr("a.gml", gml_text(town_gml(FIRST)))
        archive.writestr("b.gml", gml_text(town_gml(SECOND, "c")))
        archive.writestr("more.zip", b"PK")
    for name in ("x.7z", "y.part1", "z.fbx", "w.city.json"):
        (tmp_path / name).write_bytes(b"?")
    os.symlink(tmp_path, tmp_path / "loop")
    os.symlink(tmp_path / "nothing", tmp_path / "dead")
    city = read_city([tmp_path])
    whole(city)
    notes = " | ".join(city.report.notes)
    for words in ("x.7z: unpack it first", "y.part1: unpack", "1 files of .fbx", ".city.json",
                  "1 links that lead nowhere: dead", "more.zip inside B.ZIP",
                  "B.ZIP is read too: 1 of its files"):  # fmt: skip
        assert words in notes


def test_archives_that_cannot_be_read_tell_what_helps(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.gml", gml_text(town_gml()))
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    at = raw.index(b"PK\x01\x02")
    for value, words in ((9, "packed by Deflate64, which is not read"), (93, "Zstandard")):
        raw[at + 10 : at + 12] = struct.pack("<H", value)
        (tmp_path / "b.zip").write_bytes(raw)
        with pytest.raises(DataError, match=f"{words}.*unpack the archive"):
            read_city([tmp_path / "b.zip"])
    raw[at + 8] |= 1
    (tmp_path / "b.zip").write_bytes(raw)
    with pytest.raises(DataError, match="encrypted"):
        read_city([tmp_path / "b.zip"])
    os.remove(tmp_path / "b.zip")
    (tmp_path / "a.zip").rename(tmp_path / "a.7z")
    for name in ("b.gml.bz2", "c.gml.xz"):
        (tmp_path / name).write_bytes(b"x")
    named = r"a\.7z: unpack it first.*b\.gml\.bz2: unpack it first.*c\.gml\.xz"
    with pytest.raises(DataError, match=rf"no city model here.*{named}.*unpack it"):
        read_city([tmp_path])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir(mode=0)
    with pytest.raises(DataError, match="cannot be read: permission denied"):
        read_city([tmp_path])


def test_a_city_unlike_any_is_noted(tmp_path: Path) -> None:
    one = [(0.0, 0.0, 200.0, 300.0, 0.0, 5.0)]
    notes = " ".join(read_text(tmp_path / "a.obj", obj_text(one)).report.notes)
    assert "1 building only: the ground is flat" in notes
    low = [(b[0], b[1], b[2], b[3], b[4], 0.6) for b in TOWN]
    city = read_text(tmp_path / "b.obj", obj_text(low), scale=1.0)
    assert "below 0.6 m: are axis and unit right? --up" in " ".join(city.report.notes)
    assert city.report.summary.startswith("226 x 224 m, heights 0.6 to 0.6 m")
    assert np.isfinite(city.terrain.heights).all()
