"""A batch of windows as evaluation sees it: voxels and ego frames, the past apart from the future.

Everything is in the ego frame of the last past pose (the anchor), as the data set hands it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from vlwm.core.evaluation.baselines.warps import PastFrames
from vlwm.core.evaluation.zones import SeenPast
from vlwm.core.geometry.frames import ego_of
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.bit_packing import unpack_bits

if TYPE_CHECKING:
    from vlwm.core.data.batch import Batch


@dataclass(frozen=True)
class WindowShape:
    """Frames of a window.

    Attributes:
        history, future: frames.
        dt_s: seconds between frames.
        observed: the past is what a sensor saw (`WindowDataset`).
    """

    history: int
    future: int
    dt_s: float
    observed: bool = False

    @property
    def horizons_s(self) -> np.ndarray:
        """(H,) seconds after the last past frame."""
        return self.dt_s * np.arange(1, self.future + 1)


def past_frames(bits: Tensor, poses: Tensor, ground_z: Tensor, grid: VoxelGrid) -> PastFrames:
    """Return the past of one window.

    Args:
        bits: uint8 (F, packed_bytes).
        poses: (F, 13).
        ground_z: (F,).
        grid: the grid.
    """
    own = poses.double().cpu().numpy()
    return PastFrames(unpack_bits(bits, grid.shape), _ego(poses, ground_z), own)


def _ego(poses: Tensor, ground_z: Tensor) -> np.ndarray:
    return ego_of(poses.double().cpu().numpy(), ground_z.double().cpu().numpy())


@dataclass(frozen=True)
class EvalWindow:
    """One window.

    Attributes:
        past: what a forecast may know.
        truth: uint8 (H, X, Y, Z).
        future_ego: float64 (H, 4).
        last_pose: float64 (13,), the last past pose, as the vehicle believed it.
        seen: the past as a sensor saw it; None where the past is the truth.
        known: bool (H, X, Y, Z), cells whose truth is known; None: all of them.
        classes: uint8 (F + H, X, Y, Z), of past and future frames; None without classes.
    """

    past: PastFrames
    truth: Tensor
    future_ego: np.ndarray
    last_pose: np.ndarray
    seen: SeenPast | None = None
    known: Tensor | None = None
    classes: Tensor | None = None


def windows_in(batch: Batch, history: int, grid: VoxelGrid) -> Iterator[EvalWindow]:
    """Yield a batch's windows, unpacked one at a time; the first `history` frames are the past."""
    if bool(batch.symmetry.any()):
        raise ValueError("windows are scored as they are, not mirrored")
    believed = batch.past(history)
    for b, (bits, poses, ground) in enumerate(
        zip(batch.bits, batch.poses, batch.ground_z, strict=True)
    ):
        past = past_frames(bits[:history], believed.poses[b], believed.ground_z[b], grid)
        seen = None
        if believed.seen_occupied is not None and believed.seen_free is not None:
            seen = SeenPast(
                unpack_bits(believed.seen_occupied[b], grid.shape),
                unpack_bits(believed.seen_free[b], grid.shape),
                past.ego,
                _ego(poses[:history], ground[:history]),
            )
        yield EvalWindow(
            past,
            unpack_bits(bits[history:], grid.shape),
            _ego(poses[history:], ground[history:]),
            believed.poses[b, -1].double().cpu().numpy(),
            seen,
            None if batch.known is None else unpack_bits(batch.known[b, history:], grid.shape) > 0,
            None if batch.classes is None else batch.classes[b],
        )
