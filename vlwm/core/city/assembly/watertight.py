"""Find closed features: each of their edges is used once in each direction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlwm.core.geometry.shells import SAME_CORNER_M


def open_features(
    triangles: NDArray[np.float64], owners: NDArray[np.int32], features: int
) -> NDArray[np.bool_]:
    """Return which features (G,) are not closed shells; T-junctions count as open.

    Args:
        triangles: (T, 3, 3) metres.
        owners: (T,) feature of each.
    """
    corner = _corner_numbers(triangles.reshape(-1, 3)).reshape(-1, 3)
    start, end = corner.reshape(-1), np.roll(corner, -1, axis=1).reshape(-1)
    owner = np.repeat(owners.astype(np.int64), 3)
    there = start != end
    start, end, owner = start[there], end[there], owner[there]
    low, high = np.minimum(start, end), np.maximum(start, end)
    way = np.where(start < end, 1, -1)
    order = np.lexsort((high, low, owner))
    low, high, owner, way = low[order], high[order], owner[order], way[order]
    if not len(low):
        return np.ones(features, dtype=bool)
    new = np.ones(len(low), dtype=bool)
    new[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1]) | (owner[1:] != owner[:-1])
    starts = np.flatnonzero(new)
    unpaired = np.add.reduceat(way, starts) != 0
    is_open = np.bincount(owner[starts], unpaired, minlength=features) > 0
    return is_open | (np.bincount(owner, minlength=features) == 0)


def _corner_numbers(corners: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return one number for all corners in the same cell of 5 mm; cells are hashed to 64 bits."""
    keys = np.round(corners / SAME_CORNER_M).astype(np.int64).view(np.uint64)
    # the odd primes of xxHash64 scatter the bits of each coordinate
    mixed = keys[:, 0] * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= keys[:, 1] * np.uint64(0xC2B2AE3D27D4EB4F) + (mixed >> np.uint64(29))
    mixed ^= keys[:, 2] * np.uint64(0x165667B19E3779F9) + (mixed >> np.uint64(31))
    return np.unique(mixed, return_inverse=True)[1].reshape(-1)
