"""Extrapolate beyond the edge of the past frames, from the cells at their edge.

A roof that reaches the edge of the seen area continues behind it, and so does a wall that runs into
the edge; one that runs along the edge ends there. How far each of them continues is counted on
windows of the train split: for each state of an edge cell and its neighbours (`STATES`) and each
distance from the edge (`DISTANCES`), how often the cell beyond, in the same height layer, is
occupied. States that were never counted fall back to the column prior.

Edge cell: the nearest cell of the closest past frame. Ties go to the most recent frame.

Axes: B batch, R target frames, P past frames, M columns that no past frame reaches, E columns of an
edge, X, Y, Z cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor, nn

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.warp import affine_places, places_at, within
from vlwm.core.model.torch_frames import relative_ego

STATES = 24
"""of an empty cell: anything above, anything below, anything in the four cells inward (8); of an
occupied one: anything above, anything below, how many cells inward it continues (16)"""
DISTANCES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""upper bounds of the classes of distance, in cells; one more class is beyond the last"""

INWARD = 4
"""cells inward from the edge whose run is part of a state"""
RUNS = (1, 2, 4)
PRIOR_CELLS = 20.0
"""weight of the column prior, in cells"""


@dataclass(frozen=True)
class UnseenColumns:
    """Columns of target frames that no past frame reaches.

    Attributes:
        frame, x, y: int64 (M,), target frame and column of each.
        past: uint8 (B, P, X, Y, Z).
        source: int64 (R,), row of `past` that each target frame reads.
        factors: float64 (R, P, 6), of `warp.affine_places` in each past frame.
        lift: float64 (R, P), layers by which a target frame is higher than a past one.
    """

    frame: Tensor
    x: Tensor
    y: Tensor
    past: Tensor
    source: Tensor
    factors: Tensor
    lift: Tensor

    @cached_property
    def code(self) -> Tensor:
        """Index int64 (M, Z) of `Extrapolation.counts`: state of the edge cell, distance."""
        # places of the M columns in each past frame, in cells: (M, P)
        frames, x, y, z = self.past.shape[1:]
        place_x, place_y = places_at(self.factors[self.frame], self.x[:, None], self.y[:, None])
        # distance outside of each past frame, in cells; the closest frame decides
        off = torch.hypot(_overshoot(place_x, x), _overshoot(place_y, y))  # (M, P)
        # argmin returns the first of several minima; flipped, that is the most recent frame
        nearest = frames - 1 - off.flip(1).argmin(dim=1, keepdim=True)
        place_x, place_y, distance, lift = (
            values.gather(1, nearest)[:, 0]
            for values in (place_x, place_y, off, self.lift[self.frame])
        )
        # the layer of the edge cell: the same height, whole layers up or down
        edge = _edge_column(place_x, place_y, (x, y))
        shift = torch.floor(0.5 + lift).long()[:, None]
        layers = (torch.arange(z, device=self.past.device) + shift).clamp(0, z - 1)
        source = self.source[self.frame] * frames + nearest[:, 0]
        state = _edge_states(self.past.flatten(0, 1))[source, edge].gather(1, layers)
        # class of the distance, 0…len(DISTANCES)
        nearness = torch.bucketize(distance, _numbers(DISTANCES, distance.device).to(distance))
        return state * (len(DISTANCES) + 1) + nearness[:, None]

    def of(self, frames: Tensor) -> Tensor:
        """Return the columns (M, Z) of frames (R, X, Y, Z)."""
        return frames[self.frame, self.x, self.y]

    def put(self, frames: Tensor, values: Tensor) -> None:
        """Write (M, Z) into frames (R, Z, X, Y)."""
        frames[self.frame, :, self.x, self.y] = values.to(frames)


class Extrapolation(nn.Module):
    """Estimates occupancy beyond the edge of the seen area.

    Attributes:
        counts: float32 (2, STATES · classes of distance), cells counted, and occupied ones.
    """

    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(2, STATES * (len(DISTANCES) + 1)))

    def forward(self, unseen: UnseenColumns, column: Tensor) -> Tensor:
        """Return logits (M, Z); `column` (Z,) are those of the column prior."""
        cells, occupied = self.counts[:, unseen.code]
        # the posterior mean of a share under a prior worth `PRIOR_CELLS` cells
        prior = PRIOR_CELLS * torch.sigmoid(column)
        return torch.logit((occupied + prior) / (cells + PRIOR_CELLS), eps=1e-4)

    def count(self, unseen: UnseenColumns, truth: Tensor, known: Tensor | None = None) -> None:
        """Count the true cells uint8 (B, X, Y, Z) beyond the edge.

        Args:
            known: bool or uint8 (B, X, Y, Z), cells whose truth is known; None: all of them.
        """
        code, occupied = unseen.code.flatten(), unseen.of(truth).flatten()
        if known is not None:
            counted = unseen.of(known).flatten() > 0
            code, occupied = code[counted], occupied[counted]
        size = self.counts.shape[1]
        for row, found in zip(self.counts, (code, code[occupied > 0]), strict=True):
            row += torch.bincount(found, minlength=size)


@torch.no_grad()
def unseen_columns(
    past: Tensor,
    past_ego: Tensor,
    target_ego: Tensor,
    grid: VoxelGrid,
    window: Tensor | None = None,
) -> UnseenColumns:
    """Return the columns of some target frames that are beyond all past frames.

    Their places are found at once, for which the host waits for a GPU; the states of the edge are
    computed when `code` is read.

    Args:
        past: uint8 (B, P, X, Y, Z) of 0 and 1.
        past_ego: (R, P, 4), x, y, ground z, yaw in any common frame.
        target_ego: (R, 4), in the same frame.
        grid: the grid of all frames.
        window: int64 (R,), row of the window of each target frame; None for one of each.
    """
    # target frames as seen from each past frame: (R, P, 4), float64 for exact cell borders
    here = relative_ego(past_ego.double(), target_ego.double()[:, None])
    factors = affine_places(here, grid)
    # a column is seen if its centre is within any past frame: bool (R, X, Y)
    i, j = (torch.arange(n, device=past.device) for n in grid.shape[:2])
    reached = within(*places_at(factors[:, :, None, None], i[:, None], j), grid).any(dim=1)
    frame, x, y = (~reached).nonzero().unbind(1)
    source = torch.arange(len(here), device=past.device) if window is None else window
    return UnseenColumns(frame, x, y, past, source, factors, here[..., 2] / grid.cell_m[2])


@lru_cache(maxsize=16)
def _numbers(values: tuple[int, ...], device: torch.device) -> Tensor:
    """Return int64 (N,), made once for each device: copying numbers to a GPU waits for it."""
    return torch.tensor(values, device=device)


def _overshoot(place: Tensor, cells: int) -> Tensor:
    """Return by how many cells a place is outside of an axis; 0 inside."""
    return torch.maximum(-place, place - cells).clamp(min=0)


def _edge_column(place_x: Tensor, place_y: Tensor, cells: tuple[int, int]) -> Tensor:
    """Return the number int64 (M,) of the edge column nearest to places (M,) outside.

    Numbered as `_edge_states` orders them: the sides of x first, then those of y.
    """
    x, y = cells
    along_x = place_x.floor().long().clamp(0, x - 1)
    along_y = place_y.floor().long().clamp(0, y - 1)
    # number on the sides of x (first y low, then y high), and on the sides of y after them
    ahead = y * (place_x >= 0) + along_y
    sideways = 2 * y + x * (place_y >= 0) + along_x
    return torch.where(_overshoot(place_x, x) >= _overshoot(place_y, y), ahead, sideways)


def _edge_states(frames: Tensor) -> Tensor:
    """Return states int64 (N, E, Z) of the edge cells of frames uint8 (N, X, Y, Z).

    Sides in order: lowest x, highest x (Y columns each), lowest y, highest y (X columns each).
    """
    near, far = slice(INWARD + 1), slice(-INWARD - 1, None)
    # each side as a strip that begins at the edge and goes inward
    across = frames.transpose(1, 2)
    sides = [frames[:, near], frames[:, far].flip(1), across[:, near], across[:, far].flip(1)]
    strips = torch.cat([side.long() for side in sides], dim=2)  # (N, inward, E, Z)
    cell, inward = strips[:, 0], strips[:, 1:]
    # occupied cells up to each layer tell whether any is below or above
    up_to = cell.cumsum(dim=-1)
    above, below = (up_to[..., -1:] > up_to).long(), (up_to > cell).long()
    # class of the number of occupied cells in a row, inward from the edge
    runs = _numbers(RUNS, cell.device)
    run = torch.bucketize(inward.cumprod(dim=1).sum(dim=1), runs, right=True)
    around = 2 * below + above
    return torch.where(cell > 0, 8 + 4 * around + run, 2 * around + inward.amax(dim=1))
