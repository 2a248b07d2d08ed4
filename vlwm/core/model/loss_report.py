"""What a loss answers: one number to minimise, its named parts, and statistics to look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

Take = Callable[[Tensor], Tensor]
"""Given a summand of a loss as soon as it is known; answers what is added up: the summand itself,
or, where its gradient was sent back at once, its value alone."""


def as_it_is(summand: Tensor) -> Tensor:
    """The `Take` that leaves gradients to the caller of the loss."""
    return summand


@dataclass
class LossReport:
    """A loss over one batch, as means over its samples.

    Attributes:
        total: scalar to minimise; without a graph where all of its summands were taken.
        parts: weighted or plain terms by name ("focal", "dice", "mean", "token", "pose", "vq").
        stats: scalars to watch ("pred/mean", "pred/min", "pred/max", "target/mean", …).
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    stats: dict[str, Tensor] = field(default_factory=dict)
