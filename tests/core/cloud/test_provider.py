"""Providers are told by their own signals, wherever those hide; secrets are never read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import fake_machine as fake
from vlwm.core.cloud.provider import Provider, detect
from vlwm.core.hardware.machine import Machine

VAST = {
    "VAST_CONTAINERLABEL": "C.4711", "CONTAINER_ID": "4711", "PUBLIC_IPADDR": "203.0.113.7",
    "VAST_TCP_PORT_22": "40022", "CONTAINER_API_KEY": "sesame",
}  # fmt: skip
RUNPOD = {"RUNPOD_POD_ID": "abc123", "RUNPOD_DC_ID": "EU-RO-1", "RUNPOD_API_KEY": "sesame"}


@pytest.fixture
def box(tmp_path: Path) -> fake.FakeMachine:
    return fake.plain_machine(tmp_path)


def told(box: fake.FakeMachine, **environ: str) -> Provider:
    return detect(Machine(box.root, environ))


@pytest.mark.parametrize(
    ("environ", "name", "signal"),
    [
        (VAST, "vast", "VAST_CONTAINERLABEL"),
        ({"VAST_TCP_PORT_6006": "46006"}, "vast", "VAST_TCP_PORT_6006"),
        ({"CONTAINER_ID": "4711", "PUBLIC_IPADDR": "203.0.113.7"}, "vast", "CONTAINER_ID"),
        (RUNPOD, "runpod", "RUNPOD_POD_ID"),
        ({"COLAB_RELEASE_TAG": "release-1"}, "colab", "COLAB_RELEASE_TAG"),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch", "COLAB_RELEASE_TAG": "r"}, "kaggle",
         "KAGGLE_KERNEL_RUN_TYPE"),
        ({"SM_CURRENT_HOST": "algo-1"}, "sagemaker", "SM_CURRENT_HOST"),
        ({"CONTAINER_ID": "4711", "GPU_COUNT": "2", "DATA_DIRECTORY": "/workspace"}, "linux", ""),
        ({}, "linux", ""),
    ],
)  # fmt: skip
def test_environment(
    box: fake.FakeMachine, environ: dict[str, str], name: str, signal: str
) -> None:
    provider = told(box, **environ)
    assert (provider.name, provider.signal) == (name, signal)


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("/proc/1/environ", "\0".join(f"{k}={v}" for k, v in VAST.items()) + "\0", "vast"),
        ("/etc/environment", 'PATH="/bin"\nVAST_CONTAINERLABEL="C.4711"\n', "vast"),
        ("/etc/rp_environment", 'export RUNPOD_POD_ID="abc123"\nexport X="unclosed\n', "runpod"),
    ],
)
def test_a_shell_without_variables(box: fake.FakeMachine, file: str, text: str, name: str) -> None:
    provider = told(box.write({file: text}))
    assert (provider.name, provider.source) == (name, file)


def test_paths_alone_prove_nothing(box: fake.FakeMachine) -> None:
    box.write({"/workspace/x": "", "/runpod-volume/x": "", "/lambda/nfs/readme": "",
               "/etc/lambda-stack": ""})  # fmt: skip
    assert told(box).name == "linux"


def test_lambda_by_its_mount_or_its_package(box: fake.FakeMachine) -> None:
    package = {"/var/lib/dpkg/info/lambda-stack-cuda.list": "", "/home/ubuntu/.profile": ""}
    assert told(box.write(package)).signal == "lambda-stack-cuda"
    box.write({"/.dockerenv": ""})
    assert told(box).name == "container"
    mounts = fake.mountinfo(("/", "ext4", "/dev/vda1", ""), ("/lambda/nfs/city", "nfs4", "s:/", ""))
    assert told(box.write({"/proc/self/mountinfo": mounts})).signal == "/lambda/nfs/city"


def test_skypilot_runs_on_top(box: fake.FakeMachine) -> None:
    provider = told(box, SKYPILOT_TASK_ID="sky-2026-01-01", **RUNPOD)
    assert provider.name == "runpod" and provider.skypilot


def test_only_harmless_variables_are_kept(box: fake.FakeMachine) -> None:
    provider = told(box, **VAST, JUPYTER_TOKEN="sesame", RUNPOD_PUBLIC_IP="\x1b[31m")
    assert "sesame" not in repr(provider)
    assert provider.instance == "C.4711" and "RUNPOD_PUBLIC_IP" not in provider.variables
