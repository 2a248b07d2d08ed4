"""Read the past in any ego frame as walls that are planes, and the mean of the frames elsewhere.

A cell of a past frame that the planes of `walls` reproduce is explained: the planes alone
decide it. What is left of the frames is averaged.

Axes: P past frames, R ego frames, L layers, X, Y, Z cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.column_reader import ColumnReader
from vlwm.core.model.memory.walls import fit_planes, plane_voxels

REST = 0.4
"""frames' worth of evidence below which what is left is damped"""


@dataclass(frozen=True)
class PlaneFrames:
    """Ego frames as the walls have them.

    Attributes:
        planes: float32 (R, L, X, Y), 1 in cells that a wall meets, else 0.
        rest: float32 (R, L, X, Y) in [0, 1], the mean of what the walls do not explain.
        seen: bool (R, L, X, Y), cells that a past frame contains.
    """

    planes: Tensor
    rest: Tensor
    seen: Tensor

    def probability(self) -> Tensor:
        """Return float32 (R, L, X, Y): both together; meaningless where nothing is seen."""
        return torch.maximum(self.rest, self.planes)

    def layers(self, layers: Tensor) -> PlaneFrames:
        """Return the layers int64 (R, L) of whole frames."""
        index = layers[..., None, None].expand(-1, -1, *self.planes.shape[2:])
        return PlaneFrames(*(p.gather(1, index) for p in (self.planes, self.rest, self.seen)))

    @classmethod
    def joined(cls, frames: Sequence[PlaneFrames]) -> PlaneFrames:
        """Return several frames as one batch."""
        parts = zip(*((f.planes, f.rest, f.seen) for f in frames), strict=True)
        return cls(*(torch.cat(part) for part in parts))


class PlaneReading:
    """The walls of one window, and what they leave of its past frames.

    Args:
        past: uint8 (P, X, Y, Z).
        ego: float64 (P, 4), ego frames of the past, in any common frame.
        grid: of all frames.
        known: uint8 (P, X, Y, Z), cells of the past that are known; None: all of them.
    """

    def __init__(
        self,
        past: Tensor,
        ego: NDArray[np.float64],
        grid: VoxelGrid,
        known: Tensor | None = None,
    ) -> None:
        self.grid = grid
        sure = None if known is None else known.cpu().numpy()
        self.triangles = fit_planes(past.cpu().numpy(), ego, grid, sure)
        marked = np.stack([plane_voxels(self.triangles, own, grid) for own in ego])
        # a cell that a wall explains is not averaged again: it would blur the wall
        explained = torch.from_numpy(marked).to(past.device) & past
        valid = 1 - explained if known is None else known & (1 - explained)
        # what is occupied and what is valid are read together, as two stacks of layers
        both = torch.cat([valid & past, valid], dim=-1).float()  # (P, X, Y, 2 Z)
        self._reader = ColumnReader(both, ego, grid)

    @torch.no_grad()
    def read(self, ego: NDArray[np.float64]) -> PlaneFrames:
        """Return the ego frame (4,) in the frame of the past's, as a batch of one."""
        total, count = self._reader.read(ego)  # (2 Z, X, Y) each
        left, valid = total.chunk(2)
        planes = torch.from_numpy(plane_voxels(self.triangles, ego, self.grid)).to(left)
        # a mean of hardly any evidence is damped instead of divided by next to nothing
        rest = (left / valid.clamp(min=REST)).clamp_(max=1.0)
        seen = count.chunk(2)[0] > 0
        return PlaneFrames(planes.permute(2, 0, 1)[None], rest[None], seen[None])
