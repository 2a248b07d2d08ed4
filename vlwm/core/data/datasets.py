"""Read windows and single frames from the packed store as samples for training.

The symmetry of a sample is a function of (seed, epoch, index) alone: workers hold no state, and a
loader that starts at sample k of an epoch returns the samples of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from vlwm.core.data.batch import IDENTITY, MIRROR, Batch, FrameBatch, mirrored_poses
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.windows import Window
from vlwm.core.geometry.frames import anchor_poses


def _random(seed: int, epoch: int, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch, index])


class WindowDataset(Dataset):
    """Windows of the packed store; item keys are (epoch, index).

    Args:
        store: packed frames.
        windows: which frames belong together.
        history: past frames of a window.
        mirror: exchange left and right at random.
        seed: of the mirroring.
    """

    def __init__(
        self,
        store: PackedStore,
        windows: Sequence[Window],
        history: int,
        *,
        mirror: bool = False,
        seed: int = 0,
    ) -> None:
        self.store, self.windows, self.history = store, windows, history
        self.mirror, self.seed = mirror, seed

    def __len__(self) -> int:
        return len(self.windows)

    def motion(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Poses (F, 13) and terrain (F,) of a window in its anchor frame."""
        rows = self.windows[index].rows
        return anchor_poses(self.store.poses[rows], self.store.ground_z[rows], self.history - 1)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        rows = self.windows[index].rows
        poses, ground = self.motion(index)
        code = IDENTITY
        if self.mirror and _random(self.seed, epoch, index).random() < 0.5:
            code, poses = MIRROR, mirrored_poses(poses)
        return Batch(
            bits=torch.from_numpy(self.store.read_bits(rows)),
            poses=torch.from_numpy(poses.astype(np.float32)),
            ground_z=torch.from_numpy(ground.astype(np.float32)),
            index=torch.tensor(index),
            symmetry=torch.tensor(code),
        )


class FrameDataset(Dataset):
    """Single frames of the packed store; item keys are (epoch, index).

    Args:
        rows: int64 (N,), rows of the store.
        symmetries: number of symmetries drawn from: 8 on a square plane, 1 for none.
    """

    def __init__(
        self, store: PackedStore, rows: NDArray[np.int64], *, symmetries: int = 1, seed: int = 0
    ) -> None:
        self.store, self.rows, self.symmetries, self.seed = store, rows, symmetries, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> FrameBatch:
        epoch, index = key
        code = int(_random(self.seed, epoch, index).integers(self.symmetries))
        return FrameBatch(
            bits=torch.from_numpy(self.store.read_bits(self.rows[index : index + 1])[0]),
            index=torch.tensor(index),
            symmetry=torch.tensor(code),
        )
