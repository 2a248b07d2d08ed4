"""The data of a run: opened, and made first where the config says how.

Only a procedural city is made without being asked; everything else is a sentence with the command
that provides it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.config import Config
from vlwm.core.data.packed import PackedStore
from vlwm.core.data.splits import Splits, open_splits
from vlwm.core.data.windows import Window, frame_rows, windows_of
from vlwm.core.errors import DataError
from vlwm.core.evaluation.prior import MOST_FRAMES, evenly
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.training.task import Tick

log = logging.getLogger("vlwm.training")

_LATER = {"nuscenes": "nuScenes", "uavscenes": "UAVScenes"}


@dataclass(frozen=True, eq=False)
class TrainData:
    """Everything that a stage reads.

    Attributes:
        store: packed frames.
        splits: which frame belongs where.
        train, val: windows; those of validation thinned to `evaluation.max_windows`.
        train_rows, val_rows: int64, single frames of the two splits for the tokenizer.
        rate: share of occupied cells in the train split.
        column: (Z,) share of occupied cells by height in the train split.
        data_hash: of frames, poses and sums.
    """

    store: PackedStore
    splits: Splits
    train: list[Window]
    val: list[Window]
    train_rows: NDArray[np.int64]
    val_rows: NDArray[np.int64]
    rate: float
    column: NDArray[np.float64]
    data_hash: str

    @property
    def grid(self) -> VoxelGrid:
        """The grid of every frame."""
        return self.store.grid


def open_data(config: Config, tick: Tick) -> TrainData:
    """Open the packed frames of a config, preparing a procedural city first where it is missing.

    Raises:
        DataError: no data, another grid, an empty split, or a data set whose reader is not there.
    """
    root = Path(config.data_root)
    if config.prepare.source == "procedural" and not (root / "splits.json").exists():
        _prepare_procedural(config, root, tick)
    refuse_what_is_missing(config)

    def packed(name: str, done: int, total: int) -> None:
        log.info("packing %s (%d of %d)", name, done, total)
        tick()

    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    store = PackedStore.open(root, grid, on_session=packed)
    for file, reason in store.damaged:
        log.warning("left out: %s, %s", file, reason)
    splits = open_splits(store, grid.horizontal_half_diagonal_m, config.seed)
    return _choose(store, splits, config)


def _choose(store: PackedStore, splits: Splits, config: Config) -> TrainData:
    train = windows_of(store, splits, "train", config.window_frames)
    val = windows_of(store, splits, "val", config.window_frames)
    train_rows, val_rows = (frame_rows(store, splits, name) for name in ("train", "val"))
    column = store.column_prior(train_rows[evenly(len(train_rows), MOST_FRAMES)])
    most = config.evaluation.max_windows
    data = TrainData(
        store=store,
        splits=splits,
        train=train,
        val=[val[i] for i in evenly(len(val), most)],
        train_rows=train_rows,
        val_rows=val_rows[evenly(len(val_rows), most)],
        rate=float(column.mean()),
        column=column,
        data_hash=store.data_hash,
    )
    log.info(
        "data: %d frames of %d sessions in %s; %d windows to train on, %d to validate with; "
        "%.2f %% occupied%s",
        len(store), len(store.sessions), store.root, len(train), len(data.val), 100 * data.rate,
        "; procedural city, not a real one" if store.procedural else "",
    )  # fmt: skip
    return data


def refuse_what_is_missing(config: Config) -> None:
    """Say what to type where there is no session.

    Raises:
        DataError: the folder holds none, and nobody is going to make them.
    """
    root = Path(config.data_root)
    if any(root.glob("*/occupancy")):
        return
    if config.prepare.source == "procedural":
        return
    if config.dataset in _LATER:
        raise DataError(
            f"the reader of {_LATER[config.dataset]} comes in a later version, and there are no "
            "session folders yet",
            where=root,
            remedy="train on session folders instead (--config finetune_tokyo --data DIR), or "
            "try --config test_local",
        )
    raise DataError(
        "there are no sessions to train on",
        where=root,
        remedy=f"make them with: vlwm prepare --input {config.prepare.input} --output {root} "
        f"--config {config.name}; or give --data DIR, or try --config test_local",
    )


def _prepare_procedural(config: Config, root: Path, tick: Tick) -> None:
    """Build the made-up city of a config and its sessions; goes on where it was stopped."""
    from vlwm.core.city.procedural import procedural_city
    from vlwm.core.data.prepare import PreparePlan, default_workers, prepare

    wanted = config.prepare
    log.info("preparing a procedural city of %g m in %s", wanted.procedural_size_m, root)
    city = procedural_city(wanted.procedural_size_m, wanted.seed)
    tick()
    plan = PreparePlan(
        frames=wanted.frames,
        sessions=wanted.sessions,
        agents=wanted.agents,
        seed=wanted.seed,
        fill=wanted.fill,
        workers=default_workers(),
        dt_s=config.frame_dt_s,
    )
    report = prepare(city, config, root, plan, lambda session, done, total: tick())
    log.info("prepared %d frames of %d sessions", report.frames, report.sessions)
