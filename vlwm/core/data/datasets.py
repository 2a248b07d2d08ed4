"""Read windows and single frames from the packed store as samples for training.

The symmetry of a sample is a function of (seed, epoch, index) alone: workers hold no state, and a
loader that starts at sample k of an epoch returns the samples of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from vlwm.core.data.batch import IDENTITY, MIRROR, Batch, FrameBatch, mirrored_poses
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.windows import Window
from vlwm.core.errors import DataError
from vlwm.core.geometry.frames import anchor_poses

WINDOW_LAYERS = {
    "known": "truth.known",
    "seen_occupied": "seen.occupied",
    "seen_free": "seen.free",
    "classes": "classes",
}
"""field of `Batch` -> layer of the store"""
KNOWN = (WINDOW_LAYERS["known"],)
"""the layer that losses and scores ask for: cells whose truth is known"""
WITH_CLASSES = (*KNOWN, WINDOW_LAYERS["classes"])
"""the layers of a task with semantic classes"""
SEEN_LAYERS = {name: WINDOW_LAYERS[name] for name in ("seen_occupied", "seen_free")}
"""field of `Batch` -> layer of the store, of an observed past"""
FRAME_LAYERS = {name: WINDOW_LAYERS[name] for name in ("known", "classes")}
"""field of `FrameBatch` -> layer of the store"""


def wanted_layers(
    store: PackedStore, layers: Sequence[str], fields: Mapping[str, str]
) -> dict[str, str]:
    """Return field -> layer for the layers that are wanted and that some frame of the store has.

    Raises:
        ValueError: a layer that no field holds.
    """
    unknown = set(layers) - set(fields.values())
    if unknown:
        raise ValueError(f"no field for the layers {sorted(unknown)}")
    return {field: n for field, n in fields.items() if n in layers and n in store.layers}


def layers_of_task(store: PackedStore, *, semantic: bool) -> tuple[str, ...]:
    """Return the layers that losses and scores ask for.

    Raises:
        DataError: classes are to be forecast, and no frame of the store has them.
    """
    if semantic and WINDOW_LAYERS["classes"] not in store.layers:
        raise DataError(
            "no frame has classes, and the config has tokenizer.num_classes above 2",
            where=store.root,
            remedy="put Occ3D's gts/ next to the tables and prepare again, or use a preset without "
            "_classes",
        )
    return WITH_CLASSES if semantic else KNOWN


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
        layers: names in the store of the layers that a batch has in addition to the truth, for
            example 'truth.known'. One that no frame of the store has stays None in the batch.
        observed: the past is what a sensor saw: the past part of `bits` is `seen.occupied`, and
            `seen_occupied` and `seen_free` are there for the past frames. The truth of the past is
            never read.

    Raises:
        DataError: `observed`, and no frame of the store was observed.
    """

    def __init__(
        self,
        store: PackedStore,
        windows: Sequence[Window],
        history: int,
        *,
        mirror: bool = False,
        seed: int = 0,
        layers: Sequence[str] = (),
        observed: bool = False,
    ) -> None:
        self.store, self.windows, self.history = store, windows, history
        self.mirror, self.seed, self.observed = mirror, seed, observed
        if observed and not set(SEEN_LAYERS.values()) <= set(store.layers):
            raise DataError(
                "no sensor observed these frames, and the config has data.observed",
                where=store.root,
                remedy="prepare them with vlwm prepare --observe lidar, or use a preset without "
                "_lidar",
            )
        self.layers = wanted_layers(store, layers, WINDOW_LAYERS)

    def __len__(self) -> int:
        return len(self.windows)

    def motion(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return poses (F, 13) and terrain (F,): the past as believed, the future as it was.

        Each part is in the ego frame of its own last past pose, the believed and the true one.
        """
        poses, ground = self.true_motion(index)
        believed = self.believed(index)
        if believed is not None:
            past = slice(self.history)
            poses[past], ground[past] = believed[0][past], believed[1][past]
        return poses, ground

    def true_motion(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return true poses (F, 13) and terrain (F,) of a window in its anchor frame."""
        rows = self.windows[index].rows
        return anchor_poses(self.store.poses[rows], self.store.ground_z[rows], self.history - 1)

    def believed(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Return poses (F, 13) and terrain (F,) as the vehicle believed them; None: the true ones.

        They are in the ego frame of the last past pose that the vehicle believed.
        """
        store, rows = self.store, self.windows[index].rows
        if store.believed is None or store.believed_ground_z is None:
            return None
        return anchor_poses(store.believed[rows], store.believed_ground_z[rows], self.history - 1)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        rows = self.windows[index].rows
        poses, ground = self.true_motion(index)
        code = IDENTITY
        if self.mirror and _random(self.seed, epoch, index).random() < 0.5:
            code, poses = MIRROR, mirrored_poses(poses)
        more = {
            field: torch.from_numpy(self.store.read_layer(name, rows))
            for field, name in self.layers.items()
        }
        if self.observed:
            past = rows[: self.history]
            more |= {
                field: torch.from_numpy(self.store.read_layer(name, past))
                for field, name in SEEN_LAYERS.items()
            }
        believed = self.believed(index)
        if believed is not None:
            own = mirrored_poses(believed[0]) if code == MIRROR else believed[0]
            more["believed"] = torch.from_numpy(own.astype(np.float32))
            more["believed_ground_z"] = torch.from_numpy(believed[1].astype(np.float32))
        return Batch(
            bits=torch.from_numpy(self._bits(rows)),
            poses=torch.from_numpy(poses.astype(np.float32)),
            ground_z=torch.from_numpy(ground.astype(np.float32)),
            index=torch.tensor(index),
            symmetry=torch.tensor(code),
            **more,
        )

    def _bits(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return bits (F, packed_bytes): what the past saw, if it is observed, and the truth."""
        if not self.observed:
            return self.store.read_bits(rows)
        past, future = rows[: self.history], rows[self.history :]
        seen = self.store.read_layer(SEEN_LAYERS["seen_occupied"], past)
        return np.concatenate([seen, self.store.read_bits(future)])


class FrameDataset(Dataset):
    """Single frames of the packed store; item keys are (epoch, index).

    Args:
        rows: int64 (N,), rows of the store.
        symmetries: number of symmetries drawn from: 8 on a square plane, 1 for none.
        layers: 'truth.known' and 'classes', for batches that have them in addition to the truth.
    """

    def __init__(
        self,
        store: PackedStore,
        rows: NDArray[np.int64],
        *,
        symmetries: int = 1,
        seed: int = 0,
        layers: Sequence[str] = (),
    ) -> None:
        self.store, self.rows, self.symmetries, self.seed = store, rows, symmetries, seed
        self.layers = wanted_layers(store, layers, FRAME_LAYERS)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> FrameBatch:
        epoch, index = key
        code = int(_random(self.seed, epoch, index).integers(self.symmetries))
        row = self.rows[index : index + 1]
        more = {
            field: torch.from_numpy(self.store.read_layer(name, row)[0])
            for field, name in self.layers.items()
        }
        return FrameBatch(
            bits=torch.from_numpy(self.store.read_bits(row)[0]),
            index=torch.tensor(index),
            symmetry=torch.tensor(code),
            **more,
        )
