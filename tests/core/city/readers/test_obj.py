"""OBJ: both ways through a file agree, and a wrong line is named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.measures import base_heights, signed_volume
from vlwm.core.city.assembly.watertight import open_features
from vlwm.core.city.read import read_city
from vlwm.core.city.readers import obj
from vlwm.core.city.readers.obj import read_obj
from vlwm.core.city.readers.source_files import Folder, Source
from vlwm.core.errors import DataError

CUBE = """# EPSG:6677
o one
v 10 20 0
v 30 20 0
v 30 40 0
v 10 40 0
v 10 20 12
v 30 20 12
v 30 40 12
v 10 40 12
f 4 3 2 1
f 5 6 7 8
f 1 2 6 5
f 2 3 7 6
f 3 4 8 7
f 4 1 5 8
"""


def cube(x: float, height: float, name: str | None = None, first: int = 1) -> str:
    """A cube of 10 m with its corner at (x, 0), as triangles."""
    corners = [
        (a, b, c) for c in (0, height) for a, b in ((x, 0), (x + 10, 0), (x + 10, 10), (x, 10))
    ]
    quads = [(3, 2, 1, 0), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)]
    lines = [f"o {name}"] if name else []
    lines += [f"v {a} {b} {c}" for a, b, c in corners]
    for a, b, c, d in quads:
        lines += [
            f"f {a + first} {b + first} {c + first}",
            f"f {a + first} {c + first} {d + first}",
        ]
    return "\n".join(lines) + "\n"


def source(path: Path) -> Source:
    return Source(Folder(path.parent), path.name)


def test_a_cube_is_closed_and_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(CUBE)
    city = read_city([tmp_path])
    assert signed_volume(city.mesh) == pytest.approx(20 * 20 * 12)
    assert city.origin.crs == "EPSG:6677" and city.report.open_shells == 0
    origin = np.array([city.origin.easting, city.origin.northing, city.origin.height])
    np.testing.assert_allclose(city.mesh.bounds + origin, [[10, 20, 0], [30, 40, 12]], atol=1e-9)
    assert city.feature_ids == ["one"] and city.attribution == "source not stated"


def test_negative_and_textured_indices_mean_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(CUBE)
    (tmp_path / "b.obj").write_text(CUBE.replace("f 4 3 2 1", "f -5/1/1 -6/2/1 -7//1 -8"))
    a, b = read_city([tmp_path / "a.obj"]), read_city([tmp_path / "b.obj"])
    np.testing.assert_array_equal(a.mesh.triangles(), b.mesh.triangles())


@pytest.mark.parametrize("suffix", ["", "/3", "/3/4", "//4"])
def test_the_fast_and_the_careful_way_agree(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "# EPSG:6676\n" + cube(0, 5, "a") + cube(40, 9, "b", 9)
    lines = [
        " ".join(w + suffix if w.isdigit() and line[0] == "f" else w for w in line.split())
        for line in text.splitlines()
    ]
    (tmp_path / "a.obj").write_text("\n".join(lines))
    fast = read_obj(source(tmp_path / "a.obj"))
    monkeypatch.setattr(obj, "_read_plain", lambda lines: None)
    careful = read_obj(source(tmp_path / "a.obj"))
    np.testing.assert_array_equal(fast.vertices, careful.vertices)
    np.testing.assert_array_equal(fast.faces, careful.faces)
    np.testing.assert_array_equal(fast.feature_of_face, careful.feature_of_face)
    assert fast.feature_ids == careful.feature_ids == ["a", "b"] and fast.crs == "EPSG:6676"


def test_a_real_tile_is_the_same_both_ways(plateau: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = source(next((plateau / "tokyo_marunouchi_obj").glob("*_-9_-71_*.obj")))
    fast = read_obj(path)
    monkeypatch.setattr(obj, "_read_plain", lambda lines: None)
    careful = read_obj(path)
    np.testing.assert_array_equal(fast.vertices[fast.faces], careful.vertices[careful.faces])
    np.testing.assert_array_equal(fast.feature_of_face, careful.feature_of_face)
    assert fast.feature_ids == careful.feature_ids


def test_pieces_of_one_building_stay_and_copies_go(tmp_path: Path) -> None:
    for name in ("a.obj", "b.obj"):
        (tmp_path / name).write_text(CUBE)
    (tmp_path / "c.obj").write_text(CUBE.replace("v 10 ", "v 5 "))
    city = read_city([tmp_path])
    assert len(city.feature_ids) == 2 and city.report.duplicates == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("v 1 2 nan", "not a finite number"),
        ("v 1 2 inf", "not a finite number"),
        ("v 1 2", "three numbers"),
        ("v 1 2 x", "three numbers"),
        ("f 1 2 99", "does not exist"),
        ("f 0 1 2", "does not exist"),
        ("f 1 2", "fewer than three"),
        ("f a b c", "whole numbers"),
    ],
)
@pytest.mark.parametrize("text", [CUBE, "# EPSG:6677\n" + cube(0, 3, "one")])
def test_a_broken_line_is_named(tmp_path: Path, line: str, words: str, text: str) -> None:
    is_vertex = line.startswith("v")
    use = "f 9 1 2\n" if is_vertex else ""
    other = cube(90, 5, "other", 10 if is_vertex else 9)
    (tmp_path / "a.obj").write_text(text + line + "\n" + use + other)
    number = len(text.splitlines()) + 1
    city = read_city([tmp_path])
    assert city.feature_ids == ["other"]
    assert re.search(rf"line {number}: .*{words}", city.report.skipped[0][2])
    with pytest.raises(DataError, match=rf"one: line {number}: .*{words}"):
        read_city([tmp_path], strict=True)


def test_the_system_stands_in_comment_wkt_or_name(tmp_path: Path, plateau: Path) -> None:
    (tmp_path / "t_bldg_6674.obj").write_text(cube(0, 3, "x"))
    assert read_city([tmp_path]).origin.crs == "EPSG:6674"
    (tmp_path / "t_bldg_6674.obj").rename(tmp_path / "plain.obj")
    city = read_city([tmp_path])
    assert city.origin.crs == "EPSG:6677" and "names no coordinate system" in city.report.notes[0]
    assert read_obj(source(plateau / "obj_fme/B_hotel.obj")).crs == "EPSG:6677"


def test_two_zones_are_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(CUBE)
    (tmp_path / "b.obj").write_text(CUBE.replace("6677", "6676"))
    with pytest.raises(DataError, match=r"places 120 km apart: 1 buildings.*EPSG:6676"):
        read_city([tmp_path])


def test_shells_without_names_are_features(tmp_path: Path, plateau: Path) -> None:
    (tmp_path / "a.obj").write_text("# EPSG:6677\n" + cube(0, 3) + cube(40, 5, first=9))
    city = read_city([tmp_path])
    assert city.feature_ids == ["a.obj#0", "a.obj#1"]
    assert base_heights(city).tolist() == [0.0, 0.0]
    fme = read_city([plateau / "obj_fme"])
    assert len(fme.mesh.faces) == 10384 + 340 + 5164 + 3280 + 12748
    assert fme.report.open_shells == 0 and len(fme.feature_ids) > 1000
    assert fme.report.ground == "bases" and fme.terrain.heights.min() > 0


def test_a_coarse_shell_gives_way_to_finer_ones_above_it(tmp_path: Path) -> None:
    """The official archive has `bldg/lod1` and `bldg/lod2`, and no names in either."""
    coarse, fine = tmp_path / "bldg/lod1", tmp_path / "bldg/lod2/53394611_bldg_6677_obj"
    for folder in (coarse, fine):
        folder.mkdir(parents=True)
    (coarse / "53394611_bldg_6677.obj").write_text(cube(0, 30) + cube(40, 5, first=9))
    (fine / "53394611_bldg_6677.obj").write_text(cube(1, 28) + cube(1, 29, first=9))
    city = read_city([tmp_path])
    assert city.report.lod2 == 1 and city.report.lod1 == 1, "shells that touch are one"
    assert city.report.superseded == 1 and city.mesh.bounds[1, 2] == 29.0


def test_an_open_box_is_open(tmp_path: Path) -> None:
    lines = cube(0, 3, "closed") + cube(40, 3, "open", 9)
    (tmp_path / "a.obj").write_text("\n".join(lines.splitlines()[:-1]))
    city = read_city([tmp_path])
    found = open_features(city.mesh.triangles(), city.feature_of_face, 2)
    assert found.tolist() == [False, True] and city.report.open_shells == 1


def test_groups_count_only_without_objects(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("g house\n" + cube(0, 3) + "g barn\n" + cube(40, 3, first=9))
    assert read_city([tmp_path]).feature_ids == ["house", "barn"]
    (tmp_path / "a.obj").write_text("o house\ng walls\n" + cube(0, 3))
    city = read_city([tmp_path])
    assert city.feature_ids == ["house"] and city.report.skipped == ()
