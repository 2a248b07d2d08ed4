"""The benchmark of training runs on today's code, and both sides learn the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.ci
def test_a_plain_step_has_the_loss_of_ours() -> None:
    command = [sys.executable, "benchmarks/train.py", "--steps", "1", "--config", "test_local"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    parts = json.loads(done.stdout.splitlines()[-1])["parts"]
    for stage in ("stage1", "stage2"):
        plain = parts[f"{stage}_plain"]["loss"]
        assert parts[f"{stage}_ours"]["loss"] == pytest.approx(plain, rel=1e-4)
