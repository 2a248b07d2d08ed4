"""An exported folder holds all that a forecast needs, and is read back strictly."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

import vlwm
from tests.trained_run import ATTRIBUTION, window_of, write_trained_run
from vlwm.core.errors import CheckpointError, DataError, UsageError
from vlwm.core.export.exported_folder import read_tensors
from vlwm.core.export.file_names import FILES
from vlwm.core.files import sha256_file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    write_trained_run(folder)
    (folder / "splits.json").write_text('{"sessions": {"a": "train"}}')
    vlwm.load(folder).export(folder.parent / "exported")
    return folder


@pytest.fixture
def exported(run: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(run.parent / "exported", tmp_path / "exported"))


def test_the_same_forecast_comes_out_of_the_folder(run: Path, exported: Path) -> None:
    here, there = vlwm.load(run), vlwm.load(exported)
    occupancy, poses, plan = window_of(here._trained.config)
    for flown in (None, plan):
        a, b = (m.forecast(occupancy, poses, plan=flown) for m in (here, there))
        np.testing.assert_array_equal(a.probability, b.probability)
        np.testing.assert_array_equal(a.occupied, b.occupied)
    assert there.attribution == ATTRIBUTION
    assert sorted(p.name for p in exported.iterdir()) == sorted(FILES)


def test_an_exported_model_is_exported_again_unchanged(exported: Path, tmp_path: Path) -> None:
    vlwm.load(exported).export(tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (exported / name).read_bytes(), name


def test_the_card_has_licence_scores_and_baselines(exported: Path) -> None:
    card = ModelCard.load(exported / "README.md")
    assert (card.data.license, card.data.library_name) == ("cc-by-4.0", "vlwm")
    results = {r.metric_name: r.metric_value for r in card.data.eval_results}
    assert results["IoU at 0.5 s, predicted track (memory_baseline 0.500)"] == 0.6
    assert results["structure IoU at 3 s, plan track (true_pose_memory 0.550)"] == 0.6
    assert ATTRIBUTION in card.text and "| memory_baseline | 0.500 |" in card.text
    about = json.loads((exported / "forecast.json").read_text())
    assert about["splits"] == {"sessions": {"a": "train"}} and about["data_hash"] == "ab" * 32
    assert about["column_prior"][0] == pytest.approx(0.9)


def test_a_tensor_that_is_missing_or_surplus_is_named(exported: Path) -> None:
    weights = exported / "model.safetensors"
    state = load_file(weights)
    for change, words in (("add", "only the checkpoint has stray"), ("drop", "only the model has")):
        changed = dict(state)
        if change == "add":
            changed["stray"] = state["column_logit"].clone()
        else:
            del changed["column_logit"]
        save_file(changed, weights)
        about = json.loads((exported / "forecast.json").read_text())
        about["weights_sha256"] = sha256_file(weights)
        (exported / "forecast.json").write_text(json.dumps(about))
        with pytest.raises(CheckpointError, match=words):
            vlwm.load(exported)


def test_weights_are_never_mapped(exported: Path) -> None:
    """A mapped file that is cut short later (a download over it) ends the process by SIGBUS."""
    path = exported / "model.safetensors"
    state, _ = read_tensors(path)
    assert str(path) not in Path("/proc/self/maps").read_text()
    os.truncate(path, 100)
    assert all(bool(value.isfinite().all()) for value in state.values())
    with pytest.raises(CheckpointError, match="they are not a safetensors file"):
        read_tensors(path)
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        read_tensors(path)


def _change(exported: Path, **values: object) -> None:
    about = json.loads((exported / "forecast.json").read_text())
    (exported / "forecast.json").write_text(json.dumps({**about, **values}))


def test_damage_is_named(exported: Path) -> None:
    with pytest.raises(UsageError, match="a revision belongs to a repository"):
        vlwm.load(exported, revision="main")
    raw = bytearray((exported / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (exported / "model.safetensors").write_bytes(raw)
    with pytest.raises(CheckpointError, match="the weights are not those that"):
        vlwm.load(exported)
    (exported / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="they are not a safetensors file"):
        vlwm.load(exported)
    (exported / "config.json").write_text('{"max_epoch": 1}')
    with pytest.raises(CheckpointError, match="its config cannot be used"):
        vlwm.load(exported)
    _change(exported, version=99)
    with pytest.raises(CheckpointError, match="the exported folder has format 99"):
        vlwm.load(exported)
    _change(exported, format="other")
    with pytest.raises(CheckpointError, match="was not written by vlwm export"):
        vlwm.load(exported)
    (exported / "config.json").unlink()
    with pytest.raises(CheckpointError, match="the exported folder lacks config"):
        vlwm.load(exported)


def test_an_export_overwrites_no_other_folder_and_needs_scores(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all of it")
    with pytest.raises(DataError, match="the folder holds something else"):
        vlwm.load(run).export(tmp_path / "mine")
    shutil.copy(run / "best.pth", tmp_path / "best.pth")
    with pytest.raises(DataError, match="and a model without scores helps nobody"):
        vlwm.load(tmp_path / "best.pth").export(tmp_path / "out")
