"""A file that this user may not read is named, and who may change that, in no words of Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
