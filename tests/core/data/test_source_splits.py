"""Several data folders train together, each split by its own rule; no place is in two splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.core.data.seen_cells import seen_cells
from vlwm.core.config.load import load_config
from vlwm.core.data.npz import write_layers
from vlwm.core.data.packed_store import PackedStore, source_labels
from vlwm.core.data.sampler import EpochSampler, weighted_count
from vlwm.core.data.session import Session, SessionMeta, write_meta, write_pose
from vlwm.core.data.source_splits import open_splits
from vlwm.core.data.splits import Splits
from vlwm.core.data.windows import windows_of
from vlwm.core.errors import DataError, VlwmError
from vlwm.core.geometry.grid import VoxelGrid

GRID = VoxelGrid.from_range((-8, -8, -2, 8, 8, 6), (2.0, 2.0, 2.0))
MARGIN = GRID.horizontal_half_diagonal_m
CRS = "EPSG:6677"


def session(
    root: Path, name: str, start: tuple[float, float], *, crs: str | None, frames: int = 40,
    split: str | None = None, step_m: float = 4.0,
) -> Session:  # fmt: skip
    """A vehicle that drives east from `start`, in the coordinates of `crs`."""
    folder = root / name
    for part in ("occupancy", "poses"):
        (folder / part).mkdir(parents=True)
    cells = np.zeros(GRID.shape, np.uint8)
    cells[0, 0, 0] = 1
    for k in range(frames):
        write_layers(folder / f"occupancy/{k:06d}_occupancy.npz", {"occupancy": cells})
        pose = np.zeros(13)
        pose[:3], pose[6], pose[7] = (step_m * k, 0.0, 2.0), 1.0, step_m / 0.5
        write_pose(folder / f"poses/{k:06d}.json", pose, 0.0, 0.5 * k)
    origin = None
    if crs is not None:
        origin = {"crs": crs, "easting": start[0], "northing": start[1], "height": 0.0}
    meta = SessionMeta(agent="rover", dt_s=0.5, origin=origin, velocity_frame="world", split=split,
                       attribution=f"{root.name}, CC BY 4.0")  # fmt: skip
    write_meta(folder, meta)
    return Session(folder)


def areas(root: Path, east: float = 0.0) -> Path:
    """Eight sessions side by side: a place that can be cut."""
    for k in range(8):
        session(root, f"rover_{k:02d}", (east, 30.0 * k), crs=CRS)
    return root


def test_each_source_keeps_its_own_splits_and_its_names(tmp_path: Path) -> None:
    made = areas(tmp_path / "made")
    flown = tmp_path / "flown"
    for k, split in enumerate(("train", "val", "test")):
        session(flown, f"drone_{k}", (0, 0), crs=None, split=split)
    store = PackedStore.open([made, flown], GRID)
    splits = open_splits(store, MARGIN, seed=1)
    assert store.sessions[0] == "made/rover_00" and store.sessions[-1] == "flown/drone_2"
    labels = splits.labels(store)
    for number, root in enumerate((made, flown)):
        alone = PackedStore.open(root, GRID)
        own = open_splits(alone, MARGIN, seed=1).labels(alone)
        assert own.tolist() == labels[store.source[store.session] == number].tolist()
    assert store.attribution == "flown, CC BY 4.0; made, CC BY 4.0"
    file = tmp_path / "splits.json"
    splits.write(file)
    assert Splits.read(file).labels(store).tolist() == labels.tolist()


def test_no_world_cell_is_seen_by_two_splits_of_different_sources(tmp_path: Path) -> None:
    """Two folders of the same place, planned apart: what one holds out the other does not train."""
    one, other = areas(tmp_path / "one"), areas(tmp_path / "other", east=40.0)
    store = PackedStore.open([one, other], GRID)
    open_splits(PackedStore.open(one, GRID), MARGIN, seed=1)
    open_splits(PackedStore.open(other, GRID), MARGIN, seed=5)
    labels = open_splits(store, MARGIN, seed=1).labels(store)
    shift = np.array([[m["origin"]["easting"], m["origin"]["northing"]] for m in store.meta])
    places = store.poses[:, :2] + shift[store.session]
    seen = {
        name: seen_cells(places[labels == name], np.zeros((labels == name).sum()), GRID)
        for name in ("train", "val", "test")
    }
    assert all(seen.values())
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["val"]
    assert not seen["val"] & seen["test"]
    alone = PackedStore.open(other, GRID)
    free = open_splits(alone, MARGIN, seed=1).labels(alone)
    lost = (labels[store.source[store.session] == 1] == "none").sum() - (free == "none").sum()
    assert lost > 0  # the property is not empty: without it these would have trained


def test_a_test_gives_way_to_nothing_and_a_validation_to_a_test_alone(tmp_path: Path) -> None:
    """Fault: held-out frames are dropped so that another source may train on their place."""
    roots = areas(tmp_path / "one"), areas(tmp_path / "other", east=40.0)
    alone = [PackedStore.open(root, GRID) for root in roots]
    own = np.concatenate([
        open_splits(store, MARGIN, seed=seed).labels(store)
        for store, seed in zip(alone, (1, 5), strict=True)
    ])  # fmt: skip
    store = PackedStore.open(list(roots), GRID)
    labels = open_splits(store, MARGIN, seed=1).labels(store)
    assert (labels[own == "test"] == "test").all()
    shift = np.array([[m["origin"]["easting"], m["origin"]["northing"]] for m in store.meta])
    places = store.poses[:, :2] + shift[store.session]
    source = store.source[store.session]
    lost = np.flatnonzero((own == "val") & (labels != "val"))
    kept = np.flatnonzero((own == "val") & (labels == "val"))
    for row in lost:
        tests = (labels == "test") & (source != source[row])
        assert np.linalg.norm(places[tests] - places[row], axis=1).min() <= 2 * MARGIN + 1e-6
    trained = (own == "train") & (labels == "none")
    assert len(kept) and trained.any()


def test_recorded_sessions_next_to_made_ones_are_dealt_whole(tmp_path: Path) -> None:
    root = areas(tmp_path / "both")
    first = open_splits(PackedStore.open(root, GRID), MARGIN, seed=1)
    assert first.regions and not first.sessions
    for k in range(4):
        session(root, f"drone_{k}", (0, 0), crs=None)
    store = PackedStore.open(root, GRID)
    splits = open_splits(store, MARGIN, seed=1)
    assert splits.regions == first.regions and "may show the same world" in splits.note
    labels = splits.labels(store)
    for name, rows in store.session_rows():
        if name.startswith("drone"):
            assert len(set(labels[rows])) == 1 and labels[rows][0] != "none"
    session(root, "drone_9", (0, 0), crs=None)
    again = open_splits(PackedStore.open(root, GRID), MARGIN, seed=1)
    assert splits.sessions.items() <= again.sessions.items() and "drone_9" in again.sessions


def test_folders_of_one_name_are_told_apart() -> None:
    paths = [Path("/a/data"), Path("/b/data"), Path("/c/other"), Path("/d/data")]
    assert source_labels(paths) == ["data", "data_2", "other", "data_3"]


def test_weights_say_how_often_a_sample_is_taken() -> None:
    weights = np.repeat([2.0, 0.25], [10, 40])
    assert weighted_count(weights) == 30
    counts = np.zeros(50, int)
    for epoch in range(8):
        sampler = EpochSampler(50, 4, seed=3, epoch=epoch, weights=weights)
        drawn = [i for batch in sampler for _, i in batch]
        assert len(drawn) == 30 and len(sampler) == 8
        each = np.bincount(drawn, minlength=50)
        assert (each[:10] == 2).all() and each[10:].max() <= 1
        counts += each
    assert counts[10:].sum() == 80 and (counts[10:] > 0).mean() > 0.8
    resumed = EpochSampler(50, 4, seed=3, epoch=7, first=12, weights=weights)
    assert [i for batch in resumed for _, i in batch] == drawn[12:]
    ranks = [EpochSampler(50, 4, seed=3, epoch=7, rank=r, world_size=2, weights=weights)
             for r in (0, 1)]  # fmt: skip
    together = [i for a, b in zip(*ranks, strict=True) for _, i in (*a, *b)]
    assert together == drawn


def test_the_config_reads_sources_and_sets_other_peoples_lists_aside() -> None:
    config = load_config("test_local", ["data.train=[{'root': 'a', 'weight': 2}, {'root': 'b'}]"])
    assert config.data_roots == ("a", "b")
    assert [s.weight for s in config.data.train] == [2.0, 1.0]
    written = "data.train=[dict(root='a', weight=2), dict(root='b')]"  # as in a config file
    assert load_config("test_local", [written]).data.train == config.data.train
    assert load_config("test_local").data_roots == ("data/test_local",)
    with pytest.raises(VlwmError, match=r"data\.train\.weight = 0"):
        load_config("test_local", ["data.train=[{'root': 'a', 'weight': 0}]"])
    with pytest.raises(VlwmError, match=r"unknown config key data\.train\.wight"):
        load_config("test_local", ["data.train=[{'root': 'a', 'wight': 1}]"])


def test_a_source_without_sessions_is_named(tmp_path: Path) -> None:
    made = areas(tmp_path / "made")
    with pytest.raises(DataError, match="no such data folder"):
        PackedStore.open([made, tmp_path / "none"], GRID)


def test_a_single_flight_is_cut_in_time_with_a_gap(tmp_path: Path) -> None:
    session(tmp_path, "drone_a", (0, 0), crs=None, frames=100)
    store = PackedStore.open(tmp_path, GRID)
    splits = open_splits(store, MARGIN, seed=1)
    assert "cut in time" in splits.note and "may show the same world" in splits.note
    labels = splits.labels(store)
    order = [label for k, label in enumerate(labels) if not k or label != labels[k - 1]]
    assert order == ["train", "none", "val", "none", "test"]
    assert (labels == "none").sum() == 2 * 6  # three seconds at 2 Hz
    assert all(windows_of(store, splits, name, 5) for name in ("train", "val", "test"))
