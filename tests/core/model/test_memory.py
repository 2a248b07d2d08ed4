"""The warp is the literal one: target centre, world, source frame, cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlwm.core.geometry.frames import from_ego, to_ego
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory import ego_memory

GRID = VoxelGrid.from_range((-5, -4, -1, 5, 4, 4), (1.0, 1.0, 0.5))


def literal(past: np.ndarray, past_ego: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, ...]:
    """Cell by cell, frame by frame."""
    occupied, frames = np.zeros(GRID.shape, int), np.zeros(GRID.shape, int)
    last = np.zeros(GRID.shape, int)
    for index in np.ndindex(*GRID.shape):
        world = from_ego(GRID.center_of(np.array(index)), target)
        for p, ego in enumerate(past_ego):
            there = to_ego(world, ego)
            if GRID.contains(there):
                value = past[(p, *GRID.index_of(there))]
                occupied[index] += value
                frames[index] += 1
                last[index] = value if p == len(past_ego) - 1 else last[index]
    return occupied, frames, last


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_literal_warp(seed: int) -> None:
    rng = np.random.default_rng(seed)
    past = (rng.random((3, *GRID.shape)) < 0.3).astype(np.uint8)
    past_ego = np.column_stack(
        [rng.normal(size=(3, 2)) * 2, rng.normal(size=3), rng.normal(size=3)]
    )
    targets = np.column_stack([rng.normal(size=(2, 2)) * 2, rng.normal(size=2), rng.normal(size=2)])
    memory = ego_memory(
        torch.from_numpy(past)[None], torch.from_numpy(past_ego)[None],
        torch.from_numpy(targets)[None], GRID,
    )  # fmt: skip
    for h in range(2):
        occupied, frames, last = literal(past, past_ego, targets[h])
        np.testing.assert_array_equal(memory.occupied[0, h].numpy(), occupied)
        np.testing.assert_array_equal(memory.frames[0, h].numpy(), frames)
        np.testing.assert_array_equal(memory.last[0, h].numpy(), last)


def test_standing_still_returns_the_frame() -> None:
    past = torch.randint(0, 2, (2, 4, *GRID.shape), dtype=torch.uint8)
    past[:, 1:] = past[:, :1]
    ego = torch.randn(2, 1, 4).double().expand(2, 4, 4)
    memory = ego_memory(past, ego, ego[:, :2], GRID)
    assert (memory.frames == 4).all()
    torch.testing.assert_close(memory.share(), past[:, :1].expand(2, 2, *GRID.shape).float())


def test_far_away_nothing_is_seen() -> None:
    past = torch.ones(1, 4, *GRID.shape, dtype=torch.uint8)
    far = torch.tensor([[[100.0, 0, 0, 0]]])
    memory = ego_memory(past, torch.zeros(1, 4, 4), far, GRID)
    assert not memory.frames.any() and not memory.occupied.any() and not memory.share().any()
