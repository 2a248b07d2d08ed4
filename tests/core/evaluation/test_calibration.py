"""The histogram's threshold is the best one of a literal sweep; the diagram counts every cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlwm.core.evaluation.calibration import (
    ProbabilityHistogram,
    SigmaHistogram,
    calibrate_threshold,
)


def stream(windows: int = 3):
    rng = np.random.default_rng(5)
    for _ in range(windows):
        truth = rng.random(4000) < 0.05
        raw = rng.normal(-3.0 + 2.5 * truth, 1.0)
        yield torch.from_numpy(1 / (1 + np.exp(-raw))).float(), torch.from_numpy(truth)


def test_threshold_is_the_best_of_a_literal_sweep():
    chosen = calibrate_threshold(stream())
    p = np.concatenate([q.numpy() for q, _ in stream()])
    t = np.concatenate([q.numpy() for _, q in stream()])
    sweep = {
        k / 256: ((p >= k / 256) & t).sum() / ((p >= k / 256) | t).sum() for k in range(1, 256)
    }
    assert chosen.iou == pytest.approx(max(sweep.values()), abs=1e-12)
    assert sweep[chosen.threshold] == pytest.approx(chosen.iou, abs=1e-12)


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


def test_a_scaled_sigma_holds_as_many_errors_as_it_should():
    random = torch.Generator().manual_seed(0)
    log_sigma = torch.randn(4000, 6, 3, generator=random)
    # thrice too unsure; right; long tails
    sizes = torch.randn(3, 4000, 6, generator=random)
    sizes = torch.stack([sizes[0] / 3, sizes[1], sizes[2] ** 3], dim=-1)
    errors = sizes * log_sigma.exp()
    histogram = SigmaHistogram(3)
    for part in range(4):  # batches, or ranks, add up
        rows = slice(1000 * part, 1000 * (part + 1))
        histogram.add(errors[rows], log_sigma[rows])
    scale = histogram.scale()
    assert scale == pytest.approx([1 / 3, 1.0, 1.0], rel=0.06)
    within = (errors.abs() <= torch.from_numpy(scale) * log_sigma.exp()).double().mean((0, 1))
    assert within.numpy() == pytest.approx([0.683] * 3, abs=0.015)


def test_without_errors_a_sigma_is_left_alone():
    histogram = SigmaHistogram(2)
    assert histogram.scale().tolist() == [1.0, 1.0]
    histogram.add(torch.zeros(5, 2), torch.zeros(5, 2))
    assert (histogram.scale() < 0.06).all()
