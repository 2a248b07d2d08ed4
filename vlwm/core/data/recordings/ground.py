"""Estimate the terrain under a vehicle from the lowest returns around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.placing import PlacedScan

Floats = NDArray[np.float64]

_RADII_M = (4.0, 8.0, 16.0, 30.0)
_FEWEST = 40  # returns in a circle that decide
_LOWEST = 0.05  # share of the returns that may lie below: noise and reflections
_STEP_M = 2.0  # a drone over a roof: lower returns in a wider circle by more than this win


def ground_under(scans: Sequence[PlacedScan], place: Floats, agent: str) -> float:
    """Return the height of the terrain under `place` (3,), world frame, metres; NaN if unseen.

    The lowest returns in the smallest circle with enough of them are the terrain under a rover. A
    drone may be over a roof: where a wider circle has returns clearly lower, they are the terrain.
    """
    near = [s.points[np.abs(s.points[:, :2] - place[:2]).max(axis=1) < _RADII_M[-1]] for s in scans]
    points = np.concatenate([p[p[:, 2] < place[2] + 1.0] for p in near]) if near else np.empty(0)
    if len(points) < _FEWEST:
        return float("nan")
    away = np.linalg.norm(points[:, :2] - place[:2], axis=1)  # (N,)
    level = float("nan")
    for radius in _RADII_M:
        inside = points[away < radius, 2]
        if len(inside) < _FEWEST:
            continue
        lowest = float(np.quantile(inside, _LOWEST))
        if np.isnan(level):
            level = lowest
            if agent == "rover":
                break
        elif lowest < level - _STEP_M:
            level = lowest
    return level


def filled(levels: Floats) -> Floats:
    """Return heights (N,) without gaps: the last one seen, and the first one before it.

    Isolated outliers are removed by the median of each height and its two predecessors, which
    knows no future.
    """
    seen = np.flatnonzero(~np.isnan(levels))
    if not len(seen):
        return np.zeros(len(levels))
    source = seen[np.maximum(np.searchsorted(seen, np.arange(len(levels)), side="right") - 1, 0)]
    whole = levels[source]
    padded = np.concatenate([whole[:1], whole[:1], whole])
    return np.asarray(np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0))
