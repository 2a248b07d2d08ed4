"""The launchers' files parse, and their shell parts start the commands that they promise."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


def yaml_of(name: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="pip install pyyaml")
    return dict(yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8")))


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """A `vlwm` that writes its arguments to calls.txt and ends with $CODE on --resume."""
    program = tmp_path / "vlwm"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls.txt\n'
        'case "$*" in *--resume*) exit "${CODE:-0}";; esac\n'
    )
    program.chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "STORE": "s3://b/d", "BACKUP": "s3://b/r"}


@pytest.mark.parametrize(("code", "calls", "ends"), [(0, 1, 0), (75, 1, 75), (4, 2, 0)])
def test_train_resumes_and_begins_where_there_is_no_copy(
    stand_in: dict[str, str], tmp_path: Path, code: int, calls: int, ends: int
) -> None:
    environment = {**stand_in, "CODE": str(code)}
    done = subprocess.run(["sh", str(DEPLOY / "train.sh")], env=environment, check=False)
    lines = (tmp_path / "calls.txt").read_text().splitlines()
    assert done.returncode == ends and len(lines) == calls
    assert lines[0] == "train --config finetune_tokyo --data s3://b/d --backup s3://b/r --resume"


def test_a_slurm_task_makes_its_share(stand_in: dict[str, str], tmp_path: Path) -> None:
    slurm = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "0", "INPUT": "/cities",
             "SLURM_ARRAY_TASK_COUNT": "16", "SLURM_CPUS_PER_TASK": "8"}  # fmt: skip
    command = ["bash", str(DEPLOY / "prepare.slurm")]
    subprocess.run(command, env={**stand_in, **slurm}, check=True)
    assert "--store s3://b/d --shard 3/16" in (tmp_path / "calls.txt").read_text()


def test_jobs_are_resumed_after_exit_75_and_shares_fit() -> None:
    sky = yaml_of("skypilot.yaml")
    assert sky["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    for part in ("setup", "run"):
        subprocess.run(["sh", "-n"], input=sky[part], text=True, check=True)
    job = yaml_of("kubernetes.yaml")["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert job["completionMode"] == "Indexed"
    assert f"$JOB_COMPLETION_INDEX/{job['completions']}" in container["args"][0]
    assert job["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    assert yaml_of("dstack.yaml")["type"] == "task"


def test_the_image_has_no_root_user_and_the_promised_tools() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert "USER vlwm" in text and "LANG=C.UTF-8" in text
    assert {"screen", "rsync"} <= set(text.split())
