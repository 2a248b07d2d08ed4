"""GPUs are read through a simulated NVML library; what cannot be read is None, never an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import fake_machine as fake
from vlwm.core.hardware.gpu import Gpu, GpuReport, gpus_on_the_bus, kernel_driver, visible
from vlwm.core.hardware.machine import Machine

ROOT = Path(__file__).parents[3]
MIB = 1 << 20


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake.build_nvml(tmp_path_factory.mktemp("nvml"))


def ask(library: Path | None, gpus: str = "", **more: str) -> GpuReport:
    """Read the GPUs in a process of its own, as the library is loaded once for good."""
    script = "from vlwm.core.hardware.gpu import *; r = GpuReader(); r.read(); print(r.read())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=fake.shell(library, gpus, **more),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    scope: dict[str, Any] = {"Gpu": Gpu, "GpuReport": GpuReport}
    return eval(done.stdout, scope)


def test_a_card_is_read_whole(library: Path) -> None:
    report = ask(library, fake.A100_80, FAKE_DRIVER="550.90.07", FAKE_CUDA="12040")
    assert (report.driver, report.cuda, report.reason) == ("550.90.07", (12, 4), None)
    (gpu,) = report.gpus
    assert gpu.name == "NVIDIA A100-SXM4-80GB" and gpu.capability == (8, 0)
    assert gpu.memory_total_bytes == 81920 * MIB
    assert gpu.memory_used_bytes == (81920 - 80994) * MIB
    assert (gpu.utilization, gpu.temperature_c) == (0.97, 64.0)
    assert (gpu.power_w, gpu.power_limit_w, gpu.mig) == (312.0, 400.0, False)


def test_what_slows_a_card_and_who_computes_on_it(library: Path) -> None:
    hot, cool = (f"{fake.A100_80}{more}" for more in (f";{0x4 | 0x40 | 0x1};2", ";1;0"))
    first, second = ask(library, "|".join((hot, cool))).gpus
    assert first.slowed_by == ("power cap", "heat") and second.slowed_by == ()
    assert first.processes == ((4000, 1 << 30), (4001, 1 << 30)) and second.processes == ()


def test_unknown_values_are_none(library: Path) -> None:
    (gpu,) = ask(library, fake.UNKNOWN).gpus
    assert gpu.capability == (12, 1)
    assert gpu.memory_total_bytes is gpu.memory_used_bytes is gpu.temperature_c is None
    assert gpu.power_w is gpu.power_limit_w is None


def test_two_gpus_and_one_that_fell_off_the_bus(library: Path) -> None:
    report = ask(library, "|".join((fake.RTX_3090, "lost", fake.RTX_4090)))
    assert [gpu.index for gpu in report.gpus] == [0, 1]
    assert [gpu.uuid for gpu in report.gpus] == ["GPU-c1", "GPU-b1"]


def test_mig_instances_stand_for_their_gpu(library: Path) -> None:
    first, second = ask(library, fake.MIG).gpus
    assert first.mig and second.mig and first.uuid == "MIG-100"
    assert first.memory_total_bytes == 20480 * MIB
    assert first.utilization is None and first.capability == (8, 0) and first.power_w == 88.0


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ("18", "mismatch", "differ in version"),
        ("9", "no-driver", "not loaded"),
        ("4", "no-permission", "permission"),
        ("999", "failed", "driver answered"),
        ("0", "no-device", "sees no GPU"),
    ],
)
def test_no_gpu_has_a_reason(library: Path, answer: str, code: str, words: str) -> None:
    report = ask(library, "", FAKE_NVML=answer)
    assert (report.gpus, report.code) == ((), code)
    assert words in (report.reason or "")


def test_missing_library_is_a_reason(library: Path, tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"not a library")
    assert ask(tmp_path).code == "no-library"


def test_cuda_visible_devices() -> None:
    cards = tuple(Gpu(i, uuid=f"GPU-{name}") for i, name in enumerate(("aa1", "aa2", "b")))
    report = GpuReport(cards)

    def seen(value: str | None) -> list[int]:
        environ = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
        return [gpu.index for gpu in visible(report, environ)]

    assert seen(None) == [0, 1, 2]
    assert seen("2,0") == [2, 0]
    assert seen("GPU-b, 1") == [2, 1]
    assert seen("GPU-aa") == []  # two begin so
    assert seen("0,7,1") == [0]  # the list ends at the first that is not there
    assert seen("") == seen("-1") == seen("NoDevFiles") == []


def test_a_program_gets_one_mig_instance() -> None:
    parts = tuple(Gpu(i, uuid=f"MIG-{i}", mig=True) for i in range(2))
    assert visible(GpuReport(parts), {}) == parts[:1]
    assert visible(GpuReport(parts), {"CUDA_VISIBLE_DEVICES": "MIG-1,MIG-0"}) == parts[1:]


def test_hints_without_a_library(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {})
    assert kernel_driver(machine) is None and gpus_on_the_bus(machine) == 0
    bus = "/sys/bus/pci/devices/0000:0"
    fake.FakeMachine(tmp_path).write(
        {
            "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  "
            "535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version:  gcc 12.3.0\n",
            f"{bus}1:00.0/vendor": "0x10de\n",
            f"{bus}1:00.0/class": "0x030200\n",
            f"{bus}1:00.1/vendor": "0x10de\n",
            f"{bus}1:00.1/class": "0x040300\n",  # the card's sound device
            f"{bus}2:00.0/vendor": "0x8086\n",
            f"{bus}2:00.0/class": "0x030000\n",
        }
    )
    assert kernel_driver(machine) == "535.183.01" and gpus_on_the_bus(machine) == 1
