"""Define the tensors that a model reads: windows, their past, their plan, and single frames.

Bits stay packed until they are on the device. Poses are in the ego frame of the *last past* pose
of their window (the anchor), so a model never sees where in the world it is. `Past` is a type of
its own, so that a forecast cannot read the future by accident.

Layers that a data set was not asked for are None. A cell that is neither occupied nor free is
unknown, which is never free.

Axes: B batch, F frames, H future frames, X, Y, Z cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlwm.core.geometry.frames import ORIENTATION

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

D = TypeVar("D", bound="DataclassInstance")

IDENTITY = 0
MIRROR = 4
"""symmetry codes: k quarter turns about z (0…3), plus 4 for left and right exchanged first"""


@dataclass(frozen=True)
class Past:
    """The input of a forecast, in the anchor frame.

    Attributes:
        bits: uint8 (B, F, packed_bytes), F past frames.
        poses: float32 (B, F, 13).
        ground_z: float32 (B, F), metres above the terrain under the last past pose.
        symmetry: int64 (B,), to be applied to the voxels when they are unpacked.
        known: uint8 (B, F, packed_bytes), cells whose truth is known; None: all of them.
        seen_occupied, seen_free: uint8 (B, F, packed_bytes), cells that a sensor saw a surface in
            or saw through; None without a sensor.
        believed: float32 (B, F, 13), poses as the vehicle believed them, in the ego frame of its
            last believed pose; None: the same as `poses`.
        believed_ground_z: float32 (B, F), metres above the terrain under that pose.
        classes: uint8 (B, F, X, Y, Z), semantic classes; None without them.
    """

    bits: Tensor
    poses: Tensor
    ground_z: Tensor
    symmetry: Tensor
    known: Tensor | None = None
    seen_occupied: Tensor | None = None
    seen_free: Tensor | None = None
    believed: Tensor | None = None
    believed_ground_z: Tensor | None = None
    classes: Tensor | None = None

    def to(self, device: torch.device | str) -> Past:
        return _to(self, device)


@dataclass(frozen=True)
class Plan:
    """The true future motion, given on purpose (`condition="plan"`).

    Attributes:
        ego: float32 (B, H, 4), future ego frames x, y, ground_z, yaw in the anchor frame.
        poses: float32 (B, H, 13).
    """

    ego: Tensor
    poses: Tensor

    def to(self, device: torch.device | str) -> Plan:
        return _to(self, device)


@dataclass(frozen=True)
class Batch:
    """Windows of past and future frames, in the anchor frame of each.

    Attributes:
        bits: uint8 (B, F, packed_bytes), F past and future frames; an observed past (see
            `WindowDataset`) has there what was seen occupied.
        poses: float32 (B, F, 13).
        ground_z: float32 (B, F).
        index: int64 (B,), places in the list of windows.
        symmetry: int64 (B,), to be applied to the voxels when they are unpacked; the poses have
            it already.
        known: uint8 (B, F, packed_bytes), cells whose truth is known; None: all of them.
        seen_occupied, seen_free: uint8 (B, F, packed_bytes), cells that a sensor saw a surface in
            or saw through; None without a sensor.
        classes: uint8 (B, F, X, Y, Z), semantic classes; None without them.
        believed: float32 (B, F, 13), poses as the vehicle believed them, in the ego frame of its
            last believed past pose; None: the same as `poses`.
        believed_ground_z: float32 (B, F), metres above the terrain under that pose.
    """

    bits: Tensor
    poses: Tensor
    ground_z: Tensor
    index: Tensor
    symmetry: Tensor
    known: Tensor | None = None
    seen_occupied: Tensor | None = None
    seen_free: Tensor | None = None
    classes: Tensor | None = None
    believed: Tensor | None = None
    believed_ground_z: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        return _to(self, device)

    def past(self, history: int) -> Past:
        """Return the first `history` frames, and nothing of the rest.

        The poses are those that the vehicle believed, where they differ from the true ones: a
        forecast never knows the true ones.
        """
        named = {f.name: getattr(self, f.name) for f in fields(Past) if f.name != "symmetry"}
        if self.believed is not None:
            named |= {"poses": self.believed, "ground_z": self.believed_ground_z}
        first: dict[str, Any] = {k: None if v is None else v[:, :history] for k, v in named.items()}
        return Past(symmetry=self.symmetry, **first)

    def plan(self, history: int) -> Plan:
        """Return the true motion of the frames after `history`."""
        poses = self.poses[:, history:]  # (B, H, 13)
        ground = self.ground_z[:, history:]  # (B, H)
        yaw = _heading_of(poses[..., ORIENTATION])
        return Plan(torch.stack([poses[..., 0], poses[..., 1], ground, yaw], dim=-1), poses)


@dataclass(frozen=True)
class FrameBatch:
    """Single frames for the tokenizer.

    Attributes:
        bits: uint8 (N, packed_bytes).
        index: int64 (N,), places in the store.
        symmetry: int64 (N,), to be applied to the voxels when they are unpacked.
        known: uint8 (N, packed_bytes), cells whose truth is known; None: all of them.
        classes: uint8 (N, X, Y, Z), semantic classes; None without them.
    """

    bits: Tensor
    index: Tensor
    symmetry: Tensor
    known: Tensor | None = None
    classes: Tensor | None = None

    def to(self, device: torch.device | str) -> FrameBatch:
        return _to(self, device)


def _to(value: D, device: torch.device | str) -> D:
    """Return a dataclass of tensors on a device."""
    parts = {f.name: getattr(value, f.name) for f in fields(value)}
    moved = {k: v.to(device, non_blocking=True) for k, v in parts.items() if v is not None}
    return replace(value, **moved)


def _heading_of(quaternion: Tensor) -> Tensor:
    """Return the heading (...,) of quaternions x, y, z, w (..., 4), as `frames.heading_of` does.

    `model.torch_frames.yaw_of` computes the same angle by complex numbers; the two differ in the
    last bit, and a plan keeps the rounding that checkpoints were trained with.
    """
    x, y, z, w = quaternion.unbind(-1)
    return torch.atan2(2.0 * (x * y + z * w), x * x + w * w - y * y - z * z)


def apply_symmetry(occupancy: Tensor, code: Tensor) -> Tensor:
    """Turn and mirror voxels (B, ..., X, Y, Z) by each sample's code (B,).

    Code c: left and right exchanged first where c ≥ 4 (y reversed), then c mod 4 quarter turns
    counter-clockwise seen from above. Needs a square plane for odd quarter turns.
    """
    codes = code.tolist()
    if not any(codes):
        return occupancy
    return torch.stack([_transformed(o, c) for o, c in zip(occupancy, codes, strict=True)])


def _transformed(occupancy: Tensor, code: int) -> Tensor:
    if code >= MIRROR:
        occupancy = occupancy.flip(-2)
    return torch.rot90(occupancy, code % 4, dims=(-3, -2))


def mirrored_poses(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return poses (..., 13) with left and right exchanged (y → −y); turns are pseudo-vectors."""
    signs = np.ones(13)
    signs[[1, 3, 5, 8, 10, 12]] = -1.0  # y; qx, qz; vy; wx, wz
    return poses * signs


def collate(samples: Sequence[D]) -> D:
    """Stack dataclasses of tensors; a field that is None stays None."""
    first = samples[0]
    parts = {f.name: [getattr(s, f.name) for s in samples] for f in fields(first)}
    return replace(first, **{k: torch.stack(v) for k, v in parts.items() if v[0] is not None})
