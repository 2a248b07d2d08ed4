"""A part of a city: meshes tile the plane, circles are round, a part is a part of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlwm.core.city.area import Area, mesh_bounds
from vlwm.core.city.city import City
from vlwm.core.city.crs import project
from vlwm.core.city.read import read_city
from vlwm.core.errors import DataError, UsageError


def test_mesh_corners_are_those_of_the_standard() -> None:
    south, west, north, east = mesh_bounds("53394611")  # Tokyo station: 35 40 30 N, 139 45 00 E
    assert (south, west) == pytest.approx((35 + 40.5 / 60, 139 + 45.75 / 60), abs=1e-9)
    assert (north - south, east - west) == pytest.approx((1 / 120, 1 / 80))
    assert mesh_bounds("5339")[:2] == pytest.approx((53 / 1.5, 139.0))
    quarters = [mesh_bounds(f"53394611{n}") for n in (1, 2, 3, 4)]
    assert quarters[0][:2] == (south, west) and quarters[3][2:] == pytest.approx((north, east))
    assert quarters[1][1] == pytest.approx((west + east) / 2) and quarters[1][0] == south


@pytest.mark.parametrize("code", ["533", "53399", "53398511", "5339461", "533946110", "abcd", ""])
def test_what_is_no_mesh_is_said(code: str) -> None:
    with pytest.raises(UsageError, match="mesh code"):
        Area.parse(code)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("139.77,35.68,500", "not in Japan"),
        ("35.68,139.77", "not understood"),
        ("35.68,139.77,x", "not understood"),
        ("35.68,139.77,-5", "out of range"),
        ("nan,139.77,5", "not in Japan"),
    ],
)
def test_what_is_no_circle_is_said(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Area.parse(text)


def test_neighbouring_meshes_share_no_point() -> None:
    rng = np.random.default_rng(0)
    south, west, north, east = mesh_bounds("533946")
    places = np.column_stack(
        [rng.uniform(south, north, 400), rng.uniform(west, east, 400), np.zeros(400)]
    )
    xy = project(places, "EPSG:6677")[:, :2]
    inside = [
        Area.parse(f"533946{e}{f}").contains(xy, "EPSG:6677") for e in range(10) for f in range(10)
    ]
    assert (np.sum(inside, axis=0) == 1).all()


def test_a_circle_is_round_in_metres() -> None:
    area = Area.parse("35.68, 139.77, 500")
    middle = project(np.array([[35.68, 139.77, 0.0]]), "EPSG:6677")[0, :2]
    angles = np.linspace(0, 6.28, 50)
    ring = np.column_stack([np.cos(angles), np.sin(angles)])
    assert area.contains(middle + 499.9 * ring, "EPSG:6677").all()
    assert not area.contains(middle + 500.1 * ring, "EPSG:6677").any()


def test_a_mesh_of_real_tiles_is_part_of_the_whole(plateau: Path, niiza: City) -> None:
    part = read_city([plateau / "citygml/niiza"], area=Area.parse("53395425"))
    assert 2900 < part.report.buildings < 3200
    assert part.report.buildings + part.report.outside == niiza.report.buildings
    assert part.name == "niiza@53395425" and part.origin.crs == niiza.origin.crs
    index, whole = part.feature_ids.index, niiza.feature_ids.index
    name = part.feature_ids[7]
    places = []
    for city, at in ((part, index(name)), (niiza, whole(name))):
        corners = city.mesh.triangles()[city.feature_of_face == at].reshape(-1, 3)
        places.append(corners + np.array([city.origin.easting, city.origin.northing, 0.0]))
    np.testing.assert_allclose(places[0], places[1], atol=1e-6)


def test_only_files_that_may_matter_are_opened(plateau: Path) -> None:
    city = read_city([plateau / "citygml/osaka"], area=Area.parse("34.62,135.45,300"))
    assert 100 < city.report.buildings < 200 and city.report.files < 10
    assert 0 < len(city.roads) < 100
    with pytest.raises(DataError, match="no building"):
        read_city([plateau / "citygml/osaka"], area=Area.parse("53394611"))


def test_a_part_of_obj_tiles(plateau: Path) -> None:
    folder = plateau / "tokyo_marunouchi_obj"
    city = read_city([folder], area=Area.parse("35.681,139.767,400"))
    assert 50 < city.report.buildings < 1000
    low, high = city.mesh.bounds
    assert (high - low)[:2].max() < 1100
    with pytest.raises(DataError, match="are outside"):
        read_city([folder], area=Area.parse("43.06,141.35,500"))
