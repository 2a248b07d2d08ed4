"""The launchers' files parse, and their shell parts start the commands that they promise."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
RESUME = "vlwm train --config finetune_tokyo --data s3://b/d --backup s3://b/r --resume"
DOCUMENTED: dict[str, dict[str, set[str]]] = {
    "skypilot.yaml": {  # docs.skypilot.co/en/latest/reference/yaml-spec.html
        "": {"name", "workdir", "num_nodes", "resources", "envs", "secrets", "volumes",
             "file_mounts", "setup", "run", "config"},
        "resources": {"infra", "accelerators", "accelerator_args", "cpus", "memory",
                      "instance_type", "use_spot", "disk_size", "disk_tier", "network_tier",
                      "max_hourly_cost", "image_id", "ports", "labels", "autostop", "any_of",
                      "ordered", "job_recovery"},
        "resources.job_recovery": {"strategy", "max_restarts_on_errors", "recover_on_exit_codes"},
    },
    "train.dstack.yml": {  # dstack.ai/docs/reference/dstack.yml/task
        "": {"type", "name", "nodes", "image", "user", "privileged", "entrypoint", "working_dir",
             "python", "nvcc", "env", "commands", "ports", "files", "repos", "volumes",
             "resources", "backends", "regions", "spot_policy", "max_price", "max_duration",
             "stop_duration", "retry", "idle_duration", "utilization_policy", "priority", "tags"},
        "resources": {"cpu", "memory", "shm_size", "gpu", "disk"},
        "retry": {"on_events", "duration"},
    },
    "kubernetes.yaml": {  # kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1
        "": {"apiVersion", "kind", "metadata", "spec"},
        "spec": {"activeDeadlineSeconds", "backoffLimit", "backoffLimitPerIndex",
                 "completionMode", "completions", "maxFailedIndexes", "parallelism",
                 "podFailurePolicy", "podReplacementPolicy", "selector", "successPolicy",
                 "suspend", "template", "ttlSecondsAfterFinished"},
        "spec.podFailurePolicy.rules": {"action", "onExitCodes", "onPodConditions"},
        "spec.template.spec": {"containers", "initContainers", "restartPolicy", "volumes",
                               "securityContext", "nodeSelector", "tolerations", "affinity"},
        "spec.template.spec.containers": {"name", "image", "command", "args", "env", "envFrom",
                                          "resources", "volumeMounts", "workingDir"},
    },
}  # fmt: skip
"""file -> place in it -> fields that its documentation names there"""


def yaml_of(name: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="pip install pyyaml")
    return dict(yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8")))


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """A bare root: `vlwm` and `pip`, which write their arguments to calls.txt, and nothing else.

    `vlwm` ends with $CODE on --resume.
    """
    for name in ("vlwm", "pip"):
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls.txt\n'
            'case "$*" in *--resume*) exit "${CODE:-0}";; esac\n'
        )
        program.chmod(0o755)
    (tmp_path / "sh").symlink_to("/bin/sh")
    return {"PATH": str(tmp_path), "STORE": "s3://b/d", "BACKUP": "s3://b/r"}


def calls_of(folder: Path) -> list[str]:
    return (folder / "calls.txt").read_text().splitlines()


@pytest.mark.parametrize(("code", "calls", "ends"), [(0, 1, 0), (75, 1, 75), (4, 2, 0)])
def test_train_resumes_and_begins_where_there_is_no_copy(
    stand_in: dict[str, str], tmp_path: Path, code: int, calls: int, ends: int
) -> None:
    environment = {**stand_in, "CODE": str(code)}
    done = subprocess.run(["/bin/sh", str(DEPLOY / "train.sh")], env=environment, check=False)
    lines = calls_of(tmp_path)
    assert done.returncode == ends and len(lines) == calls
    assert lines[0] == RESUME


def test_a_slurm_task_makes_its_share(stand_in: dict[str, str], tmp_path: Path) -> None:
    slurm = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "0", "INPUT": "/cities",
             "SLURM_ARRAY_TASK_COUNT": "16", "SLURM_CPUS_PER_TASK": "8"}  # fmt: skip
    command = ["/bin/bash", str(DEPLOY / "prepare.slurm")]
    subprocess.run(command, env={**stand_in, **slurm}, check=True)
    assert "--store s3://b/d --shard 3/16" in calls_of(tmp_path)[0]


@pytest.mark.parametrize(("code", "calls", "ends"), [(0, 1, 0), (75, 1, 75), (4, 2, 0)])
def test_a_managed_job_installs_resumes_and_begins(
    stand_in: dict[str, str], tmp_path: Path, code: int, calls: int, ends: int
) -> None:
    task = yaml_of("skypilot.yaml")
    own = {**stand_in, "CODE": str(code), "CONFIG": task["envs"]["CONFIG"]}
    subprocess.run(["/bin/sh", "-c", task["setup"]], env=own, check=True)
    assert calls_of(tmp_path) == ["pip install -e .[s3]", "vlwm setup"]
    done = subprocess.run(["/bin/sh", "-c", task["run"]], env=own, check=False)
    assert done.returncode == ends and len(calls_of(tmp_path)) == 2 + calls
    assert calls_of(tmp_path)[2] == RESUME


def test_the_commands_of_a_dstack_task_follow_each_other(
    stand_in: dict[str, str], tmp_path: Path
) -> None:
    task = yaml_of("train.dstack.yml")
    local, _, there = task["repos"][0].partition(":")
    assert there == task["working_dir"]
    root = (DEPLOY / local).resolve()
    script = "\n".join(["set -e", *task["commands"]])
    subprocess.run(["/bin/sh", "-c", script], env=stand_in, cwd=root, check=True)
    assert calls_of(tmp_path) == ["pip install -e .[s3]", "vlwm setup", RESUME]
    assert {"STORE", "BACKUP"} <= set(task["env"])


def test_each_index_of_a_job_makes_its_share(stand_in: dict[str, str], tmp_path: Path) -> None:
    (container,) = yaml_of("kubernetes.yaml")["spec"]["template"]["spec"]["containers"]
    own = {v["name"]: v["value"] for v in container["env"]} | {"JOB_COMPLETION_INDEX": "5"}
    command = ["/bin/sh", *container["command"][1:], *container["args"]]
    subprocess.run(command, env={**stand_in, **own}, check=True)
    assert "--store s3://BUCKET/tokyo --shard 5/16" in calls_of(tmp_path)[0]


@pytest.mark.parametrize(
    ("file", "path"), [(f, p) for f, paths in DOCUMENTED.items() for p in paths]
)
def test_fields_are_documented_ones(file: str, path: str) -> None:
    found: Any = yaml_of(file)
    for word in path.split("."):
        found = (found[0] if isinstance(found, list) else found)[word] if word else found
    for entry in found if isinstance(found, list) else [found]:
        assert set(entry) <= DOCUMENTED[file][path]


def test_jobs_are_resumed_after_exit_75_and_shares_fit() -> None:
    sky = yaml_of("skypilot.yaml")
    assert sky["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    job = yaml_of("kubernetes.yaml")["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert job["completionMode"] == "Indexed"
    assert f"$JOB_COMPLETION_INDEX/{job['completions']}" in container["args"][0]
    assert job["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    assert yaml_of("train.dstack.yml")["type"] == "task"


def test_the_image_has_no_root_user_and_the_promised_tools() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert "USER vlwm" in text and "LANG=C.UTF-8" in text
    assert {"screen", "rsync"} <= set(text.split())
