"""Define the interface between the loop and a task: batches, loss terms, a few hooks.

One loop trains any task; a task has its data, its model and what follows a step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from vlwm.core.model.checkpoint_content import CheckpointContent
from vlwm.core.model.loss_report import LossTerm
from vlwm.core.vocabulary import Stage


class Samples(Protocol):
    """A batch: a dataclass of tensors whose first axis counts samples."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def to(self, device: torch.device | str) -> Samples:
        """Return the batch on a device."""
        ...


B = TypeVar("B", bound=Samples)

Tick = Callable[[], None]
"""Called between pieces of long work: updates the heartbeat, and raises after a signal."""

Pause = Callable[[bool], None]
"""Called between validation batches by all processes: as `Tick`; its argument is True if memory ran
out here, and it raises `MemoryShort` in all of them if it ran out in any."""


class MemoryShort(Exception):
    """Memory ran out in a validation; it is repeated with smaller batches."""


class StepTask(Protocol):
    """A loss in terms, and hooks around each step: all that a `Stepper` needs."""

    def loss_terms(self, batch: Any, step: int) -> Iterator[LossTerm]:
        """Yield the loss of a (micro)batch on the device, as means over its samples.

        The stepper sends the gradient of each term back before it asks for the next one, so no
        term may depend on the graph of another. No context manager may span a `yield`.

        Args:
            step: number of the step; what is drawn at random is a function of it.
        """
        ...

    def begin_step(self, step: int) -> None:
        """Prepare a step (again when it is tried again): forget what a failed try left."""
        ...

    def exchange(self) -> None:
        """Share between processes what `end_step` will need, before the weights move."""
        ...

    def end_step(self, bad: Tensor) -> None:
        """Finish a step; `bad` (boolean scalar on the device) is True if it was skipped."""
        ...

    def save_memory(self) -> bool:
        """Trade time for memory (activation checkpointing); False where nothing is left to do."""
        ...


class Task(StepTask, Protocol):
    """One stage of training."""

    stage: Stage
    """names the phase, the checkpoints and the log lines"""
    unit: str
    """name of one sample: "frames" or "windows" """

    @property
    def module(self) -> nn.Module:
        """The network to train; its state dict is the checkpoint's `model`."""
        ...

    def samples(self) -> int:
        """Return the samples of one epoch."""
        ...

    def batches(self, epoch: int, first_sample: int) -> Iterable[Any]:
        """Return the epoch's global batches from a sample on; the same ones every time."""
        ...

    def validate(self, pause: Pause, size: int) -> dict[str, float]:
        """Return numbers on the validation split, "epoch/val_loss" among them.

        Args:
            pause: called after each batch.
            size: samples of a batch at most.
        """
        ...

    def merit(self, numbers: dict[str, float]) -> float:
        """Return the merit of these numbers of `validate`; best.pth has the highest."""
        ...

    def numbers(self) -> dict[str, float]:
        """Return more numbers for a log line, read only when one is due."""
        ...

    def state(self) -> dict[str, Any]:
        """Return fields of a `CheckpointContent` of its own, "threshold" among them."""
        ...

    def load_state(self, content: CheckpointContent) -> None:
        """Take back what `state` gave."""
        ...


def validate_all(batches: Iterable[B | None], score: Callable[[B], None], pause: Pause) -> None:
    """Evaluate every batch that is not None, pausing after each."""
    for batch in batches:
        # all processes must reach `pause`: it votes on memory and signals
        full = False
        try:
            if batch is not None:
                score(batch)
        except torch.OutOfMemoryError:
            full = True
        pause(full)


def batch_size(batch: Samples) -> int:
    """Return the samples in a batch: the length of its first field."""
    return len(getattr(batch, dataclasses.fields(batch)[0].name))


def microbatches(batch: B, size: int) -> Iterator[B]:
    """Yield slices of at most `size` samples of a dataclass of tensors; None fields stay None."""
    for start in range(0, batch_size(batch), size):
        yield batch_part(batch, start, start + size)


def batch_part(batch: B, start: int, end: int) -> B:
    """Return the samples [start, end) of a dataclass of tensors; None fields stay None."""
    named = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    part = {name: value[start:end] for name, value in named.items() if value is not None}
    return dataclasses.replace(batch, **part)
