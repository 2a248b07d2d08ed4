"""What a loss answers: one number to minimise, its named parts, and statistics to look at."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class LossReport:
    """A loss over one batch, as means over its samples.

    Attributes:
        total: scalar to minimise.
        parts: weighted or plain terms by name ("focal", "dice", "mean", "token", "pose", "vq").
        stats: scalars to watch ("pred/mean", "pred/min", "pred/max", "target/mean", …).
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    stats: dict[str, Tensor] = field(default_factory=dict)
