"""Choose and apply the thresholds that turn probabilities into occupied and free cells.

IoU over a set of cells is highest where each cell with a probability above IoU / (1 + IoU) counts
as occupied (Lipton et al. 2014, of F1 = 2 IoU / (1 + IoU)). Three seconds ahead nearly all of the
ground is foreseen and little of the structure above it, so one threshold cannot suit both. Per
horizon there is one for the ground and one for the cells above it. Both are chosen on validation:
the one above for the highest structure IoU, since structure is what a drone must not hit, and the
one of the ground for the highest IoU given the other. Of an observed past most structure is hidden,
and its highest IoU is had by calling a third of the air occupied: there the one above is chosen for
the highest sum of both (docs/benchmarks.md, *From what a lidar saw*).

The ground of a column is taken from the forecast itself: its lowest cell that is at least half as
probable as its likeliest. The truth's own ground defines which cells are structure
(`metrics.structure_mask`), and has no influence on a threshold's place in a forecast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlwm.core.evaluation.calibration.histogram import (
    BINS,
    DEFAULT_THRESHOLD,
    ProbabilityHistogram,
    bins_of,
)
from vlwm.core.evaluation.metrics import ratio, structure_mask


@dataclass(frozen=True)
class Thresholds:
    """Probabilities at and above which a cell counts as occupied.

    Attributes:
        threshold: the best single one; also the one in use where the others are not known.
        ground: per horizon, up to the ground of a column.
        above: per horizon, above it.
    """

    threshold: float = DEFAULT_THRESHOLD
    ground: tuple[float, ...] = ()
    above: tuple[float, ...] = ()

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Thresholds:
        """Return what `content` wrote."""
        return cls(content["threshold"], tuple(content["ground"]), tuple(content["above"]))

    def words(self) -> str:
        """Return the thresholds in words, for a line under a picture."""
        if not self.ground:
            return f"threshold {self.threshold:.2f}"
        parts = (f"{min(x):.2f}-{max(x):.2f}" for x in (self.ground, self.above))
        return "thresholds {} ground, {} above".format(*parts)

    def content(self) -> dict[str, Any]:
        """Return it in plain Python, for checkpoints and JSON."""
        lists = {"ground": list(self.ground), "above": list(self.above)}
        return {"threshold": self.threshold, **lists}

    def occupied(self, probability: Tensor, horizon: int) -> Tensor:
        """Return uint8 (X, Y, Z) of probabilities (X, Y, Z) of future frame number `horizon`."""
        if not self.ground:
            return (probability >= self.threshold).view(torch.uint8)
        ground, above = self.ground[horizon], self.above[horizon]
        limit = torch.where(above_ground(probability), above, ground)
        return (probability >= limit).view(torch.uint8)


def above_ground(probability: Tensor) -> Tensor:
    """Return bool (X, Y, Z): cells above the ground of their column as the forecast has it."""
    likely = probability >= probability.amax(-1, keepdim=True) / 2
    ground = likely.view(torch.uint8).argmax(-1, keepdim=True)  # the first of equal maxima
    return torch.arange(probability.shape[-1], device=probability.device) > ground


class ThresholdHistogram:
    """int64 counts of cells by probability, from which the best thresholds follow exactly.

    Args:
        horizons: H.
        balanced: choose the threshold above the ground for the highest sum of IoU and structure
            IoU; otherwise for the highest structure IoU.

    Attributes:
        counts: int64 (H, 2, 2, 2, BINS): up to or above the forecast's ground; structure by the
            truth or not; truly empty or occupied.
    """

    def __init__(self, horizons: int, *, balanced: bool = False) -> None:
        self.balanced = balanced
        self.counts = np.zeros((horizons, 2, 2, 2, BINS), np.int64)

    def add(
        self, probability: Tensor, truth: Tensor, horizon: int, known: Tensor | None = None
    ) -> None:
        """Count one frame: float (X, Y, Z) in [0, 1] and uint8 (X, Y, Z).

        Args:
            known: bool (X, Y, Z), cells that count; None: all.
        """
        code = bins_of(probability)
        above, structure = above_ground(probability), structure_mask(truth)
        for weight, flag in ((4, above), (2, structure), (1, truth)):
            code.add_(flag.reshape(-1), alpha=weight * BINS)
        if known is not None:
            code = code[known.reshape(-1)]
        counts = torch.bincount(code, minlength=8 * BINS).cpu().numpy()
        self.counts[horizon] += counts.reshape(2, 2, 2, BINS)

    def pooled(self) -> ProbabilityHistogram:
        """Return the sum over all horizons and cells."""
        histogram = ProbabilityHistogram()
        histogram.counts = self.counts.sum(axis=(0, 1, 2))
        return histogram

    def best(self) -> Thresholds:
        """Return the thresholds of highest structure IoU at each horizon, and of those the ones of
        highest IoU; balanced, the ones of their highest sum.

        Where a horizon has no occupied cell there is nothing to choose: the single threshold.
        """
        return self.best_with_merit()[0]

    def best_sum(self) -> float:
        """Return the sum of IoU and structure IoU over all horizons at the best thresholds."""
        return self.best_with_merit()[1]

    def best_with_merit(self) -> tuple[Thresholds, float]:
        """Return `best` and `best_sum` from one search."""
        single, _ = self.pooled().best_threshold()
        best_pairs = [_best_pair(counts, self.balanced) for counts in self.counts]
        ground, above = zip(*(pair or (single, single) for _, pair in best_pairs), strict=True)
        return Thresholds(single, ground, above), sum(merit for merit, _ in best_pairs)


def _best_pair(counts: np.ndarray, balanced: bool) -> tuple[float, tuple[float, float] | None]:
    """Return the sum of IoU and structure IoU of counts (2, 2, 2, BINS) at the best thresholds of
    ground and above, and these; 0 and None without an occupied cell."""
    if not counts[:, :, 1].any():
        return 0.0, None
    # cells at or above each inner edge: (side of the ground, structure, occupied, BINS - 1)
    reached = counts[..., ::-1].cumsum(-1)[..., ::-1][..., 1:]
    scores = []
    for part in (slice(None), slice(1, 2)):  # all cells, structure alone
        false, hit = (reached[:, part, kind].sum(1) for kind in (0, 1))
        hits = hit[0][:, None] + hit[1]
        union = false[0][:, None] + false[1] + counts[:, part, 1].sum()
        scores.append(np.nan_to_num(ratio(hits, union)))
    iou, structure = scores  # (thresholds of the ground, thresholds above)
    ground = _middle_best(iou)
    at_best, merit = (table[ground, np.arange(BINS - 1)] for table in (iou, structure))
    choice = at_best + merit if balanced else np.where(merit == merit.max(), at_best, -1.0)
    a = int(_middle_best(choice[:, None])[0])
    g = ground[a]
    return float(at_best[a] + merit[a]), (float(g + 1) / BINS, (a + 1) / BINS)


def _middle_best(scores: np.ndarray) -> np.ndarray:
    """Return int (C,): the row of the highest score in each column of (R, C); the middle one of
    several."""
    highest = scores == scores.max(axis=0)
    middle = highest.sum(axis=0) // 2
    return (highest.cumsum(axis=0) > middle).argmax(axis=0)
