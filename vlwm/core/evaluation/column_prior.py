"""Find the layers of the grid that are occupied by default, where no frame gives information.

They come from the train split alone: scored data must not tune the baselines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.vocabulary import Split

if TYPE_CHECKING:
    from vlwm.core.data.packed_store import PackedStore
    from vlwm.core.data.splits import Splits

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

    @classmethod
    def of_shares(cls, share: np.ndarray, frames: int, grid: VoxelGrid) -> ColumnPrior:
        """Return the prior of the occupied share per layer (Z,) over some frames.

        Without any frame: the layer that holds z = 0, the ground by the convention of the ego
        frame.
        """
        if frames == 0:
            return cls(np.arange(grid.shape[2]) == grid.ground_slice, 0)
        return cls(share >= 0.5, frames)

    @property
    def source(self) -> str:
        """Name the frames it comes from, in words."""
        if self.frames == 0:
            return "the layer that holds z = 0, for there is no train split"
        return f"{self.frames} frames of the train split"


def train_prior(store: PackedStore, splits: Splits) -> ColumnPrior:
    """Return the prior of the train split of a data folder."""
    from vlwm.core.data.windows import frame_rows

    rows = frame_rows(store, splits, Split.TRAIN)
    rows = rows[evenly(len(rows), MOST_FRAMES)]
    return ColumnPrior.of_shares(store.column_prior(rows), len(rows), store.grid)


def evenly(items: int, most: int) -> np.ndarray:
    """Return at most `most` indices (0: all) spread evenly over `items`, without repetition."""
    if most <= 0 or items <= most:
        return np.arange(items)
    return np.floor((np.arange(most) + 0.5) * items / most).astype(np.int64)
