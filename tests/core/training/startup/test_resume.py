"""One command in one folder: resume, refuse with the keys that differ, or start a new run."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.core.evaluation.street_sessions import config_of, write_session
from vlwm.core.config.schema import Config
from vlwm.core.data.packed_store import PackedStore, derived_folder
from vlwm.core.errors import CheckpointError, UsageError, VlwmError
from vlwm.core.files import write_json
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.checkpoint import save_checkpoint
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.options import TrainOptions
from vlwm.core.training.startup import resume
from vlwm.core.training.startup.initial_weights import refuse_a_missing_checkpoint


def hold(folder: Path, config: Config, state: str = "stopped", code: int | None = 75) -> RunFolder:
    """A run folder with a checkpoint that holds its own config."""
    run = RunFolder(folder).create()
    write_json(run.config_json, config.to_dict())
    content = {"stage": "world", "config": config.to_dict(), "model": {"w": torch.zeros(1)}}
    save_checkpoint(run.last, content)
    run.write_status({"state": state, "exit_code": code})
    return run


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path / "data")


def resumes_run(run: RunFolder, config: Config, **more: Any) -> bool:
    return resume.resumes_run(run, config, TrainOptions(run.path, **more))


def test_a_changed_key_is_refused_with_its_values_and_both_ways(
    tmp_path: Path, config: Config
) -> None:
    run = hold(tmp_path / "run", config)
    assert resumes_run(run, config)
    longer = dataclasses.replace(config, max_epochs=5, seed=7)
    with pytest.raises(UsageError) as refused:
        resumes_run(run, longer)
    words = str(refused.value)
    assert f"max_epochs {config.max_epochs} (now 5)" in words and "seed 42 (now 7)" in words
    assert "--resume continues" in words and "--no-resume starts a new run" in words
    assert resumes_run(run, longer, resume=True) and not resumes_run(run, longer, new_run=True)
    assert run.last.exists() and not list(run.path.glob("previous_*"))


def test_a_finished_run_is_only_evaluated_again_and_a_failed_one_is_refused(
    tmp_path: Path, config: Config
) -> None:
    run = hold(tmp_path / "run", config, "done", 0)
    assert resumes_run(run, config) and resume.is_finished(run)
    run.write_status({"state": "failed", "exit_code": 1})
    with pytest.raises(UsageError, match="the run here has failed"):
        resumes_run(run, config)


def test_a_damaged_config_is_compared_with_the_checkpoints(tmp_path: Path, config: Config) -> None:
    """Any flip of config.json: the same command resumes, another one is refused."""
    run, rng = hold(tmp_path / "run", config), random.Random(3)
    whole = run.config_json.read_bytes()
    for _ in range(20):
        raw = bytearray(whole)
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        run.config_json.write_bytes(raw)
        assert resumes_run(run, config)
    run.last.write_bytes(b"x")
    run.config_json.write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"neither config.json nor a checkpoint"):
        resumes_run(run, config)


def test_a_run_of_a_version_with_fewer_keys_resumes(tmp_path: Path, config: Config) -> None:
    run = hold(tmp_path / "run", config)
    older = config.to_dict()
    del older["model"]["completion_channels"], older["data"]["completion_steps"]
    write_json(run.config_json, older)
    assert resumes_run(run, config) and resume.continues(run, config)


def test_the_same_data_are_the_same_run_however_they_are_reached(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    write_session(tmp_path / "data" / "one", grid, 0, None)
    run = hold(tmp_path / "run", config)
    run.remember_data(config.data_root, PackedStore.open(config.data_root, grid).data_hash)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("data")
    shutil.copytree(tmp_path / "data", tmp_path / "moved")
    for root in ("data", "./data/../data", "link", "moved"):
        assert resumes_run(run, dataclasses.replace(config, data_root=root)), root
        assert resume.continues(run, dataclasses.replace(config, data_root=root))
    write_session(tmp_path / "moved" / "two", grid, 1, None)
    with pytest.raises(UsageError, match="data_root"):
        resumes_run(run, dataclasses.replace(config, data_root="moved"))


def test_a_run_finds_its_data_from_any_folder(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data/one/occupancy").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    near = dataclasses.replace(config, data_root="data")
    run = hold(tmp_path / "run", near)
    run.remember_data("data", "hash")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = resume.locate_data(near, TrainOptions(run.path, resume=True))
    assert found.data_root == str(tmp_path / "data")
    assert resume.locate_data(near, TrainOptions(run.path)) is near
    run.data_json.write_text(json.dumps([1]))
    assert run.find_data("data") == Path("data")


def test_a_tokenizer_alone_does_not_hold_up_stage_2(tmp_path: Path, config: Config) -> None:
    run = RunFolder(tmp_path / "run")
    hold(run.tokenizer.path, config)
    write_json(run.config_json, config.to_dict())
    longer = dataclasses.replace(config, max_epochs=5)
    assert not resumes_run(run, longer, stage="world")
    with pytest.raises(UsageError):
        resumes_run(run, longer)


@pytest.mark.parametrize("more", [{"resume_from": Path("nothere.pth")}, {"eval_only": True}])
def test_a_missing_checkpoint_is_noticed_first(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(VlwmError, match=r"no such checkpoint file|no such run or checkpoint"):
        refuse_a_missing_checkpoint(TrainOptions(tmp_path / "none", **more))


def test_read_only_data_are_packed_elsewhere(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    root = tmp_path / "data"
    write_session(root / "one", grid, 0, None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != root)
    assert derived_folder(root).is_relative_to(tmp_path / "cache")
    assert len(PackedStore.open(root, grid)) > 0 and not (root / ".packed").exists()
    (root / ".packed").mkdir()  # made before the disk became read-only: it is used
    assert derived_folder(root) == root / ".packed"
