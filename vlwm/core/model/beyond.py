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
from functools import lru_cache

import torch
from torch import Tensor, nn

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory import relative_ego, source_places

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
class Unseen:
    """Columns of target frames that no past frame reaches.

    Attributes:
        frame, x, y: int64 (M,), where they are.
        code: int64 (M, Z), state of the edge's cell and class of distance.
    """

    frame: Tensor
    x: Tensor
    y: Tensor
    code: Tensor

    def of(self, frames: Tensor) -> Tensor:
        """(M, Z) of frames (R, X, Y, Z)."""
        return frames[self.frame, self.x, self.y]

    def put(self, frames: Tensor, values: Tensor) -> None:
        """Write (M, Z) into frames (R, Z, X, Y)."""
        frames[self.frame, :, self.x, self.y] = values.to(frames)


class Beyond(nn.Module):
    """Occupancy beyond the edge of what was seen.

    Attributes:
        counts: float32 (2, STATES * classes of distance), cells, and those of them occupied.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(2, STATES * (len(DISTANCES) + 1)))

    def forward(self, unseen: Unseen, column: Tensor) -> Tensor:
        """Logits (M, Z); `column` (Z,) are those of the column prior."""
        cells, occupied = self.counts[:, unseen.code]
        prior = _PRIOR_CELLS * torch.sigmoid(column)
        return torch.logit((occupied + prior) / (cells + _PRIOR_CELLS), eps=1e-4)

    def count(self, unseen: Unseen, truth: Tensor) -> None:
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
) -> Unseen:
    """The columns of some target frames beyond all past frames, and what stands at the edge.

    Args:
        past: uint8 (B, P, X, Y, Z) of 0 and 1.
        past_ego: (R, P, 4), x, y, ground z, yaw in any common frame.
        target_ego: (R, 4), in the same frame.
        grid: the grid of all frames.
        window: int64 (R,), whose target frame each is; None where there is one of each.
    """
    frames, x, y, z = past.shape[1:]
    here = relative_ego(past_ego.double(), target_ego.double()[:, None]).flatten(0, 1)
    index_x, index_y = (i.view(-1, frames, x, y) for i in source_places(here, grid))
    off = torch.hypot(_overshoot(index_x, x), _overshoot(index_y, y))
    reached = (index_x >= 0) & (index_x < x) & (index_y >= 0) & (index_y < y)
    to, to_x, to_y = (~reached.any(dim=1)).nonzero().unbind(1)
    off = off[to, :, to_x, to_y]
    frame = frames - 1 - off.flip(1).argmin(dim=1)
    edge = _edge_column(index_x[to, frame, to_x, to_y], index_y[to, frame, to_x, to_y], grid)
    states = _edge_states(past.flatten(0, 1))
    lift = torch.floor(0.5 + here[:, 2] / grid.cell_m[2]).long()[to * frames + frame]
    layers = (torch.arange(z, device=past.device) + lift[:, None]).clamp(0, z - 1)
    source = (to if window is None else window[to]) * frames + frame
    state = states[source, edge].gather(1, layers)
    distance = off.gather(1, frame[:, None])[:, 0]
    nearness = torch.bucketize(distance, _numbers(DISTANCES, distance.device).to(distance))
    return Unseen(to, to_x, to_y, state * (len(DISTANCES) + 1) + nearness[:, None])


@lru_cache(maxsize=16)
def _numbers(values: tuple[int, ...], device: torch.device) -> Tensor:
    """int64 (N,), there once for all: a GPU is waited for when numbers are copied to it."""
    return torch.tensor(values, device=device)


def _overshoot(place: Tensor, cells: int) -> Tensor:
    """How many cells a place lies outside of an axis."""
    return torch.maximum(-place, place - cells).clamp(min=0)


def _edge_column(index_x: Tensor, index_y: Tensor, grid: VoxelGrid) -> Tensor:
    """Number int64 (M,) of the edge's column nearest to places (M,) outside, as `_edge_states`
    orders them."""
    x, y, _ = grid.shape
    along_x = index_x.floor().long().clamp(0, x - 1)
    along_y = index_y.floor().long().clamp(0, y - 1)
    ahead = y * (index_x >= 0) + along_y
    beside = 2 * y + x * (index_y >= 0) + along_x
    return torch.where(_overshoot(index_x, x) >= _overshoot(index_y, y), ahead, beside)


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
