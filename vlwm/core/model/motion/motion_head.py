"""The pose module: how the vehicle will move, and how sure that is.

The past poses (in the anchor frame) are read as per-frame features; the answer is a residual on the
constant twist between the last two poses, zero at the start, so an untrained module is constant
twist. Where in the plane it will be is a mixture; the rest has a log-sigma of its own for each
horizon: knowing the motion badly is worth knowing.

Per horizon: x, y (m), height of the body over the last terrain (m), yaw (rad); with six degrees of
freedom also roll and pitch, and linear and angular velocity (m/s, rad/s).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.model.losses import gaussian_nll
from vlwm.core.model.motion.planar_mixture import PlanarMixture, normal_draws
from vlwm.core.model.motion.pose_features import FRAME_FEATURES, FeatureScale, pose_features
from vlwm.core.model.motion.vehicle_state import (
    constant_motion,
    motion_error,
    others_of,
    planar_of,
    state_of,
    true_state,
)
from vlwm.core.model.torch_frames import quaternion_from_rpy

_START_LOG_SIGMA = -0.7
_MEMBERS = 2
_PARTS = 8
_START_PARTS = (-2.5, 0.5)
"""log-sigmas of the surest and the least sure part at the start, beside `_START_LOG_SIGMA`"""
_DRAWS = 256
_ONE_SIGMA = 0.6827  # of a normal distribution, within one standard deviation
_SCALES = (0.05, 20.0)
_WIDENESS = (0.5, 4.0, 43)  # from, to, steps
_SUREST = -4.0
"""2 cm, or 1°: what a grid cannot tell apart is not worth being sure of"""


@dataclass(frozen=True)
class Motion:
    """Predicted motion in the anchor frame.

    Attributes:
        state: (B, H, D): x, y, z, yaw[, roll, pitch, vx, vy, vz, wx, wy, wz], as expected.
        planar: (B, H), where x, y and yaw may be.
        others: (B, H, D − 3), log-sigmas of the rest.
    """

    state: Tensor
    planar: PlanarMixture
    others: Tensor

    @cached_property
    def log_sigma(self) -> Tensor:
        """(B, H, D)."""
        return state_of(self.planar.log_spread(), self.others)

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
        turn = quaternion_from_rpy(roll, pitch, yaw)
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


class _Member(nn.Module):
    """Features (B, F) → what one network says of them (B, S); nothing at the start."""

    def __init__(self, size_in: int, width: int, size_out: int) -> None:
        super().__init__()
        self.features = nn.Linear(size_in, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.out = nn.Linear(width, size_out)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.features(features)
        for norm, layer in zip(self.norms, self.hidden, strict=True):
            hidden = hidden + layer(functional.gelu(norm(hidden)))
        return self.out(functional.gelu(hidden))


class PoseModule(nn.Module):
    """Past poses → motion.

    Some networks, the members, learn it from different starts, each by itself; all their parts
    together are the mixture. Where windows are few they agree, and where none was they differ
    (Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation using Deep
    Ensembles, 2017).

    Attributes:
        scale: of the features, learnt from train windows before the first step.
        wideness: (H,), times which the parts of the mixture are as wide as they say: who has seen
            few windows is too sure of new ones. 1 until `calibrate`.
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
        self.others = self.size - 3
        width = 2 * channels
        self.scale = FeatureScale(history)
        size_in = FRAME_FEATURES * history + context
        size_out = future * (_PARTS * 10 + 2 * self.others)
        self.members = nn.ModuleList(_Member(size_in, width, size_out) for _ in range(_MEMBERS))
        self.context = context
        for member in self.members:
            if context:  # what is often absent begins without influence
                nn.init.zeros_(member.features.weight[:, -context:])
            parts, _ = self.answers(member.out.bias.detach())
            parts[..., 3:6] = torch.linspace(*_START_PARTS, _PARTS)[:, None]
        horizons = dt_s * torch.arange(1, future + 1, dtype=torch.float32)
        self.register_buffer("horizons_s", horizons, persistent=False)
        start = _START_LOG_SIGMA + torch.log(horizons)[:, None]
        self.register_buffer("start", start, persistent=False)
        self.register_buffer("even", normal_draws(_DRAWS).float(), persistent=False)
        self.register_buffer("wideness", torch.ones(future))
        self.register_buffer("sigma_scale", torch.ones(future, self.size))

    def answers(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Views (..., H, K, 10) and (..., H, 2, R) of outputs: of the parts of the mixture mean,
        log-sigma, shear and log-weight; shift and log-sigma of the rest of the state."""
        each = out.unflatten(-1, (self.future, -1))
        parts, rest = each.split([_PARTS * 10, 2 * self.others], dim=-1)
        return parts.unflatten(-1, (_PARTS, 10)), rest.unflatten(-1, (2, -1))

    def learn_scale(self, seen: MoreMotion, mirrored: MoreMotion) -> None:
        """Take the scale of the features from train windows and their mirror images."""
        past = [self._features(some) for some in (seen, mirrored) if len(some.poses)]
        if past:
            self.scale.learn(torch.cat(past))

    def _features(self, some: MoreMotion) -> Tensor:
        past, ground_z = some.poses[:, : self.history], some.ground_z[:, : self.history]
        return pose_features(past, ground_z, self.dt_s)

    def forward(self, poses: Tensor, ground_z: Tensor, context: Tensor | None = None) -> Motion:
        """Motion from past poses (B, P, 13), terrain (B, P) and a scene feature (B, C), if any."""
        features = self.scale(pose_features(poses, ground_z, self.dt_s))
        if self.context:
            if context is None:
                context = features.new_zeros(len(features), self.context)
            features = torch.cat([features, context], dim=-1)
        said = torch.stack([member(features) for member in self.members], dim=-2).float()
        parts, rest = self.answers(said)  # (B, M, H, K, 10), (B, M, H, 2, R)
        on_its_own = constant_motion(poses.float(), self.horizons_s, self.dt_s, self.size)
        reach = self.horizons_s[:, None]
        planar = PlanarMixture(
            torch.log_softmax(parts[..., 9], dim=-1),
            planar_of(on_its_own)[:, None, :, None] + parts[..., :3] * reach[:, None],
            _log_sigma(parts[..., 3:6], self.start[:, None]),
            parts[..., 6:9],
        ).together()
        shift, unsure = rest.mean(dim=1).unbind(-2)
        state = state_of(planar.expected(), others_of(on_its_own) + shift * reach)
        return Motion(state, planar, _log_sigma(unsure, self.start))

    def loss(self, motion: Motion, truth: Tensor) -> Tensor:
        """Negative log-likelihood of the true states (B, H, D), a component; each member's own."""
        each = motion.planar.apart(len(self.members))
        planar = -each.log_likelihood(planar_of(truth)[:, None]).mean()
        error = motion_error(motion.state, truth)
        rest = gaussian_nll(others_of(error), motion.others)
        return (planar + self.others * rest) / self.size

    def loss_of(self, more: MoreMotion) -> Tensor:
        """The loss of windows without a scene."""
        return self.loss(*self._said(more))

    def _said(self, more: MoreMotion) -> tuple[Motion, Tensor]:
        """The motion of windows without a scene, and their true states."""
        motion = self(more.poses[:, : self.history], more.ground_z[:, : self.history])
        return motion, true_state(more.poses[:, self.history :], self.size).float()

    @torch.no_grad()
    def calibrate(self, seen: MoreMotion) -> None:
        """Take `wideness` and `sigma_scale` from how the motion of unseen windows differs from what
        is said of it."""
        if not len(seen.poses):
            return
        motion, truth = self._said(seen)
        error = motion_error(motion.state, truth) / motion.log_sigma.exp()
        self.sigma_scale.copy_(error.abs().quantile(_ONE_SIGMA, dim=0).clamp(*_SCALES))
        low, high, steps = _WIDENESS
        factors = torch.logspace(0, 1, steps, high / low).to(error) * low
        likely = [
            motion.planar.widened(factor).log_likelihood(planar_of(truth)).mean(dim=0)
            for factor in factors
        ]
        self.wideness.copy_(factors[torch.stack(likely).argmax(dim=0)])

    @torch.no_grad()
    def moves(self, motion: Motion, windows: Tensor, horizons: Tensor) -> Tensor:
        """Draws (R, N, 3) of what the true x, y (m) and yaw (rad) may have beyond the expected
        ones, of the windows (R,) at the future frames `horizons` (R,)."""
        planar = motion.planar.at(windows, horizons).widened(self.wideness[horizons])
        return planar.draws(self.even) - planar_of(motion.state[windows, horizons])[:, None]


def _log_sigma(said: Tensor, start: Tensor) -> Tensor:
    """Log-sigmas from outputs beside those at the start; they end softly at `_SUREST`."""
    above = functional.softplus(said + (start - _SUREST))
    return (_SUREST + above).clamp(max=5.0)
