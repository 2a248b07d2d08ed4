"""Ego-motion memory: what the past frames say about each cell of a future ego frame.

A city stands still, so the past warped by the vehicle's motion is most of the future. The warp is
backward: the centre of each target cell goes into the source's ego frame. Ego frames are
gravity-aligned, so whole columns move: a turn and shift in the plane picks the source column, the
difference of terrain heights shifts the layers. Nothing here is learned and no gradient flows.

Axes: B batch, P past frames, H horizons, X, Y, Z cells, C = X * Y columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlwm.core.geometry.grid import VoxelGrid


@dataclass(frozen=True)
class Memory:
    """What the past says about target frames.

    Attributes:
        occupied: uint8 (B, H, X, Y, Z), past frames that call the cell occupied.
        frames: uint8 (B, H, X, Y, Z), past frames whose grid contains the cell's centre.
        last: uint8 (B, H, X, Y, Z), what the last frame says, 0 where its grid does not reach.
    """

    occupied: Tensor
    frames: Tensor
    last: Tensor

    def share(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Occupied over containing frames; 0 where no frame contains the cell."""
        return self.occupied.to(dtype) / self.frames.clamp(min=1).to(dtype)


@torch.no_grad()
def ego_memory(past: Tensor, past_ego: Tensor, target_ego: Tensor, grid: VoxelGrid) -> Memory:
    """Read the past frames at the cell centres of target frames, nearest cell.

    Args:
        past: uint8 (B, P, X, Y, Z) of 0 and 1.
        past_ego: (B, P, 4), x, y, ground z, yaw in any common frame.
        target_ego: (B, H, 4), in the same frame.
        grid: the grid of all frames.
    """
    batch, frames, x, y, z = past.shape
    horizons = target_ego.shape[1]
    shape = (batch, horizons, x * y, z)
    occupied = torch.zeros(shape, dtype=torch.uint8, device=past.device)
    contained, last = torch.zeros_like(occupied), torch.zeros_like(occupied)
    tables = past.reshape(batch, frames, x * y, z)
    outside = tables.new_zeros(1, z)
    for b in range(batch):
        for p in range(frames):
            table = torch.cat([tables[b, p], outside])
            here = relative_ego(past_ego[b, p].double(), target_ego[b].double())
            rows, inside = source_columns(here, grid)
            shifts = torch.floor(0.5 + here[:, 2] / grid.cell_m[2]).clamp(-z, z).tolist()
            for h, shift in enumerate(shifts):
                to, of = _layers(int(shift), z)
                found = table.index_select(0, rows[h])
                occupied[b, h, :, to] += found[:, of]
                contained[b, h, :, to] += inside[h, :, None]
                if p == frames - 1:
                    last[b, h, :, to] = found[:, of]
    full = (batch, horizons, x, y, z)
    return Memory(occupied.view(full), contained.view(full), last.view(full))


def relative_ego(reference: Tensor, ego: Tensor) -> Tensor:
    """Ego frames (..., 4) as seen in the ego frame `reference` (4,); one outer frame."""
    shift = ego[..., :3] - reference[:3]
    cos, sin = torch.cos(reference[3]), torch.sin(reference[3])
    ahead = cos * shift[..., 0] + sin * shift[..., 1]
    left = -sin * shift[..., 0] + cos * shift[..., 1]
    return torch.stack([ahead, left, shift[..., 2], ego[..., 3] - reference[3]], dim=-1)


def source_columns(relative: Tensor, grid: VoxelGrid) -> tuple[Tensor, Tensor]:
    """The source column under the centre of each target column.

    Args:
        relative: float64 (H, 4), target ego frames as seen from the source's.

    Returns:
        Row numbers int64 (H, C), with C for places outside, and uint8 (H, C), 1 where inside.
    """
    x, y, _ = grid.shape
    centres = [torch.as_tensor(c, device=relative.device) for c in grid.axis_centers()[:2]]
    cos, sin = torch.cos(relative[:, 3])[:, None], torch.sin(relative[:, 3])[:, None]
    place_x = (cos * centres[0] + relative[:, :1])[:, :, None] - (sin * centres[1])[:, None]
    place_y = (sin * centres[0] + relative[:, 1:2])[:, :, None] + (cos * centres[1])[:, None]
    index_x = torch.floor((place_x - grid.lower_m[0]) / grid.cell_m[0])
    index_y = torch.floor((place_y - grid.lower_m[1]) / grid.cell_m[1])
    inside = (index_x >= 0) & (index_x < x) & (index_y >= 0) & (index_y < y)
    rows = torch.where(inside, index_x * y + index_y, float(x * y))
    return rows.long().flatten(1), inside.flatten(1).to(torch.uint8)


def _layers(shift: int, layers: int) -> tuple[slice, slice]:
    """Target layers and the source layers they read, for a target frame `shift` layers higher."""
    to = slice(max(0, -shift), layers - max(0, shift))
    return to, slice(max(0, shift), layers - max(0, -shift))
