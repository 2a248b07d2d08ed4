"""The run, data and download cases of ../shared/cases (C41 to C53), as an operator sees them.

Their inputs are made here; twins that need less are in the tests of each room. C41, C43 and C45 are
in tests/commands/test_download.py, C51 and C53 in tests/core/training/startup/test_resume.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlwm.core.errors import UsageError
from vlwm.core.folder_lock import folder_lock

ROOT = Path(__file__).parents[2]
CASES = ROOT.parent / "shared" / "cases"

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases, which is absent")


def test_c47_what_an_encoding_lacks_is_replaced(tmp_path: Path) -> None:
    entry = {"name": "city", "group": "plateau", "url": "https://h/x.zip", "file": "x.zip",
             "licence": "3D都市モデル（国土交通省）"}  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps([entry]))
    words = ["download", "--list", "--catalog", str(tmp_path / "c.json")]
    for encoding in ("latin-1", "ascii", "utf-8"):
        env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "vlwm", *words]
        done = subprocess.run(command, env=env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert ("都市" if encoding == "utf-8" else "3D????") in done.stdout.decode(encoding)


def test_c49_a_second_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    from vlwm.cli import app

    words = ["train", "--config", "test_local", "--no-live", "--data", str(tmp_path / "data"),
             "--work-dir", str(tmp_path / "run")]  # fmt: skip
    with folder_lock(tmp_path / "run", "vlwm train", print):
        error = CliRunner().invoke(app, words).exception
    assert isinstance(error, UsageError), error
    assert "is working in this folder" in str(error) and not (tmp_path / "run/status.json").exists()
