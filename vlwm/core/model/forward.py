"""Define what goes into a forward pass of the world model and what comes out of it.

`SceneReader` unpacks the frames of a batch as the model reads them.

Axes: B windows, F frames, P past and H future ones, R target frames (future frames of windows),
X, Y, Z cells, C token channels, h, w the token map, D components of a motion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vlwm.core.config.schema import Config
from vlwm.core.data.batch import Past, apply_symmetry
from vlwm.core.errors import DataError
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.bit_packing import unpack_bits
from vlwm.core.model.memory.branch import MemoryForecast, TargetFrames, Walls
from vlwm.core.model.motion.motion_head import Motion
from vlwm.core.model.semantic import cells_with_class
from vlwm.core.model.torch_frames import ego_of

_ROWS_AT_ONCE = 6
"""target frames of the full grid that a GPU has room for"""
_SIGMAS = 4
"""log-sigmas of x, y, z and yaw that the refinement net reads"""
_PLANNED_LOG_SIGMA = -5.0
"""a planned motion counts as known to 7 mm"""


@dataclass(frozen=True)
class Scene:
    """The past of some windows, unpacked: all that a forward pass reads.

    Attributes:
        past: poses and terrain.
        voxels: uint8 (B, F, X, Y, Z), the P past frames first; frames after them are not read.
        tokens: (B, F, C, h, w) of the same frames; None without tokens.
        free: uint8 (B, P, X, Y, Z), cells that the past frames saw free, if the past is observed;
            else None, and a cell of `voxels` that is not occupied is free.
        known: uint8 (B, P, X, Y, Z), cells of a true past that are known; None: all of them.
        classes: uint8 (B, F, X, Y, Z), as `voxels`; None without classes.
        walls: of the past as planes; None where the memory does not read them.
    """

    past: Past
    voxels: Tensor
    tokens: Tensor | None
    free: Tensor | None = None
    known: Tensor | None = None
    classes: Tensor | None = None
    walls: Walls | None = None


def ego_of_past(past: Past) -> Tensor:
    """Return the ego frames float64 (B, P, 4) of the past.

    Not float32: they decide which cells are read.
    """
    return ego_of(past.poses.double(), past.ground_z.double())


class SceneReader:
    """Unpacks frames as a model of this config reads them, turned as their windows are.

    Args:
        config: whether the past is observed, and whether there are classes.
        grid: the grid of all frames.
    """

    def __init__(self, config: Config, grid: VoxelGrid) -> None:
        self.config = config
        self.grid = grid
        self.free_class = config.tokenizer.num_classes - 1

    def voxels(self, bits: Tensor, symmetry: Tensor) -> Tensor:
        """Return voxels uint8 (B, F, X, Y, Z) of packed frames (B, F, packed_bytes)."""
        return apply_symmetry(unpack_bits(bits, self.grid.shape), symmetry)

    def classes(self, classes: Tensor | None, voxels: Tensor, symmetry: Tensor) -> Tensor | None:
        """Return classes uint8 (B, F, X, Y, Z) as the voxels are turned; None without the task.

        Raises:
            DataError: the model forecasts classes, and the frames have none.
        """
        if not self.config.semantic:
            return None
        if classes is None:
            raise DataError(
                "this model forecasts classes, and the frames have none",
                where="classes",
                remedy="give the class of each cell, or take a model of occupied and free cells",
            )
        return cells_with_class(voxels, apply_symmetry(classes, symmetry), self.free_class)

    def known_past(self, past: Past) -> Tensor | None:
        """Return uint8 (B, P, X, Y, Z), the known cells of a true past; None: all, or observed."""
        if self.config.data.observed or past.known is None:
            return None
        return self.voxels(past.known, past.symmetry)

    def free_space(self, past: Past) -> Tensor | None:
        """Return uint8 (B, P, X, Y, Z) of what an observed past saw free; None for a true one.

        Raises:
            DataError: the model forecasts from what a sensor saw, and this past has nothing of it.
        """
        if not self.config.data.observed:
            return None
        if past.seen_free is None:
            raise DataError(
                "this model forecasts from what a sensor saw, and the past has no seen cells",
                where="seen_occupied, seen_free",
                remedy="prepare the data with vlwm prepare --observe lidar, or use a model of "
                "full frames",
            )
        return self.voxels(past.seen_free, past.symmetry)


@dataclass(frozen=True)
class RefinementInput:
    """Input of the refinement net for some target frames.

    Attributes:
        memory: the forecast that it corrects.
        condition: float32 (R, D): horizon, planned or not, sigmas of the motion, ego frame.
        tokens: predicted token maps (R, C, h, w); None without tokens.
        target: the target frames.
    """

    memory: MemoryForecast
    condition: Tensor
    tokens: Tensor | None
    target: TargetFrames


@dataclass(frozen=True)
class WorldModelOutput:
    """One forward pass.

    Attributes:
        motion: predicted from the past, also under a plan.
        ego: (B, H, 4), ego frames of the future: of the plan where there is one, else predicted.
        inputs: refinement inputs of the wanted target frames, a chunk of horizons at a time, rows
            window by window. Computed when asked for: a caller that needs the motion alone does
            not pay for the roll-out of the tokens.
    """

    motion: Motion
    ego: Tensor
    inputs: Iterator[RefinementInput]


@dataclass(frozen=True)
class Forecast:
    """The future as the model predicts it, in the anchor frame.

    Attributes:
        logits: float32 (B, H, X, Y, Z), each frame in its own (predicted or planned) ego frame.
        memory_logits: the same before the refinement net's residual.
        ego: (B, H, 4), predicted ego frames (also under a plan).
        poses: (B, H, 13), predicted.
        log_sigma: (B, H, D), of the predicted motion, calibrated on validation.
        classes: uint8 (B, H, X, Y, Z), the likeliest class of each cell if it is occupied; None
            without classes.
    """

    logits: Tensor
    memory_logits: Tensor
    ego: Tensor
    poses: Tensor
    log_sigma: Tensor
    classes: Tensor | None = None


def condition_width(future: int) -> int:
    """Return the numbers of a condition: one-hot horizon, planned or not, sigmas, ego frame."""
    return future + 1 + _SIGMAS + 4


def condition_of(target: TargetFrames, motion: Motion, along: Tensor, future: int) -> Tensor:
    """Return the vector (R, D) that holds for a whole target frame.

    Args:
        along: bool (R, 1), True for frames along a plan.
        future: H.
    """
    horizon = torch.eye(future, device=along.device)[target.horizon]  # one-hot (R, H)
    sigma = motion.log_sigma[target.window, target.horizon, :_SIGMAS].detach()
    unsure = torch.where(along, torch.full_like(sigma, _PLANNED_LOG_SIGMA), sigma)
    # divisors bring each part to about ±1
    parts = [horizon, along.float(), unsure / 5.0, target.ego / 10.0]
    return torch.cat(parts, dim=1).float()


def frames_of(chunks: list[Tensor], windows: int) -> Tensor:
    """Return logits float32 (B, H, X, Y, Z) of chunks (B · chunk, Z, X, Y)."""
    # each (B, chunk, Z, X, Y): the rows of a chunk are window by window
    frames = [chunk.unflatten(0, (windows, -1)) for chunk in chunks]
    if all(chunk.stride(1) == 1 for chunk in chunks):  # columns in one piece stay so
        columns = [chunk.permute(0, 1, 3, 4, 2) for chunk in frames]
        return (torch.cat(columns, dim=1) if len(columns) > 1 else columns[0]).float()
    whole = torch.cat(frames, dim=1) if len(frames) > 1 else frames[0]
    return whole.permute(0, 1, 3, 4, 2).float()


def frames_at_once(windows: int, device: torch.device) -> int:
    """Return how many future frames of each window a forecast makes together.

    A GPU has room for six rows at the full grid and waits less often; a CPU gains nothing.
    """
    return 1 if device.type == "cpu" else max(1, _ROWS_AT_ONCE // windows)


def reach_planes(config: Config, layers: int) -> int:
    """Return the planes of `MemoryForecast.reach`: evidence per layer where it is observed."""
    if not config.model.use_memory:
        return 0
    return layers if config.data.observed else 1
