"""The planner of the closed loop stops for what its map shows, and the physics keep its limits."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.rays import RayCaster

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from closed_loop import (
    ACCELERATION,
    STEP_S,
    STOP,
    Blocked,
    World,
    choose,
    fly,
    summary_of,
)

GRID = VoxelGrid((-20.0, -20.0, -4.0), (1.0, 1.0, 1.0), (40, 40, 8))


def blocked(ahead_m: float, *, outside: bool = False) -> Blocked:
    plane = np.zeros(GRID.shape, bool)
    plane[20 + int(ahead_m) :] = True
    return Blocked(plane[None], np.zeros((1, 4)), GRID, outside)


def state(speed: float) -> np.ndarray:
    return np.array([0.0, 0.0, 0.5, 0.0, speed])


def test_a_clear_way_is_flown_and_a_wall_too_near_is_an_emergency() -> None:
    free = choose(state(8.0), 0.0, 9.0, blocked(19.0))
    assert free.brake == 0.0 and free.turn == 0.0
    assert choose(state(8.0), 0.0, 9.0, blocked(2.0)) == STOP


def test_a_wall_within_reach_is_turned_from_or_braked_for() -> None:
    option = choose(state(8.0), 0.0, 9.0, blocked(11.0))
    assert option.brake > 0.0 or option.turn != 0.0


def test_unknown_outside_the_map_blocks_under_that_rule_alone() -> None:
    points, times = np.array([[[50.0, 0.0, 0.0]]]), np.array([0.1])
    assert blocked(19.0, outside=True).any(points, times).all()
    assert not blocked(19.0).any(points, times).any()


def test_speeding_up_and_stopping_keep_their_limits() -> None:
    go = np.array(fly(state(0.0), choose(state(0.0), 0.0, 9.0, blocked(19.0)), 9.0, 1.0))
    assert np.diff(go[:, 4]).max() <= ACCELERATION * STEP_S + 1e-9
    stop = np.array(fly(state(6.0), STOP, 9.0, 2.0))
    assert stop[-1, 4] == 0.0 and abs(stop[-1, 0] - 3.0) < 0.2  # v² / 2a


def flown(kind: str, cruise: float, mission: int, pace: float, *, collided: bool) -> dict:
    return {"map": kind, "cruise": cruise, "mission": mission, "collided": collided,
            "near_miss_s": 0.1, "mean_speed": pace}  # fmt: skip


def test_at_equal_mean_speed_a_rule_is_read_between_its_cruises() -> None:
    rows = [flown("forecast", 9.0, k, 5.0, collided=False) for k in range(10)]
    for cruise, pace, hits in ((6.0, 4.0, 2), (9.0, 6.0, 6)):
        rows += [flown("free", cruise, k, pace, collided=k < hits) for k in range(10)]
    rows += [flown("blocked", 9.0, k, 4.0, collided=False) for k in range(10)]
    free, never = summary_of(rows).splitlines()[-2:]
    assert "forecast at 9: 5.00 m/s, collided 0.00; free, as fast: 0.40" in free
    assert "10 missions" in free and "blocked, as fast: never" in never


def test_a_box_meets_a_surface_and_the_summary_counts_collisions() -> None:
    solid = np.zeros(GRID.shape, bool)
    solid[25] = True
    nothing = RayCaster(np.array([[[99.0, 0, 0], [99, 1, 0], [99, 0, 1]]]))
    world = World(solid, GRID, nothing, np.zeros((1, 3, 3)))
    assert world.meets(np.array([4.8, 0.0, 0.0]), 0.5)
    assert not world.meets(np.array([4.0, 0.0, 0.0]), 0.5)
    rows = [flown("free", 9.0, k, 5.0, collided=k < 3) for k in range(6)]
    assert "3 = 0.50" in summary_of([*rows, {"map": "free", "cruise": 9.0, "skipped": True}])
