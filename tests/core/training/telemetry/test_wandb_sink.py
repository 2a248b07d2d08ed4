"""W&B gets the guide's names, offline without a login, and never ends a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vlwm.core.config.schema import Config
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.options import WandbOptions
from vlwm.core.training.telemetry.wandb_sink import WandbSink


def record(stage: str, step: int, **numbers: float) -> dict[str, Any]:
    return {"time": 0.0, "kind": "train", "stage": stage, "epoch": 0, "step": step, **numbers}


def read_back(folder: Path) -> list[dict[str, Any]]:
    """The history of an offline run, by W&B's own reader."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "No such command" in answer.stderr:
        pytest.skip("this wandb is too old to have a reader (leet inspect)")
    records = [json.loads(line) for line in answer.stdout.splitlines()]
    return [r["history"]["item"] for r in records if r["type"] == "history"]


def test_an_offline_run_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    sink = WandbSink(RunFolder(tmp_path), WandbOptions(tags=("a",)), Config())
    sink.write(record("tokenizer", 10, **{"train/loss": 0.7}))
    sink.write(record("world", 10, **{"train/loss": 0.5, "pred/mean": 0.01}))
    assert sink.url is None and "wandb sync" in str(sink.links)
    sink.close()
    assert "WARNING" not in capfd.readouterr().err  # asking for a page that there is not
    rows = read_back(tmp_path)
    assert rows[0]["tokenizer/train/loss"] == 0.7 and rows[0]["tokenizer/step"] == 10
    assert rows[1]["train/loss"] == 0.5 and rows[1]["pred/mean"] == 0.01


def test_an_error_of_wandb_is_noted_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    class Broken:
        id = "x"

        def define_metric(self, *args: Any, **kwargs: Any) -> None:
            return None

        def log(self, values: dict[str, Any]) -> None:
            raise wandb.errors.CommError("the network is gone")

    monkeypatch.setattr(wandb, "init", lambda **options: Broken())
    sink = WandbSink(RunFolder(tmp_path), WandbOptions(), Config())
    sink.write(record("world", 1))
    sink.write(record("world", 2))
    sink.close()
    assert caplog.text.count("left out from here on: the network is gone") == 1


def test_a_login_that_fails_falls_back_to_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    tried = []

    def init(**options: Any) -> Any:
        tried.append(options["mode"])
        raise wandb.errors.CommError("no route")

    monkeypatch.setenv("WANDB_API_KEY", "none")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "init", init)
    WandbSink(RunFolder(tmp_path), WandbOptions(), Config()).write(record("world", 1))
    assert tried == ["online", "offline"]
