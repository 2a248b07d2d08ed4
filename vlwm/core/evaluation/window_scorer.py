"""Judges batches of windows: every method, horizon and zone, into a tally.

The predicted track is computed from the past alone; the true future enters only as the plan that
the plan track is given, as the truth that all are compared with, and through the tokenizer.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vlwm.core.evaluation.accumulators import Tally
from vlwm.core.evaluation.baselines.warps import (
    BASELINES,
    plan_track,
    predicted_ego,
    predicted_track,
)
from vlwm.core.evaluation.eval_windows import JudgedWindow, windows_in
from vlwm.core.evaluation.metrics import ZONES, count_zones, structure_mask
from vlwm.core.evaluation.model_forecasts import LEARNED, Cuts, LearnedForecasts, LearnedMotion
from vlwm.core.evaluation.scores.strata import strata_of
from vlwm.core.geometry.grid import VoxelGrid

if TYPE_CHECKING:
    from vlwm.core.data.batch import Batch
    from vlwm.core.model.world_model import WorldModel


@dataclass(frozen=True)
class JudgedFrame:
    """One future frame of one window, with every forecast of it.

    Attributes:
        horizon: index of the future frame.
        planes: uint8 (X, Y, Z) by method, in the order of `Judge.methods`.
        truth, seen: uint8 (X, Y, Z).
        probability: the model's, float32 (X, Y, Z), or None without a model.
    """

    horizon: int
    planes: dict[str, Tensor]
    truth: Tensor
    seen: Tensor
    probability: Tensor | None


@dataclass(frozen=True)
class WindowVerdict:
    """One window with its frames still to come.

    Attributes:
        window: past, truth and true future ego frames.
        frames: one `JudgedFrame` per horizon, made when asked for.
        model: motion predicted by the model, or None.
    """

    window: JudgedWindow
    frames: Iterator[JudgedFrame]
    model: LearnedMotion | None


class Judge:
    """Forecasts windows with every method and counts.

    Args:
        grid: the grid of all frames.
        prior: bool (Z,) of `prior.column_prior`.
        history, future: frames of a window.
        dt_s: seconds between frames.
        model: a world model in evaluation mode, or None for the baselines alone.
        cuts: where its probabilities are cut.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        prior: np.ndarray,
        history: int,
        future: int,
        dt_s: float,
        model: WorldModel | None = None,
        cuts: Cuts | None = None,
    ) -> None:
        self.grid, self.prior, self.history, self.dt_s = grid, prior, history, dt_s
        self.horizons_s = dt_s * np.arange(1, future + 1)
        self.model = model
        self.cuts = cuts or Cuts()
        self.methods = (LEARNED if model is not None else ()) + BASELINES

    def new_tally(self) -> Tally:
        """An empty tally for this judge's methods and horizons."""
        return Tally(self.methods, len(self.horizons_s))

    @torch.inference_mode()
    def add(self, batch: Batch, clusters: Sequence[Hashable], tally: Tally) -> None:
        """Judge a batch on its device and add it to the tally; one cluster key per window."""
        for verdict, cluster in zip(self.verdicts(batch), clusters, strict=True):
            window = verdict.window
            shape = (len(self.methods), len(self.horizons_s), len(ZONES), 4)
            counts = np.empty(shape, np.int64)
            for frame in verdict.frames:
                structure = structure_mask(frame.truth)
                forecasts = [frame.planes[m] for m in self.methods]
                counts[:, frame.horizon] = count_zones(
                    forecasts, frame.truth, frame.seen, structure
                )
                if frame.probability is not None:
                    tally.probabilities.add(frame.probability, frame.truth)
            strata = strata_of(window.past.ego, self.dt_s)
            tally.add(counts, cluster, strata)
            twist = predicted_ego(window.past.ego, self.dt_s, self.horizons_s)
            tally.add_pose("constant_twist", twist, window.future_ego, strata)
            if verdict.model is not None:
                tally.add_pose("model", verdict.model.ego, window.future_ego, strata)
                tally.state.add(verdict.model.error, verdict.model.sigma)

    def verdicts(self, batch: Batch) -> Iterator[WindowVerdict]:
        """Every window of a batch; use its frames before the next one is asked for."""
        learned = None
        if self.model is not None:
            learned = LearnedForecasts(self.model, batch, self.history, self.cuts)
        for b, window in enumerate(windows_in(batch, self.history, self.grid)):
            motion = None if learned is None else learned.motion(b)
            yield WindowVerdict(window, self._frames(window, b, learned), motion)

    def _frames(
        self, window: JudgedWindow, b: int, learned: LearnedForecasts | None
    ) -> Iterator[JudgedFrame]:
        unknown = predicted_track(window.past, self.prior, self.grid, self.dt_s, self.horizons_s)
        given = plan_track(window.past, window.future_ego, self.prior, self.grid)
        for h, (predicted, (planned, seen)) in enumerate(zip(unknown, given, strict=True)):
            truth, planes, probability = window.truth[h], {**predicted, **planned}, None
            if learned is not None:
                planes.update(learned.planes(b, h, truth))
                probability = learned.probability(b, h)
            yield JudgedFrame(h, planes, truth, seen, probability)
