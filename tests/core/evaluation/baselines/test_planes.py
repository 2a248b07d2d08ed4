"""Walls as planes, voxelised exactly, and nothing else changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.core.walled_town import AHEAD, CITY, EGO, GRID, GROUND, frames, seen
from vlwm.core.evaluation.baselines.planes import PlaneScene
from vlwm.core.evaluation.baselines.scenes import Background, MeanScene
from vlwm.core.evaluation.baselines.warps import PastFrames

BACKGROUND = Background(torch.zeros(GRID.shape[2]))


def past_of(triangles: np.ndarray = CITY) -> PastFrames:
    return PastFrames(torch.from_numpy(frames(triangles)), EGO)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Over the columns that the past frames reach from AHEAD."""
    a, b = a[:40, 8:42], b[:40, 8:42]
    return float((a & b).sum() / (a | b).sum())


def test_planes_are_much_nearer_to_the_truth_than_the_mean():
    past, truth = past_of(), seen(AHEAD)
    mean, planes = (
        (kind(past, GRID, BACKGROUND).read(AHEAD).permute(1, 2, 0).numpy() >= 0.5).astype(np.uint8)
        for kind in (MeanScene, PlaneScene)
    )
    assert iou(planes, truth) > 0.95 and 1 - iou(planes, truth) < 0.6 * (1 - iou(mean, truth))


def test_a_scene_without_walls_is_the_mean():
    past = past_of(GROUND)
    assert PlaneScene(past, GRID, BACKGROUND).reading.triangles.size == 0
    mean, planes = (kind(past, GRID, BACKGROUND).read(AHEAD) for kind in (MeanScene, PlaneScene))
    assert (mean - planes).abs().max() < 1e-5


def test_random_cells_make_no_walls_that_matter():
    rng = np.random.default_rng(0)
    cells = torch.from_numpy((rng.random((4, *GRID.shape)) < 0.1).astype(np.uint8))
    past = PastFrames(cells, EGO)
    mean, planes = (kind(past, GRID, BACKGROUND).read(AHEAD) for kind in (MeanScene, PlaneScene))
    assert ((mean - planes).abs() > 0.5).float().mean() < 0.01


@pytest.mark.parametrize("shift", [(100.0, -50.0, 0.0, 0.0), (0.0, 0.0, 30.0, 0.0)])
def test_the_frame_that_poses_are_given_in_does_not_matter(shift):
    past = past_of()
    moved = PastFrames(past.occupancy, EGO + shift)
    here = PlaneScene(past, GRID, BACKGROUND).read(AHEAD)
    there = PlaneScene(moved, GRID, BACKGROUND).read(AHEAD + shift)
    assert ((here - there).abs() > 1e-3).float().mean() < 1e-3
