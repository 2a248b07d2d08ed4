"""The thresholds are the best of a literal sweep over pairs; the ground comes from the forecast."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from vlwm.core.evaluation.calibration.thresholds import ThresholdHistogram, Thresholds, above_ground

SHAPE, HORIZONS = (12, 10, 6), 2


def frame(seed: int) -> tuple[Tensor, Tensor]:
    """A sure ground that rises to one side and unsure things above it, with the truth."""
    rng = np.random.default_rng(seed)
    ground = np.arange(SHAPE[0])[:, None] // 8 + np.zeros(SHAPE[1], int)
    height = np.arange(SHAPE[2]) - ground[..., None]
    share = np.where(height == 0, 0.9, np.where(height > 0, 0.1 + 0.3 * rng.random(SHAPE), 0.01))
    truth = rng.random(SHAPE) < share
    return torch.from_numpy(share).float(), torch.from_numpy(truth.astype(np.uint8))


def scores(chosen: Thresholds, frames: list[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """IoU and structure IoU at thresholds of the first horizon, spelled out column by column."""
    hits, unions = np.zeros(2), np.zeros(2)
    for probability, truth in frames:
        forecast, true = chosen.occupied(probability, 0).numpy(), truth.numpy()
        for x, y in np.ndindex(SHAPE[:2]):
            lowest = next((z for z in range(SHAPE[2]) if true[x, y, z]), -1)
            for part, first in ((0, 0), (1, lowest + 1)):
                said, is_there = forecast[x, y, first:], true[x, y, first:]
                hits[part] += (said & is_there).sum()
                unions[part] += (said | is_there).sum()
    iou, structure = hits / unions
    return float(iou), float(structure)


def test_the_best_thresholds_are_the_best_of_a_literal_sweep() -> None:
    """Of structure IoU over those above; given any of those, of IoU over those of the ground."""
    histogram, frames = ThresholdHistogram(HORIZONS), [frame(seed) for seed in range(3)]
    for probability, truth in frames:
        histogram.add(probability, truth, 1)
    chosen = histogram.best()

    def score(ground: float, above: float) -> tuple[float, float]:
        return scores(Thresholds(0.5, (ground,), (above,)), frames)

    coarse = [k / 256 for k in range(8, 256, 31)]
    iou, structure = score(chosen.ground[1], chosen.above[1])
    assert iou >= max(score(ground, chosen.above[1])[0] for ground in coarse) - 1e-12
    for above in coarse:
        beside = max(coarse, key=lambda ground: score(ground, above)[0])
        assert structure >= score(beside, above)[1] - 1e-12
    assert structure > score(chosen.threshold, chosen.threshold)[1]  # two are worth having
    assert chosen.above[1] < 0.4 < chosen.ground[1]
    assert chosen.ground[0] == chosen.above[0] == chosen.threshold  # a horizon without any count
    assert histogram.best_sum() == pytest.approx(iou + structure)


def test_balanced_the_sum_of_both_is_the_best_of_a_literal_sweep() -> None:
    histogram, frames = ThresholdHistogram(1, balanced=True), [frame(seed) for seed in range(3)]
    for probability, truth in frames:
        histogram.add(probability, truth, 0)
    chosen = histogram.best()
    best = sum(scores(Thresholds(0.5, chosen.ground, chosen.above), frames))
    coarse = [k / 256 for k in range(8, 256, 31)]
    for above in coarse:
        ground = max(coarse, key=lambda g: scores(Thresholds(0.5, (g,), (above,)), frames)[0])
        assert best >= sum(scores(Thresholds(0.5, (ground,), (above,)), frames)) - 1e-12
    assert histogram.best_sum() == pytest.approx(best)
    assert histogram.best_sum() >= _of_structure(frames) - 1e-12


def _of_structure(frames: list[tuple[Tensor, Tensor]]) -> float:
    """Sum of both at the thresholds of highest structure IoU."""
    histogram = ThresholdHistogram(1)
    for probability, truth in frames:
        histogram.add(probability, truth, 0)
    return histogram.best_sum()


def test_where_nothing_stands_both_are_chosen_for_iou() -> None:
    histogram, frames = ThresholdHistogram(1), []
    for seed in range(3):
        probability, truth = frame(seed)
        flat = truth * ~above_ground(truth.float())
        frames.append((probability, flat))
        histogram.add(probability, flat, 0)
    chosen = histogram.best()
    for above in (0.5, 0.2):
        other = Thresholds(0.5, chosen.ground, (above,))
        assert scores(chosen, frames)[0] >= scores(other, frames)[0]


def test_its_single_threshold_is_that_of_all_cells_together() -> None:
    histogram = ThresholdHistogram(1)
    probability, truth = frame(5)
    histogram.add(probability, truth, 0)
    threshold, iou = histogram.pooled().best_threshold()
    occupied = Thresholds(threshold).occupied(probability, 0).bool()
    expected = (occupied & truth.bool()).sum() / (occupied | truth.bool()).sum()
    assert iou == pytest.approx(float(expected)) and histogram.best().threshold == threshold


def test_the_ground_is_the_lowest_cell_half_as_probable_as_the_likeliest() -> None:
    column = torch.tensor([[[0.1, 0.5, 0.3, 0.9, 0.2], [0.0, 0.0, 0.0, 0.0, 0.0]]])
    found = above_ground(column)
    assert found[0, 0].tolist() == [False, False, True, True, True]
    assert found[0, 1].tolist() == [False, True, True, True, True]
    turned = column.permute(2, 0, 1).contiguous().permute(1, 2, 0)  # whatever the memory layout
    assert torch.equal(above_ground(turned), found)


def test_thresholds_go_through_json() -> None:
    chosen = Thresholds(0.4, (0.5, 0.4), (0.3, 0.2))
    assert Thresholds.of(json.loads(json.dumps(chosen.content()))) == chosen


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        ThresholdHistogram(1).add(
            torch.full(SHAPE, torch.nan), torch.zeros(SHAPE, dtype=torch.uint8), 0
        )
