"""Recognise the provider of this machine, from signals that only that provider gives.

The environment comes first, and never a path alone: `/workspace` is on Vast.ai, on RunPod and in
plain NGC images. A shell over SSH often lacks the variables that the container's first process
has, so `/proc/1/environ`, `/etc/environment` and `/etc/rp_environment` are read as well. Only the
names below are ever read from them: the same places hold API keys and tokens.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from vlwm.core.hardware.host import read_host
from vlwm.core.hardware.machine import Machine
from vlwm.core.hardware.mounts import read_mounts

_READ = re.compile(
    r"VAST_CONTAINERLABEL|VAST_TCP_PORT_\d+|CONTAINER_ID|PUBLIC_IPADDR|DATA_DIRECTORY|GPU_COUNT"
    r"|RUNPOD_POD_ID|RUNPOD_DC_ID|RUNPOD_VOLUME_ID|RUNPOD_PUBLIC_IP|RUNPOD_TCP_PORT_\d+"
    r"|COLAB_RELEASE_TAG|KAGGLE_KERNEL_RUN_TYPE|SM_CURRENT_HOST|SKYPILOT_TASK_ID"
)
_PLACES = ("/proc/1/environ", "/etc/environment", "/etc/rp_environment")
_PLAIN = re.compile(r"[\w.:@ -]{0,128}")
LAMBDA_VOLUMES = "/lambda/nfs/"

TITLES = {
    "vast": "Vast.ai",
    "runpod": "RunPod",
    "lambda": "Lambda Cloud",
    "colab": "Google Colab",
    "kaggle": "Kaggle",
    "sagemaker": "Amazon SageMaker",
    "container": "a container",
    "linux": "Linux",
}


@dataclass(frozen=True)
class Provider:
    """The provider, and its data about this machine."""

    name: str
    """key of TITLES"""
    signal: str
    """variable, mount or package that gave it away"""
    source: str
    """where that was found: "environment" or a file"""
    skypilot: bool = False
    """SkyPilot started the machine, on top of the provider"""
    variables: Mapping[str, str] = field(default_factory=dict)
    """harmless variables of the provider: ids, addresses, ports"""

    @property
    def title(self) -> str:
        """Name for people."""
        return TITLES[self.name]

    @property
    def instance(self) -> str | None:
        """The provider's own name of this machine."""
        names = ("VAST_CONTAINERLABEL", "RUNPOD_POD_ID", "SM_CURRENT_HOST")
        return next((self.variables[n] for n in names if n in self.variables), None)


def detect(machine: Machine) -> Provider:
    """Return the provider of this machine; plain Linux or a container without a sign of one."""
    found, sources = known_variables(machine)
    name, signal = _by_variables(found) or ("", "")
    source = sources.get(signal, "")
    if not name:
        name, signal, source = _by_traces(machine)
    return Provider(name, signal, source, "SKYPILOT_TASK_ID" in found, found)


def known_variables(machine: Machine) -> tuple[dict[str, str], dict[str, str]]:
    """Return variables of `_READ` from every place, and where each was found first."""
    values: dict[str, str] = {}
    sources: dict[str, str] = {}
    places = [("environment", dict(machine.environ))]
    places += [(place, _parse(place, machine.text(place) or "")) for place in _PLACES]
    for source, found in places:
        for name, value in found.items():
            if name not in values and _READ.fullmatch(name) and _PLAIN.fullmatch(value) and value:
                values[name], sources[name] = value, source
    return values, sources


def _parse(place: str, text: str) -> dict[str, str]:
    """Parse NAME=value pairs, by NUL in /proc, else one a line, quoted or exported or not."""
    if place.startswith("/proc"):
        lines = text.split("\0")
    else:
        lines = [_unquoted(line) for line in text.splitlines()]
    pairs = (line.partition("=") for line in lines)
    return {name.strip(): value for name, equals, value in pairs if equals}


def _unquoted(line: str) -> str:
    try:
        return " ".join(shlex.split(line, comments=True)).removeprefix("export ")
    except ValueError:  # an unclosed quote
        return ""


def _by_variables(found: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the provider and the variable that names it (Kaggle's images carry Colab's)."""
    ports = next((name for name in found if name.startswith("VAST_TCP_PORT_")), None)
    for name, signal in (
        ("kaggle", "KAGGLE_KERNEL_RUN_TYPE"),
        ("colab", "COLAB_RELEASE_TAG"),
        ("runpod", "RUNPOD_POD_ID"),
        ("vast", "VAST_CONTAINERLABEL"),
        ("vast", ports),
        ("sagemaker", "SM_CURRENT_HOST"),
    ):
        if signal is not None and signal in found:
            return name, signal
    if {"CONTAINER_ID", "PUBLIC_IPADDR"} <= found.keys():  # Vast.ai's, each too common alone
        return "vast", "CONTAINER_ID"
    return None


def _by_traces(machine: Machine) -> tuple[str, str, str]:
    """Recognise the provider by mounts and packages where no variable names it."""
    for mount in read_mounts(machine):
        if mount.point.startswith(LAMBDA_VOLUMES):
            return "lambda", mount.point, "mount table"
    container = read_host(machine).in_container
    stack = machine.exists("/var/lib/dpkg/info/lambda-stack-cuda.list")
    if stack and not container and machine.exists("/home/ubuntu"):
        return "lambda", "lambda-stack-cuda", "package list"
    return ("container" if container else "linux"), "", ""
