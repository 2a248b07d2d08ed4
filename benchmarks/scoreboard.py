"""Thresholds, counts and the table of `ladder.py`."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlwm.core.config.schema import Config
from vlwm.core.evaluation.calibration.histogram import ProbabilityHistogram
from vlwm.core.evaluation.eval_windows import EvalWindow
from vlwm.core.evaluation.metrics import iou_of, structure_mask
from vlwm.core.evaluation.observed.tally import ZoneCounter
from vlwm.core.evaluation.scores.bootstrap import FEWEST_CLUSTERS, interval_of, resampled_iou
from vlwm.core.evaluation.zones import OBSERVED_ZONES, zones_of
from vlwm.core.geometry.grid import VoxelGrid

ZONES = (*OBSERVED_ZONES, "structure")
ALL = slice(0, len(OBSERVED_ZONES))  # the three zones cover the frame


class Scoreboard:
    """Counts of one method in every zone and horizon."""

    def __init__(self, config: Config, grid: VoxelGrid) -> None:
        self.horizons, self.grid = config.future_frames, grid
        self.histograms = [ProbabilityHistogram() for _ in range(self.horizons)]
        self.thresholds = [0.5] * self.horizons
        self.clusters: dict[Hashable, np.ndarray] = {}

    def calibrate(self, probabilities: Tensor, window: EvalWindow) -> None:
        """Count a validation window: float (H, X, Y, Z)."""
        for h, histogram in enumerate(self.histograms):
            histogram.add(probabilities[h].contiguous(), window.truth[h])

    def choose(self) -> None:
        """Take the threshold of highest IoU at each horizon."""
        self.thresholds = [h.best_threshold()[0] for h in self.histograms]

    def planes(self, probabilities: Tensor) -> Tensor:
        """Return uint8 (H, X, Y, Z) at the thresholds."""
        return torch.stack(
            [(p >= t).to(torch.uint8) for p, t in zip(probabilities, self.thresholds, strict=True)]
        )

    def add(self, planes: Tensor, window: EvalWindow, cluster: Hashable) -> None:
        """Count a test window: uint8 (H, X, Y, Z)."""
        assert window.seen is not None
        shape = (self.horizons, len(ZONES), 4)
        counts = self.clusters.setdefault(cluster, np.zeros(shape, np.int64))
        for h, zones in enumerate(zones_of(window.seen, window.future_ego, self.grid)):
            truth = window.truth[h]
            # The structure of a frame takes the place of the cells near the way.
            counts[h] += ZoneCounter(truth, zones, structure_mask(truth)).counts(planes[h])

    def content(self) -> dict[str, Any]:
        """Return IoU by zone and horizon, and the counts of each cluster, as plain values."""
        total = sum(self.clusters.values())
        everywhere = total[:, ALL].sum(axis=1)  # (H, Q)
        return {
            "iou": iou_of(everywhere).tolist(),
            **{f"iou_{zone}": iou_of(total[:, z]).tolist() for z, zone in enumerate(ZONES)},
            "thresholds": self.thresholds,
            "clusters": {str(k): v.tolist() for k, v in sorted(self.clusters.items(), key=str)},
        }


def table_of(rows: list[dict[str, Any]]) -> str:
    """Return a text table: IoU per horizon, then the interval against the strongest baseline."""
    lines = []
    for city in dict.fromkeys(row["city"] for row in rows):
        some = [row for row in rows if row["city"] == city]
        baselines = [row for row in some if "tri_state" in row["method"]]
        best = max(baselines, key=lambda row: sum(row["iou"])) if baselines else None
        lines.append(f"{city}: strongest baseline {best['method'] if best else 'none'}")
        for method in dict.fromkeys(row["method"] for row in some):
            seeds = [row for row in some if row["method"] == method]
            line = f"  {method:32s} seeds {len(seeds)}"
            for key in ("iou", "iou_structure", "iou_occluded"):
                mean = np.mean([row[key] for row in seeds], axis=0)
                line += f"  {key} " + " ".join(f"{v:.3f}" for v in mean)
            lines.append(line)
            if best is not None and method != best["method"]:
                lines.append(f"  {'':32s} {_difference(seeds, best)}")
    return "\n".join(lines)


def _difference(seeds: list[dict[str, Any]], best: dict[str, Any]) -> str:
    """Return the paired interval of the IoU difference at each horizon, all seeds together."""
    names = sorted(set(best["clusters"]).intersection(*(row["clusters"] for row in seeds)))
    if len(names) < FEWEST_CLUSTERS:
        return f"{len(names)} clusters: too few for an interval"
    ours = np.array([[row["clusters"][n] for n in names] for row in seeds]).sum(axis=0)
    theirs = np.array([best["clusters"][n] for n in names])
    pair = np.stack([v[:, :, ALL].sum(axis=2, keepdims=True) for v in (ours, theirs)], axis=1)
    samples = resampled_iou(pair)  # (R, 2, H, 1)
    interval = interval_of(samples[:, 0, :, 0] - samples[:, 1, :, 0])
    ends = zip(interval.low, interval.high, strict=True)
    return "IoU difference " + " ".join(f"[{low:+.3f}, {high:+.3f}]" for low, high in ends)
