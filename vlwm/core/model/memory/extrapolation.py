"""What lies beyond the past frames, guessed from what stands at their edge.

A roof that reaches the edge of what was seen goes on behind it, and so does a wall that runs into
the edge; one that runs along the edge ends there. How far each of them goes on is counted on
windows of the train split: per cell of the edge, what it and its neighbours are (`STATES`), and per
distance from the edge (`DISTANCES`), how often the cell beyond, in the same height layer, is
occupied. Where nothing was counted, the column prior speaks.

The cell of the edge is the nearest one of the past frame that comes nearest; of equals, the last
frame.

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
"""an empty cell: something above, something below, something in the four cells inward (8); an
occupied one: something above, something below, how many cells inward it goes on (16)"""
DISTANCES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""cells; the last class lies further off"""

_INWARD = 4
_RUNS = (1, 2, 4)
_PRIOR_CELLS = 20.0
"""as many cells as the column prior weighs"""


@dataclass(frozen=True)
class UnseenColumns:
    """Columns of target frames that no past frame reaches.

    Attributes:
        frame, x, y: int64 (M,), where they are.
        past: uint8 (B, P, X, Y, Z).
        source: int64 (R,), the window whose past frames each target frame has.
        factors: float64 (R, P, 6), of `memory.affine_places` in each past frame.
        lift: float64 (R, P), by how many layers a target frame is higher.
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
        """int64 (M, Z): state of the edge's cell and class of distance."""
        frames, x, y, z = self.past.shape[1:]
        place_x, place_y = places_at(self.factors[self.frame], self.x[:, None], self.y[:, None])
        off = torch.hypot(_overshoot(place_x, x), _overshoot(place_y, y))  # (M, P)
        nearest = frames - 1 - off.flip(1).argmin(dim=1, keepdim=True)
        place_x, place_y, distance, lift = (
            values.gather(1, nearest)[:, 0]
            for values in (place_x, place_y, off, self.lift[self.frame])
        )
        edge = _edge_column(place_x, place_y, (x, y))
        shift = torch.floor(0.5 + lift).long()[:, None]
        layers = (torch.arange(z, device=self.past.device) + shift).clamp(0, z - 1)
        source = self.source[self.frame] * frames + nearest[:, 0]
        state = _edge_states(self.past.flatten(0, 1))[source, edge].gather(1, layers)
        nearness = torch.bucketize(distance, _numbers(DISTANCES, distance.device).to(distance))
        return state * (len(DISTANCES) + 1) + nearness[:, None]

    def of(self, frames: Tensor) -> Tensor:
        """(M, Z) of frames (R, X, Y, Z)."""
        return frames[self.frame, self.x, self.y]

    def put(self, frames: Tensor, values: Tensor) -> None:
        """Write (M, Z) into frames (R, Z, X, Y)."""
        frames[self.frame, :, self.x, self.y] = values.to(frames)


class Extrapolation(nn.Module):
    """Occupancy beyond the edge of what was seen.

    Attributes:
        counts: float32 (2, STATES * classes of distance), cells, and those of them occupied.
    """

    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(2, STATES * (len(DISTANCES) + 1)))

    def forward(self, unseen: UnseenColumns, column: Tensor) -> Tensor:
        """Logits (M, Z); `column` (Z,) are those of the column prior."""
        cells, occupied = self.counts[:, unseen.code]
        prior = _PRIOR_CELLS * torch.sigmoid(column)
        return torch.logit((occupied + prior) / (cells + _PRIOR_CELLS), eps=1e-4)

    def count(self, unseen: UnseenColumns, truth: Tensor) -> None:
        """Count what truly stood beyond: uint8 (B, X, Y, Z)."""
        code, occupied = unseen.code.flatten(), unseen.of(truth).flatten()
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
    """The columns of some target frames beyond all past frames.

    Where they are is found at once, for which a GPU is waited for; what stands at the edge when it
    is asked for.

    Args:
        past: uint8 (B, P, X, Y, Z) of 0 and 1.
        past_ego: (R, P, 4), x, y, ground z, yaw in any common frame.
        target_ego: (R, 4), in the same frame.
        grid: the grid of all frames.
        window: int64 (R,), whose target frame each is; None where there is one of each.
    """
    here = relative_ego(past_ego.double(), target_ego.double()[:, None])
    factors = affine_places(here, grid)
    i, j = (torch.arange(n, device=past.device) for n in grid.shape[:2])
    reached = within(*places_at(factors[:, :, None, None], i[:, None], j), grid).any(dim=1)
    frame, x, y = (~reached).nonzero().unbind(1)
    source = torch.arange(len(here), device=past.device) if window is None else window
    return UnseenColumns(frame, x, y, past, source, factors, here[..., 2] / grid.cell_m[2])


@lru_cache(maxsize=16)
def _numbers(values: tuple[int, ...], device: torch.device) -> Tensor:
    """int64 (N,), there once for all: a GPU is waited for when numbers are copied to it."""
    return torch.tensor(values, device=device)


def _overshoot(place: Tensor, cells: int) -> Tensor:
    """How many cells a place lies outside of an axis."""
    return torch.maximum(-place, place - cells).clamp(min=0)


def _edge_column(place_x: Tensor, place_y: Tensor, cells: tuple[int, int]) -> Tensor:
    """Number int64 (M,) of the edge's column nearest to places (M,) outside, as `_edge_states`
    orders them."""
    x, y = cells
    along_x = place_x.floor().long().clamp(0, x - 1)
    along_y = place_y.floor().long().clamp(0, y - 1)
    ahead = y * (place_x >= 0) + along_y
    beside = 2 * y + x * (place_y >= 0) + along_x
    return torch.where(_overshoot(place_x, x) >= _overshoot(place_y, y), ahead, beside)


def _edge_states(frames: Tensor) -> Tensor:
    """States int64 (N, E, Z) of the edge's cells of frames uint8 (N, X, Y, Z).

    The sides in their order: lowest x, highest x (Y columns each), lowest y, highest y (X each).
    """
    near, far = slice(_INWARD + 1), slice(-_INWARD - 1, None)
    across = frames.transpose(1, 2)
    sides = [frames[:, near], frames[:, far].flip(1), across[:, near], across[:, far].flip(1)]
    strips = torch.cat([side.long() for side in sides], dim=2)  # (N, inward, E, Z)
    cell, inward = strips[:, 0], strips[:, 1:]
    up_to = cell.cumsum(dim=-1)
    above, below = (up_to[..., -1:] > up_to).long(), (up_to > cell).long()
    runs = _numbers(_RUNS, cell.device)
    run = torch.bucketize(inward.cumprod(dim=1).sum(dim=1), runs, right=True)
    around = 2 * below + above
    return torch.where(cell > 0, 8 + 4 * around + run, 2 * around + inward.amax(dim=1))
