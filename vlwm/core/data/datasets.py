"""Batches for training: packed bits and anchored poses, the same ones however they are loaded.

Bits stay packed until they are on the device. Poses are in the ego frame of the *last past* pose
of their window (the anchor), so a model never sees where in the world it is. The order and symmetry
of a sample are functions of (seed, epoch, index) alone: workers hold no state, and a loader that
starts at sample k of an epoch hands out what the uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.windows import Window
from vlwm.core.geometry.frames import ORIENTATION, anchor_poses

IDENTITY = 0
MIRROR = 4
"""symmetry codes: k quarter turns about z (0…3), plus 4 for left and right exchanged first"""


@dataclass(frozen=True)
class Past:
    """What a forecast may know, in the anchor frame.

    Attributes:
        bits: uint8 (B, F, packed_bytes), F past frames.
        poses: float32 (B, F, 13).
        ground_z: float32 (B, F), metres above the terrain under the last past pose.
        symmetry: int64 (B,), to be applied to the voxels when they are unpacked.
    """

    bits: Tensor
    poses: Tensor
    ground_z: Tensor
    symmetry: Tensor

    def to(self, device: torch.device | str) -> Past:
        return _to(self, device)


@dataclass(frozen=True)
class Plan:
    """The true future motion, given on purpose (`condition="plan"`).

    Attributes:
        ego: float32 (B, H, 4), future ego frames x, y, ground_z, yaw in the anchor frame.
        poses: float32 (B, H, 13).
    """

    ego: Tensor
    poses: Tensor

    def to(self, device: torch.device | str) -> Plan:
        return _to(self, device)


@dataclass(frozen=True)
class Batch:
    """Windows of past and future frames, in the anchor frame of each.

    Attributes:
        bits: uint8 (B, F, packed_bytes), F past and future frames.
        poses: float32 (B, F, 13).
        ground_z: float32 (B, F).
        index: int64 (B,), places in the list of windows.
        symmetry: int64 (B,), to be applied to the voxels when they are unpacked; the poses have
            it already.
    """

    bits: Tensor
    poses: Tensor
    ground_z: Tensor
    index: Tensor
    symmetry: Tensor

    def to(self, device: torch.device | str) -> Batch:
        return _to(self, device)

    def past(self, history: int) -> Past:
        """The first `history` frames, and nothing of the rest."""
        return Past(
            self.bits[:, :history],
            self.poses[:, :history],
            self.ground_z[:, :history],
            self.symmetry,
        )

    def plan(self, history: int) -> Plan:
        """The true motion of the frames after `history`."""
        poses, ground = self.poses[:, history:], self.ground_z[:, history:]
        x, y, z, w = poses[..., ORIENTATION].unbind(-1)
        yaw = torch.atan2(2.0 * (x * y + z * w), x * x + w * w - y * y - z * z)  # as heading_of
        return Plan(torch.stack([poses[..., 0], poses[..., 1], ground, yaw], dim=-1), poses)


@dataclass(frozen=True)
class FrameBatch:
    """Single frames for the tokenizer.

    Attributes:
        bits: uint8 (N, packed_bytes).
        index: int64 (N,), places in the store.
        symmetry: int64 (N,), to be applied to the voxels when they are unpacked.
    """

    bits: Tensor
    index: Tensor
    symmetry: Tensor

    def to(self, device: torch.device | str) -> FrameBatch:
        return _to(self, device)


def _to(value: Any, device: torch.device | str) -> Any:
    moved = {f.name: getattr(value, f.name).to(device, non_blocking=True) for f in fields(value)}
    return replace(value, **moved)


def apply_symmetry(occupancy: Tensor, code: Tensor) -> Tensor:
    """Turn and mirror voxels (B, ..., X, Y, Z) by each sample's code (B,).

    Code c: left and right exchanged first where c ≥ 4 (y reversed), then c mod 4 quarter turns
    counter-clockwise seen from above. Needs a square plane for odd quarter turns.
    """
    codes = code.tolist()
    if not any(codes):
        return occupancy
    return torch.stack([_transformed(o, c) for o, c in zip(occupancy, codes, strict=True)])


def _transformed(occupancy: Tensor, code: int) -> Tensor:
    if code >= MIRROR:
        occupancy = occupancy.flip(-2)
    return torch.rot90(occupancy, code % 4, dims=(-3, -2))


def mirrored_poses(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Poses (..., 13) with left and right exchanged (y → −y); turns are pseudo-vectors."""
    signs = np.ones(13)
    signs[[1, 3, 5, 8, 10, 12]] = -1.0  # y; qx, qz; vy; wx, wz
    return poses * signs


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


def collate(samples: Sequence[Any]) -> Any:
    """Stack dataclasses of tensors."""
    first = samples[0]
    stacked = {f.name: torch.stack([getattr(s, f.name) for s in samples]) for f in fields(first)}
    return replace(first, **stacked)


class EpochSampler(Sampler):
    """Keys (epoch, index) of one epoch in batches, for one rank.

    The order is a function of (seed, epoch); the global batch does not depend on the number of
    processes: rank r of w takes its contiguous share of every global batch. The last batch may be
    smaller.

    Args:
        count: samples of the data set.
        batch: samples of a global batch.
        first: samples of this epoch that were consumed already; a multiple of `batch`.
        shuffle: False keeps the order of the data set.
        most: samples of an epoch, another part of the data set in each; 0 takes all.
    """

    def __init__(
        self,
        count: int,
        batch: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        first: int = 0,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        most: int = 0,
    ) -> None:
        self.count, self.batch, self.seed, self.epoch = count, batch, seed, epoch
        self.samples = min(count, most) if most else count
        self.first, self.rank, self.world_size, self.shuffle = first, rank, world_size, shuffle

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.arange(self.count)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        for start in range(self.first, self.samples, self.batch):
            whole = order[start : min(start + self.batch, self.samples)]
            cuts = np.linspace(0, len(whole), self.world_size + 1).round().astype(int)
            share = whole[cuts[self.rank] : cuts[self.rank + 1]]
            yield [(self.epoch, int(i)) for i in share]

    def __len__(self) -> int:
        return -(-(self.samples - self.first) // self.batch)
