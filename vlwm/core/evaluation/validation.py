"""Score the model and the baselines on some validation windows while training.

The full protocol (zones, intervals, strata) is `evaluator.evaluate`. This one shows after each
epoch if the model is above what learns nothing, and chooses its thresholds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from vlwm.core.evaluation.baselines.fitted import MEMORY, FittedBaselines
from vlwm.core.evaluation.baselines.forecasts import BaselineForecasts
from vlwm.core.evaluation.baselines.warps import plan_track, predicted_track
from vlwm.core.evaluation.calibration.residual_weight import ResidualWeightSweep
from vlwm.core.evaluation.eval_windows import EvalWindow, WindowShape, windows_in
from vlwm.core.evaluation.metrics import HIT, PREDICTED, TRUE, iou_of
from vlwm.core.geometry.grid import VoxelGrid

if TYPE_CHECKING:
    from vlwm.core.data.batch import Batch
    from vlwm.core.model.forward import Forecast


class ValidationMeter:
    """Pools the validation windows of one epoch, batch by batch.

    Attributes:
        free, planned: the model's forecasts in the two tracks.
        baselines: metric -> name of the method without learning that it scores.
        baseline: int64 (metrics, Q), counts of those methods.

    Args:
        grid: the grid.
        prior: bool (Z,): the column prior of the train split (`column_prior.train_prior`).
        shape: frames of a window.
        with_baselines: score baselines too; they are the same every epoch, so that once is enough.
        fitted: baselines with parameters; None: the memory baseline alone.
        observed: the past is what a sensor saw; thresholds then balance both kinds of IoU.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        prior: np.ndarray,
        shape: WindowShape,
        *,
        with_baselines: bool = True,
        fitted: FittedBaselines | None = None,
        observed: bool = False,
    ) -> None:
        self.grid, self.prior, self.shape, self.fitted = grid, prior, shape, fitted
        self.free, self.planned = (
            ResidualWeightSweep(shape.future, balanced=observed) for _ in range(2)
        )
        self.baselines: dict[str, str] = {}
        if with_baselines:
            self.baselines["val/iou_memory_baseline"] = MEMORY["predicted"]
        if with_baselines and fitted is not None:
            self.baselines["val/iou_baseline"] = fitted.baseline["predicted"]
            self.baselines["val/iou_plan_baseline"] = fitted.baseline["plan"]
        self.baseline = np.zeros((len(self.baselines), 4), np.int64)

    def add(self, batch: Batch, free: Forecast, planned: Forecast) -> None:
        """Count one batch and the model's forecasts for it, from the past alone and by the plan."""
        for b, window in enumerate(windows_in(batch, self.shape.history, self.grid)):
            for sweep, forecast in ((self.free, free), (self.planned, planned)):
                for h, truth in enumerate(window.truth):
                    known = None if window.known is None else window.known[h]
                    memory, logits = forecast.memory_logits[b, h], forecast.logits[b, h]
                    sweep.add(memory, logits, truth, h, known)
            if self.baselines:
                self._add_baselines(window)

    def counts(self) -> tuple[np.ndarray, ...]:
        """Return all that is counted; ranks add theirs up in place."""
        return self.free.counts, self.planned.counts, self.baseline

    def _add_baselines(self, window: EvalWindow) -> None:
        """Count the baselines of one window, each at its single threshold, as the model is."""
        shape, past, wanted = self.shape, window.past, set(self.baselines.values())
        forecasts = None
        if self.fitted is not None:
            forecasts = BaselineForecasts(past, self.fitted, self.grid, shape.dt_s, wanted)
        nearest = zip(
            predicted_track(past, self.prior, self.grid, shape.dt_s, shape.horizons_s),
            plan_track(past, window.future_ego, self.prior, self.grid),
            strict=True,
        )
        for h, (unknown, (planned, _)) in enumerate(nearest):
            cells_of = {**unknown, **planned}
            if forecasts is not None and self.fitted is not None:
                soft = {**forecasts.predicted(h), **forecasts.planned(window.future_ego[h])}
                for name, probability in soft.items():
                    threshold = self.fitted.thresholds_of(name).threshold
                    cells_of[name] = (probability >= threshold).view(torch.uint8)
            truth = window.truth[h]
            if window.known is not None:  # unknown cells count for nobody
                truth = truth[window.known[h]]
                cells_of = {name: cells[window.known[h]] for name, cells in cells_of.items()}
            for row, name in zip(self.baseline, self.baselines.values(), strict=True):
                row[HIT] += int(torch.count_nonzero(cells_of[name] & truth))
                row[PREDICTED] += int(torch.count_nonzero(cells_of[name]))
                row[TRUE] += int(torch.count_nonzero(truth))

    def baseline_numbers(self) -> dict[str, float]:
        """Return the IoU of each baseline; one that does not exist is left out."""
        iou = zip(self.baselines, iou_of(self.baseline), strict=True)
        return {name: float(value) for name, value in iou if not np.isnan(value)}

    def numbers(self) -> dict[str, float]:
        """Return val/iou of both tracks at the best single threshold and residual weight, the
        threshold of the predicted one, both weights, and the baselines' IoU.

        A number that does not exist (nothing occupied, no baseline asked for) is left out.
        """
        numbers = {}
        for track, sweep in (("", self.free), ("_plan", self.planned)):
            numbers[f"val/trust{track}"], cells = sweep.best()
            threshold, iou = cells.pooled().best_threshold()
            numbers |= {} if iou is None else {f"val/iou{track}": iou}
            numbers |= {} if track else {"val/threshold": threshold}
        return numbers | self.baseline_numbers()
