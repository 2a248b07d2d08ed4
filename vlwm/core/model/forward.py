"""Define what goes into a forward pass of the world model and what comes out of it.

Axes: B windows, P past and H future frames, R target frames (future frames of windows), X, Y, Z
cells, C token channels, h, w the token map, D components of a motion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vlwm.core.config.schema import Config
from vlwm.core.data.batch import Past
from vlwm.core.model.memory.branch import MemoryForecast, TargetFrames
from vlwm.core.model.motion.motion_head import Motion

_ROWS_AT_ONCE = 6
"""target frames of the full grid that a GPU has room for"""


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
    """

    past: Past
    voxels: Tensor
    tokens: Tensor | None
    free: Tensor | None = None
    known: Tensor | None = None
    classes: Tensor | None = None


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


def frames_of(chunks: list[Tensor], windows: int) -> Tensor:
    """Return logits float32 (B, H, X, Y, Z) of chunks (B · chunk, Z, X, Y)."""
    # each (B, chunk, Z, X, Y): the rows of a chunk are window by window
    frames = [chunk.unflatten(0, (windows, -1)) for chunk in chunks]
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
