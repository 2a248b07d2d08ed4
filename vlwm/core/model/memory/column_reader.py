"""Read whole columns of the past frames in any ego frame, summed over the frames.

Axes: P past frames, X, Y, Z cells, C = X * Y columns.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vlwm.core.geometry.frames import relative_ego
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.warp import source_places, within


class ColumnReader:
    """Reads whole columns of the past frames between their centres, bilinear in the plane.

    Linear in height as well; between the outermost centres and the border of a grid its outermost
    cells hold. The same as `warp.resampled_memory`, whose frames are kept apart; here
    only their sum is wanted, which is one weighted sum of columns.

    Args:
        values: float32 (P, X, Y, n Z), what each frame holds; several values of a column follow
            each other.
        ego: float64 (P, 4), its ego frames.
    """

    def __init__(self, values: Tensor, ego: np.ndarray, grid: VoxelGrid) -> None:
        self.grid, self.frames = grid, len(values)
        self.table = values.flatten(1, 2)  # (P, C, Z)
        self.ego = ego

    def read(self, target: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the sum over the frames that contain a cell, and their number: (n Z, X, Y) each.

        Args:
            target: float64 (4,), the ego frame to read in.
        """
        x, y, z = self.grid.shape
        device = self.table.device
        here = torch.as_tensor(relative_ego(self.ego, target), device=device)  # (P, 4)
        rows, weights, inside = _bilinear(here, self.grid)
        lift, reached = _lifts(here[:, 2] / self.grid.cell_m[2], z)
        table = self.table
        if bool(here[:, 2].abs().max() > 1e-9):
            # the height shift is the same for all columns of a frame: move its layers first
            parts = table.split(z, dim=2)
            moved = [torch.bmm(part, lift.transpose(1, 2)) * reached[:, None] for part in parts]
            table = torch.cat(moved, dim=2)
        # a bag a target column: the four columns around it in each frame, weighted
        total = functional.embedding_bag(
            rows, table.flatten(0, 1), mode="sum", per_sample_weights=weights
        )
        count = inside.float() @ reached.float()  # (C, P) @ (P, Z)
        several = total.shape[1] // z
        return total.t().reshape(-1, x, y), count.t().reshape(z, x, y).repeat(several, 1, 1)


def _lifts(shift: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """Return linear weights float32 (P, Z, Z) of source layers for each target layer, and the
    target layers that are within the source, bool (P, Z), for frames `shift` (P,) layers higher."""
    place = torch.arange(layers, device=shift.device) + 0.5 + shift[:, None]  # (P, Z)
    low, part = _below(place, layers)
    weights = torch.zeros(*place.shape, layers, device=shift.device)
    weights.scatter_add_(2, low[..., None], (1 - part).float()[..., None])
    weights.scatter_add_(2, (low + 1).clamp(max=layers - 1)[..., None], part.float()[..., None])
    return weights, (place >= 0) & (place < layers)


def _bilinear(here: Tensor, grid: VoxelGrid) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows int64 (C, 4 P) of the columns around each target centre in all frames, their
    weights float32 (C, 4 P), 0 outside, and bool (C, P), the frames that contain the centre.

    Args:
        here: (P, 4), the target ego frame as seen from each past one.
    """
    x, y, _ = grid.shape
    place_x, place_y = source_places(here, grid)  # (P, X, Y), in cells
    inside = within(place_x, place_y, grid)
    low_x, part_x = _below(place_x, x)
    low_y, part_y = _below(place_y, y)
    # columns of all frames are numbered one frame after the other
    first = (torch.arange(len(here), device=here.device) * x * y)[:, None, None]
    rows, weights = [], []
    for at_x, share_x in ((low_x, 1 - part_x), ((low_x + 1).clamp(max=x - 1), part_x)):
        for at_y, share_y in ((low_y, 1 - part_y), ((low_y + 1).clamp(max=y - 1), part_y)):
            rows.append(first + at_x * y + at_y)
            weights.append(share_x * share_y * inside)
    stacked = torch.stack(rows).flatten(0, 1).flatten(1).t().contiguous()
    shares = torch.stack(weights).flatten(0, 1).flatten(1).t().float().contiguous()
    return stacked, shares, inside.flatten(1).t()


def _below(place: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Return the cell whose centre is at or below a place, and how far the place is beyond it."""
    # beyond the outermost centres its value is repeated
    centre = (place - 0.5).clamp(0, cells - 1)
    low = centre.floor()
    return low.long(), centre - low
