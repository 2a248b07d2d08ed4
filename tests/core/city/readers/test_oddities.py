"""What a reader has to see by itself: levels in names, copies, mirrors, axes to the west."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyproj import Transformer

from tests.core.city.test_reference import by_way_of
from tests.core.city.town import (
    ORIGIN,
    TOWN,
    Point,
    degrees,
    gml_text,
    obj_text,
    read_text,
    relief,
    town_gml,
    whole,
)
from tests.measures import signed_volume
from vlwm.core.city.city import City

VOLUME = sum(w * d * h for _, _, w, d, _, h in TOWN)


def volume(city: City) -> float:
    return float(signed_volume(city.mesh) / VOLUME)


@pytest.mark.parametrize("mark", ["o b{}_lod{}\n", "o LOD{1}-b{0}\n", "g b{} LoD {}\n"])
def test_levels_in_the_names_of_one_file_are_one_building(tmp_path: Path, mark: str) -> None:
    coarse = [(x, y, w, d, z, h - 2.0) for x, y, w, d, z, h in TOWN]
    first = obj_text(coarse, mark=lambda k: mark.format(k, 1), negative=True)
    second = obj_text(head="", mark=lambda k: mark.format(k, 2), negative=True)
    city = read_text(tmp_path / "a.obj", first + second)
    whole(city)
    assert volume(city) == pytest.approx(1.0, abs=1e-3) and city.report.superseded == 36
    assert "36 buildings are there in several levels" in " ".join(city.report.notes)


@pytest.mark.parametrize("text", [
    obj_text(mark=lambda k: f"o lod{k % 5}house{k}\n"), obj_text(mark=lambda k: f"o model{k}\n"),
])  # fmt: skip
def test_names_with_such_letters_are_no_levels(tmp_path: Path, text: str) -> None:
    city = read_text(tmp_path / "a.obj", text)
    whole(city)
    assert city.report.superseded == 0


def test_equal_buildings_under_two_names_of_one_file_are_one(tmp_path: Path) -> None:
    again = [*town_gml(), *town_gml(TOWN[:10], "n")]
    city = read_text(tmp_path / "a.gml", gml_text(again))
    whole(city)
    assert volume(city) == pytest.approx(1.0, abs=1e-3) and city.report.duplicates == 10


@pytest.mark.parametrize(("turned", "says"), [
    (lambda p: p, False),
    (lambda p: (p[1] + ORIGIN[1], p[0] + ORIGIN[0], p[2]), True),
    (lambda p: (-p[0], p[1], p[2]), True),
], ids=["right", "north first", "mirrored"])  # fmt: skip
def test_walls_that_look_inward_are_noted(
    tmp_path: Path, turned: Callable[[Point], Point], says: bool
) -> None:
    city = read_text(tmp_path / "a.obj", obj_text(turned=turned))
    assert ("look inward" in " ".join(city.report.notes)) == says
    assert city.report.buildings == len(TOWN)


def test_heights_that_count_downwards_are_noted(tmp_path: Path) -> None:
    down = obj_text(turned=lambda p: (p[0], -p[1], -p[2]))
    assert "counted downwards" in " ".join(read_text(tmp_path / "a.obj", down).report.notes)
    assert "counted downwards" not in " ".join(
        read_text(tmp_path / "a.obj", obj_text()).report.notes
    )


@pytest.mark.parametrize(("system", "zone", "at"), [
    ("EPSG:2048", "EPSG:32734", (260_000.0, 6_240_000.0)),
    ("EPSG:5513", "EPSG:32633", (460_000.0, 5_550_000.0)),
    ("EPSG:5514", "EPSG:32633", (460_000.0, 5_550_000.0)),
])  # fmt: skip
def test_axes_to_the_west_and_south_turn_nothing(
    tmp_path: Path, system: str, zone: str, at: tuple[float, float]
) -> None:
    place = by_way_of(system, zone, at)
    city = read_text(tmp_path / "a.gml", gml_text(town_gml(place=place), system))
    assert volume(city) == pytest.approx(1.0, abs=0.01) and city.report.notes == ()
    # the corner of the first block and of the last, back in the zone that they were made in
    back = Transformer.from_crs(city.origin.crs, zone, always_xy=True)
    for feature, block in ((0, TOWN[0]), (35, TOWN[35])):
        corners = city.triangles[city.feature_of_face == feature].reshape(-1, 3)
        x, y = back.transform(
            corners[:, 0] + city.origin.easting, corners[:, 1] + city.origin.northing
        )
        assert np.min(x) - at[0] == pytest.approx(block[0], abs=0.02)
        assert np.min(y) - at[1] == pytest.approx(block[1], abs=0.02)


def test_a_comment_behind_the_numbers_of_a_line_is_one(tmp_path: Path) -> None:
    text = obj_text().replace("\nf", "  # 3\nf").replace("\no", " #\no")
    whole(read_text(tmp_path / "a.obj", text))


def test_relief_without_heights_is_counted(tmp_path: Path) -> None:
    text = gml_text([*town_gml(), relief()])
    corner = degrees((-300, -300, 20 + 0.04 * -300))
    city = read_text(tmp_path / "a.gml", text.replace(corner, corner.rsplit(" ", 1)[0] + " -9999"))
    assert "not read: 2 triangles of the relief" in " ".join(city.report.notes)
    assert read_text(tmp_path / "a.gml", text).report.notes == ()
