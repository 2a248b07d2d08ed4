"""Choose the weight of the refinement network's residual.

The memory alone is a good forecast already; the network adds a residual to its logits. After
minutes of training the residual makes it worse, after hours better. So validation chooses the
weight among `SHARES`, by the highest sum of IoU and structure IoU at the best thresholds, for each
track apart.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vlwm.core.evaluation.calibration.thresholds import ThresholdHistogram

SHARES = (0.0, 0.5, 1.0)


class ResidualWeightSweep:
    """Counts of cells by probability for each share of the residual; ranks can add theirs up.

    Args:
        horizons: future frames.
        balanced: as of `ThresholdHistogram`.

    Attributes:
        counts: int64 (shares, …), those of `ThresholdHistogram`.
    """

    def __init__(self, horizons: int, *, balanced: bool = False) -> None:
        self.histograms = [ThresholdHistogram(horizons, balanced=balanced) for _ in SHARES]
        self.counts = np.stack([histogram.counts for histogram in self.histograms])
        for histogram, counts in zip(self.histograms, self.counts, strict=True):
            histogram.counts = counts

    def add(
        self,
        memory: Tensor,
        logits: Tensor,
        truth: Tensor,
        horizon: int,
        known: Tensor | None = None,
    ) -> None:
        """Count one frame: logits (X, Y, Z) without and with the residual, and uint8 (X, Y, Z).

        Args:
            known: bool (X, Y, Z), cells that count; None: all.
        """
        for share, histogram in zip(SHARES, self.histograms, strict=True):
            mixed = torch.lerp(memory.float(), logits.float(), share)
            histogram.add(torch.sigmoid(mixed), truth, horizon, known)

    def best(self) -> tuple[float, ThresholdHistogram]:
        """Return the best share (the smallest on a tie) and its counts."""
        merits = [histogram.best_sum() for histogram in self.histograms]
        chosen = int(np.argmax(merits))
        return SHARES[chosen], self.histograms[chosen]
