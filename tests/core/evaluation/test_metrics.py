"""Counts equal a plain NumPy count; ratios equal torchmetrics; absent classes have no score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import BinaryJaccardIndex, BinaryPrecision, BinaryRecall

from vlwm.core.evaluation.metrics import (
    CELLS,
    HIT,
    PREDICTED,
    TRUE,
    ZONES,
    Confusion,
    count_zones,
    iou_of,
    structure_mask,
)

SHAPE = (7, 5, 6)


def random_cells(seed: int, share: float = 0.3) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy((rng.random(SHAPE) < share).astype(np.uint8))


def literal_structure(truth: np.ndarray) -> np.ndarray:
    mask = np.zeros(truth.shape, bool)
    for x in range(truth.shape[0]):
        for y in range(truth.shape[1]):
            occupied = np.flatnonzero(truth[x, y])
            mask[x, y, (occupied[0] + 1 if len(occupied) else 0) :] = True
    return mask


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_structure_is_above_the_lowest_occupied_cell_and_whole_empty_columns(share):
    truth = random_cells(1, share)
    assert np.array_equal(structure_mask(truth).numpy() > 0, literal_structure(truth.numpy()))


def test_bare_ground_has_no_structure_to_hit():
    truth = torch.zeros(SHAPE, dtype=torch.uint8)
    truth[..., 1] = 1
    counts = count_zones([truth], truth, torch.ones_like(truth), structure_mask(truth))
    assert iou_of(counts[0, ZONES.index("all")]) == 1.0
    assert np.isnan(iou_of(counts[0, ZONES.index("structure")]))


@pytest.mark.parametrize("methods", [1, 3, 12])
def test_one_histogram_holds_every_count(methods):
    forecasts = [random_cells(10 + m) for m in range(methods)]
    truth, seen = random_cells(2), random_cells(3, 0.6)
    structure = structure_mask(truth)
    counts = count_zones(forecasts, truth, seen, structure)
    masks = [np.ones(SHAPE, bool), seen.numpy() > 0, seen.numpy() == 0, structure.numpy() > 0]
    t = truth.numpy() > 0
    for m, forecast in enumerate(forecasts):
        p = forecast.numpy() > 0
        for z, mask in enumerate(masks):
            assert counts[m, z, HIT] == (p & t & mask).sum()
            assert counts[m, z, PREDICTED] == (p & mask).sum()
            assert counts[m, z, TRUE] == (t & mask).sum()
            assert counts[m, z, CELLS] == mask.sum()
    assert counts.dtype == np.int64


def test_more_forecasts_than_bits_are_refused():
    cells = random_cells(0)
    with pytest.raises(ValueError, match="13 forecasts"):
        count_zones([cells] * 13, cells, cells, cells)


def test_pooled_scores_equal_torchmetrics():
    confusion = Confusion(("model",), 2)
    references = [(BinaryJaccardIndex(), BinaryPrecision(), BinaryRecall()) for _ in range(2)]
    for window in range(4):
        counts = []
        for horizon in range(2):
            forecast = random_cells(100 + 10 * window + horizon, 0.2 + 0.1 * horizon)
            truth = random_cells(200 + 10 * window + horizon)
            every = torch.ones_like(truth)
            counts.append(count_zones([forecast], truth, every, structure_mask(truth)))
            for metric in references[horizon]:
                metric.update(forecast.reshape(-1), truth.reshape(-1))
        confusion.add(np.stack(counts, axis=1))
    scores = confusion.scores("model")
    for horizon, metrics in enumerate(references):
        for key, metric in zip(("iou", "precision", "recall"), metrics, strict=True):
            assert scores[key][horizon] == pytest.approx(float(metric.compute()), abs=1e-6)
    assert scores["iou_seen"] == scores["iou"]
    assert scores["iou_new"] == [None, None]  # every cell was seen: no new cells, no score


def test_an_absent_class_has_no_score_and_is_counted():
    """OccWorld's code calls an absent class IoU 1."""
    nothing = torch.zeros(SHAPE, dtype=torch.uint8)
    confusion = Confusion(("empty",), 1)
    counts = count_zones([nothing], nothing, nothing, structure_mask(nothing))
    confusion.add(counts[:, None])
    scores = confusion.scores("empty")
    assert scores["iou"] == scores["precision"] == scores["recall"] == [None]
    assert confusion.absent_frames[0, ZONES.index("all")] == 1


def test_a_forecast_where_nothing_is_true_scores_zero():
    nothing, something = torch.zeros(SHAPE, dtype=torch.uint8), random_cells(4)
    every = torch.ones_like(nothing)
    counts = count_zones([something], nothing, every, structure_mask(nothing))
    assert iou_of(counts[0, 0]) == 0.0


def test_counters_stay_exact_beyond_float32():
    """2**24 + 1 is where float32 counters stop: adding one cell more must show."""
    confusion = Confusion(("model",), 1)
    confusion.add(np.full((1, 1, len(ZONES), 4), 2**24, np.int64))
    confusion.add(np.ones((1, 1, len(ZONES), 4), np.int64))
    assert int(confusion.counts[0, 0, 0, HIT]) == 2**24 + 1  # as Python counts, not as NumPy casts
    assert np.float32(2**24) + np.float32(1) == 2**24  # what a float32 counter would hold


def test_unknown_cells_are_in_no_zone_and_in_no_threshold() -> None:
    from vlwm.core.evaluation.calibration.thresholds import ThresholdHistogram

    forecast, truth, seen = (random_cells(k) for k in range(3))
    known = random_cells(3, 0.6) > 0
    structure = structure_mask(truth)
    counts = count_zones([forecast], truth, seen, structure, known)
    literal = count_zones(
        [forecast[known][None, None]],
        *(x[known][None, None] for x in (truth, seen, structure)),
    )
    np.testing.assert_array_equal(counts, literal)
    assert counts[0, ZONES.index("all"), CELLS] == int(known.sum())
    histogram = ThresholdHistogram(1)
    histogram.add(torch.rand(SHAPE), truth, 0, known)
    assert histogram.counts.sum() == int(known.sum())
