"""A light judgement while training: model and memory baseline on some validation windows.

The full protocol (zones, intervals, both tracks) is `evaluator.evaluate`; this one answers after
each epoch whether the model beats what needs no learning, and where its threshold lies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vlwm.core.evaluation.baselines.warps import predicted_track
from vlwm.core.evaluation.calibration.residual_weight import TrustSweep
from vlwm.core.evaluation.eval_windows import windows_in
from vlwm.core.evaluation.metrics import HIT, PREDICTED, TRUE, iou_of
from vlwm.core.geometry.grid import VoxelGrid

if TYPE_CHECKING:
    from vlwm.core.data.batch import Batch
    from vlwm.core.model.world_model import Forecast


class ValidationMeter:
    """Pools the validation windows of one epoch, batch by batch.

    Attributes:
        free, planned: the model's forecasts in the two tracks.
        baseline: int64 counts of the memory baseline.

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
        self.free, self.planned = TrustSweep(future), TrustSweep(future)
        self.baseline = np.zeros(4, np.int64)

    def add(self, batch: Batch, free: Forecast, planned: Forecast) -> None:
        """Count one batch and the model's forecasts for it, from the past alone and by the plan."""
        for b, window in enumerate(windows_in(batch, self.history, self.grid)):
            for sweep, forecast in ((self.free, free), (self.planned, planned)):
                for h, truth in enumerate(window.truth):
                    sweep.add(forecast.memory_logits[b, h], forecast.logits[b, h], truth, h)
            if self.with_baseline:
                horizons_s = self.dt_s * np.arange(1, len(window.truth) + 1)
                track = predicted_track(window.past, self.prior, self.grid, self.dt_s, horizons_s)
                for h, planes in enumerate(track):
                    self._count_baseline(planes["memory_baseline"], window.truth[h])

    def counts(self) -> tuple[np.ndarray, ...]:
        """All that is counted; ranks add theirs up in place."""
        return self.free.counts, self.planned.counts, self.baseline

    def _count_baseline(self, forecast: Tensor, truth: Tensor) -> None:
        self.baseline[HIT] += int(torch.count_nonzero(forecast & truth))
        self.baseline[PREDICTED] += int(torch.count_nonzero(forecast))
        self.baseline[TRUE] += int(torch.count_nonzero(truth))

    def numbers(self) -> dict[str, float]:
        """val/iou of both tracks at the best single threshold and share of the residual, the
        threshold of the predicted one, both shares, and the memory baseline's IoU.

        A number that does not exist (nothing occupied, no baseline asked for) is left out.
        """
        found = {}
        for track, sweep in (("", self.free), ("_plan", self.planned)):
            found[f"val/trust{track}"], cells = sweep.best()
            threshold, iou = cells.pooled().best_threshold()
            found |= {} if iou is None else {f"val/iou{track}": iou}
            found |= {} if track else {"val/threshold": threshold}
        rival = float(iou_of(self.baseline))
        if not np.isnan(rival):
            found["val/iou_memory_baseline"] = rival
        return found
