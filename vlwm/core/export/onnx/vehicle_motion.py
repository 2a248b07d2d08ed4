"""Compute what the graph of the motion leaves outside, in float64, with NumPy alone.

The features of the past poses, the motions that need no network, and the poses of states. A copy of
this file stands next to the graphs, as `runtime.py` says.

Axes: P past and H future frames, D components of a state.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from vlwm.core.geometry import frames


def constant_motion(poses: np.ndarray, future: int, size: int) -> np.ndarray:
    """Return states (H, D) after continuing as between the last two poses (P, 13), on an arc."""
    ratio, yaw, last = np.arange(1, future + 1.0), frames.heading_of(poses[-2:, 3:7]), poses[-1]
    step = frames.wrap_angle(yaw[1] - yaw[0])
    turn, shift = step * ratio, last[:3] - poses[-2, :3]
    # chord over arc: a step on a circle is shorter than its way
    longer = ratio * np.sinc(turn / (2 * np.pi)) / np.sinc(step / (2 * np.pi))
    x, y = turn_plane(shift[0] * longer, shift[1] * longer, (turn + step) / 2)
    parts = [last[0] + x, last[1] + y, last[2] + shift[2] * ratio, yaw[1] + turn]
    if size == 12:
        qx, qy, qz, qw = last[3:7]
        roll = np.arctan2(2 * (qw * qx + qy * qz), 1 - 2 * (qx * qx + qy * qy))
        pitch = np.arcsin(np.clip(2 * (qw * qy - qz * qx), -1, 1))
        level = np.ones_like(ratio)
        parts += [roll * level, pitch * level, *turn_plane(last[7], last[8], turn)]
        parts += [value * level for value in last[9:13]]
    return np.stack(parts, axis=-1)


def ridge_motion(
    poses: np.ndarray, ground: np.ndarray, fitted: dict[str, np.ndarray], dt_s: float, future: int
) -> np.ndarray:
    """Return x, y, yaw (H, 3) of the ridge motion, as `ridge_motion.RidgeMotion` computes them.

    Args:
        fitted: decay_s, centre, scale and weights of the export.
    """
    ego = frames.ego_of(poses, ground)
    steps = frames.relative_ego(ego[:-1], ego[1:])
    along = np.hypot(steps[:, 0], steps[:, 1]) * np.where(steps[:, 0] < 0, -1.0, 1.0) / dt_s
    speed, rate, turn = along[-1], 0.0, steps[-1, 3] / dt_s
    if len(along) > 1:  # differences over a step are those of its middle
        rate = (along[-1] - along[-2]) / dt_s
        speed = max(along[-1] + 0.5 * dt_s * rate, 0.0)
        turn = (1.5 * steps[-1, 3] - 0.5 * steps[-2, 3]) / dt_s
    fine = 0.05  # s
    middle = (np.arange(round(future * dt_s / fine)) + 0.5) * fine
    tau_v, tau_w = np.maximum(fitted["decay_s"], 1e-9)
    gained = middle if tau_v > 50 else tau_v * -np.expm1(-middle / tau_v)
    v = np.maximum(speed + rate * gained, 0.0)
    w = turn * (np.exp(-middle / tau_w) if tau_w < 50 else np.ones_like(middle))
    yaw = np.cumsum(w) * fine
    heading = yaw - 0.5 * w * fine + ego[-1, 3]
    at = np.rint(dt_s * np.arange(1, future + 1) / fine).astype(int) - 1
    moved = [np.cumsum(v * part) * fine for part in _cos_sin(heading)]
    start = ego[-1] + np.stack([*moved, 0 * yaw, yaw], -1)[at]
    last, (x, y, z, w4) = poses[-1], np.moveaxis(poses[-2:, 3:7], -1, 0)
    up = np.stack([2 * (x * z + w4 * y), 2 * (y * z - w4 * x)], -1)
    height, fast, spin = last[2] - ground[-1], last[7], last[12]
    key = np.array([fast, spin, speed, rate, turn, last[8], last[9], height / 10])
    i, j = np.triu_indices(len(key))
    third = [fast * spin**2, fast**2 * spin, fast * abs(spin), spin * abs(spin)]
    parts = [ego[:-1].ravel(), poses[-2:, 7:13].ravel(), up.ravel(), [height], key, key[i] * key[j]]
    features = (np.concatenate([*parts, third]) - fitted["centre"]) / fitted["scale"]
    added = np.clip(features, -6, 6) @ fitted["weights"][:-1] + fitted["weights"][-1]
    places = start + added.reshape(start.shape)
    return np.stack([places[:, 0], places[:, 1], frames.wrap_angle(places[:, 3])], -1)


def _cos_sin(angle: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    return np.cos(angle), np.sin(angle)


def turn_plane(x: np.ndarray, y: np.ndarray, yaw: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    cos, sin = _cos_sin(yaw)
    return cos * x - sin * y, sin * x + cos * y


def poses_of(state: np.ndarray) -> np.ndarray:
    """Return poses (H, 13) of states (H, D); what is not predicted is level and at rest."""
    full = np.zeros((len(state), 12))
    full[:, : state.shape[1]] = state
    turn = frames.quaternion_from_rpy(full[:, 4], full[:, 5], full[:, 3])
    return np.concatenate([full[:, :3], turn, full[:, 6:]], -1)


def pose_features(poses: np.ndarray, ground: np.ndarray, dt_s: float) -> np.ndarray:
    """Return per-frame features (P, 22), as `pose_features.pose_features` computes them."""
    place = (poses[:, :3] - np.stack([0 * ground, 0 * ground, ground], -1)) / 10
    speed, (x, y, z, w) = poses[:, 7:10] / 10, np.moveaxis(poses[:, 3:7], -1, 0)
    yaw = frames.heading_of(poses[:, 3:7])
    attitude = np.stack([*_cos_sin(yaw), 2 * (x * z + w * y), 2 * (y * z - w * x)], -1)
    own = np.stack(turn_plane(speed[:, 0], speed[:, 1], -yaw), -1)
    change = np.diff(np.concatenate([place, speed, yaw[:, None]], -1), axis=0)
    change = np.concatenate([np.zeros((1, 7)), change])
    rates = [change[:, :3], 2 * change[:, 3:6], frames.wrap_angle(change[:, 6:])]
    changed = np.concatenate(rates, -1) / dt_s
    parts = [place, attitude, speed, poses[:, 10:13], own, changed]
    return np.concatenate(parts, -1)
