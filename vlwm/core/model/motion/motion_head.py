"""Predict the vehicle's motion from its past poses, and how uncertain that is.

The past poses (in the anchor frame) are read as per-frame features; the output is a residual on the
constant twist between the last two poses and zero at the start, so an untrained head predicts
constant twist. The place in the plane is a mixture of normal distributions; every other component
has one log-sigma for each horizon. The uncertainty is used: a forecast is averaged over it.

Without a gradient all of it is computed in float64: a draw decides which cell is read, and the last
bits of float32, which differ between libraries, would move some draws into the next cell.

With `ridge`, a part of the draws comes from a ridge regression and its errors on train windows.
Validation chooses the part, so that few windows make no worse motion than the regression alone.

Per horizon: x, y (m), height of the body over the last terrain (m), yaw (rad); with six degrees of
freedom also roll and pitch, and linear and angular velocity (m/s, rad/s).

Axes: B windows, P past and H future frames, M members, K mixture components, D components of a
state, R = D − 3 of them outside the plane, N windows without frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.model.losses import gaussian_nll
from vlwm.core.model.motion.energy_score import energy_of
from vlwm.core.model.motion.member import Member
from vlwm.core.model.motion.planar_mixture import PlanarMixture, normal_draws
from vlwm.core.model.motion.pose_features import FRAME_FEATURES, FeatureScale, pose_features
from vlwm.core.model.motion.ridge_motion import RidgeMotion
from vlwm.core.model.motion.vehicle_state import (
    constant_motion,
    motion_error,
    others_of,
    planar_of,
    state_of,
    true_state,
)
from vlwm.core.model.torch_frames import quaternion_from_rpy, wrap_angle

_START_LOG_SIGMA = -0.7
"""log-sigma after one second of an untrained head"""
_MEMBERS = 2
"""networks of the ensemble"""
_COMPONENTS = 8
"""normal distributions of a member"""
_START_SPREADS = (-2.5, 0.5)
"""log-sigmas of the narrowest and the widest component at the start, on top of
`_START_LOG_SIGMA`"""
_DRAWS = 256
"""of the motion, over which a forecast is averaged"""
_ONE_SIGMA = 0.6827
"""share of a normal distribution within one standard deviation"""
_SIGMA_SCALES = (0.05, 20.0)
"""bounds of `sigma_scale`"""
_SPREAD_SCALES = (0.5, 4.0, 43)
"""candidates of `spread_scale`: first, last, count"""
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""candidates of `network_share`"""
_SCORED_WINDOWS = 500
"""validation windows that `network_share` is chosen on"""
_LEAST_LOG_SIGMA = -4.0
"""2 cm, or 1°: below the resolution of a grid, more certainty has no use"""


@dataclass(frozen=True)
class Motion:
    """Predicted motion in the anchor frame.

    Attributes:
        state: (B, H, D): x, y, z, yaw[, roll, pitch, vx, vy, vz, wx, wy, wz], the expectation.
        planar: (B, H), the network's distribution of x, y and yaw.
        others: (B, H, R), log-sigmas of the other components.
        ridge: float64 (B, H, 3), x, y and yaw that the regression expects; None without one.
    """

    state: Tensor
    planar: PlanarMixture
    others: Tensor
    ridge: Tensor | None = None

    @cached_property
    def log_sigma(self) -> Tensor:
        """Log-sigmas (B, H, D) of all components."""
        return state_of(self.planar.log_spread(), self.others)

    @property
    def ego(self) -> Tensor:
        """Future ego frames (B, H, 4); the terrain keeps its last height, 0."""
        x, y, _, yaw = self.state[..., :4].unbind(-1)
        return torch.stack([x, y, torch.zeros_like(x), yaw], dim=-1)

    @property
    def poses(self) -> Tensor:
        """Future poses (B, H, 13); components that are not predicted are zero (level, no rates)."""
        # (B, H) each
        x, y, z, yaw = self.state[..., :4].unbind(-1)
        zeros = torch.zeros_like(x)
        six = self.state.shape[-1] > 4
        roll, pitch = self.state[..., 4:6].unbind(-1) if six else (zeros, zeros)
        # (B, H, 4); a model of three degrees of freedom is level
        turn = quaternion_from_rpy(roll, pitch, yaw)
        rates = self.state[..., 6:12] if six else torch.zeros(*x.shape, 6).to(x)
        return torch.cat([torch.stack([x, y, z], -1), turn, rates], dim=-1)


@dataclass(frozen=True)
class MotionWindows:
    """Windows without frames: poses are far cheaper to load than voxels.

    Attributes:
        poses: float32 (N, P + H, 13), in the anchor frame of each window.
        ground_z: float32 (N, P + H).
    """

    poses: Tensor
    ground_z: Tensor

    def __len__(self) -> int:
        return len(self.poses)

    def to(self, device: torch.device | str) -> MotionWindows:
        """Return the same windows on a device."""
        return MotionWindows(self.poses.to(device), self.ground_z.to(device))


@dataclass(frozen=True)
class ExtraMotion:
    """Windows without frames that train the motion head along with a batch.

    Attributes:
        windows: those windows.
        share: their share of the pose loss.
    """

    windows: MotionWindows
    share: float


class MotionHead(nn.Module):
    """Past poses to motion, by an ensemble of small networks.

    The members start from different weights and learn each by itself; the components of all of them
    together are the mixture. Near windows like those of training they agree, far from them they
    differ (Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation using
    Deep Ensembles, 2017).

    Attributes:
        scale: of the features, learned from train windows before the first step.
        spread_scale: (H,), factor applied to the width of every mixture component. Corrects the
            overconfidence of a network fitted on few windows; 1 until `calibrate` has run.
        sigma_scale: (H, D), factor from the fitted sigma to the published one. The loss assumes
            normal errors; real ones have heavier tails. 1 until `calibrate` has run.
        ridge: the regression; None without `ridge`.
        network_share: (), share of the draws that come from the network; the others come from the
            regression. 1 until `calibrate` has run. Absent without `ridge`.

    Args:
        history, future: frames.
        dt_s: seconds between frames.
        channels: width.
        dof: degrees of freedom, 3 or 6.
        context: width of a scene feature that may help (0: none).
        ridge: mix the network with a ridge regression.
    """

    horizons_s: Tensor
    start: Tensor
    even: Tensor
    spread_scale: Tensor
    sigma_scale: Tensor
    network_share: Tensor

    def __init__(
        self,
        history: int,
        future: int,
        dt_s: float,
        channels: int,
        dof: int,
        context: int = 0,
        *,
        ridge: bool = False,
    ) -> None:
        super().__init__()
        self.history = history
        self.future = future
        self.dt_s = dt_s
        self.size = 4 if dof == 3 else 12
        self.others = self.size - 3
        self.context = context
        self.scale = FeatureScale(history)
        # features of all past frames, side by side
        size_in = FRAME_FEATURES * history + context
        # per component: mean, log-sigma and shear of x, y, yaw, and a log-weight
        size_out = future * (_COMPONENTS * 10 + 2 * self.others)
        self.members = nn.ModuleList(
            Member(size_in, 2 * channels, size_out) for _ in range(_MEMBERS)
        )
        for member in cast("Iterable[Member]", self.members):
            if context:  # a context that is often absent begins without influence
                nn.init.zeros_(member.features.weight[:, -context:])
            components, _ = self.split_output(member.out.bias.detach())
            # components that start alike would stay alike: the gradient could not tell them apart
            components[..., 3:6] = torch.linspace(*_START_SPREADS, _COMPONENTS)[:, None]
        horizons = dt_s * torch.arange(1, future + 1, dtype=torch.float32)
        self.register_buffer("horizons_s", horizons, persistent=False)
        start = _START_LOG_SIGMA + torch.log(horizons)[:, None]  # (H, 1): errors grow with time
        self.register_buffer("start", start, persistent=False)
        self.register_buffer("even", normal_draws(_DRAWS).float(), persistent=False)
        self.register_buffer("spread_scale", torch.ones(future))
        self.register_buffer("sigma_scale", torch.ones(future, self.size))
        self.ridge = RidgeMotion(history, future, dt_s) if ridge else None
        if ridge:
            self.register_buffer("network_share", torch.ones(()))
        self._share_read: tuple[tuple[int, int], float] = ((0, 0), 1.0)

    def split_output(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Return views (..., H, K, 10) and (..., H, 2, R) of a member's outputs (..., S).

        Of each component mean, log-sigma and shear (3 each) and log-weight; of the components of
        the state outside the plane shift and log-sigma.
        """
        # (..., H, S / H)
        per_horizon = out.unflatten(-1, (self.future, -1))
        components, rest = per_horizon.split([_COMPONENTS * 10, 2 * self.others], dim=-1)
        return components.unflatten(-1, (_COMPONENTS, 10)), rest.unflatten(-1, (2, -1))

    def learn_scale(self, driven: MotionWindows, mirrored: MotionWindows) -> None:
        """Take the scale of the features from train windows and their mirror images."""
        past = [self._features(windows) for windows in (driven, mirrored) if len(windows)]
        # driven and mirrored together: the scale must not prefer a side
        if past:
            self.scale.learn(torch.cat(past))

    def _features(self, windows: MotionWindows) -> Tensor:
        poses = windows.poses[:, : self.history]
        return pose_features(poses, windows.ground_z[:, : self.history], self.dt_s)

    def forward(self, poses: Tensor, ground_z: Tensor, context: Tensor | None = None) -> Motion:
        """Return the motion from past poses (B, P, 13), terrain (B, P) and context (B, C).

        In float32 where gradients flow, else in float64.
        """
        real = torch.float32 if torch.is_grad_enabled() else torch.float64
        poses, ground_z = poses.to(real), ground_z.to(real)
        features = self.scale(pose_features(poses, ground_z, self.dt_s))  # (B, P · 22)
        constant = constant_motion(poses, self.horizons_s, self.dt_s, self.size)
        ridge = None if self.ridge is None else self.ridge(poses, ground_z)  # (B, H, 3)
        return self.decoded(features, constant, context, ridge)

    def decoded(
        self, features: Tensor, constant: Tensor, context: Tensor | None, ridge: Tensor | None
    ) -> Motion:
        """Return the motion from scaled features (B, P · 22) and constant motion (B, H, D)."""
        if self.context:
            if context is None:
                # windows without frames have no scene: zeros, whose weights start at zero
                context = features.new_zeros(len(features), self.context)
            features = torch.cat([features, context.to(features.dtype)], dim=-1)
        # (B, M, S)
        outputs = torch.stack([member(features) for member in self.members], dim=-2)
        outputs = outputs.to(constant.dtype)  # autocast may have lowered it
        components, rest = self.split_output(outputs)  # (B, M, H, K, 10), (B, M, H, 2, R)
        # residuals are per second: a constant error of the speed is then one number
        seconds = self.horizons_s[:, None]
        planar = PlanarMixture(
            torch.log_softmax(components[..., 9], dim=-1),
            planar_of(constant)[:, None, :, None] + components[..., :3] * seconds[:, None],
            _log_sigma(components[..., 3:6], self.start[:, None]),
            components[..., 6:9],
        ).together()  # (B, H), M · K components
        shift, log_sigma = rest.mean(dim=1).unbind(-2)  # (B, H, R) each
        expected = planar.expected()
        if ridge is not None:
            off = ridge.to(expected) - expected
            off = torch.cat([off[..., :2], wrap_angle(off[..., 2:])], dim=-1)
            expected = expected + (1 - self.network_share) * off
        state = state_of(expected, others_of(constant) + shift * seconds)
        return Motion(state, planar, _log_sigma(log_sigma, self.start), ridge)

    def loss(self, motion: Motion, truth: Tensor) -> Tensor:
        """Return the negative log-likelihood per component of true states (B, H, D).

        Each member is scored by itself: scored together, one could leave work to the others.
        """
        # (B, M, H), one mixture for each member
        members = motion.planar.apart(len(self.members))
        planar = -members.log_likelihood(planar_of(truth)[:, None]).mean()
        error = motion_error(motion.state, truth)
        rest = gaussian_nll(others_of(error), motion.others)
        return (planar + self.others * rest) / self.size

    def loss_of_windows(self, windows: MotionWindows) -> Tensor:
        """Return the loss of windows without frames."""
        return self.loss(*self._predicted(windows))

    def _predicted(self, windows: MotionWindows) -> tuple[Motion, Tensor]:
        """Return the motion of windows without frames, and their true states (N, H, D)."""
        past = windows.poses[:, : self.history]
        motion = self(past, windows.ground_z[:, : self.history])
        return motion, true_state(windows.poses[:, self.history :], self.size).float()

    @torch.no_grad()
    def calibrate(self, windows: MotionWindows) -> None:
        """Choose `spread_scale`, `network_share` and `sigma_scale` on windows that were not
        trained on."""
        if not len(windows):
            return
        motion, truth = self._predicted(windows)
        self._calibrate_spread(motion, truth)
        if self.ridge is not None and bool(self.ridge.fitted):
            self._choose_share(motion, truth)
            motion, truth = self._predicted(windows)  # the expectation depends on the share
        # so that one sigma holds the share of the errors that it would of a normal distribution
        error = motion_error(motion.state, truth) / motion.log_sigma.exp()  # (N, H, D)
        self.sigma_scale.copy_(error.abs().quantile(_ONE_SIGMA, dim=0).clamp(*_SIGMA_SCALES))

    def _calibrate_spread(self, motion: Motion, truth: Tensor) -> None:
        """Choose `spread_scale` so that the mixture gives the true places the highest likelihood,
        for each horizon."""
        low, high, count = _SPREAD_SCALES
        # candidates evenly spaced in the logarithm
        factors = torch.logspace(0, 1, count, high / low).to(truth) * low
        likely = [
            motion.planar.widened(factor).log_likelihood(planar_of(truth)).mean(dim=0)
            for factor in factors
        ]
        self.spread_scale.copy_(factors[torch.stack(likely).argmax(dim=0)])

    def _choose_share(self, motion: Motion, truth: Tensor) -> None:
        """Choose `network_share` by the energy score of the draws.

        E|X − y| − ½ E|X − X′| in metres (Gneiting and Raftery, JASA 102, 2007) is proper: a spread
        that is too wide or too narrow costs as a wrong mean does.
        """
        scores = [self._energy(motion, truth, share) for share in _SHARES]
        self.network_share.fill_(_SHARES[int(torch.stack(scores).argmin())])

    def _energy(self, motion: Motion, truth: Tensor, share: float) -> Tensor:
        """Return the mean energy score of the draws (N, H), of evenly spaced windows."""
        some = torch.arange(0, len(truth), max(1, len(truth) // _SCORED_WINDOWS)).to(truth.device)
        windows = some.repeat_interleave(self.future)
        horizons = torch.arange(self.future, device=truth.device).repeat(len(some))
        true = planar_of(truth)[windows, horizons][:, None]  # (R, 1, 3)
        return energy_of(self._draws(motion, windows, horizons, share), true).mean()

    @torch.no_grad()
    def energy(self, windows: MotionWindows) -> float:
        """Return the mean energy score of the draws on windows, in metres; lower is better."""
        motion, truth = self._predicted(windows)
        return float(self._energy(motion, truth, self._share_on_host()))

    @torch.no_grad()
    def moves(self, motion: Motion, windows: Tensor, horizons: Tensor) -> Tensor:
        """Return draws (R, N, 3) of the true x, y (m) and yaw (rad) less the expected ones.

        Args:
            windows, horizons: int64 (R,), which future frame of which window each row is.
        """
        drawn = self._draws(motion, windows, horizons, self._share_on_host())
        return drawn - planar_of(motion.state[windows, horizons])[:, None]

    def _share_on_host(self) -> float:
        """Return `network_share`, read from the device only where it has changed."""
        if self.ridge is None:
            return 1.0
        if self.network_share.is_inference():  # has no version: loaded under inference mode
            return float(self.network_share)
        # a device is not waited for: both numbers are the host's own
        version = (id(self.network_share), self.network_share._version)
        if self._share_read[0] != version:
            self._share_read = (version, float(self.network_share))
        return self._share_read[1]

    def _draws(self, motion: Motion, windows: Tensor, horizons: Tensor, share: float) -> Tensor:
        """Return draws (R, N, 3) of x, y and yaw, a share of them from the network."""
        planar = motion.planar.at(windows, horizons).widened(self.spread_scale[horizons])
        own = 2 * round(share * len(self.even) / 2)  # a draw and its opposite stay together
        drawn = planar.draws(self.even[:own])
        if motion.ridge is None or own == len(self.even):
            return drawn
        assert self.ridge is not None
        expected = motion.ridge[windows, horizons]
        others = self.ridge.draws(expected, horizons, len(self.even) - own)
        return torch.cat([drawn, others.to(drawn)], dim=1)


def _log_sigma(out: Tensor, start: Tensor) -> Tensor:
    """Return log-sigmas of outputs relative to `start`, with a soft floor and a hard ceiling."""
    above = functional.softplus(out + (start - _LEAST_LOG_SIGMA))
    return (_LEAST_LOG_SIGMA + above).clamp(max=5.0)
