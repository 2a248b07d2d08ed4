"""A run becomes a benchmark in one command, and its table is made again from the folder alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from tests.hub_stand_in import hub_stand_in
from vlwm.cli import app
from vlwm.core.errors import DataError, UsageError
from vlwm.core.export.benchmark import reproduction, write_benchmark
from vlwm.core.model.checkpoint import load_checkpoint
from vlwm.core.training.telemetry.provenance import non_commercial

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def release(whole_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "toy"
    words = ["export", str(whole_run), str(folder), "--benchmark"]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    return folder


def test_the_table_is_made_again_from_the_folder(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Path(shutil.copytree(release, tmp_path / "elsewhere/toy"))
    monkeypatch.chdir(tmp_path)
    before = {p: p.read_bytes() for p in away.rglob("*") if p.is_file()}
    done = CliRunner().invoke(app, ["eval", str(away)], catch_exceptions=False)
    assert done.exit_code == 0 and "the published table is reproduced" in done.stderr
    assert {p: p.read_bytes() for p in away.rglob("*") if p.is_file()} == before
    again = json.loads((tmp_path / "toy_scores/scores.json").read_text())
    count, gap = reproduction(json.loads((away / "scores.json").read_text()), again) or (0, 1.0)
    assert count > 100 and gap < 1e-3
    text = (away / "PROTOCOL.md").read_text()
    assert "| plan |" in text and json.loads((away / "benchmark.json").read_text())[
        "data_hash"
    ] in (text)


def test_other_data_or_another_table_are_noticed(release: Path, tmp_path: Path) -> None:
    away = Path(shutil.copytree(release, tmp_path / "toy"))
    sheet = json.loads((away / "scores.json").read_text())
    changed = json.loads(json.dumps(sheet))
    changed["scores"]["model"]["iou"][0] += 0.01
    assert (reproduction(changed, sheet) or (0, 0.0))[1] == pytest.approx(0.01)
    assert reproduction({**sheet, "n_windows": sheet["n_windows"] + 1}, sheet) is None
    next((away / "data").glob("*.shard")).unlink()
    with pytest.raises(DataError, match="not those that its scores were made on"):
        CliRunner().invoke(app, ["eval", str(away)], catch_exceptions=False)


def test_scores_of_other_data_make_no_benchmark(whole_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole_run, tmp_path / "run"))
    sheet = json.loads((run / "scores.json").read_text())
    sheet["data"]["hash"] = "00" * 32
    (run / "scores.json").write_text(json.dumps(sheet))
    with pytest.raises(DataError, match="made on other data"):
        write_benchmark(run, tmp_path / "out")


@pytest.mark.ci
def test_what_began_from_weights_of_occworld_is_non_commercial(
    whole_run: Path, tiny_data: Path, tiny: SimpleNamespace, tmp_path: Path
) -> None:
    weights = tmp_path / "occworld/latest.pth"
    weights.parent.mkdir()
    state = load_checkpoint(whole_run / "best.pth")["model"]
    foreign = {"state_dict": {f"module.{name}": value for name, value in state.items()}}
    torch.save(foreign | {"epoch": 200, "global_iter": 1}, weights)
    begun = ("--set", f"load_from={str(weights)!r}")
    code, _, err = tiny.finish(tmp_path / "run", tiny_data, *begun)
    assert code == 0 and f"weights from {weights}" in err, err
    for path in (tmp_path / "run").rglob("*.pth"):
        content = load_checkpoint(path)
        assert content["initial_weights"] == str(weights), path
        assert "OccWorld" in content["attribution"] and non_commercial(content["attribution"])
    weights.unlink()  # the licence stays with what was made of them
    words = ["export", str(tmp_path / "run"), str(tmp_path / "out")]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "license: cc-by-nc-sa-4.0\n" in card and "trained on nuScenes" in card
    weaker = [*words[:2], str(tmp_path / "other"), "--licence", "cc-by-4.0"]
    with pytest.raises(UsageError, match="drops what"):
        CliRunner().invoke(app, weaker, catch_exceptions=False)
    assert not non_commercial(load_checkpoint(whole_run / "best.pth")["attribution"])


@pytest.mark.ci
def test_a_name_on_the_hub_is_scored_again(whole_run: Path, tmp_path: Path) -> None:
    with hub_stand_in() as hub:
        env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_x",
               "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1",
               "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # fmt: skip

        def vlwm(*words: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "vlwm", *words], cwd=tmp_path, env=env,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stderr

        vlwm("export", str(whole_run), "out", "--benchmark", "--push-to-hub", "user/bench")
        shutil.rmtree(tmp_path / "out")
        assert any(name.startswith("data/") for name in hub.repos["user/bench"][-1])
        assert "the published table is reproduced" in vlwm("eval", "user/bench")
        assert (tmp_path / "bench_scores/scores.json").is_file()
