"""The resampled mean, what fills its gaps, and the average over a motion's spread."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.core.evaluation.baselines.test_warps import GRID, literal_read, random_past
from vlwm.core.evaluation.baselines.scenes import Background, MeanScene, spread
from vlwm.core.evaluation.baselines.warps import PastFrames
from vlwm.core.geometry.frames import from_ego
from vlwm.core.model.memory.extrapolation import Extrapolation, unseen_columns
from vlwm.core.model.memory.warp import resampled_memory

COLUMN = torch.linspace(0.9, 0.0, GRID.shape[2])


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_is_that_of_the_frames_read_one_by_one(seed):
    past = random_past(seed)
    target = past.ego[-1] + np.random.default_rng(seed).normal(0, [3, 3, 2, 1])
    found = MeanScene(past, GRID, Background(COLUMN)).read(target)
    apart = resampled_memory(
        past.occupancy[None], torch.as_tensor(past.ego)[None], torch.as_tensor(target)[None], GRID
    )
    wanted = torch.where(apart.seen(), apart.mean(), COLUMN[:, None, None])[0]
    assert (found - wanted).abs().max() < 1e-4


def test_reading_where_a_frame_was_taken_gives_that_frame():
    past = random_past(4, frames=1)
    found = MeanScene(past, GRID, Background(COLUMN)).read(past.ego[0])
    assert (found.permute(1, 2, 0) - past.occupancy[0]).abs().max() < 1e-6


def test_edges_fill_only_the_columns_that_no_frame_reaches():
    past = random_past(5)
    target = past.ego[-1] + [6.0, 2.0, 0.0, 0.4]
    edges = Extrapolation()
    edges.counts[0], edges.counts[1] = 1000.0, 300.0
    plain = MeanScene(past, GRID, Background(COLUMN)).read(target)
    found = MeanScene(past, GRID, Background(COLUMN, edges)).read(target)
    unseen = unseen_columns(
        past.occupancy[None], torch.as_tensor(past.ego)[None], torch.as_tensor(target)[None], GRID
    )
    beyond = torch.zeros(GRID.shape[:2], dtype=torch.bool)
    beyond[unseen.x, unseen.y] = True
    assert beyond.any() and torch.equal(found[:, ~beyond], plain[:, ~beyond])
    assert (found[:, beyond] - 0.3).abs().max() < 0.02


def test_spread_is_the_mean_of_frames_read_at_every_draw():
    rng = np.random.default_rng(0)
    frame = (rng.random(GRID.shape) < 0.3).astype(np.uint8)
    ego = np.array([5.0, -3.0, 0.0, 0.7])
    draws = rng.normal(0, [0.6, 0.4, 0.1], (16, 3))
    found = spread(torch.from_numpy(frame).permute(2, 0, 1).float(), ego, draws, GRID)
    literal = np.zeros(GRID.shape)
    inside = np.ones(GRID.shape, bool)
    for ahead, left, yaw in draws:
        # the vehicle is there by this draw: read the scene of the expected frame from there
        place = from_ego([ahead, left, 0.0], ego)
        read, reached = literal_read(frame, ego, np.array([*place[:2], 0.0, ego[3] + yaw]))
        literal += read / len(draws)
        inside &= reached
    off = np.abs(found.permute(1, 2, 0).numpy() - literal)[inside]
    assert (off > 1e-5).mean() < 0.01  # draws that rounding moves to the next cell


def test_without_errors_nothing_is_spread():
    frame = torch.rand(GRID.shape).permute(2, 0, 1)
    assert spread(frame, np.zeros(4), np.zeros((1, 3)), GRID) is frame


def test_a_past_without_poses_is_level_and_at_rest():
    motion = PastFrames(torch.zeros(2, 1, 1, 1), np.array([[1.0, 2, 3, 0.5]] * 2)).motion(0.5)
    assert np.allclose(motion.ego, [[1.0, 2, 3, 0.5]]) and not motion.poses[..., 7:].any()
