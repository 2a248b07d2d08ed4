"""Convert poses to states of a vehicle, compare states, and continue a motion.

A state is x, y, z (m), yaw (rad) and, with six degrees of freedom, roll, pitch (rad) and linear and
angular velocity (m/s, rad/s), in the frame of the poses it comes from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlwm.core.model.torch_frames import heading_of, rpy_of, turn_plane, wrap_angle


def motion_error(state: Tensor, truth: Tensor) -> Tensor:
    """Return the difference of states (..., D), angles wrapped."""
    error = state - truth
    parts = [error[..., :3], wrap_angle(error[..., 3:4])]
    if error.shape[-1] > 4:
        parts += [wrap_angle(error[..., 4:6]), error[..., 6:]]
    return torch.cat(parts, dim=-1)


def true_state(poses: Tensor, size: int) -> Tensor:
    """Return states (..., D) of poses (..., 13); a quaternion and its opposite are the same."""
    roll, pitch, yaw = rpy_of(poses[..., 3:7])
    position = poses[..., :3]
    if size == 4:
        return torch.cat([position, yaw[..., None]], dim=-1)
    angles = torch.stack([yaw, roll, pitch], dim=-1)
    return torch.cat([position, angles, poses[..., 7:13]], dim=-1)


def planar_of(state: Tensor) -> Tensor:
    """Return x, y, yaw (..., 3) of states (..., D)."""
    return torch.stack([state[..., 0], state[..., 1], state[..., 3]], dim=-1)


def others_of(state: Tensor) -> Tensor:
    """Return the other components (..., D − 3) of states: height, then those after yaw."""
    return torch.cat([state[..., 2:3], state[..., 4:]], dim=-1)


def state_of(planar: Tensor, others: Tensor) -> Tensor:
    """Return states (..., D) from their `planar_of` and `others_of`."""
    parts = [planar[..., :2], others[..., :1], planar[..., 2:], others[..., 1:]]
    return torch.cat(parts, dim=-1)


def constant_motion(poses: Tensor, horizons_s: Tensor, dt_s: float, size: int) -> Tensor:
    """Return states (B, H, D) after continuing as between the last two past poses (B, P, 13).

    Planar motion is an exact arc, height continues linearly, attitude and velocities turn with the
    vehicle. The chord of an arc is off the heading at its start by half of the turn, and shorter
    than the arc by sin(turn / 2) / (turn / 2): so each future chord is the last one, turned and
    stretched.

    Args:
        horizons_s: (H,), seconds after the last pose.
        dt_s: seconds between the past poses.
        size: D, 4 or 12.
    """
    # (B, 13) each
    before, last = poses[:, -2:].unbind(1)
    yaws = heading_of(poses[:, -2:, 3:7])
    step = wrap_angle(yaws[:, 1:] - yaws[:, :1])  # (B, 1)
    ratio = horizons_s / dt_s  # (H,)
    turn = step * ratio  # (B, H), turn up to each horizon
    # angle from the last chord to the future one, and its length in lengths of the last one
    off = (turn + step) / 2
    longer = ratio * torch.sinc(turn / (2 * torch.pi)) / torch.sinc(step / (2 * torch.pi))
    # last step in the outer frame (B, 1, 3): turned and stretched, it is the step to each horizon
    shift = last[:, None, :3] - before[:, None, :3]
    x, y = turn_plane(shift[..., 0] * longer, shift[..., 1] * longer, off)
    moved = torch.stack([x, y, shift[..., 2] * ratio], dim=-1)
    state = torch.cat([last[:, None, :3] + moved, (yaws[:, 1:] + turn)[..., None]], dim=-1)
    if size == 4:
        return state
    roll, pitch, _ = rpy_of(last[:, 3:7])
    # tilt stays, velocities turn with the heading, vertical and angular rates stay
    tilt = torch.stack([roll, pitch], -1)[:, None].expand(-1, len(horizons_s), -1)
    velocity = torch.stack(turn_plane(last[:, 7:8], last[:, 8:9], turn), dim=-1)
    rest = last[:, None, 9:13].expand(-1, len(horizons_s), -1)
    return torch.cat([state, tilt, velocity, rest], dim=-1)
