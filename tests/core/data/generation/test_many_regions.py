"""Regions of a large city: many a split, alike in density and height, and apart over all pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlwm.core.city.procedural import procedural_city
from vlwm.core.data.generation import many_regions, session_plans
from vlwm.core.data.generation.many_regions import LARGE_M2, plan_many_regions
from vlwm.core.data.generation.session_plans import PreparePlan, plan_session, regions_of
from vlwm.core.data.splits import NAMES, Region
from vlwm.core.geometry.grid import VoxelGrid

MARGIN = 57.0
"""half of the grid's diagonal at full size is 56.6 m"""


def place(seed: int, width: float, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Built squares of a city that thins out from its towers, with a bay that nobody built on."""
    rng = np.random.default_rng(seed)
    cells = np.stack(np.meshgrid(np.arange(0, width, 50), np.arange(0, length, 50)), -1) + 25.0
    cells = cells.reshape(-1, 2)
    centre = rng.uniform((0, 0), (width, length))
    away = np.linalg.norm((cells - centre) / (width, length), axis=1)
    built = rng.random(len(cells)) < np.clip(1.1 - 1.2 * away, 0.05, 1.0)
    bay = np.linalg.norm((cells - rng.uniform((0, 0), (width, length))) / (width, length), axis=1)
    built &= bay > rng.uniform(0.0, 0.25)
    heights = 8.0 + 60.0 * np.exp(-8.0 * away) + rng.gamma(2.0, 3.0, len(cells))
    return cells[built], heights[built]


def gap_m(a: Region, b: Region) -> float:
    """Distance between the insides of two regions."""
    one, other = a.shrunk(MARGIN), b.shrunk(MARGIN)
    dx = max(one.x0 - other.x1, other.x0 - one.x1, 0.0)
    dy = max(one.y0 - other.y1, other.y0 - one.y1, 0.0)
    return float(np.hypot(dx, dy))


@settings(max_examples=40, deadline=None)
@given(st.floats(3000, 30000), st.floats(3000, 30000), st.integers(0, 1000))
def test_regions_of_two_splits_are_114_m_apart(width: float, length: float, seed: int) -> None:
    """Over all pairs, with at least four regions a split that tile the place."""
    built, heights = place(seed, width, length)
    regions = plan_many_regions((0.0, 0.0, width, length), MARGIN, seed, built, heights)
    if regions is None:  # too small, or too narrow between two gaps
        assert width * length <= 40e6 or min(width, length) < 6000
        return
    assert width * length > LARGE_M2
    for a, b in itertools.combinations(regions, 2):
        if a.split != b.split:
            assert gap_m(a, b) >= 114.0 - 1e-6
    counts = {name: sum(r.split == name for r in regions) for name in NAMES}
    assert min(counts.values()) >= 4
    assert sum(r.sides[0] * r.sides[1] for r in regions) == pytest.approx(width * length)
    assert all(min(r.shrunk(MARGIN).sides) >= 299.0 for r in regions)
    again = plan_many_regions((0.0, 0.0, width, length), MARGIN, seed, built, heights)
    assert again == regions


def means_of(
    regions: tuple[Region, ...], built: np.ndarray, heights: np.ndarray
) -> dict[str, list[float]]:
    """Share of the built squares, squares a km² and mean height of each split."""
    found = {}
    for name in NAMES:
        mine = [r for r in regions if r.split == name]
        inside = np.any([r.inside(built, 0.0) for r in mine], axis=0)
        area = sum(r.sides[0] * r.sides[1] for r in mine) / 1e6
        found[name] = [inside.mean(), inside.sum() / area, heights[inside].mean()]
    return found


@pytest.mark.parametrize("seed", range(6))
def test_splits_are_alike(seed: int) -> None:
    """70/15/15 of what is built; densities within 15 % and heights within a tenth."""
    built, heights = place(seed, 9000.0, 7000.0)
    regions = plan_many_regions((0.0, 0.0, 9000.0, 7000.0), MARGIN, seed, built, heights)
    assert regions is not None
    means = means_of(regions, built, heights)
    assert means["train"][0] == pytest.approx(0.70, abs=0.03)
    assert means["val"][0] == pytest.approx(0.15, abs=0.03)
    assert means["test"][0] == pytest.approx(0.15, abs=0.03)
    for name in ("val", "test"):
        assert means[name][1] == pytest.approx(means["train"][1], rel=0.15)
        assert means[name][2] == pytest.approx(means["train"][2], rel=0.10)


def test_sessions_of_a_large_city_keep_to_regions_of_their_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same at the size of a test: sessions of one split are in several of its regions."""
    grid = VoxelGrid.from_range((-10, -10, -2, 10, 10, 30), (2, 2, 4))
    monkeypatch.setattr(many_regions, "LARGE_M2", 1e6)
    monkeypatch.setattr(many_regions, "_LEAST_INSIDE_M", 60.0)
    monkeypatch.setattr(session_plans, "_SESSION_SIDE_M", 120.0)
    city = procedural_city(1400.0, 3)
    plan = PreparePlan(frames=3, sessions=24, agents=("drone",), seed=1, patterns=("random",))
    insides, splits = regions_of(city, grid, plan)
    assert splits.margin_m == 15.0 and len(splits.regions) == 27
    used = set()
    for index in (0, 3, 6, 9, 20, 22):
        session = plan_session(city, plan, index, grid)
        places = session.ego()[:, :2] + (city.origin.easting, city.origin.northing)
        assert set(splits.of_places(places)) == {session.meta.split}
        used |= {
            r for r in insides[str(session.meta.split)] if r.inside(session.ego()[:, :2], 0.0).all()
        }
    assert len(used) >= 5


def test_a_small_city_has_three_regions() -> None:
    built, heights = place(0, 3000.0, 3000.0)
    assert plan_many_regions((0.0, 0.0, 3000.0, 3000.0), MARGIN, 0, built, heights) is None
