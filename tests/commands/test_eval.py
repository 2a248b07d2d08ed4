"""`vlwm eval`: one JSON object, a table in words, one sentence and exit code for each fault."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from tests.core.evaluation.tiny_run import ElsewhereEngine, write_tiny_data, write_tiny_run
from vlwm.commands.eval import evaluate
from vlwm.core import engines
from vlwm.core.data.npz import write_layers
from vlwm.core.data.session import write_pose
from vlwm.core.errors import CheckpointError, DataError, UsageError
from vlwm.core.model.checkpoint import load_checkpoint, save_checkpoint

app = typer.Typer()
app.command()(evaluate)


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def folder(tmp_path):
    """A config of a tiny grid and three recorded sessions without session.json."""
    write_tiny_data(tmp_path)
    return tmp_path


def baselines(folder, *more: object):
    config, data = folder / "tiny.py", folder / "data"
    return run("--baselines-only", "--config", config, "--data", data, *more)


METHODS = {
    "model", "model_plan", "empty", "ground_prior", "copy_last", "constant_velocity_warp",
    "memory_baseline", "true_pose_warp", "true_pose_memory", "tokenizer_round_trip",
    "mean_constant_twist", "mean_turn_rate", "true_pose_mean", "true_pose_mean_edges",
    "true_pose_planes",
}  # fmt: skip


@pytest.fixture
def run_folder(folder):
    """A run with a world model that was never trained."""
    return write_tiny_run(folder)


def test_a_run_gets_every_method_and_its_pictures(run_folder):
    film = run_folder / "film.mp4"
    result = run(run_folder, "--json", "--video", film, "--batch-size", 2)
    assert result.exit_code == 0, result.output
    sheet = json.loads(result.stdout)
    planes = f"planes_{sheet['baseline_parameters']['planes_motion']}"
    assert set(sheet["scores"]) == METHODS | {planes} and sheet["threshold"] == 0.25
    assert sheet["checkpoint"].endswith("best.pth") and sheet["split"] == "test"
    assert set(sheet["pose"]) == {"model", "constant_twist", "turn_rate"}
    compared = {
        f"model-{sheet['baseline']['predicted']}",
        f"model_plan-{sheet['baseline']['plan']}",
    }
    promised = {"model-memory_baseline", "model_plan-true_pose_memory"}
    assert set(sheet["differences"]) == compared | promised
    assert json.loads((run_folder / "scores.json").read_text()) == sheet
    names = ("curves.png", "reliability.png", "window.png", "film.mp4")
    assert all((run_folder / name).stat().st_size > 0 for name in names)


@pytest.mark.parametrize("kind", ["run", "baselines"])
def test_workers_elsewhere_give_the_same_sheet(run_folder, folder, kind, monkeypatch):
    """Windows travel by pickle, are opened anew, and arrive in another order."""
    words = [run_folder, "--split", "all", "--output", folder / "out"]
    if kind == "baselines":
        words = ["--baselines-only", "--config", folder / "tiny.py", "--data", folder / "data"]
    alone = json.loads(run(*words, "--json").stdout)
    monkeypatch.setattr(engines, "open_engine", lambda text, workers: ElsewhereEngine())
    result = run(*words, "--json", "--engine", "dask")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == alone and alone["n_windows"] > 1


def test_a_worker_with_another_checkpoint_is_refused(run_folder, monkeypatch):
    class Late(ElsewhereEngine):
        def run(self, function, items):
            content = load_checkpoint(run_folder / "best.pth")
            save_checkpoint(run_folder / "best.pth", {**content, "threshold": 0.5})
            yield from super().run(function, items)

    monkeypatch.setattr(engines, "open_engine", lambda text, workers: Late())
    error = run(run_folder, "--engine", "dask").exception
    assert isinstance(error, DataError) and "another run or other data" in str(error)


def test_a_comparison_by_workers_elsewhere_is_that_of_one_process(run_folder, monkeypatch):
    """Each run is opened by the workers under its own name, batches as they are asked for."""
    other = run_folder.with_name("other")
    shutil.copytree(run_folder, other)
    content = load_checkpoint(other / "best.pth")
    save_checkpoint(other / "best.pth", {**content, "threshold": 0.5})
    words = ["--compare", run_folder, other, "--split", "all", "--json"]
    alone = json.loads(run(*words).stdout)
    monkeypatch.setattr(engines, "open_engine", lambda text, workers: ElsewhereEngine())
    result = run(*words, "--engine", "dask", "--batch-size", 2)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == alone and alone["windows"] > 1
    assert alone["scores"][str(run_folder)] != alone["scores"][str(other)]


def test_an_unknown_engine_is_refused(run_folder):
    for words in ((), ("--compare", run_folder)):
        error = run(run_folder, *words, "--engine", "spark").exception
        assert isinstance(error, UsageError) and "--engine spark is unknown" in str(error)


def test_a_checkpoint_is_refused_data_of_another_grid(run_folder, folder):
    session = folder / "other" / "drone_20240101_000000"
    (session / "occupancy").mkdir(parents=True)
    (session / "poses").mkdir()
    write_layers(
        session / "occupancy" / "000000_occupancy.npz", {"occupancy": np.zeros((4, 4, 4), np.uint8)}
    )
    write_pose(session / "poses" / "000000.json", np.eye(13)[6], 0.0, 0.0)
    result = run(run_folder, "--data", folder / "other")
    assert isinstance(result.exception, DataError) and "4x4x4" in str(result.exception)
    assert not (run_folder / "scores.json").exists()


def test_a_tokenizer_is_no_world_model(run_folder):
    content = {"stage": "tokenizer", "model": {}, "config": {}}
    save_checkpoint(run_folder / "best.pth", {**content, "threshold": None})
    result = run(run_folder / "best.pth")
    assert isinstance(result.exception, CheckpointError) and "tokenizer" in str(result.exception)


def test_json_is_exactly_one_object_and_pictures_are_written(folder):
    picture = folder / "out" / "window.png"
    result = baselines(folder, "--json", "--picture", picture)
    assert result.exit_code == 0, result.output
    sheet = json.loads(result.stdout)
    assert sheet["n_windows"] == 2 and "memory_baseline" in sheet["scores"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not (folder / "out" / "scores.json").exists()


def test_table_names_both_tracks_and_says_too_few(folder):
    result = baselines(folder, "--output", folder / "run")
    assert result.exit_code == 0, result.output
    assert "memory_baseline" in result.stdout and "PLAN TRACK" in result.stdout
    assert "Too few clusters" in result.stdout
    assert json.loads((folder / "run" / "scores.json").read_text())["split"] == "test"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["--split", "tset"], UsageError, "did you mean test"),
        (["--baselines-only"], UsageError, "needs --config"),
        (["--config", "tokyo_small"], UsageError, "contains its config"),
        (["no_such_run"], CheckpointError, "no such run"),
    ],
)
def test_faults_are_one_sentence(folder, arguments, error, words):
    result = run(*arguments)
    assert isinstance(result.exception, error) and words in str(result.exception)
    assert result.exception.exit_code in (2, 4) and result.stdout == ""


def test_a_damaged_checkpoint_is_one_sentence(folder):
    checkpoint = folder / "best.pth"
    checkpoint.write_bytes(b"PK\x03\x04 cut short")
    result = run(folder)
    assert isinstance(result.exception, CheckpointError)
    assert "damaged" in str(result.exception) and result.exception.exit_code == 4


def test_missing_data_is_one_sentence(folder):
    result = run("--baselines-only", "--config", folder / "tiny.py", "--data", folder / "nowhere")
    assert isinstance(result.exception, DataError) and "no such data folder" in str(
        result.exception
    )


def test_a_report_and_a_comparison_are_pages(run_folder, tmp_path):
    page, both = tmp_path / "one" / "report.html", tmp_path / "both" / "report.html"
    assert run(run_folder, "--max-windows", 1, "--report", page.parent).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert "A window in three dimensions" in text and 'class="window"' in text
    assert len(text) < 3_000_000
    words = ("--compare", run_folder, run_folder, "--max-windows", 1)
    told = json.loads(run(*words, "--json").stdout)
    first = told["differences"][str(run_folder)]["model"]["iou"]["difference"]
    assert set(first) <= {0.0, None}
    assert run(*words, "--report", both.parent).exit_code == 0
    assert "Comparison with" in both.read_text(encoding="utf-8")


def test_runs_on_other_windows_are_refused_before_any_is_scored(run_folder, monkeypatch):
    scored = []
    tally = "vlwm.core.evaluation.window_work.tally_windows"
    monkeypatch.setattr(tally, lambda *_, **more: scored.append(1))
    from vlwm.core.evaluation import load

    opened, counts = load.open_run, iter((1, 2))
    monkeypatch.setattr(
        load, "open_run",
        lambda path, data: opened(path, dataclasses.replace(data, max_windows=next(counts))),
    )  # fmt: skip
    error = run(run_folder, run_folder, "--compare").exception
    assert isinstance(error, DataError) and "not evaluated on the same windows" in str(error)
    assert not scored


def test_several_runs_are_compared_or_refused(run_folder):
    for words, sentence in (
        ((run_folder, run_folder), "2 runs were given"),
        ((run_folder, "--compare"), "--compare needs two runs"),
    ):
        error = run(*words).exception
        assert isinstance(error, UsageError) and sentence in str(error)
