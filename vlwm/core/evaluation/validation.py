"""A light judgement while training: model and memory baseline on some validation windows.

The full protocol (zones, intervals, both tracks) is `evaluator.evaluate`; this one answers after
each epoch whether the model beats what needs no learning, and where its threshold lies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vlwm.core.evaluation.baselines import predicted_track
from vlwm.core.evaluation.cut import CutHistogram
from vlwm.core.evaluation.metrics import HIT, PREDICTED, TRUE, iou_of
from vlwm.core.evaluation.windows import windows_in
from vlwm.core.geometry.grid import VoxelGrid

if TYPE_CHECKING:
    from vlwm.core.data.dataset import Batch


class ValidationMeter:
    """Pools the validation windows of one epoch, batch by batch.

    Args:
        grid: the grid.
        prior: bool (Z,): the column prior of the train split (`prior.column_prior`).
        history: past frames of a window.
        future: future frames of a window.
        dt_s: seconds between frames.
        with_baseline: judge the memory baseline too; it is the same every epoch, so that once
            is enough.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        prior: np.ndarray,
        history: int,
        future: int,
        dt_s: float,
        *,
        with_baseline: bool = True,
    ) -> None:
        self.grid, self.prior, self.history, self.dt_s = grid, prior, history, dt_s
        self.with_baseline = with_baseline
        self.cells = CutHistogram(future)
        self.baseline = np.zeros(4, np.int64)

    def add(self, batch: Batch, logits: Tensor) -> None:
        """Count one batch and the model's logits (B, H, X, Y, Z) for it."""
        for window, forecast in zip(
            windows_in(batch, self.history, self.grid), logits, strict=True
        ):
            for h, frame in enumerate(forecast):
                self.cells.add(torch.sigmoid(frame.float()), window.truth[h], h)
            if self.with_baseline:
                horizons_s = self.dt_s * np.arange(1, len(forecast) + 1)
                track = predicted_track(window.past, self.prior, self.grid, self.dt_s, horizons_s)
                for h, planes in enumerate(track):
                    self._count_baseline(planes["memory_baseline"], window.truth[h])

    def _count_baseline(self, forecast: Tensor, truth: Tensor) -> None:
        self.baseline[HIT] += int(torch.count_nonzero(forecast & truth))
        self.baseline[PREDICTED] += int(torch.count_nonzero(forecast))
        self.baseline[TRUE] += int(torch.count_nonzero(truth))

    def numbers(self) -> dict[str, float]:
        """val/iou at the best single threshold, that threshold, and the memory baseline's IoU.

        A number that does not exist (nothing occupied, no baseline asked for) is left out.
        """
        threshold, iou = self.cells.pooled().best_threshold()
        found = {"val/threshold": threshold}
        if iou is not None:
            found["val/iou"] = iou
        rival = float(iou_of(self.baseline))
        if not np.isnan(rival):
            found["val/iou_memory_baseline"] = rival
        return found
