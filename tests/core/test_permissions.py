"""A file that this user may not read is named, and who may change that, in no words of Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fake_run

_READ = """
import sys
from pathlib import Path
from vlwm.core.config.load import load_config
from vlwm.core.errors import VlwmError
from vlwm.core.model.checkpoint import load_checkpoint
from vlwm.core.model.pretrained import read_weights
from vlwm.core.run_folder import RunFolder

folder = Path(sys.argv[1])
run = RunFolder(folder)
reads = (lambda: load_checkpoint(run.last), lambda: load_config(str(folder / "c.py"), ()),
         run.read_status, lambda: read_weights(run.last))
for read in reads:
    try:
        read()
    except VlwmError as error:
        print(error)
"""


def _unprivileged() -> list[str]:
    """What a command line begins with so that permissions count, for root too."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may read everything")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    for name in ("last.pth", "c.py", "status.json"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0)
    shown = subprocess.run([*_unprivileged(), sys.executable, "-c", _READ, str(tmp_path)],
                           capture_output=True, text=True, check=True)  # fmt: skip
    lines = shown.stdout.splitlines()
    assert len(lines) == 4 and not any("Errno" in line or "damaged" in line for line in lines)
    for line, name in zip(lines, ("last.pth", "c.py", "status.json", "last.pth"), strict=True):
        assert "permission denied" in line and name in line, line
    assert "the checkpoint cannot be read: permission denied" in lines[0] and "ls -l" in lines[0]
    assert "the config cannot be read: permission denied" in lines[1]


@pytest.mark.parametrize(
    "name", ["status.json", "metrics.jsonl", "tokenizer/metrics.jsonl", "config.json", "tokenizer"]
)
def test_the_dashboard_says_which_file_it_may_not_read(tmp_path: Path, name: str) -> None:
    """The rest is shown; no picture calls a run healthy whose numbers it could not see."""
    folder = fake_run.write_run(tmp_path / "run", steps=20)
    path = folder.path / name
    path.parent.mkdir(exist_ok=True)
    if name == "tokenizer":
        path.mkdir(exist_ok=True)
    else:
        path.touch()
    path.chmod(0)
    shown = subprocess.run(
        [*_unprivileged(), sys.executable, "-m", "vlwm", "monitor", str(folder.path), "--once"],
        capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "120"},
    ).stdout  # fmt: skip
    path.chmod(0o700)
    named = "tokenizer/metrics.jsonl" if name == "tokenizer" else name
    assert f"{named} cannot be read: permission denied" in shown
    assert "healthy" not in shown and "no measurements yet" not in shown


def test_a_run_folder_that_may_not_be_entered_is_one_sentence(tmp_path: Path) -> None:
    folder = fake_run.write_run(tmp_path / "run", steps=20)
    folder.path.chmod(0)
    shown = subprocess.run(
        [*_unprivileged(), sys.executable, "-m", "vlwm", "monitor", str(folder.path), "--once"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    folder.path.chmod(0o700)
    assert shown.returncode == 4 and shown.stdout == ""
    assert shown.stderr.startswith("vlwm: cannot read: permission denied")
    assert len(shown.stderr.splitlines()) == 1
