"""Zones of a future frame by what the past knew: observed, occluded, new.

    observed   some past frame knew the cell, as occupied or as free
    occluded   inside the grid of a past frame, and no past frame knew it
    new        outside the grids of all past frames

The past alone decides, read at the nearest cell under the true past poses, so the zones are the
same for every method. They are disjoint and cover the frame.

Axes: F past and H future frames, X, Y, Z cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.warp import ego_memory

OBSERVED_ZONES = ("observed", "occluded", "new")


@dataclass(frozen=True)
class SeenPast:
    """The past as a sensor saw it.

    Attributes:
        occupied, free: uint8 (F, X, Y, Z) of 0 and 1, never both 1; neither is unknown.
        ego: float64 (F, 4), past ego frames as the vehicle believed them.
        true_ego: float64 (F, 4), the true ones, for zones alone.
    """

    occupied: Tensor
    free: Tensor
    ego: np.ndarray
    true_ego: np.ndarray

    @property
    def known(self) -> Tensor:
        """uint8 (F, X, Y, Z): cells that a frame knew."""
        return self.occupied | self.free


@dataclass(frozen=True)
class Zones:
    """Masks of one future frame, each bool (X, Y, Z)."""

    observed: Tensor
    occluded: Tensor
    new: Tensor

    def within(self, mask: Tensor) -> Zones:
        """Return the zones without the cells outside a mask, bool (X, Y, Z)."""
        return Zones(self.observed & mask, self.occluded & mask, self.new & mask)

    def named(self) -> dict[str, Tensor]:
        """Return the masks by the names of `OBSERVED_ZONES`."""
        return {name: getattr(self, name) for name in OBSERVED_ZONES}


def zones_of(seen: SeenPast, future_ego: np.ndarray, grid: VoxelGrid) -> Iterator[Zones]:
    """Yield the zones of each future frame.

    Args:
        future_ego: float64 (H, 4), in the frame of `seen.true_ego`.
    """
    device = seen.occupied.device
    past_ego = torch.as_tensor(seen.true_ego, device=device)[None]
    known = seen.known[None]  # (1, F, X, Y, Z)
    for target in future_ego:
        target_ego = torch.as_tensor(target, device=device)[None, None]
        votes = ego_memory(known, past_ego, target_ego, grid)
        observed = votes.occupied[0, 0] > 0
        inside = votes.frames[0, 0] > 0
        yield Zones(observed, inside & ~observed, ~inside)
