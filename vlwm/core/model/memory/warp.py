"""Warp the past frames into a future ego frame (ego-motion memory).

A city does not move, so the past, warped by the vehicle's motion, is most of the future. The warp
is backward: the centre of each target cell is looked up in the source's ego frame. Ego frames are
gravity-aligned, so whole columns move: a turn and a shift in the plane select the source column,
the difference of terrain heights shifts the layers. Nothing here is learned; no gradient flows.

`ego_memory` uses nearest-cell lookup and is the baseline (docs/evaluation.md). `resampled_memory`
interpolates between cell centres, frame by frame, and is the model's input: nearest-cell lookup
tears a wall one cell thick where the frames are turned against each other, while four interpolated
frames locate it together (`fusion`). `under_spread` averages the forecast over the motion
distribution, so a wall with uncertain position becomes improbable everywhere.

Axes: B batch, P past frames, H horizons, X, Y, Z cells, C = X * Y columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory import kernels
from vlwm.core.model.memory.cpu.draws import averaged_rows
from vlwm.core.model.torch_frames import relative_ego, turn_plane


@dataclass(frozen=True)
class Memory:
    """Target frames as the past frames have them, by nearest cell.

    Attributes:
        occupied: uint8 (B, H, X, Y, Z), number of past frames that mark the cell.
        frames: uint8 (B, H, X, Y, Z), number of past frames that contain the cell's centre.
        last: uint8 (B, H, X, Y, Z), the last frame alone, 0 where its grid does not reach.
    """

    occupied: Tensor
    frames: Tensor
    last: Tensor

    def share(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the share of containing frames that mark the cell; 0 where none contains it."""
        return self.occupied.to(dtype) / self.frames.clamp(min=1).to(dtype)


@torch.no_grad()
def ego_memory(past: Tensor, past_ego: Tensor, target_ego: Tensor, grid: VoxelGrid) -> Memory:
    """Look up the past frames at the cell centres of target frames, nearest cell.

    Args:
        past: uint8 (B, P, X, Y, Z) of 0 and 1.
        past_ego: (B, P, 4), x, y, ground z, yaw in any common frame.
        target_ego: (B, H, 4), in the same frame.
        grid: the grid of all frames.
    """
    batch, frames, x, y, z = past.shape
    horizons = target_ego.shape[1]
    # a column of cells is a row of its table, so that a whole column is read at once
    shape = (batch, horizons, x * y, z)
    occupied = torch.zeros(shape, dtype=torch.uint8, device=past.device)
    contained, last = torch.zeros_like(occupied), torch.zeros_like(occupied)
    tables = past.reshape(batch, frames, x * y, z)
    outside = tables.new_zeros(1, z)  # one more column, read where no column is
    for b in range(batch):
        for p in range(frames):
            table = torch.cat([tables[b, p], outside])
            here = relative_ego(past_ego[b, p].double(), target_ego[b].double())
            rows, inside = source_columns(here, grid)
            # whole layers by which the target is higher; beyond ±z nothing is left to read
            shifts = torch.floor(0.5 + here[:, 2] / grid.cell_m[2]).clamp(-z, z).tolist()
            for h, shift in enumerate(shifts):
                to, of = layer_slices(int(shift), z)
                moved = table.index_select(0, rows[h])
                occupied[b, h, :, to] += moved[:, of]
                contained[b, h, :, to] += inside[h, :, None]
                if p == frames - 1:
                    last[b, h, :, to] = moved[:, of]
    full = (batch, horizons, x, y, z)
    return Memory(occupied.view(full), contained.view(full), last.view(full))


@dataclass(frozen=True)
class Resampled:
    """One target frame as each past frame has it, interpolated between cell centres.

    Attributes:
        occupied: float32 (B, P, Z, X, Y) in [0, 1], 0 where a frame's grid does not reach.
        inside: uint8 (B, P, Z, X, Y), 1 where a frame's grid contains the cell's centre and knows
            it, else 0.
        blank: the mean where no frame contains a cell.
    """

    occupied: Tensor
    inside: Tensor
    blank: float = 0.0

    def mean(self) -> Tensor:
        """Return the mean over the containing frames (B, Z, X, Y); `blank` where there is none."""
        count = self.inside.sum(1, dtype=torch.float32)
        mean = self.occupied.sum(1) / count.clamp(min=1.0)
        return mean if not self.blank else mean.masked_fill_(count == 0, self.blank)

    def seen(self) -> Tensor:
        """Return bool (B, Z, X, Y): cells that at least one frame contains."""
        return self.inside.amax(1) > 0

    def split(self, layers: int) -> tuple[Resampled, ...]:
        """Return groups of `layers` layers, in their order."""
        parts = (self.occupied.split(layers, dim=2), self.inside.split(layers, dim=2))
        return tuple(Resampled(*part, self.blank) for part in zip(*parts, strict=True))


@torch.no_grad()
def resampled_memory(
    past: Tensor,
    past_ego: Tensor,
    target_ego: Tensor,
    grid: VoxelGrid,
    layers: Tensor | None = None,
    known: Tensor | None = None,
) -> Resampled:
    """Interpolate the past frames at the cell centres of a target frame.

    Bilinear in the plane, linear in height; the outermost cells extend to the border of the grid.

    Args:
        past: uint8 (B, P, X, Y, Z) of 0 and 1.
        past_ego: (B, P, 4), x, y, ground z, yaw in any common frame.
        target_ego: (B, 4), in the same frame.
        grid: the grid of all frames.
        layers: int64 (B, L), height layers of the target frame to compute; None: all Z.
        known: uint8 (B, P, X, Y, Z), cells of the past that are known; None: all of them. A cell of
            which less than half is known counts as not contained, and unknown is not empty.
    """
    batch, frames, x, y, z = past.shape
    here = relative_ego(past_ego.double(), target_ego.double()[:, None]).flatten(0, 1)
    index_x, index_y = source_places(here, grid)  # (B · P, X, Y), in cells
    # grid_sample takes places from −1 to 1, y first since maps are (X, Y)
    corners = torch.stack([2 * index_y / y - 1, 2 * index_x / x - 1], dim=-1).float()
    with torch.autocast(past.device.type, enabled=False):
        # the layers are mixed by one small matrix for each past frame
        lift, reached = _layer_weights(here[:, 2] / grid.cell_m[2], z)
        if layers is not None:
            wanted = layers.repeat_interleave(frames, dim=0)
            lift = lift.gather(1, wanted[..., None].expand(-1, -1, z))
            reached = reached.gather(1, wanted)
        lifted = _interpolated(past if known is None else past & known, corners, lift)
        sure = None if known is None else _interpolated(known, corners, lift)
    inside = within(index_x, index_y, grid)[:, None] & reached[:, :, None, None]
    inside = inside.view(batch, frames, -1, x, y)
    if sure is None:
        return Resampled(lifted.mul_(inside), inside.to(torch.uint8))
    inside = inside & (sure >= 0.5)
    # the mean over the known cells around, as unknown ones add nothing to either sum
    lifted = lifted.div_(sure.clamp_(min=0.5)).mul_(inside)
    return Resampled(lifted, inside.to(torch.uint8), blank=0.5)


def _interpolated(frames: Tensor, corners: Tensor, lift: Tensor) -> Tensor:
    """Return frames (B, P, X, Y, Z) read at places: float32 (B, P, L, X, Y).

    Args:
        corners: (B · P, X, Y, 2), places as grid_sample takes them.
        lift: (B · P, L, Z), the mixing of layers.
    """
    maps = frames.flatten(0, 1).permute(0, 3, 1, 2).float()
    flat = functional.grid_sample(maps, corners, padding_mode="border", align_corners=False)
    mixed = torch.bmm(lift, flat.flatten(2))
    return mixed.view(*frames.shape[:2], -1, *frames.shape[2:4])


@torch.no_grad()
def under_spread(probability: Tensor, ego: Tensor, moves: Tensor, grid: VoxelGrid) -> Tensor:
    """Return the expected occupancy of target frames over draws of their motion.

    Each draw moves the whole frame; nearest cell, at the border the outermost one.

    Args:
        probability: float32 (B, Z, X, Y), of the frames at the expected motion.
        ego: (B, 4), that motion.
        moves: (B, N, 3), x, y (m) and yaw (rad) of each draw less the expected ones, in the axes
            of `ego`.
        grid: the grid of all frames.
    """
    places = draw_places(ego, moves, grid)
    if probability.device.type == "cpu":
        # (B, X, Y, Z), each column in one piece
        columns = probability.float().permute(0, 2, 3, 1).contiguous()
        means = [
            torch.cat(list(averaged_rows(*pair))) for pair in zip(columns, places, strict=True)
        ]
        return torch.stack(means).permute(0, 3, 1, 2)
    if kernels.usable(probability.device):
        return kernels.mean_over_draws(probability, places)
    sums = []
    for columns, draws in zip(probability.flatten(2), places, strict=True):
        # embedding_bag reads and sums the N columns of each target column in one pass
        table = columns.t().contiguous()  # (C, Z)
        rows = _rows_at(draws, grid)
        sums.append(functional.embedding_bag(rows, table, mode="sum").t())
    return torch.stack(sums).div_(places.shape[1]).view_as(probability)


def draw_places(ego: Tensor, moves: Tensor, grid: VoxelGrid) -> Tensor:
    """Return factors of `affine_places`, float32 (B, N, 6), of draws as `under_spread` has them."""
    # the draws as seen from the expected frame
    ahead, left = turn_plane(moves[..., 0], moves[..., 1], -ego[:, 3:])
    here = torch.stack([ahead, left, torch.zeros_like(left), moves[..., 2]], dim=-1)
    return affine_places(here, grid).float()


def _rows_at(places: Tensor, grid: VoxelGrid) -> Tensor:
    """Return numbers int32 (C, N) of the columns nearest to each target column's centre.

    In float32, half the traffic of float64: a rounding that picks the next cell is one draw of
    many.

    Args:
        places: float32 (N, 6), of `affine_places`.
    """
    x, y, _ = grid.shape
    i, j = (torch.arange(n, device=places.device)[:, None] for n in (x, y))
    a, b, c, d, e, f = places.t()
    # the affine map in parts: what depends on the row, and what on the column
    from_x, from_y = (a * i + c)[:, None], (d * i + f)[:, None]
    more_x, more_y = b * j, e * j
    at_x = (from_x + more_x).floor_().clamp_(0, x - 1)
    at_y = (from_y + more_y).floor_().clamp_(0, y - 1)
    return at_x.mul_(y).add_(at_y).int().flatten(0, 1)


def affine_places(relative: Tensor, grid: VoxelGrid) -> Tensor:
    """Return the factors a … f, float64 (..., 6), that map columns of a target frame to the source.

    In cells, column i, j of the target frame is at x = a i + b j + c and y = d i + e j + f.

    Args:
        relative: (..., 4), target ego frames as seen from the source's.
    """
    ahead, left, _, yaw = relative.double().unbind(-1)
    # the factors are linear in these five numbers
    terms = [torch.cos(yaw), torch.sin(yaw), ahead, left, torch.ones_like(yaw)]
    return torch.stack(terms, dim=-1) @ _affine_terms(grid, relative.device)


@lru_cache(maxsize=16)
def _affine_terms(grid: VoxelGrid, device: torch.device) -> Tensor:
    """Return the part of cos, sin, ahead, left and 1 in each of the six factors: (5, 6)."""
    (low_x, low_y), (cell_x, cell_y) = grid.lower_m[:2], grid.cell_m[:2]
    # centre of column 0, 0, metres
    first_x, first_y = low_x + cell_x / 2, low_y + cell_y / 2
    factors = [
        [1, 0, 0, 0, 0],
        [0, -cell_y / cell_x, 0, 0, 0],
        [first_x / cell_x, -first_y / cell_x, 1 / cell_x, 0, -low_x / cell_x],
        [0, cell_x / cell_y, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [first_y / cell_y, first_x / cell_y, 0, 1 / cell_y, -low_y / cell_y],
    ]
    return torch.tensor(factors, dtype=torch.float64, device=device).t()


def _layer_weights(shift: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """Return the mixing of layers for target frames that are `shift` (N,) layers higher.

    Returns:
        weights float32 (N, Z, Z), of source layers for each target layer, and bool (N, Z), target
        layers whose centre is within the source.
    """
    # height of each target layer's centre in source layers, (N, Z)
    centre = torch.arange(layers, device=shift.device) + 0.5 + shift[:, None]
    below = torch.floor(centre - 0.5)
    part = (centre - 0.5 - below).float()[..., None]
    weights = torch.zeros(*centre.shape, layers, device=shift.device)
    # two neighbours share each layer; at the ends both are the outermost one
    for layer, share in ((below, 1 - part), (below + 1, part)):
        weights.scatter_add_(2, layer.long().clamp(0, layers - 1)[..., None], share)
    return weights, (centre >= 0) & (centre < layers)


def source_columns(relative: Tensor, grid: VoxelGrid) -> tuple[Tensor, Tensor]:
    """Return the source column under the centre of each target column.

    Args:
        relative: float64 (H, 4), target ego frames as seen from the source's.

    Returns:
        Row numbers int64 (H, C), with C for places outside, and uint8 (H, C), 1 where inside.
    """
    x, y, _ = grid.shape
    index_x, index_y = (torch.floor(place) for place in source_places(relative, grid))
    inside = within(index_x, index_y, grid)
    # C, one past the last row, marks a place outside
    rows = torch.where(inside, index_x * y + index_y, float(x * y))
    return rows.long().flatten(1), inside.flatten(1).to(torch.uint8)


def source_places(relative: Tensor, grid: VoxelGrid) -> tuple[Tensor, Tensor]:
    """Return x and y, float64 (N, X, Y), of target columns in the source, in cells."""
    x, y, _ = grid.shape
    i, j = (torch.arange(n, device=relative.device) for n in (x, y))
    return places_at(affine_places(relative, grid)[:, None, None], i[:, None], j)


def places_at(factors: Tensor, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and y of columns i, j (...) in the source, in cells, by `affine_places` (..., 6)."""
    a, b, c, d, e, f = factors.unbind(-1)
    return (a * i + c) + b * j, (d * i + f) + e * j


def within(place_x: Tensor, place_y: Tensor, grid: VoxelGrid) -> Tensor:
    """Return bool (...): places, in cells, within a grid's plane."""
    x, y, _ = grid.shape
    return (place_x >= 0) & (place_x < x) & (place_y >= 0) & (place_y < y)


def layer_slices(shift: int, layers: int) -> tuple[slice, slice]:
    """Return target layers and the source layers they read, for a target `shift` layers higher."""
    to = slice(max(0, -shift), layers - max(0, shift))
    return to, slice(max(0, shift), layers - max(0, -shift))
