"""Everything a run needs to go on: taken into a checkpoint, and taken back from one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlwm.core.config.schema import Config
from vlwm.core.errors import CheckpointError
from vlwm.core.model.checkpoint import load_weights
from vlwm.core.training.loop.progress import Progress
from vlwm.core.training.loop.stepper import Stepper
from vlwm.core.training.loop.task import Task
from vlwm.core.training.runtime.rng import random_state, restore_random_state
from vlwm.core.training.telemetry.health import Watch
from vlwm.core.training.telemetry.meter import Meter


@dataclass
class RunState:
    """The moving parts of one stage."""

    task: Task
    stepper: Stepper
    config: Config
    watch: Watch
    identity: dict[str, Any] = field(default_factory=dict)
    """plain values kept in each checkpoint: data hash, versions, git revision"""
    at: Progress = field(default_factory=Progress)
    meter: Meter = field(default_factory=Meter)

    def content(self) -> dict[str, Any]:
        """A checkpoint's content, as tensors and plain values."""
        at = self.at
        return {
            "stage": self.task.stage.value,
            "epoch": at.epoch,
            "step": at.step,
            "best": at.best,
            "model": dict(self.task.module.state_dict()),
            "optimizer": self.stepper.optimizer.state_dict(),
            "scheduler": {"lr_factor": at.lr_factor, "rollbacks": at.rollbacks},
            "scaler": self.stepper.scaler.state_dict(),
            "sampler": {"sample": at.sample, "microbatch": self.stepper.microbatch},
            "rng": random_state(),
            "meter": self.meter.state(),
            "health": self.watch.state(),
            "config": self.config.to_dict(),
            **self.task.state(),
            **self.identity,
        }

    def restore(self, content: dict[str, Any], where: str | Path) -> None:
        """Stand exactly where `content` was taken.

        Raises:
            CheckpointError: it is of another stage or another model.
        """
        load_weights(self.task.module, content["model"], where)
        self._load_optimizer(content["optimizer"], where)
        self.stepper.scaler.load_state_dict(content["scaler"])
        self.stepper.microbatch = min(self.stepper.microbatch, content["sampler"]["microbatch"])
        self.at = Progress(
            epoch=content["epoch"],
            sample=content["sampler"]["sample"],
            step=content["step"],
            best=content["best"],
            **content["scheduler"],
        )
        self.meter.load_state(content["meter"], self.stepper.device)
        self.watch.load_state(content["health"])
        self.task.load_state(content)
        restore_random_state(content["rng"])

    def _load_optimizer(self, state: dict[str, Any], where: str | Path) -> None:
        try:
            self.stepper.optimizer.load_state_dict(state)
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                "the optimizer state is of other trainable parameters",
                where=where,
                remedy="use the config it was trained with",
            ) from error
