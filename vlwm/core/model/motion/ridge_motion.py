"""Extrapolate a motion by ridge regression, with the errors that it made on train windows.

The regression is fitted in closed form by the baselines (`evaluation.baselines.motions.Ridge`);
this is its twin in torch, which a checkpoint keeps and a GPU runs. With few windows it foresees a
motion better than a network does, and its errors are other ones: the motion head averages over
both (`motion_head.MotionHead`).

Speed and yaw rate of the instant are continued while both rates of change decay; a linear map of
features of the past corrects the places.

Axes: B windows, P past and H future frames, K features, M errors, S steps of the integration.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vlwm.core.model.motion.vehicle_state import planar_of
from vlwm.core.model.torch_frames import ego_of, relative_ego, turn_plane, wrap_angle

_FINE_S = 0.05
"""step of the integration, as in `evaluation.baselines.motions`"""
_FAR = 6.0
"""spreads beyond which a feature does not grow"""
_HELD_S = 50.0
"""time constants above it hold a rate"""


def feature_count(frames: int) -> int:
    """Return the number of features of `frames` past frames."""
    return 4 * (frames - 1) + 12 + 4 + 1 + 8 + 36 + 4


class RidgeMotion(nn.Module):
    """The ridge motion; zero errors and no correction until `take`.

    Attributes:
        horizons_s: (H,), seconds after the last past frame.
        decay_s: (2,), time constants of acceleration and yaw rate, seconds.
        centre, scale: (K,) of the features.
        weights: (K + 1, 4 H), the last row the intercept.
        errors: (M, H, 3), ahead, left (m) and yaw (rad) in the expected ego frame.
        fitted: bool (), whether `take` has run.

    Args:
        history, future: frames.
        dt_s: seconds between frames.
        errors: M.
    """

    horizons_s: Tensor
    decay_s: Tensor
    centre: Tensor
    scale: Tensor
    weights: Tensor
    errors: Tensor
    fitted: Tensor

    def __init__(self, history: int, future: int, dt_s: float, errors: int = 64) -> None:
        super().__init__()
        self.dt_s = dt_s
        size = feature_count(history)
        real = torch.float64
        horizons = dt_s * torch.arange(1, future + 1, dtype=real)
        self.register_buffer("horizons_s", horizons, persistent=False)
        self.register_buffer("decay_s", torch.tensor([1.0, 2.0], dtype=real))
        self.register_buffer("centre", torch.zeros(size, dtype=real))
        self.register_buffer("scale", torch.ones(size, dtype=real))
        self.register_buffer("weights", torch.zeros(size + 1, 4 * future, dtype=real))
        self.register_buffer("errors", torch.zeros(errors, future, 3, dtype=real))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def take(self, values: Mapping[str, Tensor]) -> None:
        """Take what was fitted: decay_s, centre, scale, weights, and errors (any number, H, 3)."""
        for name in ("decay_s", "centre", "scale", "weights"):
            getattr(self, name).copy_(values[name])
        # repeated to fill M, or thinned evenly
        count = len(self.errors)
        rows = torch.arange(count) * len(values["errors"]) // count
        self.errors.copy_(values["errors"][rows])
        self.fitted.fill_(True)

    @torch.no_grad()
    def forward(self, poses: Tensor, ground_z: Tensor) -> Tensor:
        """Return expected x, y, yaw float64 (B, H, 3) from past poses (B, P, 13) and terrain."""
        poses, ground_z = poses.double(), ground_z.double()
        ego = ego_of(poses, ground_z)  # (B, P, 4)
        instant = self._instant(ego)
        start = self._continued(ego[:, -1], *instant)  # (B, H, 4)
        features = self._features(poses, ground_z, ego, instant)
        # (B, K) in spreads; bounded, so that a rare past cannot throw the place away
        rows = ((features - self.centre) / self.scale).clamp(-_FAR, _FAR)
        # (B, 4 H): correction of x, y, z and yaw at each horizon
        added = rows @ self.weights[:-1] + self.weights[-1]
        planar = planar_of(start + added.view_as(start))
        return torch.cat([planar[..., :2], wrap_angle(planar[..., 2:])], dim=-1)

    @torch.no_grad()
    def draws(self, expected: Tensor, horizons: Tensor, count: int) -> Tensor:
        """Return draws float64 (R, count, 3) of x, y, yaw around expected ones (R, 3).

        Args:
            horizons: int64 (R,), number of each future frame.
        """
        # evenly spread over the kept errors, the same for every frame
        rows = torch.arange(count, device=expected.device) * len(self.errors) // max(count, 1)
        ahead, left, turn = self.errors[rows][:, horizons].transpose(0, 1).unbind(-1)
        # errors are in the expected ego frame: turned with the expected heading
        x, y = turn_plane(ahead, left, expected[:, 2:])
        return expected[:, None] + torch.stack([x, y, turn], dim=-1)

    def _instant(self, ego: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return speed (m/s), its rate (m/s²) and yaw rate (rad/s), each (B,), at the last frame.

        Differences over a step are those of its middle, and are continued to the last frame.
        """
        steps = relative_ego(ego[:, :-1], ego[:, 1:])  # (B, P - 1, 4)
        # driving backwards has a negative speed
        sign = torch.where(steps[..., 0] < 0, -1.0, 1.0)
        along = torch.hypot(steps[..., 0], steps[..., 1]) * sign / self.dt_s
        turn = steps[..., 3] / self.dt_s
        if along.shape[1] < 2:
            return along[:, -1], torch.zeros_like(along[:, -1]), turn[:, -1]
        rate = (along[:, -1] - along[:, -2]) / self.dt_s
        # from the middle of the last step to the last frame
        now = along[:, -1] + 0.5 * self.dt_s * rate
        return now.clamp(min=0.0), rate, 1.5 * turn[:, -1] - 0.5 * turn[:, -2]

    def _continued(self, last: Tensor, speed: Tensor, rate: Tensor, turn: Tensor) -> Tensor:
        """Return ego frames (B, H, 4) that continue from the last one (B, 4)."""
        count = round(self.dt_s * len(self.horizons_s) / _FINE_S)
        middle = (torch.arange(count, device=last.device, dtype=torch.float64) + 0.5) * _FINE_S
        tau_v, tau_w = self.decay_s.clamp(min=1e-9).unbind()
        # integral of a rate that decays: τ (1 − exp(−t / τ)); a long τ holds the rate
        decayed = tau_v * -torch.expm1(-middle / tau_v)
        gained = torch.where(tau_v > _HELD_S, middle, decayed)
        v = (speed[:, None] + rate[:, None] * gained).clamp(min=0.0)  # (B, S)
        fading = torch.where(tau_w < _HELD_S, torch.exp(-middle / tau_w), torch.ones_like(middle))
        w = turn[:, None] * fading
        yaw = w.cumsum(dim=1) * _FINE_S
        heading = yaw - 0.5 * w * _FINE_S + last[:, 3:]  # in the middle of each step
        x = (v * heading.cos()).cumsum(dim=1) * _FINE_S
        y = (v * heading.sin()).cumsum(dim=1) * _FINE_S
        # number of the fine step that ends at each horizon
        at = (self.horizons_s / _FINE_S).round().long() - 1
        moved = torch.stack([x, y, torch.zeros_like(x), yaw], dim=-1)[:, at]
        return last[:, None] + moved

    def _features(
        self, poses: Tensor, ground_z: Tensor, ego: Tensor, instant: tuple[Tensor, Tensor, Tensor]
    ) -> Tensor:
        """Return features (B, K): places, headings, velocities, tilt, height, products."""
        last = poses[:, -1]
        velocity = poses[:, -2:, 7:13].flatten(1)
        height = last[:, 2:3] - ground_z[:, -1:]
        v, w = last[:, 7], last[:, 12]
        speed, rate, turn = instant
        # (B, 8), of which all products of two are features too
        key = torch.stack([v, w, speed, rate, turn, last[:, 8], last[:, 9], height[:, 0] / 10], 1)
        i, j = torch.triu_indices(key.shape[1], key.shape[1], device=key.device)
        third = torch.stack([v * w**2, v**2 * w, v * w.abs(), w * w.abs()], dim=1)
        parts = [ego[:, :-1].flatten(1), velocity, _up(poses[:, -2:, 3:7]).flatten(1), height, key]
        return torch.cat([*parts, key[:, i] * key[:, j], third], dim=1)


def _up(quaternion: Tensor) -> Tensor:
    """Return x and y (..., 2) of the body's up axis."""
    x, y, z, w = quaternion.unbind(-1)
    return torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x)], dim=-1)
