"""The cluster bootstrap equals SciPy's on a worked example, and pairs what it compares."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from vlwm.core.evaluation.scores.bootstrap import interval_of, resampled_iou, tile_of


def worked_example(clusters: int = 40) -> np.ndarray:
    """Counts (clusters, Q) of hits, predicted, true, cells, of unequal clusters."""
    rng = np.random.default_rng(3)
    true = rng.integers(50, 5000, clusters)
    hit = rng.binomial(true, rng.uniform(0.4, 0.9, clusters))
    predicted = hit + rng.binomial(true, 0.2)
    return np.stack([hit, predicted, true, 10 * true], axis=-1)


def test_interval_equals_scipy():
    counts = worked_example()
    hit, union = counts[:, 0], counts[:, 1] + counts[:, 2] - counts[:, 0]
    expected = bootstrap(
        (hit, union),
        lambda h, u, axis: h.sum(axis) / u.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(7),
    )
    samples = resampled_iou(counts, resamples=2000, seed=7)
    interval = interval_of(samples)
    assert interval.low == pytest.approx(expected.confidence_interval.low, abs=1e-12)
    assert interval.high == pytest.approx(expected.confidence_interval.high, abs=1e-12)
    assert np.allclose(samples, expected.bootstrap_distribution, atol=1e-12)


def test_a_difference_is_paired():
    """Two methods that always differ by the same share have a narrow difference."""
    base = worked_example()
    better = base.copy()
    better[:, 0] += 0
    better[:, 1] = base[:, 0] + (base[:, 1] - base[:, 0]) // 2
    samples = resampled_iou(np.stack([better, base], axis=1), seed=1)  # (resamples, 2)
    difference = interval_of(samples[:, 0] - samples[:, 1])
    alone = interval_of(samples[:, 0])
    assert difference.low > 0
    assert difference.high - difference.low < (alone.high - alone.low) / 2
    again = resampled_iou(base, seed=1)
    assert np.array_equal(again, samples[:, 1])  # each method sees the same resamples


def test_a_score_absent_in_a_resample_has_no_interval():
    counts = np.zeros((30, 2, 4), np.int64)
    counts[:, 0] = worked_example(30)
    counts[0, 1] = (1, 1, 1, 1)
    interval = interval_of(resampled_iou(counts))
    assert np.isfinite(interval.low[0]) and np.isnan(interval.low[1])


def test_counts_too_large_for_exact_sums_are_refused():
    with pytest.raises(OverflowError):
        resampled_iou(np.full((40, 4), 2**48, np.int64))


def test_tiles_are_half_open():
    assert tile_of(0.0, -0.001) == (0, -1)
    assert tile_of(119.999, 120.0) == (0, 1)
