"""Walls as planes, and the mean of the frames for everything else: a baseline without learning.

The reading is that of `model.memory.plane_reading`, on which the model's fusion is built too.

Axes: P past frames, X, Y, Z cells.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vlwm.core.evaluation.baselines.scenes import Background, Filler
from vlwm.core.evaluation.baselines.warps import PastFrames
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.plane_reading import PlaneReading


class PlaneScene:
    """Walls voxelised again, and the mean of the frames for everything else.

    Args:
        past: frames of one window.
        grid: of all frames.
        background: used where no frame reaches.
    """

    def __init__(self, past: PastFrames, grid: VoxelGrid, background: Background) -> None:
        self.filler = Filler(past, grid, background)
        self.reading = PlaneReading(past.occupancy, past.ego, grid)

    @torch.no_grad()
    def read(self, ego: np.ndarray) -> Tensor:
        frame = self.reading.read(ego)
        return self.filler.fill(frame.probability()[0], frame.seen[0], ego)
