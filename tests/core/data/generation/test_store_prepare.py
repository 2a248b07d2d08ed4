"""Several machines prepare one store: the content is that of one machine, and nothing is lost."""

from __future__ import annotations

import dataclasses
import itertools
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from tests.core.data.small_data import PLAN, SIZE_M, config, grid
from vlwm.core.city.city import City, SourceFile
from vlwm.core.city.procedural import procedural_city
from vlwm.core.data.generation.prepare import prepare
from vlwm.core.data.generation.session_plans import plan_session, session_names
from vlwm.core.data.generation.session_work import SessionMaker
from vlwm.core.data.generation.session_writer import OnFrames
from vlwm.core.data.generation.store_prepare import StoreReport, parse_share, prepare_store
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.splits import Splits
from vlwm.core.errors import DataError, UsageError

SMALL = dataclasses.replace(PLAN, frames=4, sessions=4)


@lru_cache
def city() -> City:
    return procedural_city(SIZE_M, 3)


def make(folder: Path, **options: object) -> StoreReport:

    return prepare_store(city(), config(), folder.as_uri(), SMALL, **options)


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "store"
    report = make(folder, order_seed=0)
    assert report.finished and report.made == 4 and report.twice == 0
    return folder


def test_a_store_is_what_one_machine_makes_as_npz(whole: Path, tmp_path: Path) -> None:
    prepare(city(), config(), tmp_path, SMALL)
    npz, shards = PackedStore.open(tmp_path, grid()), PackedStore.open(whole, grid())
    assert npz.data_hash == shards.data_hash and npz.attribution == shards.attribution
    assert Splits.read(whole / "splits.json") == Splits.read(tmp_path / "splits.json")
    assert npz.sessions == sorted(session_names(SMALL))
    assert shards.meta == npz.meta


def test_a_session_names_the_files_of_its_city_by_one_hash(tmp_path: Path) -> None:
    """Fault: each session repeats a list of thousands of files."""
    many = tuple(SourceFile(f"{k}.gml", 10, f"{k:064d}") for k in range(5000))
    prepare(dataclasses.replace(city(), sources=many), config(), tmp_path, SMALL)
    plan = json.loads((tmp_path / "prepare.json").read_text())
    for file in tmp_path.glob("*/session.json"):
        meta = json.loads(file.read_text())
        assert file.stat().st_size < 5_000 and meta["city"] == plan["sources"]
    listed = json.loads((tmp_path / "city_report.json").read_text())["sources"]
    assert len(listed) == 5000 and listed[7] == dataclasses.asdict(many[7])


def test_shares_and_orders_change_no_byte(whole: Path, tmp_path: Path) -> None:
    first = make(tmp_path / "s", share=(1, 2), order_seed=5)
    assert first.made == 2 and not first.finished
    assert not (tmp_path / "s/splits.json").exists()
    second = make(tmp_path / "s", share=(0, 2), order_seed=6)
    assert second.finished and content(tmp_path / "s") == content(whole)
    again = make(tmp_path / "s", order_seed=7)
    assert (again.made, again.present, again.frames) == (0, 4, 0)


def test_a_session_made_at_the_same_time_stays_and_a_different_one_is_reported(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine writes its shard while this one makes the same session."""
    names, store = session_names(SMALL), tmp_path / "s"
    original, turn = SessionMaker.shard, itertools.count()

    def slow(maker: SessionMaker, index: int, on_frames: OnFrames) -> bytes:
        raw = original(maker, index, on_frames)
        place = store / f"{names[index]}.shard"
        place.write_bytes(raw if next(turn) else (whole / f"{names[index - 1]}.shard").read_bytes())
        return raw

    monkeypatch.setattr(SessionMaker, "shard", slow)
    report = make(store, order_seed=1)
    assert report.made == 0 and report.twice == 4 and len(report.different) == 1


def test_machines_that_walk_in_step_part_by_pauses_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both would write each session at the same moment, and neither see the other's."""
    longest: list[float] = []

    def uniform(low: float, high: float) -> float:
        longest.append(high)
        return low

    monkeypatch.setattr("random.uniform", uniform)
    assert make(tmp_path / "store", order_seed=0).made == 4
    assert longest[0] == 0 and len(longest) == 4 and all(0.1 <= s < 10 for s in longest[1:])


def test_a_session_with_a_note_comes_last_and_no_note_stays(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note says that some machine makes the session; one that vanished leaves its note."""
    names, store, made = session_names(SMALL), tmp_path / "s", list[str]()
    store.mkdir()
    for name in names[:2]:
        (store / f"{name}.making").write_bytes(b"1")
    original = SessionMaker.shard

    def watched(maker: SessionMaker, index: int, on_frames: OnFrames) -> bytes:
        made.append(names[index])
        assert (store / f"{names[index]}.making").exists()
        return original(maker, index, on_frames)

    monkeypatch.setattr(SessionMaker, "shard", watched)
    assert make(store, order_seed=3).made == 4
    assert set(made[2:]) == set(names[:2])
    assert content(store) == content(whole)


def test_a_session_that_another_machine_begins_during_a_pause_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, store, made, noted = session_names(SMALL), tmp_path / "s", list[int](), list[int]()
    original = SessionMaker.shard

    def watched(maker: SessionMaker, index: int, on_frames: OnFrames) -> bytes:
        made.append(index)
        return original(maker, index, on_frames)

    def pause(low: float, high: float) -> float:
        if made and not noted:  # the session that this machine would walk to
            noted.append((made[0] + 1) % len(names))
            (store / f"{names[noted[0]]}.making").write_bytes(b"1")
        return low

    monkeypatch.setattr(SessionMaker, "shard", watched)
    monkeypatch.setattr("random.uniform", pause)
    assert make(store, order_seed=0).made == 4
    assert made[-1] == noted[0]


def test_a_planned_session_depends_on_city_plan_and_index_alone() -> None:

    one, other = (plan_session(city(), SMALL, index, grid()) for index in (2, 2))
    assert one.name == session_names(SMALL)[2] == other.name and one.meta == other.meta
    np.testing.assert_array_equal(one.trajectory.poses, other.trajectory.poses)


def test_another_plan_or_scans_in_a_store_are_refused(whole: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(SMALL, seed=4)
    with pytest.raises(DataError, match="was prepared with another seed"):
        prepare_store(city(), config(), whole.as_uri(), other)
    more = dataclasses.replace(SMALL, held_out=0.5)
    with pytest.raises(DataError, match="was prepared with another held_out"):
        prepare_store(city(), config(), whole.as_uri(), more)
    with pytest.raises(UsageError, match="a store keeps no scans and pictures"):
        prepare_store(city(), config(), whole.as_uri(), dataclasses.replace(SMALL, camera=True))
    (tmp_path / "prepare.json").write_text("{")
    with pytest.raises(DataError, match=r"prepare\.json of the store is damaged"):
        make(tmp_path)
    (tmp_path / "prepare.json").write_text(json.dumps([]))
    with pytest.raises(DataError, match="was prepared with another"):
        make(tmp_path)


@pytest.mark.parametrize("text", ["4/4", "1", "a/b", "²/4", "-1/4", "1/0"])
def test_a_share_is_two_whole_numbers(text: str) -> None:
    assert parse_share("3/4") == (3, 4) and parse_share(None) is None
    with pytest.raises(UsageError, match="is not i/n"):
        parse_share(text)
