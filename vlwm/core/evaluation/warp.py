"""Exact backward warp of past frames into one ego frame, fast on CPU and GPU.

Ego frames are gravity-aligned, so that a warp moves whole columns: a turn and shift in the plane
picks the source column, and the difference of ground heights shifts the layers. Columns are rows of
a table padded to whole 8-byte words, which makes the gather a copy of words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vlwm.core.geometry.frames import relative_ego
from vlwm.core.geometry.grid import VoxelGrid

_WORD = 8


@dataclass(frozen=True)
class PastRows:
    """Past frames as tables of columns.

    Attributes:
        words: int64 (F, C + 1, W): the Z bytes of each column, padded to W words; the last row
            is empty and stands for every place outside the grid.
        shape: X, Y, Z.
    """

    words: Tensor
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, occupancy: Tensor) -> PastRows:
        """Build from uint8 (F, X, Y, Z)."""
        frames, x, y, z = occupancy.shape
        columns = occupancy.reshape(frames, x * y, z)
        padded = functional.pad(columns, (0, -z % _WORD, 0, 1))
        return cls(padded.view(torch.int64), (x, y, z))

    def gather(self, frame: int, columns: Tensor) -> Tensor:
        """uint8 (C, Z): for each target column the source column, int64 (C,), C = outside."""
        rows = self.words[frame].index_select(0, columns)
        return rows.view(torch.uint8)[:, : self.shape[2]]


@dataclass(frozen=True)
class Votes:
    """What the past frames say about each cell of a target frame; all uint8 (X, Y, Z).

    Attributes:
        occupied: number of frames that call the cell occupied.
        frames: number of frames whose grid contains the cell's centre.
        last: what the last frame says, 0 where its grid does not reach.
    """

    occupied: Tensor
    frames: Tensor
    last: Tensor


def vote(rows: PastRows, past_ego: np.ndarray, target_ego: np.ndarray, grid: VoxelGrid) -> Votes:
    """Read every past frame at the cell centres of one target ego frame.

    Args:
        rows: the past frames.
        past_ego: float64 (F, 4).
        target_ego: float64 (4,), in the same frame as `past_ego`.
        grid: the grid of all frames.
    """
    x, y, z = grid.shape
    device = rows.words.device
    occupied = torch.zeros((x * y, z), dtype=torch.uint8, device=device)
    frames = torch.zeros_like(occupied)
    for frame, source in enumerate(past_ego):
        here = relative_ego(source, target_ego)
        columns, inside = source_columns(here, grid, device)
        source_rows = rows.gather(frame, columns)
        to, of = _layers(here[2], grid)
        occupied[:, to].add_(source_rows[:, of])
        frames[:, to].add_(inside[:, None])
        if frame == len(past_ego) - 1:
            last = torch.zeros_like(occupied)
            last[:, to] = source_rows[:, of]
    return Votes(occupied.view(x, y, z), frames.view(x, y, z), last.view(x, y, z))


def source_columns(
    relative: np.ndarray, grid: VoxelGrid, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The source column under the centre of each target column.

    Args:
        relative: float64 (4,): the target ego frame as seen from the source's.
        grid: the grid of both.
        device: where the answer is wanted.

    Returns:
        Row numbers, int64 (C,), with C for places outside, and uint8 (C,), 1 where inside.
    """
    x, y, _ = grid.shape
    centre_x, centre_y = (torch.as_tensor(c, device=device) for c in grid.axis_centers()[:2])
    cos, sin = float(np.cos(relative[3])), float(np.sin(relative[3]))
    place_x = (cos * centre_x + float(relative[0]))[:, None] - sin * centre_y
    place_y = (sin * centre_x + float(relative[1]))[:, None] + cos * centre_y
    index_x = ((place_x - grid.lower_m[0]) / grid.cell_m[0]).floor_()
    index_y = ((place_y - grid.lower_m[1]) / grid.cell_m[1]).floor_()
    inside = (index_x >= 0) & (index_x < x) & (index_y >= 0) & (index_y < y)
    row = torch.where(inside, index_x * y + index_y, float(x * y))
    return row.long().reshape(-1), inside.reshape(-1).to(torch.uint8)


def _layers(climb_m: float, grid: VoxelGrid) -> tuple[slice, slice]:
    """Target layers and the source layers they read, for a target frame `climb_m` higher.

    A height that is not known (NaN) reads nothing, as a place that is not known does.
    """
    layers = grid.shape[2]
    steps = np.nan_to_num(np.floor(0.5 + climb_m / grid.cell_m[2]), nan=layers)
    shift = int(np.clip(steps, -layers, layers))
    return (
        slice(max(0, -shift), layers - max(0, shift)),
        slice(max(0, shift), layers - max(0, -shift)),
    )
