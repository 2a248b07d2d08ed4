"""Signs of ill health, provoked in real runs of the real networks, and met as they should be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlwm.core.config.load import load_config
from vlwm.core.errors import TrainingError
from vlwm.core.model.checkpoint import load_checkpoint
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.options import TrainOptions
from vlwm.core.training.run import train

Grid = np.ndarray


@pytest.fixture
def start(tiny: Any, tmp_path: Path) -> Callable[..., RunFolder]:
    """Train a stage (or both) on some data with some keys changed; the run folder."""

    def run(data: Path, stage: str, *sets: str) -> RunFolder:
        words = (*tiny.overrides, f"data_root={str(data)!r}", *sets)
        train(
            load_config("test_local", words),
            TrainOptions(tmp_path / "run", stage=stage, new_run=True),
        )
        return RunFolder(tmp_path / "run")

    return run


def rewritten(source: Path, target: Path, change: Callable[[int, Grid], Grid]) -> Path:
    """A copy of prepared data with other voxels in the same places."""
    shutil.copytree(source, target)
    for number, path in enumerate(sorted(target.glob("*/occupancy/*.npz"))):
        with np.load(path) as file:
            name = file.files[0]
            voxels = file[name]
        np.savez_compressed(path, **{name: change(number, voxels).astype(voxels.dtype)})
    return target


def signs(folder: RunFolder) -> list[set[str]]:
    """What each train line was warned of."""
    records, _ = folder.read_metrics()
    marks = [{k.removeprefix("health/") for k in r if k.startswith("health/")} for r in records]
    return [mark for mark, r in zip(marks, records, strict=True) if r["kind"] == "train"]


def test_a_rate_a_thousand_times_too_high_goes_back_at_a_lower_one(
    start: Callable[..., RunFolder], tiny_data: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The preset's rate is 2e-3. The loss leaves at the second step; no bad epoch is kept."""
    high = ("tokenizer.lr=2.0", "tokenizer.max_epochs=4")
    with pytest.raises(TrainingError, match=r"stayed above.*lower --lr to 1e-5"):
        start(tiny_data, "tokenizer", *high, "health.max_rollbacks=0")
    folder = RunFolder(tmp_path / "run").tokenizer
    assert [found & {"spike"} for found in signs(folder)[1:]] == [{"spike"}] * 5
    content = load_checkpoint(folder.last)
    assert content["step"] == 0 and not list(folder.path.glob("epoch_*.pth"))
    status = RunFolder(tmp_path / "run").read_status()
    assert status is not None and (status["state"], status["exit_code"]) == ("failed", 1)
    assert "lower --lr" in status["message"]
    start(tiny_data, "tokenizer", *high, "health.max_rollbacks=9")
    assert "back at step 0 with 0.5 of the learning rate" in caplog.text
    content = load_checkpoint(folder.last)
    assert content["epoch"] == 4 and content["scheduler"]["rollbacks"] >= 1
    assert all(torch.isfinite(v).all() for v in content["model"].values())


def test_data_without_any_voxel_are_told_and_train_to_finite_numbers(
    start: Callable[..., RunFolder], tiny_data: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    empty = rewritten(tiny_data, tmp_path / "empty", lambda _, voxels: np.zeros_like(voxels))
    folder = start(empty, "both", "max_epochs=1", "tokenizer.max_epochs=1")
    for stage in (folder.tokenizer, folder):
        assert all("empty_targets" in found for found in signs(stage))
        records, _ = stage.read_metrics()
        losses = [r["train/loss"] for r in records if r["kind"] == "train"]
        assert losses == sorted(losses, reverse=True) and np.isfinite(losses).all()
    assert "verify point_cloud_range" in caplog.text


def test_focal_loss_alone_saturates_where_the_composite_does_not(
    start: Callable[..., RunFolder], tiny_data: Path, tmp_path: Path,
) -> None:  # fmt: skip
    """Voxels at the guide's 0.83 %, at random, so that nothing but their share can be learnt."""

    def noise(number: int, voxels: Grid) -> Grid:
        return np.random.default_rng(number).random(voxels.shape) < 0.0083

    sparse = rewritten(tiny_data, tmp_path / "sparse", noise)
    quick = ("tokenizer.lr=1e-2", "tokenizer.max_epochs=3")
    found = signs(start(sparse, "tokenizer", *quick).tokenizer)
    assert not set().union(*found)
    alone = ("loss.dice_weight=0.0", "loss.mean_weight=0.0")
    folder = start(sparse, "tokenizer", *quick, *alone)
    assert "saturation" in signs(folder.tokenizer)[-1]
    status = folder.read_status()
    assert status is not None
    (sign,) = [s for s in status["health"] if s["name"] == "saturation"]
    assert "loss.mean_weight" in sign["remedy"]
