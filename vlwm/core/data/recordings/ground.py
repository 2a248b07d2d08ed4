"""Estimate the terrain under a vehicle from the lowest returns around it.

The lowest returns of each square are a surface that follows the ground where it was seen, and walls
and roofs elsewhere: never below it. A plane is fitted to its lower envelope by quantile regression
(Koenker and Bassett 1978), so walls and a few reflections from below have no influence, and where
squares near the vehicle agree with the plane, they correct it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.placing import PlacedScan

Floats = NDArray[np.float64]

_SQUARE_M = 3.0
_REACH_M = 60.0  # farther returns do not describe the terrain here
_NEAR_M = 12.0
_FEWEST = 8  # squares with returns that a slope is fitted to
_QUANTILE = 0.12  # share of the squares that may be below the terrain
_LOW_SHARE = 0.2  # of the returns in a square that are below its height
_OUTLIER_M = 1.5
_OFFSET = 1 << 20  # keeps the numbers of the squares positive
_ROUNDS = 25
_STEEPEST = 0.3  # of the plane; a street is not steeper


def ground_under(scans: Sequence[PlacedScan], place: Floats) -> float:
    """Return the height of the terrain under `place` (3,), world frame, metres; NaN if unseen."""
    parts = [s.points[np.abs(s.points[:, :2] - place[:2]).max(axis=1) < _REACH_M] for s in scans]
    points = np.concatenate([p[p[:, 2] < place[2] + 1.0] for p in parts] or [np.empty((0, 3))])
    if not len(points):
        return float("nan")
    away, low = _lowest(points - [place[0], place[1], 0.0])  # (C, 2), (C,)
    if len(low) < _FEWEST:  # a room, or a camera that looks at one place: no slope can be fitted
        return float(np.quantile(low, _QUANTILE))
    level, slope = _lower_plane(away, low)
    # Squares near the vehicle that follow the plane know the terrain better than the plane.
    rest = low - (level + away @ slope)
    near = (np.linalg.norm(away, axis=1) < _NEAR_M) & (np.abs(rest) < 0.6)
    return float(level + np.median(rest[near])) if near.sum() >= 3 else float(level)


def _lowest(points: Floats) -> tuple[Floats, Floats]:
    """Return the centres (C, 2) of squares with returns and a low height (C,) in each."""
    squares = np.floor(points[:, :2] / _SQUARE_M).astype(np.int64) + _OFFSET
    order = np.lexsort((points[:, 2], squares[:, 1], squares[:, 0]))
    key = squares[order, 0] * (2 * _OFFSET) + squares[order, 1]
    first = np.flatnonzero(np.diff(key, prepend=-1))  # (C,), where each square begins
    counts = np.diff(first, append=len(key))
    # Not the lowest return itself: range noise would sink the ground with the number of returns.
    low = points[order[first + (counts * _LOW_SHARE).astype(np.int64)], 2]
    centres = (squares[order[first]] - _OFFSET + 0.5) * _SQUARE_M
    return centres.astype(np.float64), low


def _lower_plane(away: Floats, low: Floats) -> tuple[float, Floats]:
    """Return height at the vehicle and slope (2,) of the plane under most of the squares."""
    design = np.column_stack([np.ones(len(low)), away])  # (C, 3)
    close = np.exp(-0.5 * (np.linalg.norm(away, axis=1) / (_REACH_M / 2)) ** 2)  # (C,)
    flat = np.diag([0.0, 1.0, 1.0]) * 2.0 * len(low)  # the slope is small unless seen otherwise
    fitted = np.array([np.quantile(low, _QUANTILE), 0.0, 0.0])
    for _ in range(_ROUNDS):
        rest = low - design @ fitted
        # Iteratively reweighted least squares of the quantile's tilted absolute error.
        weight = close * np.where(rest > 0, _QUANTILE, 1 - _QUANTILE)
        weight = weight / np.maximum(np.abs(rest), 0.1)
        normal = design.T @ (weight[:, None] * design) + flat
        fitted = np.linalg.solve(normal, design.T @ (weight * low))
    slope = np.clip(fitted[1:], -_STEEPEST, _STEEPEST)
    return float(fitted[0]), slope


def filled(levels: Floats, unseen_m: float) -> float:
    """Return the last of some heights (N,), of which unseen ones are NaN; `unseen_m` without any.

    A height far from the median of the last three seen is an outlier; the median replaces it.
    """
    seen = levels[~np.isnan(levels)]
    if not len(seen):
        return unseen_m
    usual = float(np.median(seen[-3:]))
    return usual if abs(seen[-1] - usual) > _OUTLIER_M else float(seen[-1])
