"""Compute the places that ONNX graphs read, in float64, with NumPy alone.

Which cell of a past frame a future cell reads, and what no past frame reaches. TensorRT knows no
float64, and float32 would read other cells than the model does. `vlwm export --onnx` writes copies
of this file, `vehicle_motion.py` and `geometry/frames.py` next to the graphs; they run without
vlwm.

Axes: P past frames, X, Y, Z cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

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
    cos, sin = np.cos(seen[:, 3]), np.sin(seen[:, 3])
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
