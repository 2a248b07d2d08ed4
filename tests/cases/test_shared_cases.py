"""The city cases of ../shared/cases, read as `vlwm prepare` reads them: the right value holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vlwm.core.city.city import City
from vlwm.core.city.read import read_city
from vlwm.core.errors import DataError

CASES = Path(__file__).parents[2].parent / "shared" / "cases"

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases, which is absent")


def read(name: str) -> City:
    """The city of a case's input."""
    inputs = [p for p in sorted((CASES / name / "input").iterdir()) if p.name != "real_wards"]
    return read_city(inputs)


def ground_error(city: City) -> float:
    """How far the lowest points of the buildings are from the ground, at most, metres."""
    corners = city.mesh.triangles().reshape(-1, 3)
    owner = np.repeat(city.feature_of_face, 3)
    low = np.full(len(city.feature_ids), np.inf)
    np.minimum.at(low, owner, corners[:, 2])
    middles = np.array([corners[owner == i, :2].mean(axis=0) for i in range(len(low))])
    return float(np.abs(low - city.terrain.height(middles)).max())


WHOLE = [
    "C01", "C04", "C05", "C13", "C14", "C17", "C19", "C23", "C25", "C31", "C33", "C34", "C35",
    "C37", "C38", "C39", "C54", "P01", "P02", "P03", "P07", "P09", "P10",
]  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_all_81_buildings_on_the_slope(name: str) -> None:
    city = read(name)
    assert city.report.buildings == 81 and not city.report.skipped
    assert city.origin.crs == "EPSG:6677"
    east, north = (city.bounds_xy[k + 2] - city.bounds_xy[k] for k in (0, 1))
    assert east == pytest.approx(468, abs=2) and north == pytest.approx(468, abs=2)
    assert ground_error(city) < 1.0
    assert city.report.summary.startswith("468 x 468 m, heights 8.4 to 43.7 m")


@pytest.mark.parametrize(
    ("name", "kept", "words"),
    [
        ("C07", 40, "871 km away"), ("C08", 81, "km away"), ("C21", 80, "line 507"),
        ("P06", 80, "not a number"),
    ],
)  # fmt: skip
def test_one_stray_feature_is_left_out_and_named(name: str, kept: int, words: str) -> None:
    city = read(name)
    assert city.report.buildings == kept
    (skipped,) = city.report.skipped
    assert words in skipped[2]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("C10", "urn:ogc:def:crs:local:engineering"),
        ("C28", r"7z: unpack it first"),
        ("C30", r"unpack that once"),
        ("P17", r"81 features were left out.*LOD0"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(name: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(name)


def test_another_country_has_its_own_metres_and_no_foreign_attribution() -> None:
    city = read("C11")
    assert city.report.buildings == 81 and city.origin.crs == "EPSG:32618"
    assert city.attribution == "source not stated"
    east = city.bounds_xy[2] - city.bounds_xy[0]
    assert east == pytest.approx(468, rel=1e-3)


def test_each_tile_has_its_own_relief() -> None:
    city = read("C16")
    assert city.report.buildings == 126 and city.report.ground == "relief, 100 % of the area"
    assert ground_error(city) < 0.6


def test_a_linked_ward_is_read(tmp_path: Path) -> None:
    real = CASES / "C26/input/real_wards"
    shutil.copytree(real / "13101", tmp_path / "city/13101")
    (tmp_path / "city/13102").symlink_to(real / "13102")
    (tmp_path / "city/again").symlink_to(tmp_path / "city")
    assert read_city([tmp_path / "city"]).report.buildings == 81


MORE: list[tuple[str, Callable[[City], bool]]] = [
    ("C04", lambda c: any("another place" in n for n in c.report.notes)),
    ("C23", lambda c: any("y is taken as up" in n for n in c.report.notes)),
    ("C25", lambda c: any("13102_chuo-ku" in n for n in c.report.notes)),
    ("C54", lambda c: any("two formats" in n for n in c.report.notes)),
]


@pytest.mark.parametrize(("name", "holds"), MORE, ids=[n for n, _ in MORE])
def test_what_was_decided_is_written_down(name: str, holds: Callable[[City], bool]) -> None:
    assert holds(read(name))
