"""Intervals by resampling clusters of windows that share a place.

Windows that overlap in time or look at the same block are not independent; windows whose last past
pose is in the same 120 m tile of the world form one cluster, and clusters are resampled with
replacement (Field and Welsh, "Bootstrapping clustered data", JRSS B 69, 2007; percentile interval
of Efron and Tibshirani, 1993, ch. 13). All methods see the same resamples, so that the interval of
a difference is paired.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlwm.core.evaluation.metrics import iou_of

TILE_M = 120.0
"""Side of the tile that makes a cluster, metres: about one grid's diagonal."""
RESAMPLES = 2000
"""of the clusters, with replacement"""
CONFIDENCE = 0.95
"""of an interval"""
FEWEST_CLUSTERS = 30
"""Below this, a percentile interval is too narrow to be believed and is not given."""
_BLOCK = 100  # resamples at once: bounds the memory


@dataclass(frozen=True)
class Interval:
    """Ends of the 95 % interval per value, NaN where the score does not exist.

    Attributes:
        low, high: float64 (...).
    """

    low: np.ndarray
    high: np.ndarray


def tile_of(easting_m: float, northing_m: float, side_m: float = TILE_M) -> tuple[int, int]:
    """Return the index of the world tile that holds a position (half-open tiles)."""
    return int(np.floor(easting_m / side_m)), int(np.floor(northing_m / side_m))


def resampled_iou(counts: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Return the pooled IoU of each resample.

    Args:
        counts: int64 (clusters, ..., Q) as `metrics.count_zones` orders the quantities.
        resamples: number of resamples.
        seed: of the draw; the same seed draws the same clusters for every method.

    Returns:
        float64 (resamples, ...).
    """
    clusters = len(counts)
    if counts.sum(dtype=np.float64) * clusters > 2**53:
        raise OverflowError("counts too large for exact pooling")  # 1e9 windows of a full grid
    flat = counts.reshape(clusters, -1).astype(np.float64)  # products and sums stay exact
    generator = np.random.default_rng(seed)
    values = []
    for start in range(0, resamples, _BLOCK):
        rows = min(_BLOCK, resamples - start)
        draw = generator.integers(0, clusters, (rows, clusters))
        times = np.stack([np.bincount(row, minlength=clusters) for row in draw])
        values.append(iou_of((times @ flat).reshape(rows, *counts.shape[1:])))
    return np.concatenate(values)


def interval_of(samples: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """Return the percentile interval over the first axis; NaN where any resample has no score."""
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(samples, [tail, 100.0 - tail], axis=0)
    return Interval(low, high)
