"""Forecast a batch with the world model: both tracks, its motion, the tokenizer's round trip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vlwm.core.evaluation.calibration.thresholds import Thresholds
from vlwm.core.model.motion.vehicle_state import motion_error, true_state
from vlwm.core.model.semantic import cells_with_class
from vlwm.core.vocabulary import Track

if TYPE_CHECKING:
    from vlwm.core.data.batch import Batch
    from vlwm.core.model.world_model import WorldModel

LEARNED = (*(str(track) for track in Track), "tokenizer_round_trip")
"""Names as in scores.json."""


_PLAIN = Thresholds()


@dataclass(frozen=True)
class TrackThresholds:
    """Thresholds of each method's probabilities."""

    model: Thresholds = _PLAIN
    model_plan: Thresholds = _PLAIN
    tokenizer_round_trip: Thresholds = _PLAIN


@dataclass(frozen=True)
class LearnedMotion:
    """The model's motion of one window.

    Attributes:
        ego: float64 (H, 4), future ego frames in the anchor frame.
        error: float64 (H, D), of its state (m, rad, m/s, rad/s), angles wrapped.
        sigma: float64 (H, D), that it gives itself.
    """

    ego: np.ndarray
    error: np.ndarray
    sigma: np.ndarray


class LearnedForecasts:
    """The model's answers for one batch.

    Args:
        model: a world model in evaluation mode.
        batch: the batch, on the model's device.
        history: past frames of a window.
        thresholds: where probabilities are cut.
    """

    def __init__(
        self, model: WorldModel, batch: Batch, history: int, thresholds: TrackThresholds
    ) -> None:
        self.model, self.thresholds = model, thresholds
        past = batch.past(history)
        predicted = model.forecast(past)
        self.logits = predicted.logits  # (B, H, X, Y, Z)
        size = predicted.log_sigma.shape[-1]
        truth = true_state(batch.poses[:, history:].double(), size)
        error = motion_error(true_state(predicted.poses.double(), size), truth)
        self._motion = [
            value.double().cpu().numpy()
            for value in (predicted.ego, error, predicted.log_sigma.exp())
        ]
        planned = model.forecast(past, batch.plan(history))
        self.plan_logits = planned.logits
        self._classes = (predicted.classes, planned.classes)

    def motion(self, window: int) -> LearnedMotion:
        """Return the motion of a window, and how far it is from the true one."""
        return LearnedMotion(*(value[window] for value in self._motion))

    def probability(self, window: int, horizon: int) -> Tensor:
        """Return float32 (X, Y, Z): the model's probability in the predicted track."""
        return torch.sigmoid(self.logits[window, horizon].float())

    def plan_probability(self, window: int, horizon: int) -> Tensor:
        """Return float32 (X, Y, Z): the model's probability in the plan track."""
        return torch.sigmoid(self.plan_logits[window, horizon].float())

    def planes(
        self, window: int, horizon: int, truth: Tensor, classes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return uint8 (X, Y, Z) by method; the truth goes to the tokenizer alone.

        Args:
            truth: uint8 (X, Y, Z).
            classes: uint8 (X, Y, Z), where there are some.
        """
        planned = self.plan_probability(window, horizon)
        round_trip = self._round_trip(truth, classes)
        probabilities = (self.probability(window, horizon), planned, round_trip)
        return {
            name: getattr(self.thresholds, name).occupied(p, horizon)
            for name, p in zip(LEARNED, probabilities, strict=True)
        }

    def class_planes(
        self, window: int, horizon: int, planes: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return classes uint8 (X, Y, Z) of both tracks: free where `planes` is not occupied."""
        class_planes = {}
        for method, classes in zip(LEARNED, self._classes, strict=False):
            if classes is not None:
                free = torch.full_like(planes[method], self.model.free_class)
                class_planes[method] = torch.where(
                    planes[method] > 0, classes[window, horizon], free
                )
        return class_planes

    def _round_trip(self, truth: Tensor, classes: Tensor | None) -> Tensor:
        vae = self.model.vae
        cells = truth[None]
        if classes is not None:
            cells = cells_with_class(cells, classes[None], self.model.free_class)
        return torch.sigmoid(vae.decode_occupancy(vae.embed(vae.tokenise(cells)))[0].float())
