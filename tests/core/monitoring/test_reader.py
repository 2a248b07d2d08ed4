"""From a run folder in any condition to a Snapshot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import fake_run
from vlwm.core.monitoring import history as history_module
from vlwm.core.monitoring import jsonl_tail as tail_module
from vlwm.core.monitoring.reader import RunReader, process_exists
from vlwm.core.monitoring.sampler import Sampler, take_snapshot
from vlwm.core.run_folder import RunFolder
from vlwm.core.run_status import finite as number


def read(folder: RunFolder, *, alive: bool = True, host: str | None = None) -> Any:
    return RunReader(folder, exists=lambda pid: alive, host_name=host).read()


def test_a_run_is_read_whole(tmp_path: Path) -> None:
    snapshot = read(fake_run.write_run(tmp_path / "run", steps=300))
    assert snapshot.liveness == "alive" and snapshot.stage.name == "world"
    assert (snapshot.status.epoch, snapshot.status.epochs) == (11, 50)
    assert snapshot.stage.train_count == 30 and snapshot.stage.val_count == 3
    assert snapshot.stages["tokenizer"].train_count == 30
    assert snapshot.stage.series("train/loss").steps[0] == 10.0
    assert snapshot.throughput is not None and snapshot.throughput[1] == "windows"
    assert 11_500 < snapshot.eta_s <= 11_520
    sizes = {file.name: file.size_bytes for file in snapshot.checkpoints}
    assert sizes["last.pth"] == 4000 and sizes["tokenizer/epoch_5.pth"] == 3000


def test_an_empty_folder_waits(tmp_path: Path) -> None:
    snapshot = read(RunFolder(tmp_path / "nothing"))
    assert snapshot.liveness == "waiting" and snapshot.stage.last is None
    assert snapshot.checkpoints == () and snapshot.eta_s is None


@pytest.mark.parametrize(
    ("state", "age_s", "alive", "here", "expected"),
    [
        ("running", 1, True, True, "alive"),
        ("running", 5, False, True, "alive"),  # an id of another name space proves nothing yet
        ("running", 30, False, True, "gone"),
        ("running", 30, True, True, "alive"),
        ("running", 300, True, True, "stalled"),
        ("running", 300, False, False, "silent"),
        ("done", 300, False, True, "ended"),
        ("stopped", 1, False, True, "ended"),
    ],
)
def test_liveness(
    tmp_path: Path, state: str, age_s: float, alive: bool, here: bool, expected: str
) -> None:
    folder = RunFolder(tmp_path)
    beat = {"heartbeat": time.time() - age_s, "host": "a", "state": state}
    folder.write_status(fake_run.status(folder, **beat))
    assert read(folder, alive=alive, host="a" if here else "b").liveness == expected


def test_the_runs_own_limit_of_a_stall_holds(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.config_json.write_text(json.dumps({"health": {"stalled_seconds": 20}}))
    folder.write_status(fake_run.status(folder, heartbeat=time.time() - 30))
    assert read(folder).liveness == "stalled"


def test_a_dead_process_is_seen_even_unburied() -> None:
    child = subprocess.Popen(["sleep", "0"])
    time.sleep(0.2)
    assert not process_exists(child.pid)  # a zombie until it is waited for
    child.wait()
    assert not process_exists(child.pid)
    assert process_exists(os.getpid())


def test_a_damaged_status_keeps_the_last_good_one(tmp_path: Path) -> None:
    folder = fake_run.write_run(tmp_path, steps=50)
    reader = RunReader(folder)
    reader.read()
    folder.status_json.write_text('{"state": "run')
    snapshot = reader.read()
    assert snapshot.status.step == 1204 and "cannot be read" in snapshot.notes[0]
    folder.status_json.write_text("[1]")
    assert reader.read().status.step == 1204


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"state": 5, "epoch": "x", "step": None, "health": {"a": 1}, "heartbeat": "soon"},
        {"state": "running", "health": [1, {"name": 3}], "pid": -7, "heartbeat": 0, "eta_s": True},
        {"state": "running", "stage": "other", "phase": "other", "host": None, "pid": 1e300},
    ],
)
def test_foreign_status_values_do_no_harm(tmp_path: Path, values: dict[str, Any]) -> None:
    (tmp_path / "status.json").write_text(json.dumps(values))
    assert read(RunFolder(tmp_path)).status.epoch == 0


def test_a_resume_cuts_the_records(tmp_path: Path) -> None:
    folder = fake_run.write_run(tmp_path, steps=300)
    reader = RunReader(folder)
    reader.read()
    kept = folder.metrics_jsonl.read_bytes().splitlines(keepends=True)[:12]
    folder.metrics_jsonl.write_bytes(b"".join(kept))
    stage = reader.read().stage
    assert number(stage.last, "step") == 110 and stage.val_count == 1


def test_long_runs_are_thinned_at_their_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "MOST_POINTS", 100)
    stage = read(fake_run.write_run(tmp_path, steps=1200)).stage
    assert stage.train_count == 120 and number(stage.last, "step") == 1200
    curve = stage.series("lr")
    assert curve.count == 120 and len(curve.steps) == 95
    assert list(curve.steps[:3]) == [10, 30, 50] and list(curve.steps[-2:]) == [1190, 1200]


def test_a_file_far_larger_than_a_block_comes_whole_in_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far from the end every n-th line is parsed; validations and the newest lines are exact."""
    monkeypatch.setattr(tail_module, "_BLOCK", 20_000)
    monkeypatch.setattr(tail_module, "_NEAR_END", 20_000)
    monkeypatch.setattr(tail_module, "_PARSED", 100)
    folder = fake_run.write_run(tmp_path, steps=20_000)
    reader = RunReader(folder)
    reader.read()
    while reader.behind:
        reader.read()
    stage = reader.read().stage
    assert stage.val_count == 200 and number(stage.last, "step") == 20_000
    assert 100 <= stage.train_count < 1000
    steps = list(stage.series("train/loss").steps)
    assert steps == sorted(steps) and steps[0] == 10 and steps[-3:] == [19_980, 19_990, 20_000]


def test_a_clock_that_jumps_is_no_stalled_run(tmp_path: Path) -> None:
    folder = fake_run.write_run(tmp_path, steps=20)
    now = [time.time()]
    reader = RunReader(folder, clock=lambda: now[0])
    assert reader.read().liveness == "alive"
    now[0] += 7200  # this machine's clock, or that of the run's host, is set
    folder.write_status(fake_run.status(folder))
    snapshot = reader.read()
    assert snapshot.liveness == "alive" and (snapshot.heartbeat_age_s or 0) < 5


def test_a_vanished_folder_is_named(tmp_path: Path) -> None:
    folder = fake_run.write_run(tmp_path / "run", steps=20)
    reader = RunReader(folder)
    reader.read()
    shutil.rmtree(folder.path)
    assert any("vanished" in note for note in reader.read().notes)


def test_the_tokenizers_own_folder_can_be_watched(tmp_path: Path) -> None:
    folder = fake_run.write_run(tmp_path, steps=50).tokenizer
    snapshot = read(folder)
    assert snapshot.stage.name == "tokenizer" and snapshot.liveness == "waiting"


def test_numbers_that_are_no_numbers_are_none() -> None:
    record = {"a": float("nan"), "b": "1", "c": True, "d": None, "e": 2, "f": float("inf")}
    found = [number(record, name) for name in "abcdefg"]
    assert found == [None, None, None, None, 2.0, None, None]


def test_one_look_has_the_machine(tmp_path: Path) -> None:
    snapshot = take_snapshot(fake_run.write_run(tmp_path, steps=20))
    sample = snapshot.machine
    assert sample is not None and sample.disk is not None and sample.disk.free_bytes > 0
    assert not snapshot.elsewhere


def test_the_sampler_never_makes_the_drawing_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fake_run.write_run(tmp_path, steps=20)
    slow: Callable[[Any], Any] = lambda self: time.sleep(1.0)  # noqa: E731
    monkeypatch.setattr("vlwm.core.monitoring.sampler.MachineSampler.read", slow)
    with Sampler([folder], 0.05) as sampler:
        start = time.monotonic()
        first = sampler.latest()[0]
        assert time.monotonic() - start < 0.2 and first.status.step == 1204
