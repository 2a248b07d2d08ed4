"""The pose module: how the vehicle will move, and how sure that is.

The past poses (in the anchor frame) are read as per-frame features; the answer is a residual on the
constant twist between the last two poses, zero at the start, so an untrained module is constant
twist. Each horizon has its own log-sigma: knowing the motion badly is worth knowing.

Per horizon: x, y (m), height of the body over the last terrain (m), yaw (rad); with six degrees of
freedom also roll and pitch, and linear and angular velocity (m/s, rad/s).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.model.losses import gaussian_nll, wrap_to_pi

FRAME_FEATURES = 22
_START_LOG_SIGMA = -0.7
_PLANAR = [0, 1, 3]  # x, y, yaw
_DRAWS = 128
_ONE_SIGMA = 0.6827  # of a normal distribution, within one standard deviation
_SCALES = (0.05, 20.0)
_SUREST = -4.0
"""2 cm, or 1°: what a grid cannot tell apart is not worth being sure of"""


@dataclass(frozen=True)
class Motion:
    """Predicted motion in the anchor frame.

    Attributes:
        state: (B, H, D): x, y, z, yaw[, roll, pitch, vx, vy, vz, wx, wy, wz].
        log_sigma: (B, H, D).
    """

    state: Tensor
    log_sigma: Tensor

    @property
    def ego(self) -> Tensor:
        """Future ego frames (B, H, 4); the terrain is held at the last height, 0."""
        x, y, _, yaw = self.state[..., :4].unbind(-1)
        return torch.stack([x, y, torch.zeros_like(x), yaw], dim=-1)

    @property
    def poses(self) -> Tensor:
        """Future poses (B, H, 13); what is not predicted is level and as fast as the path."""
        x, y, z, yaw = self.state[..., :4].unbind(-1)
        zeros = torch.zeros_like(x)
        six = self.state.shape[-1] > 4
        roll, pitch = self.state[..., 4:6].unbind(-1) if six else (zeros, zeros)
        turn = _quaternion(roll, pitch, yaw)
        rest = self.state[..., 6:12] if six else torch.zeros(*x.shape, 6).to(x)
        return torch.cat([torch.stack([x, y, z], -1), turn, rest], dim=-1)


@dataclass(frozen=True)
class MoreMotion:
    """Windows of which only the motion is looked at: poses cost nothing beside voxels.

    Attributes:
        poses: (N, P + H, 13), in the anchor frame of each.
        ground_z: (N, P + H).
        share: of the pose loss, that these make up.
    """

    poses: Tensor
    ground_z: Tensor
    share: float


class PoseModule(nn.Module):
    """Past poses → motion.

    Attributes:
        spread: (H, _DRAWS, 3), draws of how the true motion differs from the predicted one, in
            sigmas of x, y and yaw: a normal distribution until `calibrate`.
        sigma_scale: (H, D), times which a sigma is what it says to others. The loss makes it fit a
            normal distribution; errors of vehicles have longer tails.

    Args:
        history, future: frames.
        dt_s: seconds between frames.
        channels: width.
        dof: 3 or 6.
        context: width of a scene feature that may help (0: none).
    """

    def __init__(
        self, history: int, future: int, dt_s: float, channels: int, dof: int, context: int = 0
    ) -> None:
        super().__init__()
        self.history, self.future, self.dt_s = history, future, dt_s
        self.size = 4 if dof == 3 else 12
        width = 2 * channels
        self.frames = nn.Linear(FRAME_FEATURES * history + context, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.out = nn.Linear(width, future * self.size * 2)
        if context:  # what is often absent begins without influence
            nn.init.zeros_(self.frames.weight[:, -context:])
        self.context = context
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        horizons = dt_s * torch.arange(1, future + 1, dtype=torch.float32)
        self.register_buffer("horizons_s", horizons, persistent=False)
        self.register_buffer("spread", normal_draws(_DRAWS).float().repeat(future, 1, 1))
        self.register_buffer("sigma_scale", torch.ones(future, self.size))

    def forward(self, poses: Tensor, ground_z: Tensor, context: Tensor | None = None) -> Motion:
        """Motion from past poses (B, P, 13), terrain (B, P) and a scene feature (B, C), if any."""
        features = pose_features(poses, ground_z, self.dt_s).flatten(1)
        if context is None:
            context = features.new_zeros(len(features), self.context)
        features = torch.cat([features, context], dim=-1)
        hidden = self.frames(features)
        for norm, layer in zip(self.norms, self.hidden, strict=True):
            hidden = hidden + layer(functional.gelu(norm(hidden)))
        out = self.out(functional.gelu(hidden)).float()
        shift, log_sigma = out.view(len(poses), self.future, 2, self.size).unbind(2)
        reach = self.horizons_s[:, None]
        state = constant_motion(poses.float(), self.horizons_s, self.dt_s, self.size)
        log_sigma = _START_LOG_SIGMA + torch.log(reach) + log_sigma
        return Motion(
            state + shift * reach,
            (_SUREST + functional.softplus(log_sigma - _SUREST)).clamp(max=5.0),
        )

    def loss(self, motion: Motion, truth: Tensor) -> Tensor:
        """Negative log-likelihood of the true states (B, H, D)."""
        return gaussian_nll(motion_error(motion.state, truth), motion.log_sigma)

    def loss_of(self, more: MoreMotion) -> Tensor:
        """The loss of windows without a scene."""
        motion = self(more.poses[:, : self.history], more.ground_z[:, : self.history])
        return self.loss(motion, true_state(more.poses[:, self.history :], self.size))

    @torch.no_grad()
    def calibrate(self, seen: MoreMotion) -> None:
        """Take `spread` and `sigma_scale` from how the motion of unseen windows differs from what
        is said of it.

        Errors of vehicles are peaked, have long tails, and go together: who turns more than
        foreseen is also further to the side. So the draws are errors that were seen, and their
        mirror images, evenly over the order of the two that matter most together.
        """
        if not len(seen.poses):
            return
        motion = self(seen.poses[:, : self.history], seen.ground_z[:, : self.history])
        truth = true_state(seen.poses[:, self.history :], self.size)
        error = -motion_error(motion.state, truth) / motion.log_sigma.exp()
        self.sigma_scale.copy_(error.abs().quantile(_ONE_SIGMA, dim=0).clamp(*_SCALES))
        planar = error[..., _PLANAR]
        both = torch.cat([planar, planar * planar.new_tensor([1.0, -1.0, -1.0])])
        order = (both[..., 1] + both[..., 2]).argsort(dim=0)
        place = (torch.arange(_DRAWS, device=order.device) * 2 + 1) * len(both) // (2 * _DRAWS)
        for h, rows in enumerate(order[place].unbind(1)):
            self.spread[h] = both[rows, h]

    @torch.no_grad()
    def moves(self, motion: Motion, horizons: Tensor) -> Tensor:
        """Draws (B, N, 3) of what the true x, y (m) and yaw (rad) may have beyond the predicted
        ones at the future frames `horizons` (B,)."""
        every = torch.arange(len(horizons), device=horizons.device)
        sigma = motion.log_sigma[every, horizons][:, _PLANAR].exp()
        return self.spread[horizons] * sigma[:, None]


def motion_error(state: Tensor, truth: Tensor) -> Tensor:
    """Difference of states (..., D), angles wrapped."""
    error = state - truth
    parts = [error[..., :3], wrap_to_pi(error[..., 3:4])]
    if error.shape[-1] > 4:
        parts += [wrap_to_pi(error[..., 4:6]), error[..., 6:]]
    return torch.cat(parts, dim=-1)


def normal_draws(count: int) -> Tensor:
    """Even draws float64 (count, 3) of a standard normal (Halton), symmetric about 0."""

    def halton(base: int, number: int) -> float:
        value, share = 0.0, 1.0
        while number:
            number, digit = divmod(number, base)
            share /= base
            value += share * digit
        return value

    places = range(1, count // 2 + 1)
    even = torch.tensor([[halton(b, n) for b in (2, 3, 5)] for n in places])
    half = torch.special.ndtri(even.double())
    half /= half.square().mean(dim=0).sqrt()  # so few draws would be too close together
    return torch.cat([half, -half])


def true_state(poses: Tensor, size: int) -> Tensor:
    """States (..., D) of poses (..., 13); the sign of a quaternion does not matter."""
    roll, pitch, yaw = _angles(poses[..., 3:7])
    position = poses[..., :3]
    if size == 4:
        return torch.cat([position, yaw[..., None]], dim=-1)
    angles = torch.stack([yaw, roll, pitch], dim=-1)
    return torch.cat([position, angles, poses[..., 7:13]], dim=-1)


def pose_features(poses: Tensor, ground_z: Tensor, dt_s: float) -> Tensor:
    """Per-frame features (B, P, 22) of past poses (B, P, 13) in the anchor frame.

    Position with the height above ground, heading as a vector, the up axis of the body (its tilt
    shows the acceleration), velocities there and in the vehicle's own axes, and how position,
    heading and velocity changed since the frame before (zero for the first).
    """
    position = torch.cat([poses[..., :2], (poses[..., 2] - ground_z)[..., None]], dim=-1)
    _, _, yaw = _angles(poses[..., 3:7])
    cos, sin = torch.cos(yaw)[..., None], torch.sin(yaw)[..., None]
    up = _up_axis(poses[..., 3:7])
    linear, angular = poses[..., 7:10], poses[..., 10:13]
    own = torch.cat(
        [
            cos * linear[..., :1] + sin * linear[..., 1:2],
            -sin * linear[..., :1] + cos * linear[..., 1:2],
        ],
        dim=-1,
    )
    moved = _since_last(position) / dt_s
    faster = _since_last(linear) / dt_s
    turned = wrap_to_pi(_since_last(yaw[..., None])) / dt_s
    parts = [position / 10.0, cos, sin, up[..., :2], linear / 10.0, angular, own / 10.0]
    parts += [moved / 10.0, faster / 5.0, turned]
    return torch.cat(parts, dim=-1).float()


def _since_last(values: Tensor) -> Tensor:
    first = torch.zeros_like(values[:, :1])
    return torch.cat([first, values[:, 1:] - values[:, :-1]], dim=1)


def constant_motion(poses: Tensor, horizons_s: Tensor, dt_s: float, size: int) -> Tensor:
    """States (B, H, D) reached by going on as between the last two past poses (B, P, 13).

    The anchor is the last pose's ego frame, so its place and heading are zero; planar motion is an
    exact arc, height goes on linearly, attitude and velocities turn with the vehicle.
    """
    before, last = poses[:, -2], poses[:, -1]
    _, _, yaw_before = _angles(before[:, 3:7])
    roll, pitch, yaw_last = _angles(last[:, 3:7])
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


def _angles(quaternion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Roll, pitch, yaw (...,) of quaternions x, y, z, w (..., 4)."""
    x, y, z, w = quaternion.unbind(-1)
    roll = torch.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = torch.asin((2 * (w * y - z * x)).clamp(-1.0, 1.0))
    yaw = torch.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return roll, pitch, yaw


def _up_axis(quaternion: Tensor) -> Tensor:
    x, y, z, w = quaternion.unbind(-1)
    return torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], -1)


def _quaternion(roll: Tensor, pitch: Tensor, yaw: Tensor) -> Tensor:
    cr, cp, cy = (torch.cos(a / 2) for a in (roll, pitch, yaw))
    sr, sp, sy = (torch.sin(a / 2) for a in (roll, pitch, yaw))
    parts = [
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    ]
    return torch.stack(parts, dim=-1)
