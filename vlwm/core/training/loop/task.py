"""What the loop asks of a task: batches in, a loss with named parts out, a few hooks.

One loop trains any task; a task knows its data, its model and what has to happen after a step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from vlwm.core.model.loss_report import LossReport, Take, as_it_is

Tick = Callable[[], None]
"""Called between pieces of long work: beats the heart, and raises when a signal has come."""

Pause = Callable[[bool], None]
"""Called between validation batches, by all processes alike: as `Tick`; told that memory ran out
for any of them, it raises `MemoryShort` for all."""


class MemoryShort(Exception):
    """Memory ran out in a validation; it is tried again with smaller batches."""


class Task(Protocol):
    """One stage of training."""

    stage: str
    """"tokenizer" or "world"; names the phase, the checkpoints and the log lines"""
    unit: str
    """what one sample is: "frames" or "windows" """
    module: nn.Module
    """what is trained; its state dict is the checkpoint's `model`"""

    def samples(self) -> int:
        """Samples of one epoch."""
        ...

    def batches(self, epoch: int, first_sample: int) -> Iterable[Any]:
        """The epoch's global batches from a sample on; the same ones whenever asked again."""
        ...

    def loss(self, batch: Any, take: Take = as_it_is) -> LossReport:
        """The loss of a (micro)batch on the device, as means over its samples.

        Args:
            take: sends back the gradient of a summand; what is not given to it is in the total.
        """
        ...

    def begin_step(self, step: int) -> None:
        """Before each step (again when a step is tried again): forget what a failed try left."""
        ...

    def exchange(self) -> None:
        """Before the weights move: share between processes what `end_step` will need."""
        ...

    def end_step(self, bad: Tensor) -> None:
        """After each step; `bad` (boolean scalar on the device) says that it was skipped."""
        ...

    def validate(self, pause: Pause, size: int) -> dict[str, float]:
        """Numbers on the validation split, "epoch/val_loss" among them.

        Args:
            pause: called after each batch.
            size: samples of a batch at most.
        """
        ...

    def merit(self, numbers: dict[str, float]) -> float:
        """How good these numbers of `validate` are; best.pth is where this is highest."""
        ...

    def numbers(self) -> dict[str, float]:
        """More numbers for a log line, read only when one is due."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the state dict: keys "codebook" and "threshold"."""
        ...

    def load_state(self, content: dict[str, Any]) -> None:
        """Take back what `state` gave, from a checkpoint's content."""
        ...

    def save_memory(self) -> bool:
        """Trade time for memory (activation checkpointing); False where nothing is left to do."""
        ...


def judge_all(batches: Iterable[Any], judge: Callable[[Any], None], pause: Pause) -> None:
    """Judge every batch that is not None, pausing after each; MemoryShort where one is too big."""
    for batch in batches:
        full = False
        try:
            if batch is not None:
                judge(batch)
        except torch.OutOfMemoryError:
            full = True
        pause(full)


B = TypeVar("B")


def batch_size(batch: Any) -> int:
    """Samples in a batch: the length of its first field."""
    return len(getattr(batch, dataclasses.fields(batch)[0].name))


def microbatches(batch: B, size: int) -> Iterator[B]:
    """Yield slices of at most `size` samples of a dataclass of tensors; None fields stay None."""
    named = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}  # type: ignore[arg-type]
    for start in range(0, batch_size(batch), size):
        part = {k: v[start : start + size] for k, v in named.items() if v is not None}
        yield dataclasses.replace(batch, **part)  # type: ignore[type-var]


def flatten(report: LossReport) -> dict[str, Tensor]:
    """A report's numbers under their logged names, cut off from the graph."""
    named = {"train/loss": report.total}
    named |= {name if "/" in name else f"loss/{name}": v for name, v in report.parts.items()}
    named |= report.stats
    return {name: torch.as_tensor(value).detach().float() for name, value in named.items()}
