"""Shards whose frames are fetched when they are read: the folder is as if it were whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.core.test_engines import CONFIG, PLAN
from vlwm.commands.shared.data import fetch_store
from vlwm.core.city.procedural import procedural_city
from vlwm.core.data.generation.store_prepare import prepare_store
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.splits import Splits, planned_splits
from vlwm.core.data.windows import frame_rows
from vlwm.core.errors import DataError
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.store.mirror import mirror
from vlwm.core.store.objects import FolderStore
from vlwm.core.store.unfetched import FILE, read_unfetched
from vlwm.core.vocabulary import Split

GRID = VoxelGrid.from_range(CONFIG.point_cloud_range, CONFIG.voxel_size)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with sessions of all three splits."""
    folder = tmp_path_factory.mktemp("filled") / "store"
    report = prepare_store(procedural_city(500.0, 42), CONFIG, folder.as_uri(), PLAN)
    assert report.finished
    return folder


def shards(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("*.shard")}


def without_test(store: Path, local: Path) -> set[str]:
    planned = planned_splits((store / "prepare.json").read_bytes())
    later = {f"{name}.shard" for name, split in planned.items() if split == Split.TEST}
    assert len(later) == 1 and len(planned) == len(shards(store))
    mirror(store.as_uri(), local, is_wanted=lambda name: name not in later)
    return later


def test_the_plan_tells_the_split_of_each_session(filled: Path) -> None:
    planned = planned_splits((filled / "prepare.json").read_bytes())
    store = PackedStore.open(filled, GRID)
    assert planned == {n: m["split"] for n, m in zip(store.sessions, store.meta, strict=True)}
    for raw in (b"", b"[]", b'{"agents": [], "sessions": 3}', b'{"agents": 1, "sessions": "x"}'):
        assert planned_splits(raw) == {}


def test_frames_come_when_they_are_read_and_the_hash_is_that_of_the_whole(
    filled: Path, tmp_path: Path
) -> None:
    later = without_test(filled, tmp_path)
    (name,) = later
    assert read_unfetched(tmp_path) == (filled.as_uri(), later)
    assert (tmp_path / name).stat().st_size == (filled / name).stat().st_size
    whole, part = PackedStore.open(filled, GRID), PackedStore.open(tmp_path, GRID)
    assert part.data_hash == whole.data_hash
    splits = Splits.read(filled / "splits.json")
    part.read_bits(frame_rows(part, splits, Split.TRAIN))
    assert shards(tmp_path)[name] != shards(filled)[name]
    rows = frame_rows(part, splits, Split.TEST)
    other = PackedStore.open(tmp_path, GRID)  # of another process, opened before the frames came
    np.testing.assert_array_equal(part.read_bits(rows), whole.read_bits(rows))
    np.testing.assert_array_equal(other.read_bits(rows), whole.read_bits(rows))
    assert shards(tmp_path) == shards(filled) and not (tmp_path / FILE).exists()
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in filled.iterdir()}


def test_wanted_later_is_fetched_whole_and_fetched_once(filled: Path, tmp_path: Path) -> None:
    later = without_test(filled, tmp_path)
    assert not any(n.endswith(".shard") for n in mirror(
        filled.as_uri(), tmp_path, is_wanted=lambda name: name not in later))  # fmt: skip
    assert {n for n in mirror(filled.as_uri(), tmp_path) if n.endswith(".shard")} == later
    assert shards(tmp_path) == shards(filled) and not (tmp_path / FILE).exists()


def test_a_killed_fetch_leaves_no_shard_that_counts_as_whole(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: the index has the shard's name and size, and the list is written at the end."""
    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "read", lambda self, name: None)  # after the indexes
        with pytest.raises(DataError, match="is gone"):
            without_test(filled, tmp_path)
    mirror(filled.as_uri(), tmp_path)
    assert shards(tmp_path) == shards(filled)


def test_another_shard_in_the_store_is_refused(filled: Path, tmp_path: Path) -> None:
    local, store = tmp_path / "local", tmp_path / "store"
    mirror(filled.as_uri(), store)
    (name,) = without_test(store, local)
    other = next(n for n in shards(store) if n != name)
    (store / name).write_bytes((store / other).read_bytes())
    part = PackedStore.open(local, GRID)
    with pytest.raises(DataError, match="another shard than when its index was fetched"):
        part.read_bits(np.arange(len(part)))


def test_train_leaves_the_test_split_in_the_store(
    filled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VLWM_CACHE", str(tmp_path))
    folder = fetch_store(filled.as_uri(), None, later=(Split.TEST.value,))
    assert len(read_unfetched(folder)[1]) == 1
    assert "test: 1 sessions" in capsys.readouterr().err
    json.loads((folder / FILE).read_text())
