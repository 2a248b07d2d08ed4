"""Collect everything a run needs to resume, and put it back from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlwm.core.config.schema import Config
from vlwm.core.errors import CheckpointError
from vlwm.core.model.checkpoint import load_weights
from vlwm.core.model.checkpoint_content import CheckpointContent
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

    def content(self, metrics_offset: int = 0) -> dict[str, Any]:
        """Return a checkpoint's content, as tensors and plain values.

        Args:
            metrics_offset: bytes of the metric log that belong to it.
        """
        at = self.at
        content = CheckpointContent(
            stage=self.task.stage.value,
            epoch=at.epoch,
            step=at.step,
            best=at.best,
            model=dict(self.task.module.state_dict()),
            optimizer=self.stepper.optimizer.state_dict(),
            scheduler={"lr_factor": at.lr_factor, "rollbacks": at.rollbacks},
            scaler=self.stepper.scaler.state_dict(),
            sampler={
                "sample": at.sample,
                "microbatch": self.stepper.microbatch,
                "processes": self.stepper.ranks.batch_shares,
            },
            rng=random_state(),
            meter=self.meter.state(),
            health=self.watch.state(),
            config=self.config.to_dict(),
            metrics_offset=metrics_offset,
            **self.task.state(),
            **self.identity,
        )
        # plain values and tensors only: `save_checkpoint` refuses anything else
        return content.to_dict()

    def restore(self, content: dict[str, Any], where: str | Path) -> None:
        """Put every part back to where `content` was taken.

        Raises:
            CheckpointError: it is of another stage or another model.
        """
        kept = CheckpointContent.of(content)
        load_weights(self.task.module, kept.model, where)
        self._load_optimizer(kept.optimizer, where)
        self.stepper.scaler.load_state_dict(kept.scaler)
        # the smaller one: what ran out of memory once would do so again
        self.stepper.microbatch = min(self.stepper.microbatch, kept.sampler["microbatch"])
        self.at = Progress(
            epoch=kept.epoch,
            sample=kept.sampler["sample"],
            step=kept.step,
            best=kept.best,
            **kept.scheduler,
        )
        self.meter.load_state(kept.meter, self.stepper.device)
        self.watch.load_state(kept.health)
        self.task.load_state(kept)
        # last: building the parts above must not draw from the restored generators
        restore_random_state(kept.rng)

    def _load_optimizer(self, state: dict[str, Any], where: str | Path) -> None:
        try:
            self.stepper.optimizer.load_state_dict(state)
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                "the optimizer state is of other trainable parameters",
                where=where,
                remedy="use the config it was trained with",
            ) from error
