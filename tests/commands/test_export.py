"""`vlwm export` writes a folder and shows what an upload would send."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.trained_run import write_trained_run
from vlwm.cli import app
from vlwm.core.errors import DataError


def test_a_run_is_exported_and_an_upload_shown(tmp_path: Path) -> None:
    write_trained_run(tmp_path / "run")
    words = ["export", str(tmp_path / "run"), str(tmp_path / "out"), "--json",
             "--push-to-hub", "user/name", "--dry-run"]  # fmt: skip
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    told = json.loads(done.stdout)
    assert Path(told["files"][0]["file"]).name == "model.safetensors"
    assert told["upload"] == {
        "repo": "user/name", "private": True, "url": None,
        "bytes": sum(f["bytes"] for f in told["files"]),
    }  # fmt: skip
    assert "dry run: nothing was uploaded" in done.stderr


def test_data_without_a_licence_ask_for_one(tmp_path: Path) -> None:
    write_trained_run(tmp_path / "run", attribution="my flights")
    words = ["export", str(tmp_path / "run"), str(tmp_path / "out")]
    with pytest.raises(DataError, match="state it with --licence"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(app, [*words, "--licence", "cc-by-4.0"], catch_exceptions=False)
    assert done.exit_code == 0
