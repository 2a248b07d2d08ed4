"""Motions without gradient descent: where the vehicle will be, from its past poses alone.

    constant_twist   hold planar velocity and yaw rate of the last step
    turn_rate        speed and yaw rate of the instant; acceleration and yaw rate decay
    ridge            linear regression with an L2 penalty on features of the past
    analogs          ridge, corrected by its own errors on the most similar train windows

Each has the spread of its own errors: a forecast averages over draws of them, so that a wall
whose place is uncertain becomes improbable everywhere. The first three draw from the errors they
made on windows of the train split; analogs draw from the errors on the neighbours they found.

Everything is in the ego frame of the last past pose (the anchor): metres, seconds, radians.

Axes: N windows, P past frames, H horizons, M draws, K features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vlwm.core.data.batch import mirrored_poses
from vlwm.core.geometry.frames import (
    ORIENTATION,
    compose_ego,
    constant_twist,
    ego_of,
    relative_ego,
    rotate,
    wrap_angle,
)

Array = NDArray[np.float64]

DRAWS = 64
"""draws of a motion's errors that a forecast averages over"""
_ERROR_WINDOWS = 20_000
"""errors that a motion keeps, at most"""
_FINE_S = 0.05
"""step of the integration"""
_DECAYS_S = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 100.0)
"""time constants that are tried; 0 drops the term at once, 100 holds it"""
_PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)
_YAW_M = 10.0
"""metres that a radian of heading counts in distances: a wall 10 m away moves by so much"""


@dataclass(frozen=True)
class PastMotion:
    """Past poses of some windows, in the anchor frame of each.

    Attributes:
        poses: float64 (N, P, 13).
        ground_z: float64 (N, P).
        dt_s: seconds between frames.
    """

    poses: Array
    ground_z: Array
    dt_s: float

    @property
    def ego(self) -> Array:
        """Ego frames (N, P, 4)."""
        return ego_of(self.poses, self.ground_z)

    def mirrored(self) -> PastMotion:
        """Return the same windows with left and right exchanged."""
        return PastMotion(mirrored_poses(self.poses), self.ground_z, self.dt_s)


class MotionBaseline(ABC):
    """A motion with its spread.

    Attributes:
        horizons_s: (H,), seconds after the last past frame.
    """

    horizons_s: Array

    @abstractmethod
    def expected(self, past: PastMotion) -> Array:
        """Return future ego frames (N, H, 4) in the anchor frame."""

    @abstractmethod
    def draws(self, past: PastMotion) -> Array:
        """Return errors (N, M, H, 3): ahead, left (m) and yaw (rad) in the expected ego frame."""


class _WithErrors(MotionBaseline):
    """A motion whose spread is the same for every window: errors (M, H, 3) of train windows."""

    errors: Array

    def draws(self, past: PastMotion) -> Array:
        return np.broadcast_to(self.errors, (len(past.poses), *self.errors.shape))


def errors_of(expected: Array, truth: Array) -> Array:
    """Return (N, H, 3): the true ego frames (N, H, 4) as seen in the expected ones, height left
    out."""
    return relative_ego(expected, truth)[..., [0, 1, 3]]


def _thinned(errors: Array, most: int = DRAWS) -> Array:
    """Return at most `most` of errors (N, H, 3), taken at random but always the same ones."""
    if len(errors) <= most:
        return errors
    rows = np.random.default_rng(0).choice(len(errors), most, replace=False)
    return errors[np.sort(rows)]


class ConstantTwist(_WithErrors):
    """Planar velocity and yaw rate between the last two frames are held."""

    def __init__(self, horizons_s: Array, errors: Array | None = None) -> None:
        self.horizons_s = horizons_s
        self.errors = np.zeros((1, len(horizons_s), 3)) if errors is None else errors

    @classmethod
    def fit(cls, past: PastMotion, future: Array, horizons_s: Array) -> ConstantTwist:
        """Take the spread from train windows and their future ego frames (N, H, 4)."""
        motion = cls(horizons_s)
        motion.errors = _thinned(errors_of(motion.expected(past), future))
        return motion

    def expected(self, past: PastMotion) -> Array:
        ego = past.ego
        return constant_twist(ego[:, -2], ego[:, -1], past.dt_s, self.horizons_s)


class TurnRate(_WithErrors):
    """Speed v and yaw rate w of the instant; both rates of change decay.

    v(t) = v + a τ_v (1 − e^(−t/τ_v)) and w(t) = w e^(−t/τ_w): a driver who brakes or turns stops
    doing so after a while.

    Args:
        decay_s: τ_v and τ_w, seconds.
    """

    def __init__(
        self,
        horizons_s: Array,
        decay_s: tuple[float, float] = (1.0, 2.0),
        errors: Array | None = None,
    ) -> None:
        self.horizons_s, self.decay_s = horizons_s, decay_s
        self.errors = np.zeros((1, len(horizons_s), 3)) if errors is None else errors

    @classmethod
    def fit(cls, past: PastMotion, future: Array, horizons_s: Array) -> TurnRate:
        """Choose the time constants with the smallest mean distance on train windows."""
        some = slice(None, None, max(1, len(future) // 2000))
        few = PastMotion(past.poses[some], past.ground_z[some], past.dt_s)
        # the yaw rate first: with a held speed, then the acceleration, then both neighbourhoods
        best = (1.0, 2.0)
        for _ in range(2):
            for axis in (1, 0):
                tried = [(d, best[1]) if axis == 0 else (best[0], d) for d in _DECAYS_S]
                off = [
                    np.abs(_weighted(errors_of(cls(horizons_s, t).expected(few), future[some])))
                    .mean()
                    for t in tried
                ]  # fmt: skip
                best = tried[int(np.argmin(off))]
        motion = cls(horizons_s, best)
        motion.errors = _thinned(errors_of(motion.expected(past), future))
        return motion

    def expected(self, past: PastMotion) -> Array:
        speed, acceleration, turn = _instant(past)
        tau_v, tau_w = self.decay_s
        steps = round(float(self.horizons_s[-1]) / _FINE_S)
        middle = (np.arange(steps) + 0.5) * _FINE_S  # (S,) midpoint rule
        gained = middle if tau_v > 50 else tau_v * -np.expm1(-middle / max(tau_v, 1e-9))
        v = np.maximum(speed[:, None] + acceleration[:, None] * gained, 0.0)  # (N, S)
        fading = np.exp(-middle / max(tau_w, 1e-9)) if tau_w < 50 else np.ones_like(middle)
        w = turn[:, None] * fading
        yaw = np.cumsum(w, axis=1) * _FINE_S
        heading = yaw - 0.5 * w * _FINE_S  # at the middle of each step
        x = np.cumsum(v * np.cos(heading), axis=1) * _FINE_S
        y = np.cumsum(v * np.sin(heading), axis=1) * _FINE_S
        at = np.rint(self.horizons_s / _FINE_S).astype(int) - 1
        relative = np.stack([x, y, np.zeros_like(x), yaw], axis=-1)[:, at]  # (N, H, 4)
        return compose_ego(past.ego[:, -1:], relative)


def _instant(past: PastMotion) -> tuple[Array, Array, Array]:
    """Return speed along the heading (m/s), its rate (m/s²) and yaw rate (rad/s), each (N,).

    From the last three ego frames: differences over a step are those of its middle, and are
    continued to the last frame.
    """
    ego = past.ego
    steps = relative_ego(ego[:, :-1], ego[:, 1:])  # (N, P - 1, 4)
    along = np.hypot(steps[..., 0], steps[..., 1]) * np.where(steps[..., 0] < 0, -1, 1) / past.dt_s
    turn = steps[..., 3] / past.dt_s
    if along.shape[1] < 2:
        return along[:, -1], np.zeros(len(along)), turn[:, -1]
    acceleration = (along[:, -1] - along[:, -2]) / past.dt_s
    now = along[:, -1] + 0.5 * past.dt_s * acceleration
    turning = 1.5 * turn[:, -1] - 0.5 * turn[:, -2]
    return np.maximum(now, 0.0), acceleration, turning


def _weighted(errors: Array) -> Array:
    """Return errors (..., 3) with yaw in the metres it amounts to."""
    return errors * np.array([1.0, 1.0, _YAW_M])


def features_of(past: PastMotion) -> Array:
    """Return features (N, K) of the past: places, headings, velocities, tilt, height, products."""
    ego, last = past.ego, past.poses[:, -1]
    count = len(ego)
    before = ego[:, :-1].reshape(count, -1)  # places, terrain and headings before the anchor
    velocity = past.poses[:, -2:, 7:13].reshape(count, -1)
    up = rotate(past.poses[:, -2:, ORIENTATION], np.array([0.0, 0.0, 1.0]))[..., :2]
    height = (last[:, 2] - past.ground_z[:, -1])[:, None]
    speed, acceleration, turn = _instant(past)
    v, w = last[:, 7], last[:, 12]
    key = np.stack([v, w, speed, acceleration, turn, last[:, 8], last[:, 9], height[:, 0] / 10], 1)
    pairs = np.triu_indices(key.shape[1])
    products = key[:, pairs[0]] * key[:, pairs[1]]
    third = np.stack([v * w**2, v**2 * w, v * np.abs(w), w * np.abs(w)], axis=1)
    return np.concatenate(
        [before, velocity, up.reshape(count, -1), height, key, products, third], axis=1
    )


def _mirrored_future(future: Array) -> Array:
    return future * np.array([1.0, -1.0, 1.0, -1.0])


class Ridge(_WithErrors):
    """The turn-rate motion, corrected by linear regression on features of the past.

    Attributes:
        base: what is corrected.
        centre, scale: (K,) of the features.
        weights: (K + 1, H * 4), the last row the intercept.
    """

    def __init__(
        self, base: TurnRate, centre: Array, scale: Array, weights: Array, errors: Array
    ) -> None:
        self.horizons_s, self.base = base.horizons_s, base
        self.centre, self.scale, self.weights, self.errors = centre, scale, weights, errors

    @classmethod
    def fit(
        cls, base: TurnRate, past: PastMotion, future: Array, val: PastMotion, val_future: Array
    ) -> Ridge:
        """Fit on train windows and their mirror images; validation chooses the penalty."""
        sides = ((past, future), (past.mirrored(), _mirrored_future(future)))
        rows = np.concatenate([features_of(p) for p, _ in sides])  # (2 N, K)
        # what the base motion leaves over (2 N, 4 H)
        left = np.concatenate([_correction(base, p, f) for p, f in sides])
        centre, scale = rows.mean(0), rows.std(0)
        scale[scale < 1e-9] = 1.0  # a constant feature stays 0
        x = np.concatenate([(rows - centre) / scale, np.ones((len(rows), 1))], axis=1)
        gram, right = x.T @ x, x.T @ left
        best: tuple[float, Ridge] | None = None
        for penalty in _PENALTIES:
            # the intercept has no penalty
            ridge = np.diag(np.append(np.full(x.shape[1] - 1, penalty), 1e-9))
            candidate = cls(base, centre, scale, np.linalg.solve(gram + ridge, right), base.errors)
            off = float(
                np.linalg.norm(
                    _weighted(errors_of(candidate.expected(val), val_future)), axis=-1
                ).mean()
            )
            if best is None or off < best[0]:
                best = off, candidate
        assert best is not None
        motion = best[1]
        motion.errors = _thinned(errors_of(motion.expected(past), future))
        return motion

    def values(self) -> dict[str, Array]:
        """Return everything that was fitted, by name, as `model.motion.ridge_motion` takes it."""
        own = {name: getattr(self, name) for name in ("centre", "scale", "weights", "errors")}
        return {"decay_s": np.array(self.base.decay_s), **own}

    def expected(self, past: PastMotion) -> Array:
        start = self.base.expected(past)
        rows = np.clip((features_of(past) - self.centre) / self.scale, -6.0, 6.0)
        added = rows @ self.weights[:-1] + self.weights[-1]
        moved = start + added.reshape(start.shape)
        moved[..., 3] = wrap_angle(moved[..., 3])
        return moved


def _correction(base: TurnRate, past: PastMotion, future: Array) -> Array:
    """Return (N, H * 4): what the base motion lacks, in the anchor frame."""
    lacking = future - base.expected(past)
    lacking[..., 3] = wrap_angle(lacking[..., 3])
    return lacking.reshape(len(future), -1)


class Analogs(MotionBaseline):
    """The errors of the ridge motion on the most similar windows of the train split, as a motion.

    Two windows are similar where the ridge motion expects the same of both, and where speed,
    acceleration, turn rate and height agree: the metric weighs a feature by how well it predicts
    the future. A neighbour lends its *error* on top of the ridge motion rather than its path, so
    that small differences between the two pasts are accounted for.

    Attributes:
        ridge: what neighbours correct.
        keys: (N, D) of the train windows.
        errors: float64 (N, H, 3) of the ridge motion on each.
    """

    def __init__(self, ridge: Ridge, keys: Array, errors: Array, neighbours: int = DRAWS) -> None:
        self.horizons_s, self.ridge = ridge.horizons_s, ridge
        # as exact as in a checkpoint, so that a loaded one finds the same neighbours
        self.keys, self.errors = (v.astype(np.float32).astype(np.float64) for v in (keys, errors))
        self.neighbours = min(neighbours, len(keys))
        self._tree = cKDTree(self.keys)

    @classmethod
    def fit(cls, ridge: Ridge, past: PastMotion, future: Array) -> Analogs:
        """Keep the train windows (at most 20,000, evenly spaced) and their mirror images."""
        some = slice(None, None, -(-len(future) // _ERROR_WINDOWS))
        kept = PastMotion(past.poses[some], past.ground_z[some], past.dt_s)
        sides = ((kept, future[some]), (kept.mirrored(), _mirrored_future(future[some])))
        keys = np.concatenate([_keys(ridge, p) for p, _ in sides])
        errors = np.concatenate([errors_of(ridge.expected(p), f) for p, f in sides])
        return cls(ridge, keys, errors)

    def _found(self, past: PastMotion) -> Array:
        """Return errors (N, M, H, 3) of the neighbours."""
        _, rows = self._tree.query(_keys(self.ridge, past), k=self.neighbours)
        return self.errors[rows.reshape(len(past.poses), -1)]

    def expected(self, past: PastMotion) -> Array:
        start, mean = self.ridge.expected(past), self._found(past).mean(axis=1)
        shift = np.concatenate(
            [mean[..., :2], np.zeros_like(mean[..., :1]), mean[..., 2:]], axis=-1
        )
        return compose_ego(start, shift)

    def draws(self, past: PastMotion) -> Array:
        found = self._found(past)
        mean = found.mean(axis=1, keepdims=True)
        off = found - mean
        # the mean turned the expected frame: errors are wanted in its axes
        cos, sin = np.cos(mean[..., 2]), np.sin(mean[..., 2])
        ahead = cos * off[..., 0] + sin * off[..., 1]
        left = -sin * off[..., 0] + cos * off[..., 1]
        return np.stack([ahead, left, off[..., 2]], axis=-1)


def _keys(ridge: Ridge, past: PastMotion) -> Array:
    """Return (N, D): expected places and headings, and the state of the instant, in metres."""
    expected = _weighted(ridge.expected(past)[..., [0, 1, 3]])
    speed, acceleration, turn = _instant(past)
    last = past.poses[:, -1]
    state = np.stack(
        [speed, 2.0 * acceleration, _YAW_M * turn, _YAW_M * last[:, 12],
         2.0 * np.log1p(np.maximum(last[:, 2] - past.ground_z[:, -1], 0.0))], axis=1,
    )  # fmt: skip
    return np.concatenate([0.5 * expected.reshape(len(expected), -1), state], axis=1)


def energy_score(motion: MotionBaseline, past: PastMotion, future: Array) -> float:
    """Return the mean energy score of a motion's draws against what happened; lower is better.

    E|X − y| − ½ E|X − X′| in metres (Gneiting and Raftery, JASA 102, 2007): proper, so that
    spread that is too wide or too narrow costs as a wrong mean does.
    """
    truth = _weighted(errors_of(motion.expected(past), future))  # (N, H, 3)
    draws = _weighted(motion.draws(past))  # (N, M, H, 3)
    off = np.linalg.norm(draws - truth[:, None], axis=-1).mean(axis=1)  # (N, H)
    shuffled = np.roll(draws, max(1, draws.shape[1] // 3), axis=1)
    apart = np.linalg.norm(draws - shuffled, axis=-1).mean(axis=1)
    return float((off - 0.5 * apart).mean())
