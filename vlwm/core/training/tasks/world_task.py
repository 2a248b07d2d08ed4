"""Train the world model on windows of past and future frames (stage 2)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlwm.core.config.schema import Config
from vlwm.core.data.batch import Batch
from vlwm.core.data.datasets import WindowDataset, layers_of_task
from vlwm.core.evaluation.baselines.fit import VALIDATION_WINDOWS, fit_baselines
from vlwm.core.evaluation.baselines.fitted import FittedBaselines
from vlwm.core.evaluation.calibration.thresholds import Thresholds
from vlwm.core.evaluation.column_prior import ColumnPrior
from vlwm.core.evaluation.eval_windows import WindowShape
from vlwm.core.evaluation.validation import ValidationMeter
from vlwm.core.model.checkpoint_content import CheckpointContent
from vlwm.core.model.loss_report import LossTerm
from vlwm.core.model.world_loss import WorldLoss, planned_half
from vlwm.core.model.world_model import WorldModel
from vlwm.core.training.loop.data_loader import epoch_batches, share_of
from vlwm.core.training.loop.task import Pause, validate_all
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.startup.train_data import TrainData
from vlwm.core.training.tasks.best_motion import BestMotion
from vlwm.core.training.tasks.fusion_pretraining import CompletionPretraining, FusionPretraining
from vlwm.core.training.tasks.motion_pretraining import MotionPretraining, Motions, motions_of
from vlwm.core.training.tasks.pretraining import PretrainingPhase
from vlwm.core.training.tasks.prior_pretraining import PriorPretraining
from vlwm.core.training.tasks.token_cache import FrameCodes
from vlwm.core.vocabulary import Stage, Track

log = logging.getLogger("vlwm.training")

_MOTION_WINDOWS = 2000
"""validation windows on which the motion is calibrated: poses are cheap"""


class WorldTask:
    """Trains a `WorldModel`.

    Args:
        model: on its device.
        data: train and validation windows.
        config: batch, workers, mirror, seed.
        device: where batches go.
        workers: loader processes.
        ranks: the processes that share each batch.
        tokens: folder in which the codes of frames are kept; None computes them each time.
    """

    stage = Stage.WORLD
    unit = "windows"

    def __init__(
        self,
        model: WorldModel,
        data: TrainData,
        config: Config,
        device: torch.device,
        workers: int,
        ranks: Ranks,
        tokens: Path | None = None,
    ) -> None:
        self.module, self.objective = model, WorldLoss(model)
        self.config, self.device, self.data, self.workers = config, device, data, workers
        self.ranks = ranks
        history = config.history_frames
        layers = layers_of_task(data.store, semantic=config.semantic)
        self.train_set = WindowDataset(
            data.store, data.train, history, mirror=config.data.mirror, seed=config.seed,
            observed=config.data.observed, layers=layers,
        )  # fmt: skip
        self.val_set = WindowDataset(
            data.store, data.val, history, observed=config.data.observed, layers=layers
        )
        self.prior = ColumnPrior.of_shares(data.column, len(data.train_rows), data.grid).layers
        # codes can be kept only while the tokenizer does not change
        wanted = config.model.use_tokens and config.model.freeze_vae
        # an observed past is another frame than the true one in the file
        wanted = wanted and not config.data.observed  # codes are kept of true frames
        keep = tokens if config.data.cache_tokens else None
        self.codes = FrameCodes(model, data, keep, lead=ranks.local_rank == 0) if wanted else None
        self.motions = Motions(self.train_set, config, ranks.batch_shares, device)
        unseen = WindowDataset(data.store, data.val_motion, history)
        self.unseen = motions_of(unseen, _MOTION_WINDOWS, device)
        self.best_motion = BestMotion()
        self.fresh: tuple[str, ...] = ()
        self.thresholds: dict[str, Thresholds] = {}
        self.baselines: FittedBaselines | None = None
        self.baseline_iou: dict[str, float] = {}

    def train_fresh(self, fresh: Collection[str]) -> None:
        """Train the parameters of frozen parts that are not in the loaded weights."""
        self.fresh = self.module.freeze(fresh)

    def phases(self) -> tuple[PretrainingPhase, ...]:
        """Return what is learned before the first step, in order."""
        prior = PriorPretraining(self.module, self.data, self.train_set, self.device)
        motion = MotionPretraining(self.module.motion_head, self.motions, self.config, self.unseen)
        if not self.config.model.use_memory:
            return prior, motion
        what = (self.objective, self.train_set, self.config, self.workers)
        fusion = FusionPretraining(*what)
        if not self.module.completes:
            return prior, motion, fusion
        return prior, motion, fusion, CompletionPretraining(*what)

    def samples(self) -> int:
        """Return the windows of an epoch."""
        whole = self.data.samples_of(Stage.WORLD)
        return min(whole, self.config.data.epoch_samples or whole)

    def batches(self, epoch: int, first_sample: int) -> Iterable[Batch]:
        """Return the windows of one epoch in its own order."""
        return epoch_batches(
            self.train_set,
            self.config.data.samples_per_gpu * self.ranks.batch_shares,
            self.config.seed,
            (epoch, first_sample),
            self.ranks,
            self.workers,
            self.config.data.epoch_samples,
            self.data.window_weights,
        )

    def loss_terms(self, batch: Batch, step: int) -> Iterator[LossTerm]:
        """Yield the model's terms, on codes that are kept where the tokenizer is frozen."""
        codes = None if self.codes is None else self.codes.of(batch)
        extra = self.motions.of_step(step)
        return self.objective.terms(batch, step, codes=codes, extra=extra)

    def begin_step(self, step: int) -> None:
        """Do nothing: no state is kept between tries of a step."""

    def exchange(self) -> None:
        """Do nothing: there is nothing to share."""

    def end_step(self, bad: Tensor) -> None:
        """Do nothing after a step."""

    def prefer_motion(self) -> None:
        """Calibrate the motion, and put it back where an earlier one was better on validation."""
        head = self.module.motion_head
        head.calibrate(self.unseen)
        if not len(self.unseen):
            return
        # one process decides: rounding may differ between GPUs
        energy = self.ranks.from_lead(lambda: head.energy(self.unseen))
        if self.best_motion.prefer(head, energy):
            best = self.best_motion.energy
            log.info("motion: %.3f m on validation, continues from its best, %.3f m", energy, best)

    def validate(self, pause: Pause, size: int) -> dict[str, float]:
        """Return the loss, IoU of both tracks at their best thresholds, and IoU of the baselines.

        Also choose what the forecast takes from validation: the spread of the motion's errors, the
        residual weights, the thresholds. The first validation fits the baselines.
        """
        model, history = self.module, self.config.history_frames
        shape = WindowShape(history, self.config.future_frames, self.config.frame_dt_s)
        first = not self.baseline_iou
        if first and self.baselines is None and not self.config.data.observed:
            self.baselines = fit_baselines(
                self.data.store, self.data.splits, shape, self.device,
                max_windows=min(VALIDATION_WINDOWS, len(self.data.val)),
                on_window=lambda done, windows: pause(False),
            )  # fmt: skip
        meter = ValidationMeter(
            self.data.grid, self.prior, shape, with_baselines=first, fitted=self.baselines,
            observed=self.config.data.observed,
        )  # fmt: skip
        self.prefer_motion()
        # the sweep below mixes the residual itself, so the forecasts take all of it
        model.residual_weight.fill_(1.0)
        sums = np.zeros(2)  # loss over windows, windows

        def score(batch: Batch) -> None:
            batch = batch.to(self.device)
            past, plan = batch.past(history), batch.plan(history)
            # both tracks of every window: (B, H, X, Y, Z) each
            free, planned = model.forecast(past), model.forecast(past, plan)
            along = planned_half(batch)[:, None, None, None, None]
            # the loss is that of training: half of the windows follow their plan
            report = self.objective(batch, forecast=torch.where(along, planned.logits, free.logits))
            sums[:] += float(report.total) * len(batch.index), len(batch.index)
            meter.add(batch, free, planned)

        validate_all(share_of(self.val_set, size, self.ranks), score, pause)
        # every process has counted its share: the choice below is the same in all
        for counts in (sums, *meter.counts()):
            self.ranks.sum_array(counts)
        for track, sweep in enumerate((meter.free, meter.planned)):
            # the residual weight first, then the thresholds of the forecast with that weight
            share, cells = sweep.best()
            model.residual_weight[track] = share
            self.thresholds[tuple(Track)[track].value] = cells.best()
        if first:
            self.baseline_iou = meter.baseline_numbers()
        return meter.numbers() | self.baseline_iou | {"epoch/val_loss": float(sums[0] / sums[1])}

    def merit(self, numbers: dict[str, float]) -> float:
        """Return the merit: lower validation loss is better."""
        return -numbers["epoch/val_loss"]

    def numbers(self) -> dict[str, float]:
        """Return none beyond the loss's own."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return thresholds, baselines, their IoU on validation, fresh parameters, best motion."""
        predicted = self.thresholds.get(Track.PREDICTED)
        return {
            "threshold": None if predicted is None else predicted.threshold,
            "thresholds": {track: found.content() for track, found in self.thresholds.items()},
            "baselines": None if self.baselines is None else self.baselines.content(),
            "baseline_iou": dict(self.baseline_iou),
            "fresh": list(self.fresh),
            "best_motion": self.best_motion.content(),
        }

    def load_state(self, content: CheckpointContent) -> None:
        """Take back what `state` gave."""
        self.best_motion.load(content.best_motion)
        by_track = content.thresholds or {}
        self.thresholds = {track: Thresholds.of(values) for track, values in by_track.items()}
        fitted, baseline_iou = content.baselines, content.baseline_iou
        self.baselines = None if fitted is None else FittedBaselines.of(fitted)
        # a number alone in checkpoints of before baselines were fitted: it is computed again
        self.baseline_iou = (
            dict(baseline_iou) if isinstance(baseline_iou, dict) and fitted is not None else {}
        )

    def save_memory(self) -> bool:
        """Recompute activations from now on; return False if that is done already."""
        if self.module.checkpoint_activations:
            return False
        self.module.checkpoint_activations = True
        return True
