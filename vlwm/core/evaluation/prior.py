"""The column prior: which layers of the grid are occupied where nothing is known.

It is read from the train split alone, since the data that is judged must not tune its rivals.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vlwm.core.geometry.grid import VoxelGrid

MOST_FRAMES = 1000
"""Frames read for a prior, evenly spaced over the train split: a mean needs no more."""


@dataclass(frozen=True)
class ColumnPrior:
    """Occupied layers.

    Attributes:
        layers: bool (Z,): layers of which at least half is occupied.
        frames: frames it was read from; 0 where only the ground convention was used.
    """

    layers: np.ndarray
    frames: int

    @property
    def source(self) -> str:
        """Where it is from, in words."""
        if self.frames == 0:
            return "the layer that holds z = 0, for there is no train split"
        return f"{self.frames} frames of the train split"


def column_prior(frames: Iterable[np.ndarray], grid: VoxelGrid) -> ColumnPrior:
    """The prior of packed frames.

    Args:
        frames: uint8 (packed_bytes,) each.
        grid: their grid.

    Returns:
        The layers; without any frame the layer that holds z = 0, which is the ground by the
        convention of the ego frame.
    """
    occupied = np.zeros(grid.shape[2], np.int64)
    count = 0
    for bits in frames:
        occupied += grid.unpack(np.asarray(bits)).sum(axis=(0, 1), dtype=np.int64)
        count += 1
    if count == 0:
        return ColumnPrior(np.arange(grid.shape[2]) == grid.ground_slice, 0)
    columns = grid.shape[0] * grid.shape[1]
    return ColumnPrior(2 * occupied >= count * columns, count)


def evenly(items: int, most: int) -> np.ndarray:
    """At most `most` indices spread evenly over `items`, without repetition."""
    if most <= 0 or items <= most:
        return np.arange(items)
    return np.floor((np.arange(most) + 0.5) * items / most).astype(np.int64)
