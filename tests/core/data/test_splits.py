"""No world cell is seen by two splits, and every pose keeps its distance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.data.seen_cells import seen_cells
from vlwm.core.data.splits import NAMES, Splits, deal_sessions, plan_regions, splits_of_recorded
from vlwm.core.errors import DataError
from vlwm.core.geometry.grid import VoxelGrid

GRID = VoxelGrid.from_range((-40, -40, -2, 40, 40, 150), (0.4, 0.4, 1.25))
MARGIN = GRID.horizontal_half_diagonal_m


def test_world_cells_of_different_splits_are_apart() -> None:
    regions = plan_regions((0, 0, 900, 700), MARGIN, seed=3)
    rng = np.random.default_rng(0)
    seen, places = {}, {}
    for region in regions:
        inside = region.shrunk(MARGIN)
        corners = [[x, y] for x in (inside.x0, inside.x1) for y in (inside.y0, inside.y1)]
        drawn = rng.uniform((inside.x0, inside.y0), (inside.x1, inside.y1), (8, 2))
        xy = np.concatenate([corners, drawn])
        yaw = np.concatenate([[np.pi / 4] * 4, rng.uniform(-np.pi, np.pi, 8)])
        seen[region.split], places[region.split] = seen_cells(xy, yaw, GRID), xy
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not seen[a] & seen[b]
        apart = np.linalg.norm(places[a][:, None] - places[b][None], axis=-1)
        assert apart.min() >= 2 * MARGIN - 1e-6 > 113


@settings(max_examples=60, deadline=None)
@given(
    st.floats(300, 5000), st.floats(300, 5000), st.integers(0, 50), st.booleans(),
)  # fmt: skip
def test_regions_tile_the_place_and_never_overlap(
    width: float, height: float, seed: int, built: bool
) -> None:
    points = np.random.default_rng(seed).uniform((0, 0), (width, height), (200, 2))
    regions = plan_regions((0, 0, width, height), MARGIN, seed, points if built else None)
    assert [r.split for r in regions] == list(NAMES)
    areas = [r.sides[0] * r.sides[1] for r in regions]
    assert sum(areas) == pytest.approx(width * height)
    assert all(min(r.shrunk(MARGIN).sides) > 0 for r in regions)
    at = np.random.default_rng(1).uniform((0, 0), (width, height), (100, 2))
    owners = sum(r.inside(at, 0.0).astype(int) for r in regions)
    assert owners.max() <= 2  # a border may be shared


def test_shares_are_about_70_15_15() -> None:
    regions = plan_regions((0, 0, 2500, 2400), MARGIN, seed=1)
    areas = {r.split: r.sides[0] * r.sides[1] / (2500 * 2400) for r in regions}
    assert areas["train"] == pytest.approx(0.7, abs=0.02)
    assert areas["val"] == pytest.approx(areas["test"]) == pytest.approx(0.15, abs=0.02)


@pytest.mark.parametrize("held_out", [0.2, 0.3, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_validation_and_test_take_half_each_of_what_is_held_out(seed: int, held_out: float) -> None:
    """Of the built points, from either end of the place."""
    built = np.random.default_rng(0).uniform(0, (2500, 2400), (4000, 2))
    regions = plan_regions((0, 0, 2500, 2400), MARGIN, seed, built, held_out)
    share = {r.split: float(r.inside(built, 0.0).mean()) for r in regions}
    assert share["train"] == pytest.approx(1 - held_out, abs=0.02)
    assert share["val"] == pytest.approx(held_out / 2, abs=0.02)
    assert share["test"] == pytest.approx(held_out / 2, abs=0.02)
    if held_out == 0.3:
        assert regions == plan_regions((0, 0, 2500, 2400), MARGIN, seed, built)


def test_a_gap_does_not_become_the_test_region() -> None:
    rng = np.random.default_rng(0)
    built = np.concatenate([rng.uniform(0, 900, (300, 2)), rng.uniform(2400, 3300, (300, 2))])
    for seed in range(6):
        regions = {r.split: r for r in plan_regions((0, 0, 3300, 3300), MARGIN, seed, built)}
        for name in NAMES:
            assert regions[name].inside(built, MARGIN).sum() > 20


def test_a_small_place_is_refused_with_what_it_needs() -> None:
    with pytest.raises(DataError, match="at least 266 x 266 m"):
        plan_regions((0, 0, 200, 200), MARGIN, seed=0)


@pytest.mark.parametrize("count", [1, 2, 3, 6, 8, 10, 33])
def test_sessions_are_dealt(count: int) -> None:
    dealt = deal_sessions(count)
    assert len(dealt) == count and dealt[0] == "train"
    if count >= 3:
        assert set(dealt) == set(NAMES)
    if count >= 8:
        assert dealt.count("train") / count == pytest.approx(0.7, abs=0.1)


def survey(side_m: float, lines: int, step_m: float = 5.0) -> np.ndarray:
    """Places along a survey flight: lines to and fro over a square."""
    along = np.arange(0.0, side_m, step_m)
    across = np.linspace(0.0, side_m, lines)
    return np.concatenate(
        [np.stack([along[:: (-1) ** k], np.full(len(along), y)], 1) for k, y in enumerate(across)]
    )


def test_recorded_places_are_cut_and_the_rest_is_dropped() -> None:
    places = survey(2000.0, 20)
    splits = splits_of_recorded(["a", "b"], places, "EPSG:6677", MARGIN, 0)
    assert splits.note == "" and splits.crs == "EPSG:6677"
    labels = splits.of_places(places)
    assert {"train", "val", "test", "none"} == set(labels)
    for name in NAMES:
        others = places[np.isin(labels, [n for n in NAMES if n != name])]
        mine = places[labels == name][:300]
        apart = np.linalg.norm(mine[:, None] - others[None], axis=-1)
        assert apart.min() >= 2 * MARGIN - 1e-6


@pytest.mark.parametrize("heading", [0.0, 0.4, np.pi / 4, 1.3])
def test_one_straight_flight_leaves_every_split_something(heading: float) -> None:
    along = np.arange(0.0, 3000.0, 5.0)[:, None]
    places = along * np.array([np.cos(heading), np.sin(heading)])
    splits = splits_of_recorded(["a", "b", "c"], places, "EPSG:6677", MARGIN, 1)
    labels = splits.of_places(places)
    by_area = all((labels == name).sum() >= 10 for name in NAMES)
    assert by_area or (set(splits.sessions.values()) == set(NAMES) and "same world" in splits.note)


def test_a_place_too_small_to_be_cut_says_so() -> None:
    splits = splits_of_recorded(["a", "b", "c"], survey(100.0, 5), "EPSG:6677", MARGIN, 0)
    assert set(splits.sessions.values()) == set(NAMES)
    assert "too small" in splits.note and "same world" in splits.note


def test_without_a_place_sessions_are_dealt_whole() -> None:
    splits = splits_of_recorded(["c", "a", "b"], None, None, MARGIN, 0)
    assert splits.sessions == {"a": "train", "b": "test", "c": "val"}
    assert "unknown" in splits.note


def test_round_trip(tmp_path: Path) -> None:
    splits = Splits("EPSG:6677", MARGIN, plan_regions((0, 0, 900, 700), MARGIN, 1), {"x": "val"})
    splits.write(tmp_path / "splits.json")
    assert Splits.read(tmp_path / "splits.json") == splits
    (tmp_path / "splits.json").write_text("{}")
    with pytest.raises(DataError, match=r"not a valid splits\.json"):
        Splits.read(tmp_path / "splits.json")
