"""Run the training loop: one trainer for any task.

    for every epoch
        for every batch     step; log and check health when due; checkpoint when due
        validate; checkpoint

All that changes is in `RunState`; a checkpoint holds all of it, so a run stopped anywhere resumes
bit for bit. Nothing in a step waits for the device: numbers are read when a log line is due.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import torch

from vlwm.core.config.schema import Config
from vlwm.core.errors import TrainingError
from vlwm.core.model.checkpoint import newest_valid
from vlwm.core.run_folder import RunFolder
from vlwm.core.run_status import HealthSign
from vlwm.core.training.loop.checkpointer import Checkpointer
from vlwm.core.training.loop.optimizer import Schedule, set_lr
from vlwm.core.training.loop.progress import Clock, Progress, StageSettings
from vlwm.core.training.loop.reporter import Reporter
from vlwm.core.training.loop.task import MemoryShort
from vlwm.core.training.loop.train_state import RunState
from vlwm.core.training.runtime.distributed import PeerLost, device_is_idle
from vlwm.core.training.runtime.rng import untouched_randomness
from vlwm.core.training.runtime.stop_signal import StopRequested, StopSignal
from vlwm.core.training.telemetry.health import was_calm
from vlwm.core.training.telemetry.metric_log import MetricLog
from vlwm.core.training.telemetry.status_writer import StatusWriter
from vlwm.core.vocabulary import Phase

log = logging.getLogger("vlwm.training")

_IDLE_S = 10.0
"""seconds that a GPU has to end its queue after another process was lost"""


class Diverged(Exception):
    """The run must return to its last good checkpoint."""


class Trainer:
    """Trains one stage in one run folder.

    Args:
        state: task, optimizer and everything else that a checkpoint holds.
        settings: epochs, batch and rate of this stage.
        config: the whole config.
        folder: the stage's run folder.
        metrics: the stage's metric log.
        status: the run's status file.
        stop: the signal flag.
    """

    def __init__(
        self,
        state: RunState,
        settings: StageSettings,
        config: Config,
        folder: RunFolder,
        metrics: MetricLog,
        status: StatusWriter,
        stop: StopSignal,
    ) -> None:
        self.state = state
        self.task = state.task
        self._own_phase = Phase.of_stage(state.task.stage)
        self.settings = settings
        self.config = config
        self.metrics = metrics
        self.status = status
        self.stop = stop
        self.ranks = state.stepper.ranks
        self.clock = Clock()
        self.checkpointer = Checkpointer(folder, config.checkpoint_config)
        self.reporter = Reporter(state, config, folder, metrics, status, self.clock)
        self.steps_per_epoch = math.ceil(self.task.samples() / settings.batch_size)
        self.total_steps = self.steps_per_epoch * settings.epochs
        self.schedule = Schedule(config.lr_config, settings.lr, self.total_steps)

    def fit(self) -> Progress:
        """Train to the last epoch.

        Raises:
            StopRequested: a signal came; last.pth is written.
            PeerLost: another process died; the others write last.pth, the same on each machine.
            TrainingError: the run diverged again and again, or memory does not suffice.
            MachineError: the disk is full; the older checkpoint stays.
        """
        self._show(self._own_phase)
        try:
            while self.state.at.epoch < self.settings.epochs:
                try:
                    self._run_epoch()
                    self._close_epoch()
                except Diverged as reason:
                    self._roll_back(str(reason))
        except StopRequested:
            # the batch that a signal interrupted is complete: nothing of it is lost
            self._save(Phase.SAVE)
            raise
        except PeerLost as lost:
            if device_is_idle(self.state.stepper.device, _IDLE_S):
                self.checkpointer.save_last(self._content())
                log.warning("%s; %s is written", lost, self.checkpointer.folder.last)
            else:  # the GPU waits for numbers of the lost process: its weights cannot be read
                log.warning("%s; the last checkpoint written before is kept", lost)
            raise
        return self.state.at

    def _run_epoch(self) -> None:
        state, at = self.state, self.state.at
        self.task.module.train()
        # from the sample where a resumed run was stopped
        for batch in self.clock.waits(self.task.batches(at.epoch, at.sample)):
            set_lr(state.stepper.optimizer, self.schedule.lr(at.step) * at.lr_factor)
            samples = min(self.settings.batch_size, self.task.samples() - at.sample)
            result = state.stepper(batch, at.step, samples)
            state.meter.add(result.numbers, result.skipped)
            state.watch.note(at.step, result.fault)
            # counted at once: a signal after this line resumes with the next batch
            at.step += 1
            at.sample += samples
            self.clock.step_done(samples)
            if at.step % self.config.log_config.interval == 0:
                self._log()
            self._tick()

    def _close_epoch(self) -> None:
        at = self.state.at
        end = at.epoch + 1 == self.settings.epochs
        best = self._validated_after(at.epoch + 1) and self._validate()
        at.epoch += 1
        at.sample = 0
        # a diverging run keeps its last good checkpoint
        if end or self.state.watch.calm():
            self._show(Phase.SAVE)
            self.ranks.lead_does(
                lambda: self.checkpointer.close_epoch(at.epoch, self._content(), best=best, end=end)
            )
            self.clock.saved()
        self._show(self._own_phase)

    def _validated_after(self, epochs: int) -> bool:
        return epochs == self.settings.epochs or epochs % self.config.evaluation.interval == 0

    def _validate(self) -> bool:
        """Write a validation line; return True if the task finds it the best so far."""
        at = self.state.at
        self._show(Phase.VALIDATE)
        self.task.module.eval()
        # a validation must not change what the next epoch draws
        with self.clock.validation(), untouched_randomness(), torch.no_grad():
            numbers = self._validation_numbers()
        self.reporter.validation(numbers)
        # a merit that is NaN is never the best
        merit = self.task.merit(numbers)
        better = math.isfinite(merit) and (at.best is None or merit > at.best)
        if better:
            at.best = merit
        return better

    def _validation_numbers(self) -> dict[str, float]:
        stepper = self.state.stepper
        while True:
            try:
                return self.task.validate(self._pause, stepper.microbatch)
            except MemoryShort:
                stepper.shrink(stepper.microbatch)

    def _tick(self) -> None:
        """Update the heartbeat between steps, save when it is time, leave after a signal."""
        at = self.state.at
        self.status.beat(step=at.step, epoch=at.epoch, eta_s=self._left_s())
        late = self.clock.since_save_s() > 60.0 * self.config.checkpoint_config.minutes
        # one vote for both: processes must agree on when to stop and to save
        stop, due = self.ranks.any(bool(self.stop), late and self.ranks.lead)
        if stop:
            raise StopRequested
        if due:
            self._save_in_time()

    def _left_s(self) -> float | None:
        """Return the seconds to the end of the stage, its validations included."""
        at = self.state.at
        coming = range(at.epoch + 1, self.settings.epochs + 1)
        validations = sum(self._validated_after(epochs) for epochs in coming)
        return self.clock.eta_s(self.total_steps - at.step, validations)

    def _pause(self, full: bool = False) -> None:
        """Update the heartbeat between validation batches; leave on a signal or out of memory."""
        self.status.beat(eta_s=self._left_s())
        stop, full = self.ranks.any(bool(self.stop), full)
        if stop:
            raise StopRequested
        if full:
            raise MemoryShort

    def _show(self, phase: Phase) -> None:
        at = self.state.at
        self.status.update(
            phase=phase,
            stage=self.task.stage,
            epoch=at.epoch,
            epochs=self.settings.epochs,
            step=at.step,
            steps=self.total_steps,
        )

    def _log(self) -> None:
        self.reporter.step_line(first_epoch=self.state.at.step <= self.steps_per_epoch)
        reason = self.state.watch.diverged()
        if reason is not None:
            raise Diverged(reason)

    # Checkpoints

    def begin(self) -> None:
        """Write the first checkpoint and read it back."""
        self._show(Phase.SAVE)
        self.ranks.lead_does(lambda: self.checkpointer.begin(self._content()))
        self.clock.saved()

    def resume(self, content: dict[str, Any], where: str | Path) -> None:
        """Continue from a checkpoint; metrics logged after it are set aside."""
        if self.ranks.lead:
            self.checkpointer.sweep()
        self.state.restore(content, where)
        self.metrics.rewind(content["metrics_offset"], content["step"])

    def _content(self) -> dict[str, Any]:
        return self.state.content(self.metrics.offset())

    def _save(self, phase: Phase) -> None:
        self._show(phase)
        self.ranks.lead_does(lambda: self.checkpointer.save_last(self._content()))
        self.clock.saved()

    def _save_in_time(self) -> None:
        if self.state.watch.calm():
            self._save(Phase.SAVE)
            self._show(self._own_phase)

    def _last_good(self) -> tuple[str, dict[str, Any]] | None:
        """Return place and content of the newest checkpoint of a calm run."""
        found = newest_valid(
            self.checkpointer.folder.path, wanted=lambda content: was_calm(content["health"])
        )
        return None if found is None else (str(found.path), found.content)

    def _roll_back(self, reason: str) -> None:
        """Return to the last good checkpoint at a lower rate; after several returns, give up."""
        health, before = self.config.health, self.state.at
        found = self.ranks.from_lead(self._last_good)
        if before.rollbacks >= health.max_rollbacks or found is None:
            raise TrainingError(
                f"training diverged, {reason}, and {before.rollbacks} returns to the last good "
                "checkpoint did not help",
                where=self.checkpointer.folder.path,
                remedy="lower --lr to 1e-5 and check the data for corruption",
            )
        # counters that the checkpoint does not know survive the return
        skipped = self.state.watch.skipped
        self.resume(found[1], found[0])
        at = self.state.at
        at.rollbacks = before.rollbacks + 1
        at.lr_factor = before.lr_factor * health.rollback_lr_factor
        # saved at once: a crash now must not repeat the roll-back without counting it
        self.state.watch.calm_down(skipped)
        self._save(self._own_phase)
        message = f"{reason}; back at step {at.step} with {at.lr_factor:g} of the learning rate"
        log.warning("%s", message)
        remedy = "lower --lr to 1e-5; check the data for corruption"
        self.status.update(
            health=[HealthSign("rollback", "warn", message, remedy, at.step).to_dict()]
        )
