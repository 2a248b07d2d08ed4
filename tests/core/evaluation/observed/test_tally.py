"""Counts per zone are those of plain sums; what is unknown is never free."""

from __future__ import annotations

import numpy as np
import torch

from tests.core.evaluation.observed_windows import GRID, random_past
from vlwm.core.evaluation.observed.tally import ZONE_NAMES, ObservedTally, ZoneCounter, called_free
from vlwm.core.evaluation.zones import zones_of

RNG = np.random.default_rng(8)


def plane(share: float) -> torch.Tensor:
    return torch.from_numpy((RNG.random(GRID.shape) < share).astype(np.uint8))


def test_counts_are_those_of_plain_sums() -> None:
    zones = next(zones_of(random_past(2), np.array([[3.0, 1.0, 0.0, 0.4]]), GRID))
    truth, forecast = plane(0.3), plane(0.4)
    near = torch.from_numpy(RNG.integers(0, 34, GRID.shape).astype(np.uint8))
    found = ZoneCounter(truth, zones, near).counts(forecast)
    for row, weight in zip(found, [*zones.named().values(), near], strict=True):
        w = weight.long()
        wanted = [(w * v).sum() for v in (forecast * truth, forecast, truth, torch.ones_like(w))]
        assert row.tolist() == [int(v) for v in wanted]


def test_scores_pool_windows_and_count_false_free_cells() -> None:
    tally = ObservedTally(("a", "b"), 1)
    zones = next(zones_of(random_past(2), np.zeros((1, 4)), GRID))
    truth, way = plane(0.5), torch.zeros(GRID.shape, dtype=torch.uint8)
    way[:2] = 1
    planes = {"a": truth, "b": torch.zeros_like(truth)}
    nothing = {"b": torch.zeros(GRID.shape, dtype=torch.bool)}
    probability = 0.9 * truth.float() + 0.04
    for cluster in (0, 1, 0):
        tally.add(cluster, 0, planes, nothing, truth, zones, way, way, probability)
    scores = tally.scores()
    assert scores["a"]["iou_observed"] == [1.0] and scores["b"]["iou_observed"] == [0.0]
    assert scores["a"]["false_free_on_way"] == [0.0]
    assert scores["b"]["false_free_on_way"] == [0.0]  # nothing forecast, nothing called free
    plain = ObservedTally(("b",), 1)
    plain.add(0, 0, {"b": planes["b"]}, {}, truth, zones, way, way)
    assert plain.scores()["b"]["false_free_on_way"] == [1.0]
    assert len(tally.clusters) == 2 and tally.total().shape == (2, 1, len(ZONE_NAMES), 4)
    summary = tally.summary()
    assert summary["occupied_cells_on_way"] == [3 * int(truth[:2].sum())]
    assert set(summary["reliability"]) <= {"observed", "occluded", "new"}


def test_free_means_improbable() -> None:
    assert called_free(torch.tensor([0.049, 0.05, 0.5])).tolist() == [True, False, False]
