"""Count forecasts from an observed past: per zone, near the way, and on the way itself.

Counts are integers, summed over windows before any ratio is taken, and kept per cluster so that
intervals come from the same resampling as all others.

Axes: M methods, H horizons, Z zones (`ZONE_NAMES`), Q quantities hit, predicted, true, cells.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlwm.core.evaluation.calibration.histogram import ProbabilityHistogram
from vlwm.core.evaluation.metrics import iou_of, none_for_nan, ratio
from vlwm.core.evaluation.zones import OBSERVED_ZONES, Zones

ZONE_NAMES = (*OBSERVED_ZONES, "near")
"""`near`: all cells within reach of the candidate manoeuvres, each as often as there are manoeuvres
that reach it"""
SCORES = {
    "iou_observed": "observed",
    "iou_occluded": "occluded",
    "iou_near_way": "near",
}
"""key in scores.json -> zone; `iou_new` is in the sheet already, over the same cells"""
FREE_BELOW = 0.05
"""a forecast calls a cell free where its probability is below this"""


class ZoneCounter:
    """Counts forecasts of one frame in every zone, one pass over the cells for each forecast.

    Args:
        truth: uint8 (X, Y, Z) of 0 and 1.
        zones: disjoint masks that cover the frame.
        near: uint8 (X, Y, Z), weight of each cell in the zone `near`.
    """

    def __init__(self, truth: Tensor, zones: Zones, near: Tensor) -> None:
        # Code of a cell: twice its zone, plus its truth; a forecast adds a third bit.
        masks = enumerate(zones.named().values())
        zone = sum((k * mask.byte() for k, mask in masks), torch.zeros_like(truth))
        self._code = (2 * zone + truth).flatten().short()
        self._at = near.flatten().nonzero()[:, 0]  # few cells: the way ahead
        self._weight = near.flatten()[self._at].long()
        self._near_truth = truth.flatten()[self._at].long()

    def counts(self, forecast: Tensor) -> np.ndarray:
        """Return int64 (Z, Q) of a forecast, uint8 (X, Y, Z) of 0 and 1."""
        flat = forecast.flatten()
        zones = len(OBSERVED_ZONES)
        code = self._code + 2 * zones * flat.short()
        cells = torch.bincount(code, minlength=4 * zones).cpu().numpy().reshape(2, zones, 2)
        by_zone = np.empty((len(ZONE_NAMES), 4), np.int64)
        by_zone[:zones] = np.stack(
            [cells[1, :, 1], cells[1].sum(-1), cells[:, :, 1].sum(0), cells.sum((0, 2))], axis=-1
        )
        predicted = self._weight * flat[self._at].long()
        true = self._weight * self._near_truth
        hit = predicted * self._near_truth
        by_zone[-1] = [int(v.sum()) for v in (hit, predicted, true, self._weight)]
        return by_zone


@dataclass
class ObservedTally:
    """Counts over the windows of a split.

    Attributes:
        methods: names, M.
        horizons: H.
        clusters: cluster -> int64 (M, H, Z, Q).
        on_way: int64 (M, H, 2): cells on the way that are truly occupied, and those of them that a
            method calls free.
        probabilities: zone -> histogram of the model's probabilities.
    """

    methods: tuple[str, ...]
    horizons: int
    clusters: dict[Hashable, np.ndarray] = field(default_factory=dict)
    on_way: np.ndarray = field(init=False)
    probabilities: dict[str, ProbabilityHistogram] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.on_way = np.zeros((len(self.methods), self.horizons, 2), np.int64)

    def add(
        self,
        cluster: Hashable,
        horizon: int,
        planes: Mapping[str, Tensor],
        free: Mapping[str, Tensor],
        truth: Tensor,
        zones: Zones,
        near: Tensor,
        way: Tensor,
        probability: Tensor | None = None,
    ) -> None:
        """Add one future frame.

        Args:
            planes: occupied, uint8 (X, Y, Z), by method.
            free: bool (X, Y, Z), cells that a method calls free; where a method is missing, all
                that it does not call occupied.
            near: uint8 (X, Y, Z), manoeuvres that come near each cell.
            way: uint8 (X, Y, Z), manoeuvres that sweep each cell.
            probability: the model's, (X, Y, Z); None without a model.
        """
        shape = (len(self.methods), self.horizons, len(ZONE_NAMES), 4)
        counts = self.clusters.setdefault(cluster, np.zeros(shape, np.int64))
        counter = ZoneCounter(truth, zones, near)
        blocked = (way > 0) & (truth > 0)  # truly occupied on some candidate's way
        occupied = int(blocked.sum())
        for m, method in enumerate(self.methods):
            counts[m, horizon] += counter.counts(planes[method])
            called = free[method] if method in free else planes[method] == 0
            self.on_way[m, horizon] += (occupied, int((blocked & called).sum()))
        if probability is not None:
            for name, mask in zones.named().items():
                histogram = self.probabilities.setdefault(name, ProbabilityHistogram())
                histogram.add(probability[mask], truth[mask])

    def merge(self, other: ObservedTally) -> None:
        """Add the counts of other windows, of the same methods and horizons."""
        for cluster, counts in other.clusters.items():
            mine = self.clusters.setdefault(cluster, np.zeros_like(counts))
            mine += counts
        self.on_way += other.on_way
        for name, histogram in other.probabilities.items():
            self.probabilities.setdefault(name, ProbabilityHistogram()).merge(histogram)

    def total(self) -> np.ndarray:
        """Return the counts of all windows, int64 (M, H, Z, Q)."""
        shape = (len(self.methods), self.horizons, len(ZONE_NAMES), 4)
        return sum(self.clusters.values(), np.zeros(shape, np.int64))

    def scores(self) -> dict[str, dict[str, list]]:
        """Return the keys that each method's block of scores.json has in addition."""
        iou = iou_of(self.total())  # (M, H, Z)
        share = ratio(self.on_way[..., 1], self.on_way[..., 0])  # (M, H)
        return {
            method: {
                **{
                    key: none_for_nan(iou[m, :, ZONE_NAMES.index(zone)])
                    for key, zone in SCORES.items()
                },
                "false_free_on_way": none_for_nan(share[m]),
            }
            for m, method in enumerate(self.methods)
        }

    def summary(self) -> dict[str, Any]:
        """Return the block `observed` of scores.json: shares of the zones, cells on the way."""
        counts = self.total()[0] if self.methods else np.zeros((self.horizons, len(ZONE_NAMES), 4))
        cells = counts[:, : len(OBSERVED_ZONES), 3]  # (H, 3)
        every = np.maximum(cells.sum(axis=1, keepdims=True), 1)
        shares = (cells / every).T
        return {
            "share_of_cells": {
                name: values.tolist() for name, values in zip(OBSERVED_ZONES, shares, strict=True)
            },
            "occupied_cells_on_way": self.on_way[0, :, 0].tolist() if self.methods else [],
            "free_below": FREE_BELOW,
            "reliability": {name: h.reliability() for name, h in self.probabilities.items()},
        }


def called_free(probability: Tensor) -> Tensor:
    """Return bool (X, Y, Z): cells that a forecast of probabilities calls free."""
    return torch.lt(probability, FREE_BELOW)
