"""States of a vehicle: position, attitude and velocities, and how one goes on by itself.

A state is x, y, z (m), yaw (rad) and, with six degrees of freedom, roll, pitch (rad) and linear and
angular velocity (m/s, rad/s), in the frame of the poses it comes from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlwm.core.model.losses import wrap_to_pi

PLANAR = [0, 1, 3]
"""x, y, yaw of a state"""


def motion_error(state: Tensor, truth: Tensor) -> Tensor:
    """Difference of states (..., D), angles wrapped."""
    error = state - truth
    parts = [error[..., :3], wrap_to_pi(error[..., 3:4])]
    if error.shape[-1] > 4:
        parts += [wrap_to_pi(error[..., 4:6]), error[..., 6:]]
    return torch.cat(parts, dim=-1)


def true_state(poses: Tensor, size: int) -> Tensor:
    """States (..., D) of poses (..., 13); the sign of a quaternion does not matter."""
    roll, pitch, yaw = angles_of(poses[..., 3:7])
    position = poses[..., :3]
    if size == 4:
        return torch.cat([position, yaw[..., None]], dim=-1)
    angles = torch.stack([yaw, roll, pitch], dim=-1)
    return torch.cat([position, angles, poses[..., 7:13]], dim=-1)


def constant_motion(poses: Tensor, horizons_s: Tensor, dt_s: float, size: int) -> Tensor:
    """States (B, H, D) reached by going on as between the last two past poses (B, P, 13).

    The anchor is the last pose's ego frame, so its place and heading are zero; planar motion is an
    exact arc, height goes on linearly, attitude and velocities turn with the vehicle.
    """
    before, last = poses[:, -2], poses[:, -1]
    _, _, yaw_before = angles_of(before[:, 3:7])
    roll, pitch, yaw_last = angles_of(last[:, 3:7])
    step_yaw = wrap_to_pi(yaw_last - yaw_before)
    shift = last[:, :2] - before[:, :2]
    cos, sin = torch.cos(yaw_before), torch.sin(yaw_before)
    ahead, left = cos * shift[:, 0] + sin * shift[:, 1], -sin * shift[:, 0] + cos * shift[:, 1]
    along = _turn_from_arc(torch.stack([ahead, left], -1), step_yaw)
    ratio = horizons_s / dt_s  # (H,)
    turn = step_yaw[:, None] * ratio
    planar = _arc_from_turn(along[:, None] * ratio[:, None], turn)
    cos, sin = torch.cos(yaw_last)[:, None], torch.sin(yaw_last)[:, None]
    x = last[:, :1] + cos * planar[..., 0] - sin * planar[..., 1]
    y = last[:, 1:2] + sin * planar[..., 0] + cos * planar[..., 1]
    z = last[:, 2:3] + (last[:, 2:3] - before[:, 2:3]) * ratio
    state = torch.stack([x, y, z, yaw_last[:, None] + turn], dim=-1)
    if size == 4:
        return state
    held = torch.stack([roll, pitch], -1)[:, None].expand(-1, len(horizons_s), -1)
    cos, sin = torch.cos(turn), torch.sin(turn)
    vx = cos * last[:, None, 7] - sin * last[:, None, 8]
    vy = sin * last[:, None, 7] + cos * last[:, None, 8]
    rest = last[:, None, 9:13].expand(-1, len(horizons_s), -1)
    return torch.cat([state, held, vx[..., None], vy[..., None], rest], dim=-1)


def _arc_factors(yaw: Tensor) -> tuple[Tensor, Tensor]:
    small = yaw.abs() < 1e-4
    safe = torch.where(small, torch.ones_like(yaw), yaw)
    sine = torch.where(small, 1 - yaw**2 / 6, torch.sin(safe) / safe)
    versine = torch.where(small, yaw / 2, 2 * torch.sin(safe / 2) ** 2 / safe)
    return sine, versine


def _arc_from_turn(along: Tensor, yaw: Tensor) -> Tensor:
    sine, versine = _arc_factors(yaw)
    x, y = along.unbind(-1)
    return torch.stack([sine * x - versine * y, versine * x + sine * y], -1)


def _turn_from_arc(displacement: Tensor, yaw: Tensor) -> Tensor:
    sine, versine = _arc_factors(yaw)
    x, y = displacement.unbind(-1)
    norm = sine**2 + versine**2
    return torch.stack([(sine * x + versine * y) / norm, (sine * y - versine * x) / norm], -1)


def angles_of(quaternion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Roll, pitch, yaw (...,) of quaternions x, y, z, w (..., 4)."""
    x, y, z, w = quaternion.unbind(-1)
    roll = torch.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = torch.asin((2 * (w * y - z * x)).clamp(-1.0, 1.0))
    yaw = torch.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return roll, pitch, yaw


def quaternion_of(roll: Tensor, pitch: Tensor, yaw: Tensor) -> Tensor:
    cr, cp, cy = (torch.cos(a / 2) for a in (roll, pitch, yaw))
    sr, sp, sy = (torch.sin(a / 2) for a in (roll, pitch, yaw))
    parts = [
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    ]
    return torch.stack(parts, dim=-1)
