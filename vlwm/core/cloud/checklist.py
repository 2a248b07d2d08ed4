"""The whole checklist of `vlwm setup`, and the quick part that `train --auto` looks at first."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlwm.core.cloud.check import Check
from vlwm.core.cloud.gpu_checks import gpu_check, torch_check
from vlwm.core.cloud.host_checks import cpu_check, pids_check, ram_check, shm_check
from vlwm.core.cloud.place_checks import (
    clock_check,
    disk_check,
    network_check,
    reach,
    storage_check,
    write_check,
)
from vlwm.core.cloud.provider import Provider, detect
from vlwm.core.cloud.software_checks import (
    completion_check,
    hub_check,
    locale_check,
    parts_check,
    python_check,
    session_check,
    tools_check,
    wandb_check,
)
from vlwm.core.cloud.storage import lasting_folder
from vlwm.core.cloud.tensorboard import Board, board_of
from vlwm.core.hardware.advice import Advice, advise
from vlwm.core.hardware.gpu import GpuReport, chosen, read_gpus, visible
from vlwm.core.hardware.host import Host, read_host
from vlwm.core.hardware.machine import Machine
from vlwm.core.hardware.torch_build import TorchBuild, ask_torch


@dataclass(frozen=True)
class Question:
    """Scope of a check of the machine."""

    machine: Machine
    data_dir: Path = Path("data")
    work_dir: Path = Path("checkpoints")
    offline: bool = False
    """ask no host"""
    probe: bool = True
    """write a few megabytes to see whether that works"""
    gpus: tuple[int, ...] = ()
    """numbers of the visible GPUs that will train; the first one where none is given"""


@dataclass(frozen=True)
class Findings:
    """Results of all checks."""

    provider: Provider
    checks: tuple[Check, ...]
    advice: Advice
    board: Board
    work_dir: Path
    """run folder that was asked about"""

    @property
    def fit(self) -> bool:
        """Return whether this machine can train."""
        return all(check.status != "fail" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return {
            "provider": self.provider.name,
            "instance": self.provider.instance,
            "skypilot": self.provider.skypilot,
            "checks": [check.to_dict() for check in self.checks],
            "advice": {**self.advice.to_dict(), "tensorboard": self.board.to_dict()},
            "fit": self.fit,
        }


def look(
    question: Question,
    *,
    ask_gpus: Callable[[], GpuReport] = read_gpus,
    ask_build: Callable[[], TorchBuild] = ask_torch,
) -> Findings:
    """Run all checks; the slow ones (torch, hosts, driver) in parallel."""
    machine = question.machine
    with ThreadPoolExecutor(3) as pool:
        build = pool.submit(ask_build)
        hosts = None if question.offline else pool.submit(reach)
        gpus = pool.submit(ask_gpus)
        provider, host = detect(machine), read_host(machine)
        report = gpus.result()
        advice = advise(visible(report, machine.environ), host)
        places = _places(question, provider)
        found = None if hosts is None else hosts.result()
        checks = (
            *_hardware(report, host, advice, machine, provider),
            torch_check(build.result(), report, machine),
            *places,
            *_software(machine, provider),
            network_check(found),
            clock_check(found),
        )
    return Findings(
        provider,
        checks,
        advice,
        board_of(shlex.quote(str(question.work_dir.absolute())), machine, provider),
        question.work_dir,
    )


def quick_look(question: Question, *, ask_gpus: Callable[[], GpuReport] = read_gpus) -> Findings:
    """Run the checks that cost no time: hardware, disk and how long the folder lasts."""
    machine = question.machine
    provider, host, report = detect(machine), read_host(machine), ask_gpus()
    advice = advise(chosen(visible(report, machine.environ), question.gpus), host)
    checks = (
        *_hardware(report, host, advice, machine, provider),
        *_places(question, provider),
        session_check(machine),
    )
    return Findings(
        provider,
        checks,
        advice,
        board_of(shlex.quote(str(question.work_dir.absolute())), machine, provider),
        question.work_dir,
    )


def _hardware(
    report: GpuReport, host: Host, advice: Advice, machine: Machine, provider: Provider
) -> tuple[Check, ...]:
    return (
        gpu_check(report, machine, provider),
        cpu_check(host, advice),
        ram_check(host),
        shm_check(host, advice),
        pids_check(host),
    )


def _places(question: Question, provider: Provider) -> tuple[Check, ...]:
    machine = question.machine
    return (
        storage_check(question.work_dir, machine, provider),
        disk_check(question.data_dir, question.work_dir, machine),
        write_check(question.work_dir, machine, probe=question.probe),
    )


def _software(machine: Machine, provider: Provider) -> tuple[Check, ...]:
    return (
        python_check(),
        parts_check(),
        tools_check(machine),
        session_check(machine),
        locale_check(machine),
        wandb_check(machine),
        hub_check(machine, lasting_folder(machine, provider)),
        completion_check(machine),
    )
