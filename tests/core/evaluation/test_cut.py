"""A cut is the best of a literal sweep over pairs of thresholds, and knows its ground by itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from vlwm.core.evaluation.cut import Cut, CutHistogram, above_ground

SHAPE, HORIZONS = (12, 10, 6), 2


def frame(seed: int) -> tuple[Tensor, Tensor]:
    """A sure ground that rises to one side and unsure things above it, with the truth."""
    rng = np.random.default_rng(seed)
    ground = np.arange(SHAPE[0])[:, None] // 8 + np.zeros(SHAPE[1], int)
    height = np.arange(SHAPE[2]) - ground[..., None]
    share = np.where(height == 0, 0.9, np.where(height > 0, 0.1 + 0.3 * rng.random(SHAPE), 0.01))
    truth = rng.random(SHAPE) < share
    return torch.from_numpy(share).float(), torch.from_numpy(truth.astype(np.uint8))


def scores(forecasts: list[np.ndarray], truths: list[np.ndarray]) -> float:
    """IoU and structure IoU added, spelled out cell by cell."""
    hits, unions = np.zeros(2), np.zeros(2)
    for forecast, truth in zip(forecasts, truths, strict=True):
        for x, y in np.ndindex(SHAPE[:2]):
            lowest = next((z for z in range(SHAPE[2]) if truth[x, y, z]), -1)
            for z in range(SHAPE[2]):
                for part in (0, 1) if z > lowest else (0,):
                    hits[part] += forecast[x, y, z] and truth[x, y, z]
                    unions[part] += forecast[x, y, z] or truth[x, y, z]
    return float((hits / unions).sum())


def test_the_best_cut_is_the_best_of_a_literal_sweep() -> None:
    histogram, frames = CutHistogram(HORIZONS), [frame(seed) for seed in range(3)]
    for probability, truth in frames:
        histogram.add(probability, truth, 1)
    cut = histogram.best()

    def score(ground: float, above: float) -> float:
        cuts = [Cut(0.5, (ground,), (above,)).occupied(p, 0).numpy() for p, _ in frames]
        return scores(cuts, [t.numpy() for _, t in frames])

    coarse = [(k / 256, m / 256) for k in range(8, 256, 24) for m in range(8, 256, 24)]
    best = score(cut.ground[1], cut.above[1])
    assert best >= max(score(*pair) for pair in coarse) - 1e-12
    assert best > score(cut.threshold, cut.threshold)  # two thresholds are worth having
    assert cut.above[1] < 0.4 < cut.ground[1]
    assert (cut.ground[0], cut.above[0]) == (cut.threshold,) * 2  # a horizon without any count


def test_its_single_threshold_is_that_of_all_cells_together() -> None:
    histogram = CutHistogram(1)
    probability, truth = frame(5)
    histogram.add(probability, truth, 0)
    threshold, iou = histogram.pooled().best_threshold()
    occupied = Cut(threshold).occupied(probability, 0).bool()
    expected = (occupied & truth.bool()).sum() / (occupied | truth.bool()).sum()
    assert iou == pytest.approx(float(expected)) and histogram.best().threshold == threshold


def test_the_ground_is_the_lowest_cell_half_as_probable_as_the_likeliest() -> None:
    column = torch.tensor([[[0.1, 0.5, 0.3, 0.9, 0.2], [0.0, 0.0, 0.0, 0.0, 0.0]]])
    found = above_ground(column)
    assert found[0, 0].tolist() == [False, False, True, True, True]
    assert found[0, 1].tolist() == [False, True, True, True, True]
    turned = column.permute(2, 0, 1).contiguous().permute(1, 2, 0)  # whatever the memory layout
    assert torch.equal(above_ground(turned), found)


def test_a_cut_goes_through_json() -> None:
    cut = Cut(0.4, (0.5, 0.4), (0.3, 0.2))
    assert Cut.of(json.loads(json.dumps(cut.content()))) == cut


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        CutHistogram(1).add(torch.full(SHAPE, torch.nan), torch.zeros(SHAPE, dtype=torch.uint8), 0)
