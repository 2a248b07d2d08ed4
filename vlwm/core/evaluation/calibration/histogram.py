"""Count predicted probabilities against truth, for thresholds and the reliability curve.

Probabilities are counted against truth in 256 bins, a power of two, so that the bin of a float32
probability is exact and "probability at or above the edge of bin k" means the same here and where
the threshold is applied.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BINS = 256
"""of a probability, equal in width"""
_RELIABILITY_BINS = 16
"""of the calibration curve"""
DEFAULT_THRESHOLD = 0.5


class ProbabilityHistogram:
    """int64 counts of predicted probability, apart for empty and occupied cells.

    Attributes:
        counts: int64 (2, BINS): row 0 truly empty cells, row 1 truly occupied ones.
    """

    def __init__(self) -> None:
        self.counts = np.zeros((2, BINS), np.int64)

    def add(self, probability: Tensor, truth: Tensor) -> None:
        """Count one batch.

        Args:
            probability: float (...), in [0, 1]; a cell with NaN is an error.
            truth: uint8 or bool (...), 0 or 1.
        """
        bin_of = bins_of(probability)
        bin_of.add_(truth.reshape(-1), alpha=BINS)
        counts = torch.bincount(bin_of, minlength=2 * BINS).cpu().numpy()
        self.counts += counts.reshape(2, BINS)

    def merge(self, other: ProbabilityHistogram) -> None:
        """Add the counts of another histogram."""
        self.counts += other.counts

    def best_threshold(self) -> tuple[float, float | None]:
        """Return the threshold with the highest pooled IoU, and that IoU.

        The sweep is over all inner bin edges; where several are equal the middle one is taken.
        Without an occupied cell there is nothing to choose: (0.5, None).
        """
        below = self.counts[:, ::-1].cumsum(1)[:, ::-1]  # cells at or above each edge
        hit, false = below[1], below[0]
        total = self.counts[1].sum()
        if total == 0:
            return DEFAULT_THRESHOLD, None
        iou = hit[1:] / (false[1:] + total)  # union = false alarms + all occupied
        best = np.flatnonzero(iou == iou.max())
        edge = int(best[len(best) // 2]) + 1
        return edge / BINS, float(iou.max())

    def reliability(self) -> dict[str, list]:
        """Return predicted probability, observed share and number of cells in 16 equal bins.

        A bin without a cell has None. `predicted` is the mean of the fine bins' centres.
        """
        fine = self.counts.sum(0)
        centres = (np.arange(BINS) + 0.5) / BINS
        shape = (_RELIABILITY_BINS, -1)
        cells = fine.reshape(shape).sum(1)
        weighted = (fine * centres).reshape(shape).sum(1)
        occupied = self.counts[1].reshape(shape).sum(1)
        return {
            "predicted": [
                float(w / n) if n else None for w, n in zip(weighted, cells, strict=True)
            ],
            "observed": [float(o / n) if n else None for o, n in zip(occupied, cells, strict=True)],
            "cells": [int(n) for n in cells],
        }


def bins_of(probability: Tensor) -> Tensor:
    """Return int16 (N,): the bin of each of N probabilities of any shape.

    Raises:
        ValueError: one is NaN.
    """
    if bool(torch.isnan(probability).any()):
        raise ValueError("a forecast holds NaN")
    return (probability.reshape(-1).float() * BINS).to(torch.int16).clamp_(0, BINS - 1)
