"""Tiny runs of the real command, shared by the tests of training."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.core.training.comparing import same
from tests.core.training.forge import Child, environment, forge
from vlwm.core.config.load import load_config
from vlwm.core.files import read_json
from vlwm.core.model.checkpoint import load_checkpoint
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.startup.train_data import open_data

TINY = (
    "prepare.frames=8", "prepare.sessions=4", "prepare.procedural_size_m=500.0",
    "voxel_size=[3.2, 3.2, 10.0]", "history_frames=2", "future_frames=2",
    "tokenizer.max_epochs=2", "tokenizer.base_channels=8", "tokenizer.embed_dim=8",
    "tokenizer.codebook_size=16", "tokenizer.samples_per_gpu=6",
    "model.channels=(8, 8, 8)", "model.num_heads=2", "model.memory_channels=8",
    "model.pose_channels=8", "max_epochs=2", "data.samples_per_gpu=4",
    "lr_config.warmup_iters=2", "log_config.interval=1", "evaluation.max_windows=3",
    "evaluation.final_max_windows=1", "checkpoint_config.interval=1", "data.motion_steps=5",
    "data.fusion_steps=3", "data.completion_steps=3",
)  # fmt: skip
_TIMES = ("time", "windows_per_s", "frames_per_s", "loader_share", "memory_gb")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


Process = subprocess.Popen[str] | Child


def process(folder: Path, data: Path, *options: str, fresh: bool = False) -> Process:
    """A run of the command; `fresh` imports everything itself, others fork after the imports."""
    words = command(folder, data, *options)
    if not fresh:
        return forge().start(words[1:])
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=environment())


def finish(folder: Path, data: Path, *options: str, fresh: bool = False) -> tuple[int, str, str]:
    child = process(folder, data, *options, fresh=fresh)
    out, err = child.communicate(timeout=300)
    assert "sesame" not in out + err and child.returncode is not None
    return child.returncode, out, err


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    code, out, err = finish(folder, tiny_data, "--price", "2", fresh=True)
    assert code == 0, err
    assert "next: vlwm eval" in out and "memory_baseline" in out
    return folder


def wait_for(folder: Path, stage: str, step: int, child: Process) -> None:
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


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """The helpers above."""
    return SimpleNamespace(
        overrides=TINY,
        command=command,
        process=process,
        finish=finish,
        wait_for=wait_for,
        same=same,
        lines=lines,
        assert_same_run=assert_same_run,
    )
