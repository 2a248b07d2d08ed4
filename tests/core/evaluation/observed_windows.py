"""Small observed pasts, and a street between two walls as a lidar sees it."""

from __future__ import annotations

import numpy as np
import torch

from vlwm.core.evaluation.zones import SeenPast
from vlwm.core.geometry.grid import VoxelGrid

GRID = VoxelGrid((-8.0, -8.0, -2.0), (1.0, 1.0, 1.0), (16, 16, 8))
FRAMES = 3


def straight_ego(frames: int = FRAMES, step_m: float = 1.0) -> np.ndarray:
    """Ego frames (F, 4) along x, the last one at the origin."""
    ego = np.zeros((frames, 4))
    ego[:, 0] = step_m * (np.arange(frames) - frames + 1)
    return ego


def random_past(seed: int, share: float = 0.3) -> SeenPast:
    rng = np.random.default_rng(seed)
    state = rng.choice(3, size=(FRAMES, *GRID.shape), p=[1 - share, share / 3, 2 * share / 3])
    ego = straight_ego()
    ego[:, 3] = rng.uniform(-0.2, 0.2, FRAMES)
    occupied, free = (torch.from_numpy((state == k).astype(np.uint8)) for k in (1, 2))
    return SeenPast(occupied, free, ego, ego)


def street() -> tuple[np.ndarray, np.ndarray]:
    """Truth (X, Y, Z) of a street with walls at y = ±5 to z = 4 over flat ground; seen part."""
    truth = np.zeros(GRID.shape, np.uint8)
    ground = GRID.ground_slice  # 2
    truth[:, :, ground] = 1
    truth[:, [3, 13], ground : ground + 4] = 1
    seen = np.zeros_like(truth)
    seen[4:12, 3:14] = truth[4:12, 3:14]  # near part of both walls and of the ground
    seen[:, :, ground + 1] = np.where(truth[:, :, ground + 1] > 0, 0, seen[:, :, ground + 1])
    return truth, seen
