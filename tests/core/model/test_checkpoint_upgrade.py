"""A checkpoint of an earlier format loads under the names of today and forecasts the same.

data/version_1.pth.gz was written by the code of version 1, with its forecast in two tracks.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from vlwm.core.data.batch import Past, Plan
from vlwm.core.evaluation.calibration.thresholds import Thresholds
from vlwm.core.evaluation.load import thresholds_of
from vlwm.core.model.checkpoint import VERSION, load_checkpoint, load_world_model, save_checkpoint
from vlwm.core.model.checkpoint_upgrade import name_of_today
from vlwm.core.model.pretrained import read_weights

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def version_1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("old") / "best.pth"
    path.write_bytes(gzip.decompress((DATA / "version_1.pth.gz").read_bytes()))
    return path


def test_version_1_forecasts_as_it_did(version_1: Path) -> None:
    model, content = load_world_model(version_1)
    known = np.load(DATA / "version_1_forecast.npz")
    bits, poses, ego = (torch.from_numpy(known[name]) for name in ("bits", "poses", "plan"))
    past = Past(bits, poses, torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
    free = model.forecast(past)
    planned = model.forecast(past, Plan(ego, torch.zeros(1, 2, 13)))
    for found, name in (
        (free.logits, "free"), (planned.logits, "planned"), (free.memory_logits, "known"),
        (free.log_sigma, "log_sigma"),
    ):  # fmt: skip
        np.testing.assert_allclose(found.numpy(), known[name], rtol=1e-4, atol=1e-4)
    assert content["fresh"] == ["motion_head.members.0.out.weight"]


def test_what_was_upgraded_is_saved_in_the_format_of_today(version_1: Path, tmp_path: Path) -> None:
    content = load_checkpoint(version_1)
    save_checkpoint(tmp_path / "new.pth", content)
    again = load_checkpoint(tmp_path / "new.pth")
    assert again["version"] == VERSION and list(again["model"]) == list(content["model"])


def test_bare_weights_of_version_1_are_found_by_their_names_of_today(
    version_1: Path, tmp_path: Path
) -> None:
    old = torch.load(version_1, weights_only=True)["model"]
    torch.save(old, tmp_path / "bare.pth")
    found, whole = read_weights(tmp_path / "bare.pth")
    assert whole and list(found) == list(load_checkpoint(version_1)["model"])
    assert "memory.fusion.conv_out.weight" in found and "residual_weight" in found


def test_pre_training_of_version_1_resumes(tmp_path: Path) -> None:
    courses = {
        "motion": {"done": 3, "module": {"wideness": torch.ones(2)}, "optimizer": None},
        "fusion": {"done": 1, "module": {"conv_in.bias": torch.ones(2)}, "optimizer": None},
    }
    old = {"format": "vlwm-checkpoint", "version": 1, "stage": "opening", "courses": courses}
    torch.save(old, tmp_path / "opening.pth")
    found = load_checkpoint(tmp_path / "opening.pth")["courses"]
    assert list(found["motion"]["module"]) == ["spread_scale"]
    assert list(found["fusion"]["module"]) == ["conv_in.bias"]


def test_thresholds_of_version_2_keep_their_tracks(tmp_path: Path) -> None:
    """The key was `cuts`, in the checkpoint and in its baselines."""
    tracks = {"model": {"threshold": 0.2, "ground": [0.3], "above": [0.1]},
              "model_plan": {"threshold": 0.8, "ground": [0.9], "above": [0.7]}}  # fmt: skip
    old = {
        "format": "vlwm-checkpoint", "version": 2, "stage": "world", "threshold": 0.2,
        "cuts": tracks, "baselines": {"column": torch.ones(2), "cuts": {"mean_ridge": tracks}},
    }  # fmt: skip
    torch.save(old, tmp_path / "best.pth")
    found = load_checkpoint(tmp_path / "best.pth")
    chosen = thresholds_of(found)
    assert chosen.model == Thresholds(0.2, (0.3,), (0.1,))
    assert chosen.model_plan == Thresholds(0.8, (0.9,), (0.7,))
    assert found["baselines"]["thresholds"] == {"mean_ridge": tracks}
    assert "cuts" not in found and "cuts" not in found["baselines"]
    assert thresholds_of(old) == chosen  # weights that version 2 exported


def test_a_name_of_today_stays() -> None:
    for name in ("memory.fusion.conv_in.bias", "motion_head.scale.mean", "vae.vqvae.x", "token_in"):
        assert name_of_today(name) == name
