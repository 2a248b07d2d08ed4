"""Run what stage 2 learns before its first step: a list of phases, all by one stepper.

    prior          counts, no steps           tasks/prior_pretraining
    motion         steps on poses alone       tasks/motion_pretraining
    fusion         steps on single windows    tasks/fusion_pretraining

Progress is saved to opening.pth in the run folder periodically, on a signal, and at the end of a
phase. The file is deleted once the first checkpoint of stage 2 contains the result.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from vlwm.core.config.schema import Config, OptimizerConfig
from vlwm.core.errors import CheckpointError
from vlwm.core.model.checkpoint import load_checkpoint, load_weights, save_checkpoint
from vlwm.core.model.loss_report import LossTerm
from vlwm.core.model.pretrained import LoadedWeights
from vlwm.core.training.loop.optimizer import Schedule, build_optimizer, set_lr
from vlwm.core.training.loop.stepper import Stepper
from vlwm.core.training.loop.task import batch_size
from vlwm.core.training.run_context import Run
from vlwm.core.training.runtime.stop_signal import StopRequested
from vlwm.core.training.startup.resume import comparable
from vlwm.core.training.startup.train_data import TrainData
from vlwm.core.vocabulary import Phase, Stage

log = logging.getLogger("vlwm.training")

_WHOLE_BATCH = 1 << 30
"""samples in a backward pass: a phase's batch is small"""


class PretrainingPhase:
    """One phase; the defaults are those of a phase without steps.

    A phase is a task for the `Stepper`: it yields loss terms, and has the hooks of a step.

    Attributes:
        name: names it in the status and in opening.pth.
        module: what it changes.
        prefix: of the module's names in the world model; loaded weights there replace the phase.
        lr: peak learning rate.
        steps: optimizer steps.
    """

    name: Phase
    module: nn.Module
    prefix: str = ""
    lr: float = 0.0
    steps: int = 0

    def is_covered_by(self, weights: LoadedWeights) -> bool:
        """Return True if loaded weights hold what the phase would learn."""
        return bool(self.prefix) and weights.touches(self.prefix)

    def describe(self) -> str:
        """Return what is done, for the log."""
        return self.name

    def prepare(self) -> None:
        """Do what comes before the first step, also where a run resumes within the phase."""

    def optimizer_config(self, config: OptimizerConfig) -> OptimizerConfig:
        """Return the optimizer's settings, those of the run by default."""
        return config

    def batches(self, first: int) -> Iterable[Any]:
        """Return one batch for each step from `first` on."""
        return ()

    def loss_terms(self, batch: Any, step: int) -> Iterator[LossTerm]:
        """Yield the loss of a batch on the device."""
        raise NotImplementedError("a phase without steps has no loss")

    def finish(self) -> None:
        """Undo what `prepare` set up for the steps alone."""

    def begin_step(self, step: int) -> None:
        """Do nothing: no state is kept between tries of a step."""

    def exchange(self) -> None:
        """Do nothing: every process takes the same steps."""

    def end_step(self, bad: Tensor) -> None:
        """Do nothing after a step."""

    def save_memory(self) -> bool:
        """Return False: these networks are small, there is nothing to trade."""
        return False


class PhaseProgress:
    """Keeps nothing: every phase runs from its first step. `PretrainingProgress` keeps files."""

    def restore(self, phase: PretrainingPhase, optimizer: AdamW) -> int:
        """Put module and optimizer where they were left; return the steps done."""
        return 0

    def after(self, phase: PretrainingPhase, optimizer: AdamW, done: int) -> None:
        """Keep that `done` steps are done, where it is due."""


def run_phase(
    phase: PretrainingPhase, config: Config, device: torch.device, progress: PhaseProgress
) -> range:
    """Run the steps of a phase that are not done yet.

    Returns:
        the numbers of the steps that this call made.
    """
    phase.prepare()
    steps = range(0)
    if phase.steps:
        steps = _take_steps(phase, config, device, progress)
    phase.finish()
    return steps


def _take_steps(
    phase: PretrainingPhase, config: Config, device: torch.device, progress: PhaseProgress
) -> range:
    settings = phase.optimizer_config(config.optimizer)
    optimizer = build_optimizer(phase.module, settings, phase.lr)
    schedule = Schedule(config.lr_config, phase.lr, phase.steps)
    # weights and moments of an earlier process, if it was stopped within this phase
    first = progress.restore(phase, optimizer)
    # in float32 and with whole batches: these networks are small
    stepper = Stepper(
        phase,
        optimizer,
        config.grad_clip,
        device,
        precision=None,
        microbatch=_WHOLE_BATCH,
        parameters=list(phase.module.parameters()),
    )
    batches = zip(range(first, phase.steps), phase.batches(first), strict=True)
    for step, batch in batches:
        set_lr(optimizer, schedule.lr(step))
        stepper(batch, step, batch_size(batch))
        progress.after(phase, optimizer, step + 1)
    optimizer.zero_grad(set_to_none=True)  # stage 2 has an optimizer of its own
    return range(first, phase.steps)


class PretrainingProgress(PhaseProgress):
    """Keeps the phases of one run in opening.pth, and resumes what an earlier process left there.

    Args:
        run: folder, status, signal flag.
        data: what the phases learn from.
    """

    def __init__(self, run: Run, data: TrainData) -> None:
        self.run = run
        self.path = run.folder.opening
        self.identity = {"config": comparable(run.config), "data_hash": data.data_hash}
        # only the lead's folder is sure to have it
        self.phases = run.ranks.from_lead(self._kept)
        self._saved = time.monotonic()

    def restore(self, phase: PretrainingPhase, optimizer: AdamW) -> int:
        """Put module and optimizer where they were left, and count the phase in the status."""
        first = self._load(phase, optimizer)
        if first:
            log.info("world: %s resumes at step %d", phase.name, first)
        counts = {"step": first, "steps": phase.steps, "epoch": 0, "epochs": 0, "eta_s": None}
        self.run.status.update(phase=phase.name, stage=Stage.WORLD, **counts)
        return first

    def after(self, phase: PretrainingPhase, optimizer: AdamW, done: int) -> None:
        """Count a step, save when it is time, and leave when a signal has come.

        Raises:
            StopRequested: a signal came; opening.pth is written.
        """
        self.run.status.values["step"] = done
        # a save costs more than a step: only when it is late, at a signal, at the end
        late = time.monotonic() - self._saved > 60 * self.run.config.checkpoint_config.minutes
        # asked once: a signal after this line is answered by the next step, which saves before
        stop = bool(self.run.stop)
        if stop or late or done == phase.steps:
            # a finished phase needs no moments any more
            left = optimizer.state_dict() if done < phase.steps else None
            module = phase.module.state_dict()
            self.phases[phase.name.value] = {"done": done, "module": module, "optimizer": left}
            self._save()
        self.run.status.beat()
        if stop:
            raise StopRequested

    def _save(self) -> None:
        if self.run.ranks.lead:
            # the keys of the file keep their first names: files of earlier versions resume
            content = {
                **self.identity,
                "stage": "opening",
                "courses": self.phases,
                "sampler": {"processes": self.run.ranks.batch_shares},
            }
            save_checkpoint(self.path, content)
        self._saved = time.monotonic()

    def _kept(self) -> dict[str, Any]:
        """Return the phases in opening.pth; none where it is damaged or of another run."""
        if not self.path.exists():
            return {}
        try:
            content = load_checkpoint(self.path)
        except CheckpointError as error:
            log.warning("passed over: %s", error)
            return {}
        if any(content.get(key) != value for key, value in self.identity.items()):
            log.info("passed over: %s is of another config or of other data", self.path)
            return {}
        return dict(content["courses"])

    def _load(self, phase: PretrainingPhase, optimizer: AdamW) -> int:
        """Put a phase where it was left; return the steps that are done."""
        kept = self.phases.get(phase.name)
        if kept is None:
            return 0
        try:
            load_weights(phase.module, kept["module"], self.path)
        except CheckpointError as error:  # of another version of vlwm
            log.warning("passed over: %s", error)
            return 0
        if kept["optimizer"] is not None:
            optimizer.load_state_dict(kept["optimizer"])
        return int(kept["done"])
