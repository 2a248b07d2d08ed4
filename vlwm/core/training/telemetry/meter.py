"""Average the numbers of the steps since the last log line, on the device.

Keys that end in `/min` or `/max` keep the extreme instead of the mean. A skipped step does not
count. The state is part of a checkpoint, so a resumed run logs what the uninterrupted one would.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlwm.core.metric_names import is_extreme, is_maximum, is_minimum

Numbers = dict[str, Tensor]


def merge(total: Numbers, part: Numbers, weight: float) -> None:
    """Add a microbatch's numbers to its step's, `weight` being its share of the samples."""
    for name, value in part.items():
        if name not in total:
            total[name] = value if is_extreme(name) else value * weight
        elif is_minimum(name):
            total[name] = torch.minimum(total[name], value)
        elif is_maximum(name):
            total[name] = torch.maximum(total[name], value)
        else:
            total[name] = total[name] + value * weight


class Meter:
    """Averages named scalars on the device."""

    def __init__(self) -> None:
        self._sums: Numbers = {}
        self._steps: Tensor | None = None

    def add(self, numbers: Numbers, bad: Tensor) -> None:
        """Count one step's numbers, unless `bad` (boolean scalar on the device)."""
        # selected on the device: no branch on a value that would have to be read
        good = torch.where(bad, 0.0, 1.0)
        if self._steps is None:
            self._steps = torch.zeros_like(good)
        self._steps += good
        for name, value in numbers.items():
            if is_minimum(name):
                kept = torch.where(bad, torch.inf, value)
                self._sums[name] = torch.minimum(self._sums.get(name, kept), kept)
            elif is_maximum(name):
                kept = torch.where(bad, -torch.inf, value)
                self._sums[name] = torch.maximum(self._sums.get(name, kept), kept)
            else:
                kept = torch.where(bad, 0.0, value)
                self._sums[name] = self._sums[name] + kept if name in self._sums else kept

    def read(self) -> dict[str, float]:
        """Return means since the last call (one wait for the device), and start over."""
        if self._steps is None:
            return {}
        names = list(self._sums)
        # one stack, so that one transfer brings all numbers to the host
        columns = [self._steps, *(self._sums[name] for name in names)]
        steps, *values = torch.stack([c.double() for c in columns]).tolist()
        self._sums, self._steps = {}, None
        if steps == 0:
            return {}
        return {n: v if is_extreme(n) else v / steps for n, v in zip(names, values, strict=True)}

    def state(self) -> dict[str, Tensor]:
        """Return tensors for a checkpoint; the number of steps is under the empty name."""
        steps = {} if self._steps is None else {"": self._steps.cpu()}
        return {**{name: value.cpu() for name, value in self._sums.items()}, **steps}

    def load_state(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Take back what `state` gave."""
        moved = {name: value.to(device) for name, value in state.items()}
        self._steps = moved.pop("", None)
        self._sums = moved
