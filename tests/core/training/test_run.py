"""A run survives what a rented machine does to it; shown on real processes of the real command."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from vlwm.core.config import load_config
from vlwm.core.errors import DataError
from vlwm.core.files import read_json
from vlwm.core.model.checkpoint import load_checkpoint, load_world_model
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.begin import goes_on, set_aside
from vlwm.core.training.data import open_data
from vlwm.core.training.options import TrainOptions
from vlwm.core.training.run import train

TINY = (
    "prepare.frames=8", "prepare.sessions=4", "prepare.procedural_size_m=500.0",
    "voxel_size=[3.2, 3.2, 10.0]", "history_frames=2", "future_frames=2",
    "tokenizer.max_epochs=2", "tokenizer.base_channels=8", "tokenizer.embed_dim=8",
    "tokenizer.codebook_size=16", "tokenizer.samples_per_gpu=6",
    "model.channels=(8, 8, 8)", "model.num_heads=2", "model.memory_channels=8",
    "model.pose_channels=8", "max_epochs=2", "data.samples_per_gpu=4",
    "lr_config.warmup_iters=2", "log_config.interval=1", "evaluation.max_windows=3",
    "evaluation.final_max_windows=1", "checkpoint_config.interval=1",
)  # fmt: skip
_TIMES = ("time", "windows_per_s", "frames_per_s", "loader_share", "memory_gb")
_FILES = """epoch_1.pth epoch_2.pth best.pth last.pth logs config.json splits.json metrics.jsonl
status.json scores.json tokenizer"""
_NUMBERS = """train/loss loss/focal loss/dice loss/mean pred/mean pred/min pred/max target/mean
pred/occupancy_rate lr grad_norm epoch/val_loss epoch/lr val/iou val/iou_memory_baseline"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared procedural city, for all runs here."""
    root = tmp_path_factory.mktemp("data")
    open_data(load_config("test_local", (*TINY, f"data_root={str(root)!r}")), lambda: None)
    return root


def command(folder: Path, data: Path, *options: str) -> list[str]:
    sets = [word for pair in TINY for word in ("--set", pair)]
    return [
        sys.executable, "-m", "vlwm", "train", "--config", "test_local", "--work-dir",
        str(folder), "--data", str(data), *sets, *options,
    ]  # fmt: skip


def process(folder: Path, data: Path, *options: str) -> subprocess.Popen[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command(folder, data, *options), stdout=pipe, stderr=pipe, text=True, env=env
    )


def finish(folder: Path, data: Path, *options: str) -> tuple[int, str, str]:
    child = process(folder, data, *options)
    out, err = child.communicate(timeout=300)
    return child.returncode, out, err


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    code, out, err = finish(folder, data)
    assert code == 0, err
    assert "next: vlwm eval" in out and "memory_baseline" in out
    return folder


def wait_for(folder: Path, stage: str, step: int, child: subprocess.Popen[str]) -> None:
    """Wait until a stage has logged a step."""
    run = RunFolder(folder)
    run = run.tokenizer if stage == "tokenizer" else run
    for _ in range(30_000):
        records, _ = run.read_metrics()
        if any(r["step"] >= step for r in records):
            return
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    raise AssertionError("the run does not get on")


def same(a: Any, b: Any) -> bool:
    """Equality of nested values with tensors in them, at tolerance 0."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def lines(run: RunFolder) -> list[dict[str, Any]]:
    records, _ = run.read_metrics()
    return [{k: v for k, v in r.items() if k not in _TIMES} for r in records]


def assert_same_run(left: Path, right: Path) -> None:
    """Every tensor, random state and logged number of both stages, and the scores."""
    for a, b in ((RunFolder(left), RunFolder(right)),
                 (RunFolder(left).tokenizer, RunFolder(right).tokenizer)):  # fmt: skip
        for name in ("last.pth", "best.pth", "epoch_2.pth"):
            one, other = load_checkpoint(a.path / name), load_checkpoint(b.path / name)
            for content in (one, other):
                del content["metrics_offset"], content["config"], content["versions"]
            for key in one:
                assert same(one[key], other[key]), f"{name}: {key} differs"
        assert lines(a) == lines(b)
    assert read_json(left / "scores.json") == read_json(right / "scores.json")


def test_the_run_folder_holds_what_it_should(whole: Path) -> None:
    names = {p.name for p in whole.iterdir()}
    assert set(_FILES.split()) <= names and len(list(whole.glob("train_*.log"))) == 1
    assert not list(whole.rglob("*.tmp"))
    status = RunFolder(whole).read_status()
    assert status is not None
    assert (status["state"], status["phase"], status["exit_code"]) == ("done", "done", 0)
    records = lines(RunFolder(whole))
    named = set().union(*records)
    assert set(_NUMBERS.split()) <= named
    model, content = load_world_model(whole / "best.pth")
    assert not model.training and 0.0 < content["threshold"] < 1.0
    assert {"git", "torch", "vlwm"} <= set(content["versions"]) and content["seed"] == 42
    assert read_json(whole / "scores.json")["threshold"] == content["threshold"]


def test_signals_in_both_stages_and_other_workers_change_no_bit(
    tmp_path: Path, data: Path, whole: Path
) -> None:
    folder = tmp_path / "run"
    rng = random.Random(time.time_ns())
    steps = rng.randint(1, 6), rng.randint(1, 6)
    print("stopped at", steps)
    for stage, step, number, code in (
        ("tokenizer", steps[0], signal.SIGTERM, 75),
        ("world", steps[1], signal.SIGINT, 130),
    ):
        child = process(folder, data, "--workers", "2" if stage == "world" else "0")
        wait_for(folder, stage, step, child)
        child.send_signal(number)
        sent = time.monotonic()
        _, err = child.communicate(timeout=60)
        assert child.returncode == code, err
        assert time.monotonic() - sent < 20
        assert "go on with: vlwm train" in err and "--resume" in err
        status = RunFolder(folder).read_status()
        assert status is not None and status["state"] == "stopped"
        assert status["exit_code"] == code
    assert finish(folder, data, "--resume", "--workers", "2")[0] == 0
    assert_same_run(whole, folder)


def kill_until_done(folder: Path, data: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(kills):
        child = process(folder, data, "--set", "checkpoint_config.minutes=0.001")
        started = time.monotonic()
        while not (folder / "status.json").exists() and time.monotonic() - started < 60:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 4.0))
        child.kill()
        child.communicate(timeout=60)
        for path in (*folder.glob("*.pth"), *folder.glob("tokenizer/*.pth")):
            load_checkpoint(path)  # nothing half stands under a final name
    code, _, err = finish(folder, data, "--set", "checkpoint_config.minutes=0.001")
    assert code == 0, err
    assert not list(folder.rglob("*.pth.*.tmp"))


def test_kill_9_loses_nothing_but_time(tmp_path: Path, data: Path, whole: Path) -> None:
    """The same command, typed again without --resume, goes on with the unfinished run."""
    kill_until_done(tmp_path / "run", data, 2, seed=0)
    assert_same_run(whole, tmp_path / "run")
    assert not list((tmp_path / "run").glob("previous_*"))


@pytest.mark.endurance
def test_kill_9_thirty_times(tmp_path: Path, data: Path, whole: Path) -> None:
    kill_until_done(tmp_path / "run", data, 30, seed=1)
    assert_same_run(whole, tmp_path / "run")


def test_a_damaged_checkpoint_falls_back_and_says_so(
    tmp_path: Path, data: Path, whole: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    last = folder / "last.pth"
    last.unlink()
    last.write_bytes((folder / "epoch_2.pth").read_bytes()[:-100])
    (folder / "epoch_2.pth").unlink()
    (folder / "best.pth").unlink()
    code, _, err = finish(folder, data, "--resume")
    assert code == 0, err
    assert "passed over" in err and "last.pth" in err and "epoch_1.pth" in err
    assert_same_run(whole, folder)


def test_a_finished_run_is_moved_aside_never_written_over(
    whole: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    run = RunFolder(folder)
    config = load_config("test_local", (*TINY, f"data_root={str(data)!r}"))
    assert not goes_on(run, config, TrainOptions(folder))
    assert goes_on(run, config, TrainOptions(folder, resume=True))
    status = run.read_status()
    assert status is not None
    for state, code, answer in (("stopped", 75, True), ("running", None, True),
                                ("failed", 3, True), ("failed", 1, False)):  # fmt: skip
        run.write_status({**status, "state": state, "exit_code": code})
        assert goes_on(run, config, TrainOptions(folder)) is answer
    run.write_status({**status, "state": "stopped"})
    assert not goes_on(run, load_config("test_local", TINY), TrainOptions(folder))
    before = {p.name for p in folder.iterdir()}
    aside = set_aside(run, tokenizer_too=True)
    assert aside is not None and {p.name for p in aside.iterdir()} == before
    assert list(folder.iterdir()) == [aside]
    assert set_aside(run, tokenizer_too=True) is None


def test_eval_only_judges_again(tmp_path: Path, data: Path, whole: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "scores.json").unlink()
    config = load_config("test_local", (*TINY, f"data_root={str(data)!r}"))
    result = train(config, TrainOptions(folder, eval_only=True))
    assert result.scores is not None
    assert read_json(folder / "scores.json") == read_json(whole / "scores.json")


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("finetune_nuscenes", ("nuScenes", "later version", "test_local")),
        ("finetune_uavscenes", ("UAVScenes", "later version", "test_local")),
        ("finetune_tokyo", ("no sessions", "vlwm prepare --input", "--data DIR")),
    ],
)
def test_missing_data_say_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        train(load_config(preset), TrainOptions(tmp_path / "run"))
    assert all(word in str(caught.value) for word in words)
    assert not (tmp_path / "run").exists()


def test_missing_weights_name_both_remedies(tmp_path: Path, data: Path) -> None:
    config = load_config("test_local", (*TINY, f"data_root={str(data)!r}", "load_from='no.pth'"))
    with pytest.raises(DataError, match=r"no\.pth.*vlwm download --models.*--from-scratch"):
        train(config, TrainOptions(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_world_stage_alone_needs_a_tokenizer(tmp_path: Path, data: Path) -> None:
    config = load_config("test_local", (*TINY, f"data_root={str(data)!r}"))
    with pytest.raises(DataError, match=r"no trained tokenizer.*--stage tokenizer"):
        train(config, TrainOptions(tmp_path / "run", stage="world"))


def test_weights_that_cover_the_tokenizer_leave_stage_1_out(
    tmp_path: Path, data: Path, whole: Path
) -> None:
    weights = str(whole / "tokenizer" / "best.pth")
    overrides = (*TINY, f"data_root={str(data)!r}", f"load_from={weights!r}", "max_epochs=1")
    train(load_config("test_local", overrides), TrainOptions(tmp_path / "run"))
    assert not list((tmp_path / "run" / "tokenizer").glob("*.pth"))
    given = load_checkpoint(weights)["model"]
    kept = load_checkpoint(tmp_path / "run" / "best.pth")["model"]
    assert all(torch.equal(kept[f"vae.{name}"], value) for name, value in given.items())
