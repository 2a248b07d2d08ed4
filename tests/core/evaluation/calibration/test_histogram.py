"""The histogram's threshold is the best one of a literal sweep; the diagram counts every cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlwm.core.evaluation.calibration.histogram import ProbabilityHistogram


def stream(windows: int = 3):
    rng = np.random.default_rng(5)
    for _ in range(windows):
        truth = rng.random(4000) < 0.05
        raw = rng.normal(-3.0 + 2.5 * truth, 1.0)
        yield torch.from_numpy(1 / (1 + np.exp(-raw))).float(), torch.from_numpy(truth)


def test_threshold_is_the_best_of_a_literal_sweep():
    histogram = ProbabilityHistogram()
    for probability, truth in stream():
        histogram.add(probability, truth)
    threshold, iou = histogram.best_threshold()
    p = np.concatenate([q.numpy() for q, _ in stream()])
    t = np.concatenate([q.numpy() for _, q in stream()])
    sweep = {
        k / 256: ((p >= k / 256) & t).sum() / ((p >= k / 256) | t).sum() for k in range(1, 256)
    }
    assert iou == pytest.approx(max(sweep.values()), abs=1e-12)
    assert sweep[threshold] == pytest.approx(iou, abs=1e-12)


def test_bins_are_exact_at_their_edges():
    histogram = ProbabilityHistogram()
    edges = torch.arange(256).float() / 256
    histogram.add(edges, torch.ones(256, dtype=torch.uint8))
    assert (histogram.counts[1] == 1).all()
    histogram.add(torch.tensor([1.0]), torch.tensor([True]))
    assert histogram.counts[1, -1] == 2


def test_without_occupied_cells_the_threshold_is_the_plain_one():
    histogram = ProbabilityHistogram()
    histogram.add(torch.rand(10), torch.zeros(10, dtype=torch.uint8))
    assert histogram.best_threshold() == (0.5, None)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        ProbabilityHistogram().add(torch.tensor([np.nan]), torch.tensor([1]))


def test_reliability_of_a_calibrated_forecast_lies_on_the_diagonal():
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    histogram = ProbabilityHistogram()
    histogram.add(torch.from_numpy(p).float(), torch.from_numpy(rng.random(len(p)) < p))
    diagram = histogram.reliability()
    assert sum(diagram["cells"]) == len(p)
    assert np.allclose(diagram["predicted"], diagram["observed"], atol=0.02)
