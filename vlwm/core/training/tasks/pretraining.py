"""What stage 2 learns before its first step, motion and fusion, each in a course of its own.

Where a course stands is kept in opening.pth in the run folder, by time, on signals and at its end,
until the first checkpoint of stage 2 holds the result.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from torch.optim import AdamW

from vlwm.core.errors import CheckpointError
from vlwm.core.model.checkpoint import load_checkpoint, load_weights, save_checkpoint
from vlwm.core.training.run_context import Run
from vlwm.core.training.startup.resume import comparable
from vlwm.core.training.startup.train_data import TrainData

log = logging.getLogger("vlwm.training")


class Course:
    """The steps of a course that are still to be made.

    Args:
        first, steps: those done, and all.
        after: called with the number of steps done, after each.
    """

    def __init__(self, first: int, steps: int, after: Callable[[int], None]) -> None:
        self.first, self.steps, self.after = first, steps, after

    def __iter__(self) -> Iterator[int]:
        for step in range(self.first, self.steps):
            yield step
            self.after(step + 1)


BeginCourse = Callable[[nn.Module, AdamW, int], Course]
"""module, its optimizer, steps of the course; may put both where an earlier process left them"""


def whole_course(module: nn.Module, optimizer: AdamW, steps: int) -> Course:
    """All steps, nothing kept."""
    return Course(0, steps, lambda done: None)


class Opening:
    """The courses of one run, and where an earlier process of it left them.

    Args:
        run: folder, status, signal flag.
        data: that it learns from.
    """

    def __init__(self, run: Run, data: TrainData) -> None:
        self.run, self.path = run, run.folder.opening
        self.of = {"config": comparable(run.config), "data_hash": data.data_hash}
        self.courses = self._kept()
        self._saved = time.monotonic()

    def begin(self, name: str, module: nn.Module, optimizer: AdamW, steps: int) -> Course:
        """The course `name` ("motion" | "fusion") from where it was left; the status counts it."""
        first = self._restore(name, module, optimizer)
        if first:
            log.info("world: %s goes on at step %d", name, first)
        nothing = {"epoch": 0, "epochs": 0, "eta_s": None}
        self.run.status.update(phase=name, stage="world", step=first, steps=steps, **nothing)

        def after(done: int) -> None:
            self.run.status.values["step"] = done
            late = time.monotonic() - self._saved > 60 * self.run.config.checkpoint_config.minutes
            if self.run.stop or late or done == steps:
                left = optimizer.state_dict() if done < steps else None
                self.courses[name] = {
                    "done": done, "module": module.state_dict(), "optimizer": left,
                }  # fmt: skip
                self._save()
            self.run.tick()

        return Course(first, steps, after)

    def _save(self) -> None:
        if self.run.ranks.lead:
            save_checkpoint(self.path, {**self.of, "stage": "opening", "courses": self.courses})
        self._saved = time.monotonic()

    def _kept(self) -> dict[str, Any]:
        if not self.path.exists():
            return {}
        try:
            content = load_checkpoint(self.path)
        except CheckpointError as error:
            log.warning("passed over: %s", error)
            return {}
        if any(content.get(key) != value for key, value in self.of.items()):
            log.info("passed over: %s is of another config or of other data", self.path)
            return {}
        return dict(content["courses"])

    def _restore(self, name: str, module: nn.Module, optimizer: AdamW) -> int:
        """Put a course where it was left; the steps that are done."""
        kept = self.courses.get(name)
        if kept is None:
            return 0
        try:
            load_weights(module, kept["module"], self.path)
        except CheckpointError as error:  # of another version of vlwm
            log.warning("passed over: %s", error)
            return 0
        if kept["optimizer"] is not None:
            optimizer.load_state_dict(kept["optimizer"])
        return int(kept["done"])
