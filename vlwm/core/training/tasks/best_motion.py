"""Keep the motion head as it was at the validation that liked it best.

A few thousand windows are learned by heart long before the frames are learned: from some epoch on
the motion of new windows becomes worse while everything else becomes better. So the head continues
from its best state, and every checkpoint holds that one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vlwm.core.model.motion.motion_head import MotionHead

_ENERGY = "energy_score"
"""its name next to those of the head's state"""


class BestMotion:
    """The best state of a motion head so far.

    Attributes:
        energy: its energy score on validation windows, in metres; infinite before the first look.
        state: its state dict; empty before the first look.
    """

    def __init__(self) -> None:
        self.energy = math.inf
        self.state: dict[str, Tensor] = {}

    def prefer(self, head: MotionHead, energy: float) -> bool:
        """Keep a head that is better than all before it, else put it back to the best of them.

        Args:
            head: calibrated; changed in place where it is put back.
            energy: its energy score, in metres.

        Returns:
            True where it was put back.
        """
        energy = math.inf if math.isnan(energy) else energy
        if energy < self.energy or not self.state:
            self.energy = energy
            self.state = {name: value.clone() for name, value in head.state_dict().items()}
            return False
        head.load_state_dict(self.state)
        return energy > self.energy

    def content(self) -> dict[str, Tensor] | None:
        """Return what a checkpoint holds: the state and its energy; None before the first look."""
        if not self.state:
            return None
        return {**self.state, _ENERGY: torch.tensor(self.energy, dtype=torch.float64)}

    def load(self, content: dict[str, Tensor] | None) -> None:
        """Take back what `content` gave; None, of an older checkpoint, starts without one."""
        self.state = dict(content or {})
        energy = self.state.pop(_ENERGY, None)
        self.energy = math.inf if energy is None else float(energy)
