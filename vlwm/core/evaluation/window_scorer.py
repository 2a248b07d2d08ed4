"""Score batches of windows: every method, horizon and zone, into a tally.

The predicted track is computed from the past alone; the true future enters only as the plan that
the plan track is given, as the truth that all are compared with, and through the tokenizer.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vlwm.core.evaluation.accumulators import Tally
from vlwm.core.evaluation.baselines.fitted import FittedBaselines, strongest
from vlwm.core.evaluation.baselines.forecasts import BaselineForecasts, at_threshold
from vlwm.core.evaluation.baselines.tri_state import METHODS as TRI_STATE
from vlwm.core.evaluation.baselines.tri_state import TriState
from vlwm.core.evaluation.baselines.warps import (
    BASELINES,
    plan_track,
    predicted_ego,
    predicted_track,
)
from vlwm.core.evaluation.classes import METHODS as CLASS_METHODS
from vlwm.core.evaluation.classes import ClassTally
from vlwm.core.evaluation.eval_windows import EvalWindow, windows_in
from vlwm.core.evaluation.metrics import MOST_FORECASTS, ZONES, count_zones, structure_mask
from vlwm.core.evaluation.model_forecasts import (
    LEARNED,
    LearnedForecasts,
    LearnedMotion,
    TrackThresholds,
)
from vlwm.core.evaluation.observed.scorer import ObservedFrame, observed_frames
from vlwm.core.evaluation.observed.tally import ObservedTally, called_free
from vlwm.core.evaluation.scores.strata import strata_of
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.semantic import cells_with_class, warped_classes
from vlwm.core.vocabulary import Track

if TYPE_CHECKING:
    from vlwm.core.data.batch import Batch
    from vlwm.core.model.world_model import WorldModel


@dataclass(frozen=True)
class FrameForecasts:
    """One future frame of one window, with every forecast of it.

    Attributes:
        horizon: index of the future frame.
        planes: uint8 (X, Y, Z) by method, in the order of `WindowScorer.methods`.
        truth, seen: uint8 (X, Y, Z).
        probability: the model's, float32 (X, Y, Z), or None without a model.
        free: bool (X, Y, Z), cells that a method calls free, of methods with probabilities.
        observed: what an observed past adds; None where the past is the truth.
        known: bool (X, Y, Z), cells whose truth is known; None: all of them.
        classes: uint8 (X, Y, Z) by method, and of the truth under ''; empty without classes.
    """

    horizon: int
    planes: dict[str, Tensor]
    truth: Tensor
    seen: Tensor
    probability: Tensor | None
    free: dict[str, Tensor]
    observed: ObservedFrame | None = None
    known: Tensor | None = None
    classes: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class WindowForecasts:
    """One window with its frames still to come.

    Attributes:
        window: past, truth and true future ego frames.
        frames: one `FrameForecasts` per horizon, made when asked for.
        model: motion predicted by the model, or None.
        motions: future ego frames float64 (H, 4) by motion without learning.
    """

    window: EvalWindow
    frames: Iterator[FrameForecasts]
    model: LearnedMotion | None
    motions: dict[str, np.ndarray]


class WindowScorer:
    """Forecasts windows with every method and counts.

    Args:
        grid: the grid of all frames.
        prior: bool (Z,) of `column_prior.train_prior`.
        history, future: frames of a window.
        dt_s: seconds between frames.
        model: a world model in evaluation mode, or None for the baselines alone.
        thresholds: thresholds of its probabilities.
        fitted: baselines with parameters; None: only those without.
        tri_state: baselines of an observed past; None where the past is the truth.
        free_class: the class of free space where classes are scored; None: they are not.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        prior: np.ndarray,
        history: int,
        future: int,
        dt_s: float,
        model: WorldModel | None = None,
        thresholds: TrackThresholds | None = None,
        fitted: FittedBaselines | None = None,
        tri_state: TriState | None = None,
        free_class: int | None = None,
    ) -> None:
        self.free_class = free_class
        self.tri_state = tri_state
        self.grid, self.prior, self.history, self.dt_s = grid, prior, history, dt_s
        self.horizons_s = dt_s * np.arange(1, future + 1)
        self.model = model
        self.thresholds, self.fitted = thresholds or TrackThresholds(), fitted
        self.methods = (LEARNED if model is not None else ()) + BASELINES
        self.methods += TRI_STATE if tri_state is not None else ()
        self.methods += () if fitted is None else fitted.methods

    @property
    def baseline(self) -> dict[str, str]:
        """Return track -> the strongest method without learning on validation."""
        if self.fitted is not None:
            return self.fitted.baseline
        return strongest({} if self.tri_state is None else self.tri_state.merits)

    def new_tally(self) -> Tally:
        """Return an empty tally for these methods and horizons."""
        horizons = len(self.horizons_s)
        tally = Tally(self.methods, horizons)
        if self.tri_state is not None:
            tally.observed = ObservedTally(self.methods, horizons)
        if self.free_class is not None:
            learned = LEARNED[:2] if self.model is not None else ()
            tally.classes = ClassTally(learned + CLASS_METHODS, horizons, self.free_class)
        return tally

    @torch.inference_mode()
    def add(self, batch: Batch, clusters: Sequence[Hashable], tally: Tally) -> None:
        """Score a batch on its device and add it to the tally; one cluster key per window."""
        for forecast, cluster in zip(self.forecasts(batch), clusters, strict=True):
            window = forecast.window
            shape = (len(self.methods), len(self.horizons_s), len(ZONES), 4)
            counts = np.empty(shape, np.int64)
            for frame in forecast.frames:
                structure = structure_mask(frame.truth)
                for first in range(0, len(self.methods), MOST_FORECASTS):
                    some = self.methods[first : first + MOST_FORECASTS]
                    counts[first : first + len(some), frame.horizon] = count_zones(
                        [frame.planes[m] for m in some], frame.truth, frame.seen, structure,
                        frame.known,
                    )  # fmt: skip
                self._add_observed(frame, cluster, tally)
                if tally.classes is not None:
                    truth = frame.classes[""]
                    tally.classes.add(frame.horizon, frame.classes, truth, frame.known)
                if frame.probability is not None:
                    cells = slice(None) if frame.known is None else frame.known
                    tally.probabilities.add(frame.probability[cells], frame.truth[cells])
            strata = strata_of(window.past.ego, self.dt_s)
            tally.add(counts, cluster, strata)
            for name, ego in forecast.motions.items():
                tally.add_pose(name, ego, window.future_ego, strata)
            if forecast.model is not None:
                tally.add_pose(Track.PREDICTED, forecast.model.ego, window.future_ego, strata)
                tally.state.add(forecast.model.error, forecast.model.sigma)

    def _add_observed(self, frame: FrameForecasts, cluster: Hashable, tally: Tally) -> None:
        """Count a frame whose past is observed in its zones and on the way."""
        seen = frame.observed
        if seen is None or tally.observed is None:
            return
        free = {**frame.free, **seen.free}
        zones = seen.zones if frame.known is None else seen.zones.within(frame.known)
        tally.observed.add(
            cluster, frame.horizon, frame.planes, free, frame.truth, zones, seen.near,
            seen.way, frame.probability,
        )  # fmt: skip

    def forecasts(self, batch: Batch) -> Iterator[WindowForecasts]:
        """Yield every window of a batch; read its frames before asking for the next window."""
        learned = None
        if self.model is not None:
            learned = LearnedForecasts(self.model, batch, self.history, self.thresholds)
        for b, window in enumerate(windows_in(batch, self.history, self.grid)):
            motion = None if learned is None else learned.motion(b)
            twist = predicted_ego(window.past.ego, self.dt_s, self.horizons_s)
            fitted, motions = None, {"constant_twist": twist}
            if (tri_state := self.tri_state) is not None:
                ego = tri_state.predicted_ego(window.past, self.dt_s, self.horizons_s)
                motions[tri_state.motion_name] = ego
            if self.fitted is not None:
                fitted = BaselineForecasts(window.past, self.fitted, self.grid, self.dt_s)
                motions |= fitted.ego
            frames = self._frames(window, b, learned, fitted)
            yield WindowForecasts(window, frames, motion, motions)

    def _frames(
        self,
        window: EvalWindow,
        b: int,
        learned: LearnedForecasts | None,
        fitted: BaselineForecasts | None,
    ) -> Iterator[FrameForecasts]:
        by_twist = predicted_track(window.past, self.prior, self.grid, self.dt_s, self.horizons_s)
        by_plan = plan_track(window.past, window.future_ego, self.prior, self.grid)
        extra = None
        if self.tri_state is not None and window.seen is not None:
            ego = self.tri_state.predicted_ego(window.past, self.dt_s, self.horizons_s)
            extra = observed_frames(window, ego, self.tri_state)
        for h, (predicted, (planned, seen)) in enumerate(zip(by_twist, by_plan, strict=True)):
            truth, planes, probability = window.truth[h], {**predicted, **planned}, None
            free = dict[str, Tensor]()
            observed = next(extra) if extra is not None else None
            if observed is not None:
                planes.update(observed.planes)
            if learned is not None:
                kinds = None if window.classes is None else window.classes[self.history + h]
                planes.update(learned.planes(b, h, truth, kinds))
                probability = learned.probability(b, h)
                if observed is not None:
                    planned_probability = learned.plan_probability(b, h)
                    free = {
                        Track.PREDICTED: called_free(probability),
                        Track.PLAN: called_free(planned_probability),
                    }
            if fitted is not None and self.fitted is not None:
                probabilities = {**fitted.predicted(h), **fitted.planned(window.future_ego[h])}
                planes.update(at_threshold(probabilities, self.fitted, h))
            known = None if window.known is None else window.known[h]
            classes = self._classes(window, b, h, learned, planes)
            yield FrameForecasts(
                h, planes, truth, seen, probability, free, observed, known, classes
            )

    def _classes(
        self,
        window: EvalWindow,
        b: int,
        h: int,
        learned: LearnedForecasts | None,
        planes: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Return classes uint8 (X, Y, Z) by method, and of the truth under ''."""
        if self.free_class is None or window.classes is None:
            return {}
        past = cells_with_class(
            window.past.occupancy, window.classes[: self.history], self.free_class
        )
        last = past[-1:][None]  # (1, 1, X, Y, Z)
        ego = predicted_ego(window.past.ego, self.dt_s, self.horizons_s[h : h + 1])
        here, there = (torch.as_tensor(e, device=last.device) for e in (window.past.ego[-1:], ego))
        moved = warped_classes(last, here[None], there, self.grid, self.free_class)
        classes = {"": window.classes[self.history + h]}
        classes |= dict(zip(CLASS_METHODS, (past[-1], moved[0, 0]), strict=True))
        return classes if learned is None else classes | learned.class_planes(b, h, planes)
