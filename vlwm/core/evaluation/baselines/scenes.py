"""The static scene of a window as probabilities in any ego frame, without learning by gradient.

`MeanScene` reads each past frame between its cell centres and takes the mean of those that reach a
cell. Where no frame reaches, it uses the share of occupied cells of that height layer in the train
split, or, with `edges`, counts of how far an object at the edge of the view extends
(`model.memory.extrapolation`). `planes.PlaneScene` replaces its walls.

Axes: P past frames, X, Y, Z cells, M draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vlwm.core.evaluation.baselines.warps import PastFrames
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.column_reader import ColumnReader
from vlwm.core.model.memory.extrapolation import Extrapolation, unseen_columns
from vlwm.core.model.memory.warp import under_spread


class Scene(Protocol):
    """A static scene that can be read in any ego frame."""

    def read(self, ego: np.ndarray) -> Tensor:
        """Return probabilities float32 (Z, X, Y) in the ego frame (4,), in the past's frame."""
        ...


@dataclass(frozen=True)
class Background:
    """Probabilities for cells that no past frame reaches.

    Attributes:
        column: float32 (Z,), share of occupied cells by height layer in the train split.
        edges: counts of what is beyond the edge of the view; None: the column alone.
    """

    column: Tensor
    edges: Extrapolation | None = None


class MeanScene:
    """The mean of the resampled past frames.

    Args:
        past: frames of one window.
        grid: of all frames.
        background: used where no frame reaches.
    """

    def __init__(self, past: PastFrames, grid: VoxelGrid, background: Background) -> None:
        self.grid, self.past = grid, past
        self.filler = Filler(past, grid, background)
        self.reader = ColumnReader(past.occupancy.float(), past.ego, grid)

    @torch.no_grad()
    def read(self, ego: np.ndarray) -> Tensor:
        total, count = self.reader.read(ego)
        return self.filler.fill(total / count.clamp(min=1.0), count > 0, ego)


class Filler:
    """Puts the background where no past frame reaches."""

    def __init__(self, past: PastFrames, grid: VoxelGrid, background: Background) -> None:
        self.grid, self.background = grid, background
        self.frames = past.occupancy[None]  # (1, P, X, Y, Z)
        self.ego = torch.as_tensor(past.ego, device=past.occupancy.device)[None]

    def fill(self, known: Tensor, seen: Tensor, ego: np.ndarray) -> Tensor:
        """Return (Z, X, Y): `known` where `seen`, the background elsewhere, in ego frame (4,)."""
        column = self.background.column.to(known)
        whole = torch.where(seen, known, column[:, None, None])
        if self.background.edges is not None:
            target = torch.as_tensor(ego, dtype=torch.float64, device=known.device)[None]
            unseen = unseen_columns(self.frames, self.ego, target, self.grid)
            logits = self.background.edges(unseen, torch.logit(column, eps=1e-3))
            unseen.put(whole[None], torch.sigmoid(logits))
        return whole


def spread(probability: Tensor, ego: np.ndarray, draws: np.ndarray, grid: VoxelGrid) -> Tensor:
    """Return the mean of a frame (Z, X, Y) at an expected ego frame over draws of where it is.

    Args:
        ego: float64 (4,), the expected ego frame.
        draws: float64 (M, 3), errors ahead, left (m) and yaw (rad), in the axes of that frame.
    """
    if len(draws) == 1 and not draws.any():
        return probability
    device = probability.device
    # `under_spread` takes moves in the axes that the ego frame is given in
    cos, sin = np.cos(ego[3]), np.sin(ego[3])
    x = cos * draws[:, 0] - sin * draws[:, 1]
    y = sin * draws[:, 0] + cos * draws[:, 1]
    moves = torch.as_tensor(np.stack([x, y, draws[:, 2]], axis=-1), device=device)[None]
    frame = torch.as_tensor(ego, dtype=torch.float64, device=device)[None]
    return under_spread(probability[None], frame, moves, grid)[0]
