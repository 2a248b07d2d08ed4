"""What was gathered from many shards is used only while it agrees with them."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.core.data.generation.test_prepare import PLAN, SIZE_M, config, grid
from vlwm.core.city.procedural import procedural_city
from vlwm.core.data import packed_store
from vlwm.core.data.generation.store_prepare import prepare_store
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.shards import gathered_shards
from vlwm.core.data.shards.session_shard import grid_header
from vlwm.core.store.kept_arrays import keep_arrays, kept_arrays


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path) -> Path:
    """Four shards, which count as many."""
    monkeypatch.setattr(packed_store, "MANY", 3)
    monkeypatch.setattr(gathered_shards, "_COMPARED", 2)
    shards = sorted(made.glob("*.shard"))
    for number, source in enumerate([*shards, shards[0]]):
        shutil.copy(source, tmp_path / f"drone_{number}.shard")
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    plan = dataclasses.replace(PLAN, frames=3, sessions=3)
    prepare_store(procedural_city(SIZE_M, 3), config(), folder.as_uri(), plan)
    return folder


def assert_equal(one: PackedStore, other: PackedStore) -> None:
    assert one.data_hash == other.data_hash and one.meta == other.meta
    assert one.sessions == other.sessions and one.layers == other.layers
    for row in range(len(one)):
        np.testing.assert_array_equal(one.read_frame(row), other.read_frame(row))


def test_a_second_opening_is_equal_and_reads_few_headers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = PackedStore.open(folder, grid())
    monkeypatch.setattr(gathered_shards, "read_indexes", None)
    assert_equal(first, PackedStore.open(folder, grid()))


@pytest.mark.parametrize("change", ["more", "less", "other", "damaged", "cut", "wrong"])
def test_any_change_is_noticed(folder: Path, change: str) -> None:
    PackedStore.open(folder, grid())
    kept = folder / ".packed/gathered.index"
    shards = sorted(folder.glob("*.shard"))
    raw = bytearray(kept.read_bytes())
    if change == "more":
        shutil.copy(shards[0], folder / "drone_7.shard")
    if change == "less":
        shards[1].unlink()
    if change == "other":
        shutil.copy(shards[2], shards[0])
    if change == "damaged":
        raw[len(raw) // 2] ^= 1
        kept.write_bytes(raw)
    if change == "cut":
        kept.write_bytes(raw[: len(raw) // 2])
    if change == "wrong":  # the same name, size and time, and other content
        values, arrays = kept_arrays(kept, key_of(folder)) or ({}, {})
        keep_arrays(kept, key_of(folder), values, {**arrays, "poses": arrays["poses"] + 1.0})
    reopened = PackedStore.open(folder, grid())
    kept.unlink()
    assert_equal(reopened, PackedStore.open(folder, grid()))


def key_of(folder: Path) -> dict[str, object]:
    stats = [(p, os.stat(p)) for p in sorted(folder.glob("*.shard"))]
    files = [[p.name, s.st_size, s.st_mtime_ns] for p, s in stats]
    return {"grid": grid_header(grid()), "files": files}


def test_another_key_or_a_missing_file_is_nothing(tmp_path: Path) -> None:
    arrays = {"a": np.arange(5, dtype=np.uint8), "b": np.arange(6.0).reshape(2, 3)}
    path = tmp_path / "kept"
    assert kept_arrays(path, 1) is None
    keep_arrays(path, {"k": [1, 2]}, {"v": "x"}, arrays)
    values, found = kept_arrays(path, {"k": [1, 2]}) or ({}, {})
    assert values == {"v": "x"} and kept_arrays(path, {"k": [1, 3]}) is None
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        found[name][:] = 0  # the caller's own
    path.write_bytes(b"")
    assert kept_arrays(path, {"k": [1, 2]}) is None


def test_a_disk_that_refuses_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keep_arrays(tmp_path / "file/kept", 1, None, {"a": np.zeros(1)})
    assert (tmp_path / "file").is_file()
