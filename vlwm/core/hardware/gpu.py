"""GPUs through NVML, the driver's own library (module `pynvml` of the package nvidia-ml-py).

A value that cannot be read is None; a machine without a GPU gives a `GpuReport` with a reason, not
an exception. NVML needs neither CUDA nor torch and sees memory held by every process. It ignores
CUDA_VISIBLE_DEVICES: `visible` applies it. A GPU in MIG mode appears as its instances, each with
its own memory; the driver gives no utilisation for those.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from vlwm.core.hardware.machine import Machine

T = TypeVar("T")

_REASONS = {
    9: ("no-driver", "the NVIDIA driver is not loaded"),
    12: ("no-library", "no NVIDIA driver library is installed"),
    18: ("mismatch", "the NVIDIA driver library and the loaded kernel module differ in version"),
    4: ("no-permission", "no permission to ask the NVIDIA driver"),
}  # NVML's return codes


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG instance of one. None means unknown."""

    index: int
    """number in this report"""
    name: str | None = None
    uuid: str | None = None
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    utilization: float | None = None
    """share of the last second in which a kernel ran, 0 to 1"""
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    capability: tuple[int, int] | None = None
    """compute capability, (8, 0) for an A100"""
    mig: bool = False
    """a MIG instance"""
    processes: tuple[tuple[int, int | None], ...] = ()
    """(process id, bytes) of what computes on it; ids are the host's inside a container"""
    slowed_by: tuple[str, ...] = ()
    """why its clocks are below what it could run: power cap, heat, ..."""

    @property
    def memory_used_bytes(self) -> int | None:
        """Bytes held by anybody, the driver included."""
        if self.memory_total_bytes is None or self.memory_free_bytes is None:
            return None
        return self.memory_total_bytes - self.memory_free_bytes


@dataclass(frozen=True)
class GpuReport:
    """All GPUs, or why there are none."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    """driver version, such as 550.90.07"""
    cuda: tuple[int, int] | None = None
    """newest CUDA that the driver runs"""
    code: str | None = None
    """why there is none: no-module, no-library, no-driver, mismatch, no-permission, no-device,
    failed"""
    reason: str | None = None
    """the same as a sentence"""


def read_gpus() -> GpuReport:
    """Look once and let go of the library."""
    reader = GpuReader()
    try:
        return reader.read()
    finally:
        reader.close()


class GpuReader:
    """Keeps NVML open, for a dashboard that looks every second."""

    def __init__(self) -> None:
        self._nvml: types.ModuleType | None = None
        self._failed: GpuReport | None = None

    def read(self) -> GpuReport:
        """Return the newest values; a first failure is final, so a dead driver is asked once."""
        if self._failed is not None:
            return self._failed
        if self._nvml is None:
            opened = _open()
            if isinstance(opened, GpuReport):
                self._failed = opened
                return opened
            self._nvml = opened
        try:
            return _report(self._nvml)
        except self._nvml.NVMLError as error:
            return GpuReport(code="failed", reason=_sentence(error))

    def close(self) -> None:
        """Let go of the library."""
        if self._nvml is not None:
            _ask(self._nvml, self._nvml.nvmlShutdown)
            self._nvml = None


def _open() -> types.ModuleType | GpuReport:
    """Return the opened driver library, or why it cannot be opened."""
    try:
        import pynvml
    except ImportError:
        reason = "the Python part nvidia-ml-py is missing"
        return GpuReport(code="no-module", reason=reason)
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        code, reason = _REASONS.get(int(error.value), ("failed", _sentence(error)))
        return GpuReport(code=code, reason=reason)
    module: types.ModuleType = pynvml
    return module


def _sentence(error: Exception) -> str:
    return f"the NVIDIA driver answered: {error}"


def _report(nvml: types.ModuleType) -> GpuReport:
    driver = _ask(nvml, nvml.nvmlSystemGetDriverVersion)
    number = _ask(nvml, nvml.nvmlSystemGetCudaDriverVersion)
    cuda = None if number is None else (number // 1000, number % 1000 // 10)
    found = [_gpu(nvml, handle, mig) for handle, mig in _handles(nvml)]
    if not found:
        return GpuReport((), driver, cuda, "no-device", "the NVIDIA driver sees no GPU")
    gpus = tuple(replace(gpu, index=index) for index, gpu in enumerate(found))
    return GpuReport(gpus, driver, cuda)


def _handles(nvml: types.ModuleType) -> Iterator[tuple[object, object]]:
    """Yield every GPU, or the instances of a GPU in MIG mode with their parent."""
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = _ask(nvml, nvml.nvmlDeviceGetHandleByIndex, index)
        if handle is None:  # a GPU that fell off the bus
            continue
        mode = _ask(nvml, nvml.nvmlDeviceGetMigMode, handle)
        if mode is None or mode[0] != 1:
            yield handle, None
            continue
        for part in range(_ask(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            instance = _ask(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, part)
            if instance is not None:
                yield instance, handle


def _gpu(nvml: types.ModuleType, handle: object, parent: object) -> Gpu:
    """Return values of one handle; what an instance does not know comes from its parent."""
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    load = _ask(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    whole = handle if parent is None else parent
    milliwatts = _ask(nvml, nvml.nvmlDeviceGetPowerUsage, whole)
    limit = _ask(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, whole)
    temperature = _ask(nvml, nvml.nvmlDeviceGetTemperature, whole, nvml.NVML_TEMPERATURE_GPU)
    return Gpu(
        index=0,
        name=_ask(nvml, nvml.nvmlDeviceGetName, handle),
        uuid=_ask(nvml, nvml.nvmlDeviceGetUUID, handle),
        memory_total_bytes=None if memory is None else int(memory.total),
        memory_free_bytes=None if memory is None else int(memory.free),
        utilization=None if load is None else load.gpu / 100,
        temperature_c=None if temperature is None else float(temperature),
        power_w=None if milliwatts is None else milliwatts / 1000,
        power_limit_w=None if limit is None else limit / 1000,
        capability=_ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, whole),
        mig=parent is not None,
        processes=_processes(nvml, handle),
        slowed_by=_slowed_by(nvml, whole),
    )


_SLOWDOWNS = {0x4: "power cap", 0x8: "hardware", 0x20: "heat", 0x40: "heat", 0x80: "power brake"}
"""NVML's bits of clocks event reasons that cost speed; idle and set clocks are left out"""


def _processes(nvml: types.ModuleType, handle: object) -> tuple[tuple[int, int | None], ...]:
    """Return the compute processes of a GPU, the largest first."""
    found = _ask(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    rows = [(int(p.pid), None if p.usedGpuMemory is None else int(p.usedGpuMemory)) for p in found]
    return tuple(sorted(rows, key=lambda row: -(row[1] or 0)))


def _slowed_by(nvml: types.ModuleType, handle: object) -> tuple[str, ...]:
    """Return why a GPU runs below its clocks; empty where the driver does not tell."""
    bits = _ask(nvml, nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
    return tuple(dict.fromkeys(word for bit, word in _SLOWDOWNS.items() if bits & bit))


def _ask(nvml: types.ModuleType, question: Callable[..., T], *args: object) -> T | None:
    """Return the driver's answer, or None where it has none."""
    try:
        return question(*args)
    except nvml.NVMLError:
        return None


def visible(report: GpuReport, environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Return the GPUs that CUDA programs started from this shell can use, in CUDA's order.

    CUDA_VISIBLE_DEVICES lists numbers, or (beginnings of) UUIDs; like CUDA, the list ends at the
    first entry that does not exist, and a program gets one MIG instance at most. NVML and CUDA
    number alike where all GPUs are the same model.
    """
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return report.gpus[:1] if any(gpu.mig for gpu in report.gpus[:1]) else report.gpus
    found: list[Gpu] = []
    for word in (w.strip() for w in chosen.split(",")):
        gpu = _named(report.gpus, word)
        if gpu is None or any(g.mig for g in found):
            break
        found.append(gpu)
    return tuple(found)


def chosen(gpus: tuple[Gpu, ...], numbers: tuple[int, ...]) -> tuple[Gpu, ...]:
    """Return these GPUs, the one with the least free memory first; all where none is given.

    A batch that is the same for all of them has to fit the fullest one.
    """
    picked = [gpus[n] for n in numbers if n < len(gpus)]
    if not picked:
        return gpus
    return tuple(sorted(picked, key=lambda gpu: gpu.memory_free_bytes or 0))


def _named(gpus: tuple[Gpu, ...], word: str) -> Gpu | None:
    if word.isdigit():
        return gpus[int(word)] if int(word) < len(gpus) else None
    named = [gpu for gpu in gpus if word and (gpu.uuid or "").startswith(word)]
    return named[0] if len(named) == 1 else None


def kernel_driver(machine: Machine) -> str | None:
    """Return the version of the loaded kernel module, known even if its library is silent."""
    words = (machine.text("/proc/driver/nvidia/version") or "").split()
    versions = [w for w in words if w[:1].isdigit() and w.count(".") >= 1 and w[-1:].isdigit()]
    return versions[0] if versions else None


def gpus_on_the_bus(machine: Machine) -> int:
    """Return NVIDIA graphics or compute devices on the PCI bus, driver or not."""
    folder = machine.path("/sys/bus/pci/devices")
    count = 0
    for device in sorted(folder.glob("*")) if folder.is_dir() else []:
        vendor = _first_line(device / "vendor")
        count += vendor == "0x10de" and _first_line(device / "class").startswith("0x03")
    return count


def _first_line(path: Path) -> str:
    try:
        return str(path.read_text()).strip()
    except OSError:
        return ""
