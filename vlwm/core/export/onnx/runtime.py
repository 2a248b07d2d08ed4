"""Compute what ONNX graphs leave outside, in float64, with NumPy alone.

The motion's features and its simple forecasts, which cell of a past frame a future cell reads, and
what no past frame reaches. TensorRT knows no float64, and float32 would read other cells than the
model does. `vlwm export --onnx` writes a copy of this file and one of `geometry.frames` next to the
graphs; they run without vlwm.

Axes: P past and H future frames, F frames, X, Y, Z cells, D components of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vlwm.core.geometry import frames

Grid = dict[str, Sequence[Any]]
"""lower_m, cell_m and shape of a frame"""


def affine_factors(
    seen: np.ndarray, lower_m: Sequence[float], cell_m: Sequence[float]
) -> np.ndarray:
    """Return a … f (P, 6): column i, j is at x = a i + b j + c, y = d i + e j + f, in cells.

    Args:
        seen: (P, 4), ego frames as seen from those whose cells are read.
        lower_m, cell_m: of the grid, m.
    """
    (low_x, low_y), (cell_x, cell_y) = lower_m[:2], cell_m[:2]
    first_x, first_y = low_x + cell_x / 2, low_y + cell_y / 2  # centre of column 0, 0
    cos, sin = _cos_sin(seen[:, 3])
    at_x = first_x * cos - first_y * sin + seen[:, 0] - low_x
    at_y = first_y * cos + first_x * sin + seen[:, 1] - low_y
    factors = [cos, -sin * cell_y / cell_x, at_x / cell_x]
    factors += [sin * cell_x / cell_y, cos, at_y / cell_y]
    return np.stack(factors, axis=-1)


def places(factors: np.ndarray, cells: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y (P, X, Y) of columns by `affine_factors` (P, 6), in cells of the source."""
    i, j = np.arange(cells[0])[:, None], np.arange(cells[1])
    a, b, c, d, e, f = np.moveaxis(factors, -1, 0)[..., None, None]
    return (a * i + c) + b * j, (d * i + f) + e * j


def reading(seen: np.ndarray, grid: Grid) -> dict[str, np.ndarray]:
    """Return how maps are read at the cells of another frame, as `resampling.resampled` takes it.

    Args:
        seen: (P, 4), the ego frame as seen from those of the maps.
        grid: lower_m, cell_m and shape of a frame.
    """
    x, y, _ = grid["shape"]
    at_x, at_y = places(affine_factors(seen, grid["lower_m"], grid["cell_m"]), (x, y))
    return {
        "corners": np.stack([2 * at_y / y - 1, 2 * at_x / x - 1], axis=-1),
        "within": (at_x >= 0) & (at_x < x) & (at_y >= 0) & (at_y < y),
        **_layers(seen, grid),
    }


def column_reading(seen: np.ndarray, grid: Grid, margin: int) -> dict[str, np.ndarray]:
    """Return how columns of an observed past are read, as `resampling.read_columns` takes it.

    Args:
        seen: (P, 4), the ego frame as seen from the past ones.
        grid: lower_m, cell_m and shape of a past frame.
        margin: cells by which the frame is wider than that on each side.
    """
    x, y, _ = grid["shape"]
    lower = [v - margin * c for v, c in zip(grid["lower_m"], grid["cell_m"], strict=True)]
    wide = places(affine_factors(seen, lower, grid["cell_m"]), (x + 2 * margin, y + 2 * margin))
    # (P, U, V), places from the centre of a past frame's first cell
    u, v = (place - margin - 0.5 for place in wide)
    first = np.arange(len(seen))[:, None, None] * x * y
    rows, shares = [], []
    for at_u in (np.floor(u), np.floor(u) + 1):
        for at_v in (np.floor(v), np.floor(v) + 1):
            known = (at_u >= 0) & (at_u < x) & (at_v >= 0) & (at_v < y)
            rows.append(first + at_u.clip(0, x - 1) * y + at_v.clip(0, y - 1))
            shares.append((1 - abs(u - at_u)) * (1 - abs(v - at_v)) * known)
    return {"rows": np.stack(rows), "shares": np.stack(shares), **_layers(seen, grid)}


def _layers(seen: np.ndarray, grid: Grid) -> dict[str, np.ndarray]:
    """Return how layers of past frames are mixed in a frame, and which of it are within them."""
    z = grid["shape"][2]
    height = np.arange(z) + seen[:, 2:3] / grid["cell_m"][2]  # (P, Z), layers of the map
    below = np.floor(height)
    mixing = np.zeros((len(seen), z, z))
    rows, to = np.arange(len(seen))[:, None], np.arange(z)
    # two neighbours share a layer, at the ends both are the outermost one
    for layer, share in ((below, 1 - (height - below)), (below + 1, height - below)):
        mixing[rows, to, layer.clip(0, z - 1).astype(int)] += share
    return {"mixing": mixing, "reached": (height >= -0.5) & (height < z - 0.5)}


def unseen_columns(seen: np.ndarray, grid: Grid, distances: Sequence[float]) -> np.ndarray:
    """Return what is known of columns by the closest past frame, (4, X, Y), as `extrapolation`.

    1 where no past frame reaches; row of the nearest edge column among those of all past frames;
    layers by which the frame is higher; class of the distance.

    Args:
        seen: (P, 4), the ego frame as seen from the past ones.
        grid: lower_m, cell_m and shape of a frame.
        distances: cells, bounds of the classes.
    """
    (x, y, _), last = grid["shape"], len(seen) - 1
    at_x, at_y = places(affine_factors(seen, grid["lower_m"], grid["cell_m"]), (x, y))
    within = (at_x >= 0) & (at_x < x) & (at_y >= 0) & (at_y < y)
    off = np.hypot(_overshoot(at_x, x), _overshoot(at_y, y))
    nearest = last - off[::-1].argmin(axis=0)  # ties go to the most recent frame
    at_x, at_y, off = (np.take_along_axis(v, nearest[None], 0)[0] for v in (at_x, at_y, off))
    ahead = y * (at_x >= 0) + np.floor(at_y).clip(0, y - 1)
    sideways = 2 * y + x * (at_y >= 0) + np.floor(at_x).clip(0, x - 1)
    edge = np.where(_overshoot(at_x, x) >= _overshoot(at_y, y), ahead, sideways)
    shift = np.floor(0.5 + seen[:, 2] / grid["cell_m"][2])[nearest]
    rows = nearest * 2 * (x + y) + edge
    parts = [~within.any(axis=0), rows, shift, np.searchsorted(distances, off)]
    return np.stack([part.astype(np.int32) for part in parts])


def _overshoot(place: np.ndarray, cells: int) -> np.ndarray:
    return np.maximum(-place, place - cells).clip(min=0)


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
