"""A run is watched from its backup alone, between copies too."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.core.store.test_backup import checkpoint, content
from vlwm.commands.monitor import monitor
from vlwm.core.errors import DataError
from vlwm.core.store.backup import Backup, restore
from vlwm.core.store.backup_signs import SignsReader, SignsSender, is_backup
from vlwm.core.store.backup_thread import backed_up
from vlwm.core.store.objects import open_store

app = typer.Typer()
app.command()(monitor)


def a_run(folder: Path, step: int = 3) -> Path:
    status = {"version": 1, "state": "running", "phase": "train", "stage": "world", "step": step,
              "steps": 9, "epoch": 0, "epochs": 2, "host": "box", "pid": 1}  # fmt: skip
    checkpoint(folder, "status.json", json.dumps(status))
    checkpoint(folder, "metrics.jsonl", "")
    checkpoint(folder, "tokenizer/metrics.jsonl", "")
    return folder


def test_signs_arrive_without_a_checkpoint_and_only_when_due(tmp_path: Path) -> None:
    run, store = a_run(tmp_path / "run"), open_store((tmp_path / "safe").as_uri())
    sender = SignsSender(run, store)
    assert sender.send(0.0) == 3
    a_run(run, step=5)
    assert sender.send(29.0) == 0 and sender.send(30.0) == 3 and sender.send(99.0) == 0
    assert is_backup(store) and not is_backup(open_store((tmp_path / "none").as_uri()))
    reader = SignsReader(store, tmp_path / "home")
    assert reader.fetch() == 3 and reader.fetch() == 0
    assert content(tmp_path / "home") == content(run)
    checkpoint(run, "metrics.jsonl", "x" * 5_000_000)
    assert sender.send(200.0) == 0 and sender.send(331.0) == 1  # large files every 5 minutes


def test_signs_are_in_no_copy_and_survive_its_ends(tmp_path: Path) -> None:
    run, url = a_run(tmp_path / "run"), (tmp_path / "safe").as_uri()
    checkpoint(run, "last.pth", "first")
    with backed_up(run, url):
        a_run(run, step=9)
    for text in ("second", "third"):
        checkpoint(run, "last.pth", text)
        Backup(run, url).copy()
    assert "live-status.json" in open_store(url).list()
    restore(url, tmp_path / "again")
    assert content(tmp_path / "again") == content(run)
    reader = SignsReader(open_store(url), tmp_path / "home")
    reader.fetch()
    assert json.loads((tmp_path / "home/status.json").read_text())["step"] == 9


def test_an_older_backup_shows_its_newest_copy(tmp_path: Path) -> None:
    run, url = a_run(tmp_path / "run"), (tmp_path / "safe").as_uri()
    checkpoint(run, "last.pth", "first")
    Backup(run, url).copy()
    reader = SignsReader(open_store(url), tmp_path / "home")
    assert reader.fetch() == 3
    assert not list((tmp_path / "home").rglob("*.pth"))
    for name in os.listdir(tmp_path / "safe"):
        os.unlink(tmp_path / "safe" / name)
    with pytest.raises(DataError, match="shows nothing of a run yet"):
        SignsReader(open_store(url), tmp_path / "empty").fetch()


def test_monitor_shows_a_run_from_its_url(tmp_path: Path) -> None:
    run, url = a_run(tmp_path / "run"), (tmp_path / "safe").as_uri()
    SignsSender(run, open_store(url)).send()
    result = CliRunner().invoke(app, [url, "--json"])
    assert result.exit_code == 0, result.exception
    values = json.loads(result.stdout)
    assert values["step"] == 3 and values["host"] == "box"
    assert CliRunner().invoke(app, [url, "--once"]).exit_code == 0
