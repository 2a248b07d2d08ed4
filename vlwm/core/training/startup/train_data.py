"""Open the data of a run, and make it first where the config states how."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.config.schema import Config
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.sampler import weighted_count
from vlwm.core.data.source_splits import open_splits
from vlwm.core.data.splits import Splits
from vlwm.core.data.windows import Window, frame_rows, windows_of
from vlwm.core.errors import DataError
from vlwm.core.evaluation.clusters import over_clusters
from vlwm.core.evaluation.column_prior import MOST_FRAMES, evenly
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.training.loop.task import Tick
from vlwm.core.training.startup.data_on_demand import (
    OnFrames,
    is_to_be_prepared,
    prepare_data,
    refuse_what_is_missing,
)
from vlwm.core.vocabulary import Split, Stage

log = logging.getLogger("vlwm.training")

_MOST_NOTES = 5


@dataclass(frozen=True, eq=False)
class TrainData:
    """Everything that a stage reads.

    Attributes:
        store: packed frames.
        splits: which frame belongs where.
        train, val: windows; those of validation thinned to `evaluation.max_windows`, with at
            least one of every cluster.
        val_motion: all windows of validation, whose poses alone are looked at.
        train_rows, val_rows: int64, single frames of the two splits for the tokenizer.
        rate: share of occupied cells in the train split.
        column: (Z,) share of occupied cells by height in the train split.
        data_hash: of frames, poses and sums.
        window_weights: float64 (len(train),), how often each window is taken in an epoch; None:
            once.
        frame_weights: float64 (len(train_rows),), the same of single frames.
    """

    store: PackedStore
    splits: Splits
    train: list[Window]
    val: list[Window]
    val_motion: list[Window]
    train_rows: NDArray[np.int64]
    val_rows: NDArray[np.int64]
    rate: float
    column: NDArray[np.float64]
    data_hash: str
    window_weights: NDArray[np.float64] | None = None
    frame_weights: NDArray[np.float64] | None = None

    def samples_of(self, stage: Stage) -> int:
        """Return the samples of a whole epoch of a stage, each as often as its source weighs."""
        tokens = stage == Stage.TOKENIZER
        weights = self.frame_weights if tokens else self.window_weights
        if weights is not None:
            return weighted_count(weights)
        return len(self.train_rows) if tokens else len(self.train)

    @property
    def grid(self) -> VoxelGrid:
        """The grid of every frame."""
        return self.store.grid


def open_data(
    config: Config, tick: Tick, *, from_raw: bool = False, on_frames: OnFrames | None = None
) -> TrainData:
    """Open the packed frames of a config, making them first where it states how.

    Args:
        from_raw: prepare city models too, not only a procedural city.
        on_frames: called with (frames, all) while sessions are prepared.

    Raises:
        DataError: no data, another grid, an empty split, or a data set whose reader is missing.
    """
    if not config.data.train and is_to_be_prepared(config, from_raw=from_raw):
        prepare_data(config, tick, on_frames)
    refuse_what_is_missing(config)

    def packed(name: str, done: int, total: int) -> None:
        log.info("packing %s (%d of %d)", name, done, total)
        tick()

    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    store = PackedStore.open(config.data_roots, grid, on_session=packed)
    for file, reason in store.damaged:
        log.warning("left out: %s, %s", file, reason)
    splits = open_splits(store, grid.horizontal_half_diagonal_m, config.seed)
    _tell(store, splits)
    return _choose(store, splits, config)


def _tell(store: PackedStore, splits: Splits) -> None:
    """Log what was guessed about the data, and what their splits are not."""
    notes = [*store.notes, *([splits.note] if splits.note else [])]
    for note in notes[-_MOST_NOTES:]:
        log.warning("data: %s", note)
    if len(notes) > _MOST_NOTES:
        log.warning("data: %d more notes of this kind", len(notes) - _MOST_NOTES)


def _choose(store: PackedStore, splits: Splits, config: Config) -> TrainData:
    train = windows_of(store, splits, Split.TRAIN, config.window_frames)
    val = windows_of(store, splits, Split.VAL, config.window_frames)
    train_rows, val_rows = (frame_rows(store, splits, name) for name in (Split.TRAIN, Split.VAL))
    # counted on the train split alone: the other splits must not be looked at
    column = store.column_prior(train_rows[evenly(len(train_rows), MOST_FRAMES)])
    most = config.evaluation.max_windows
    window_weights, frame_weights = _weights(store, config, train, train_rows)
    data = TrainData(
        store=store,
        splits=splits,
        train=train,
        val=over_clusters(store, val, config.history_frames, most),
        val_motion=val,
        train_rows=train_rows,
        val_rows=val_rows[evenly(len(val_rows), most)],
        rate=float(column.mean()),
        column=column,
        data_hash=store.data_hash,
        window_weights=window_weights,
        frame_weights=frame_weights,
    )
    log.info(
        "data: %d frames of %d sessions in %s; %d windows to train on, %d to validate with; "
        "%.2f %% occupied%s",
        len(store), len(store.sessions), ", ".join(config.data_roots), len(train), len(data.val),
        100 * data.rate,
        "; procedural city, not a real one" if store.procedural else "",
    )  # fmt: skip
    return data


def _weights(
    store: PackedStore, config: Config, train: list[Window], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Return how often each window and each frame is taken in an epoch; None where once.

    Raises:
        DataError: a source has nothing in the train split.
    """
    if not config.data.train:
        return None, None
    source = store.source[store.session]  # (N,), of each frame
    own = np.array([source[w.rows[0]] for w in train])
    for number, wanted in enumerate(config.data.train):
        frames, windows = int((source[rows] == number).sum()), int((own == number).sum())
        log.info("data: %s, weight %g: %d windows and %d frames to train on",
                 wanted.root, wanted.weight, windows, frames)  # fmt: skip
        if not windows:
            raise DataError(
                "this source has no window in the train split",
                where=wanted.root,
                remedy="prepare more sessions or longer ones, or take it out of data.train",
            )
    each = np.array([s.weight for s in config.data.train])
    return each[own], each[source[rows]]
