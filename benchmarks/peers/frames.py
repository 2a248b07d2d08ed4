"""Move observed frames between ego frames, height folded into channels.

Axes: B windows, P past and K future frames, Z height layers, X, Y cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from peers.interface import PeerInput
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.warp import resampled_memory, source_places
from vlwm.core.model.torch_frames import relative_ego


@torch.no_grad()
def own_planes(given: PeerInput) -> Tensor:
    """Return float32 (B, P, 2Z, X, Y): seen occupied, then seen free, each frame as it was."""
    both = torch.cat([given.occupied, given.free], dim=-1)  # (B, P, X, Y, 2Z)
    return both.permute(0, 1, 4, 2, 3).float()


@torch.no_grad()
def moved_planes(given: PeerInput, ego: Tensor, grid: VoxelGrid) -> Tensor:
    """Return the past frames, float32 (B, P, 2Z, X, Y), read at the cells of a frame at `ego`."""
    kinds = [
        resampled_memory(frames, given.past_ego, ego, grid).occupied  # (B, P, Z, X, Y)
        for frames in (given.occupied, given.free)
    ]
    return torch.cat(kinds, dim=2)


@torch.no_grad()
def fused_planes(given: PeerInput, ego: Tensor, grid: VoxelGrid) -> Tensor:
    """Return log-odds / 4 of all past frames and their evidence, float32 (B, 2Z, X, Y)."""
    occupied, free = moved_planes(given, ego, grid).chunk(2, dim=2)
    odds = 0.85 * occupied.sum(1) - 0.4 * free.sum(1)  # OctoMap's weights
    evidence = (occupied + free).amax(1).clamp(max=1.0)
    return torch.cat([odds / 4, evidence], dim=1)


def read_at(logits: Tensor, ego: Tensor, grid: VoxelGrid, outside: float) -> Tensor:
    """Return logits (B, Z, X, Y) of the anchor frame, read at the cells of a frame at `ego` (B, 4).

    Args:
        outside: logit of cells that the anchor frame's grid does not contain.
    """
    source = logits.permute(0, 2, 3, 1)[:, None] - outside  # (B, 1, X, Y, Z)
    anchor = torch.zeros_like(ego)[:, None]
    return _resampled(source, anchor, ego, grid) + outside


def _resampled(source: Tensor, anchor: Tensor, ego: Tensor, grid: VoxelGrid) -> Tensor:
    """Read float frames (B, 1, X, Y, Z) at `ego`, with a gradient; nearest layer."""
    x, y, z = source.shape[2:]
    here = relative_ego(anchor[:, 0].double(), ego.double())  # (B, 4)
    place_x, place_y = source_places(here, grid)  # (B, X, Y), cells
    corners = torch.stack([2 * place_y / y - 1, 2 * place_x / x - 1], dim=-1).to(source.dtype)
    maps = source[:, 0].permute(0, 3, 1, 2)  # (B, Z, X, Y)
    flat = torch.nn.functional.grid_sample(maps, corners, align_corners=False)
    shift = torch.floor(0.5 + here[:, 2] / grid.cell_m[2]).long()  # layers
    layers = torch.arange(z, device=source.device) + shift[:, None]  # (B, Z)
    inside = ((layers >= 0) & (layers < z))[..., None, None]
    index = layers.clamp(0, z - 1)[..., None, None].expand(-1, -1, x, y)
    return flat.gather(1, index) * inside


def motion_planes(ego: Tensor, size: tuple[int, int]) -> Tensor:
    """Return ego frames (B, K, 4) as constant planes (B, K * 4, X, Y), in tens of metres."""
    flat = (ego / 10.0).flatten(1)[..., None, None]
    return flat.expand(-1, -1, *size)
