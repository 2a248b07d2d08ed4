"""Every method without learning equals a slow, literal version in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import expm, logm

from vlwm.core.evaluation.baselines.warps import (
    BASELINES,
    PastFrames,
    ground_forecast,
    plan_track,
    predicted_ego,
    predicted_track,
    warped_past,
)
from vlwm.core.geometry.frames import from_ego, to_ego
from vlwm.core.geometry.grid import VoxelGrid

GRID = VoxelGrid.from_range((-8, -6, -2, 8, 6, 12), (0.8, 0.6, 1.25))
HORIZONS_S = 0.5 * np.arange(1, 7)
PRIOR = np.arange(GRID.shape[2]) == 1


def random_past(seed: int, frames: int = 4) -> PastFrames:
    rng = np.random.default_rng(seed)
    occupancy = (rng.random((frames, *GRID.shape)) < 0.4).astype(np.uint8)
    x = np.cumsum(rng.uniform(0.0, 3.0, frames)) + 500.0
    ego = np.stack(
        [x, rng.normal(0, 1, frames), rng.normal(0, 1.5, frames), rng.uniform(-3, 3, frames)], -1
    )
    ego[1:, 3] = ego[0, 3] + rng.normal(0, 0.3, frames - 1)
    return PastFrames(torch.from_numpy(occupancy), ego)


def literal_read(occupancy: np.ndarray, source: np.ndarray, target: np.ndarray):
    """What a source frame says at the target's cell centres, and where it says anything."""
    points = to_ego(from_ego(GRID.centers(), target), source)
    index = GRID.index_of(points)
    inside = GRID.contains(points)
    index = np.where(inside[..., None], index, 0)
    return occupancy[tuple(np.moveaxis(index, -1, 0))] * inside, inside


def literal_memory(past: PastFrames, target: np.ndarray):
    read = [
        literal_read(o, s, target) for o, s in zip(past.occupancy.numpy(), past.ego, strict=True)
    ]
    votes = sum(np.asarray(occupied, int) for occupied, _ in read)
    frames = sum(np.asarray(inside, int) for _, inside in read)
    memory = np.where(frames > 0, 2 * votes >= frames, PRIOR)
    return read[-1][0], memory, frames > 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("motion", ["predicted", "true"])
def test_warp_memory_and_seen_equal_the_literal_version(seed, motion):
    past = random_past(seed)
    rng = np.random.default_rng(50 + seed)
    future = predicted_ego(past.ego, 0.5, HORIZONS_S)
    if motion == "true":
        future = past.ego[-1] + rng.normal(0, [4, 4, 3, 1], (6, 4))
    for target, warped in zip(future, warped_past(past, future, PRIOR, GRID), strict=True):
        last, memory, seen = literal_memory(past, target)
        assert np.array_equal(warped.last.numpy(), last)
        assert np.array_equal(warped.memory.numpy() > 0, memory)
        assert np.array_equal(warped.seen.numpy() > 0, seen)


def literal_twist(ego: np.ndarray, horizon_s: float) -> np.ndarray:
    """The last ego frame moved on by the matrix logarithm of the last step, scaled in time."""

    def matrix(frame: np.ndarray) -> np.ndarray:
        c, s = np.cos(frame[3]), np.sin(frame[3])
        return np.array([[c, -s, frame[0]], [s, c, frame[1]], [0, 0, 1]])

    step = np.linalg.inv(matrix(ego[-2])) @ matrix(ego[-1])
    moved = matrix(ego[-1]) @ expm(np.real(logm(step)) * horizon_s / 0.5)
    return np.array([*moved[:2, 2], ego[-1, 2], np.arctan2(moved[1, 0], moved[0, 0])])


@pytest.mark.parametrize("seed", range(3))
def test_every_method_equals_its_literal_definition(seed):
    past = random_past(seed)
    truth = past.ego[-1] + np.random.default_rng(seed).normal(0, [3, 3, 2, 1], (6, 4))
    unknown = predicted_track(past, PRIOR, GRID, 0.5, HORIZONS_S)
    given = plan_track(past, truth, PRIOR, GRID)
    for h, (predicted, (planned, seen)) in enumerate(zip(unknown, given, strict=True)):
        warp, memory, _ = literal_memory(past, literal_twist(past.ego, HORIZONS_S[h]))
        true_warp, true_memory, true_seen = literal_memory(past, truth[h])
        expected = {
            "empty": np.zeros(GRID.shape),
            "ground_prior": np.broadcast_to(PRIOR, GRID.shape),
            "copy_last": past.occupancy[-1].numpy(),
            "constant_velocity_warp": warp,
            "memory_baseline": memory,
            "true_pose_warp": true_warp,
            "true_pose_memory": true_memory,
        }
        forecasts = {**predicted, **planned}
        assert tuple(forecasts) == BASELINES
        for method, cells in expected.items():
            assert np.array_equal(forecasts[method].numpy() > 0, cells > 0), method
        assert np.array_equal(seen.numpy() > 0, true_seen)


def test_a_static_world_is_perfect_without_motion():
    past = random_past(0)
    same = past.occupancy[:1].expand(4, *GRID.shape)
    still = PastFrames(same, np.tile([7.0, -3.0, 41.0, 0.7], (4, 1)))
    future = predicted_ego(still.ego, 0.5, HORIZONS_S)
    for warped in warped_past(still, future, PRIOR, GRID):
        for forecast in (warped.last, warped.memory):
            assert torch.equal(forecast, same[0])
        assert bool(warped.seen.all())


def test_a_static_world_seen_while_driving_cells_ahead_is_shifted_exactly():
    """Two cells a frame straight on: the frame of one step later is the last one, shifted."""
    rng = np.random.default_rng(1)
    street = (rng.random((GRID.shape[0] + 20, *GRID.shape[1:])) < 0.3).astype(np.uint8)
    frames = np.stack([street[2 * i : 2 * i + GRID.shape[0]] for i in range(5)])
    ego = np.zeros((4, 4))
    ego[:, 0] = 1.6 * np.arange(4)
    past = PastFrames(torch.from_numpy(frames[:4]), ego)
    (warped,) = warped_past(past, predicted_ego(ego, 0.5, HORIZONS_S[:1]), PRIOR, GRID)
    assert np.array_equal(warped.memory[:-2].numpy(), frames[4][:-2])
    assert not warped.seen[-2:].any() and bool(warped.seen[:-2].all())
    assert np.array_equal(warped.memory[-2:].numpy() > 0, np.broadcast_to(PRIOR, (2, 20, 11)))
    assert not warped.last[-2:].any()


def test_half_of_the_frames_is_enough_and_less_is_not():
    occupancy = torch.zeros((4, *GRID.shape), dtype=torch.uint8)
    occupancy[:2, 3, 3, 3] = 1
    occupancy[3, 5, 5, 5] = 1
    past = PastFrames(occupancy, np.zeros((4, 4)))
    (warped,) = warped_past(past, np.zeros((1, 4)), PRIOR, GRID)
    assert warped.memory[3, 3, 3] == 1 and warped.memory[5, 5, 5] == 0
    assert warped.last[5, 5, 5] == 1


@pytest.mark.parametrize("climb_m", [-40.0, -1.3, 0.0, 2.4, 40.0])
def test_terrain_shifts_layers(climb_m):
    past = random_past(3)
    target = past.ego[-1] + [0.0, 0.0, climb_m, 0.0]
    (warped,) = warped_past(past, target[None], PRIOR, GRID)
    last, memory, seen = literal_memory(past, target)
    assert np.array_equal(warped.last.numpy(), last)
    assert np.array_equal(warped.memory.numpy() > 0, memory)
    assert np.array_equal(warped.seen.numpy() > 0, seen)


def test_predicted_motion_holds_ground_speed_and_turn():
    ego = np.array([[0.0, 0.0, 5.0, 0.0], [2.0, 0.0, 6.0, 0.0]])
    future = predicted_ego(ego, 0.5, HORIZONS_S)
    assert np.allclose(future[:, 0], 2.0 + 4.0 * HORIZONS_S)
    assert np.allclose(future[:, 2], 6.0)


def test_ground_prior_fills_its_layers():
    forecast = ground_forecast(PRIOR, GRID, torch.device("cpu"))
    assert forecast.shape == GRID.shape and forecast.sum() == GRID.shape[0] * GRID.shape[1]
