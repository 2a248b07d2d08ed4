"""Compute headings, ego frames and relative poses on tensors: the torch twin of `geometry.frames`.

Functions that exist in both files have one name and one contract, which
tests/core/model/test_torch_frames.py proves; here they keep the dtype and device of their
arguments and let gradients through. Conventions (axes, units, order of a quaternion, the thirteen
numbers of a pose) are those of `geometry.frames`.

Axes: ... any leading axes, B windows, F frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlwm.core.geometry.frames import ORIENTATION


def wrap_angle(angle: Tensor) -> Tensor:
    """Return the same angle in (−π, π]; its gradient is that of the angle."""
    # ceil(x − ½) and not round(x): an odd multiple of π goes to +π, as in `frames.wrap_angle`
    turns = torch.ceil(angle.detach() / (2 * torch.pi) - 0.5)
    return angle - 2 * torch.pi * turns


def heading_of(quaternion: Tensor) -> Tensor:
    """Return the heading (...,), (−π, π], of quaternions x, y, z, w (..., 4) of any length.

    The tangent of the heading is 2 (wz + xy) / (w² + x² − y² − z²): the imaginary over the real
    part of (w + iz)² + (x + iy)², which takes half the operations. A body that points straight up
    or down has none: 0.
    """
    x, y, z, w = quaternion.unbind(-1)
    upright = torch.complex(w, z)
    over = torch.complex(x, y)
    return torch.angle(upright * upright + over * over)


def rpy_of(quaternion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return roll, pitch and heading (...,), rad, of unit quaternions x, y, z, w (..., 4)."""
    x, y, z, w = quaternion.unbind(-1)
    roll = torch.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    # rounding may lead past ±1, where asin has no value
    pitch = torch.asin((2 * (w * y - z * x)).clamp(-1.0, 1.0))
    return roll, pitch, heading_of(quaternion)


def quaternion_from_rpy(roll: Tensor, pitch: Tensor, yaw: Tensor) -> Tensor:
    """Return unit quaternions (..., 4): roll about x, then pitch about y, then yaw about z."""
    # half angles of roll, pitch, yaw
    cr, cp, cy = (torch.cos(a / 2) for a in (roll, pitch, yaw))
    sr, sp, sy = (torch.sin(a / 2) for a in (roll, pitch, yaw))
    parts = [
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    ]
    return torch.stack(parts, dim=-1)


def turn_plane(x: Tensor, y: Tensor, yaw: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and y (...,) of vectors turned by yaw (...,), counter-clockwise from above.

    Takes and returns the components apart: half of the callers have them so, and none needs z.
    """
    # addcmul fuses the product and the sum: one pass over memory less
    cos = torch.cos(yaw)
    sin = torch.sin(yaw)
    return torch.addcmul(cos * x, sin, y, value=-1), torch.addcmul(cos * y, sin, x)


def ego_of(poses: Tensor, ground_z: Tensor) -> Tensor:
    """Return ego frames (..., 4) of poses (..., 13) over terrain of height ground_z (...)."""
    heading = heading_of(poses[..., ORIENTATION])
    return torch.stack([poses[..., 0], poses[..., 1], ground_z, heading], dim=-1)


def relative_ego(reference: Tensor, ego: Tensor) -> Tensor:
    """Return ego frames (..., 4) as seen in the ego frames `reference` (..., 4).

    Both are given in one outer frame.
    """
    x, y, z, yaw = (ego - reference).unbind(-1)
    ahead, left = turn_plane(x, y, -reference[..., 3])
    return torch.stack([ahead, left, z, wrap_angle(yaw)], dim=-1)


def step_features(ego: Tensor) -> Tensor:
    """Return features (B, F − 1, 5) of the steps between ego frames (B, F, 4).

    Each step is given in the frame that it starts from: metres ahead over 5 (about the spread of a
    step), metres to the left, metres up, sine and cosine of the turn.
    """
    # steps in the outer frame, then turned into the frame each starts from
    shift = ego[:, 1:, :3] - ego[:, :-1, :3]  # (B, F − 1, 3)
    yaw = ego[:, :-1, 3]
    ahead, left = turn_plane(shift[..., 0], shift[..., 1], -yaw)
    turn = ego[:, 1:, 3] - yaw
    parts = [ahead / 5.0, left, shift[..., 2], torch.sin(turn), torch.cos(turn)]
    return torch.stack(parts, dim=-1).float()
