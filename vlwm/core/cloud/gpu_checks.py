"""GPU, driver and torch: do they exist, and do they fit each other?"""

from __future__ import annotations

from vlwm.core.cloud.check import Check
from vlwm.core.cloud.provider import Provider
from vlwm.core.hardware.advice import GIB
from vlwm.core.hardware.gpu import Gpu, GpuReport, gpus_on_the_bus, kernel_driver, visible
from vlwm.core.hardware.machine import Machine
from vlwm.core.hardware.torch_build import TorchBuild, least_driver, runs_on

_HELD_SHARE = 0.1  # of the VRAM in other hands before it is worth a word
_WHEELS = "https://download.pytorch.org/whl"
_LEAST_TORCH = (2, 6)  # older ones run code from a checkpoint (CVE-2025-32434)


def gpu_check(report: GpuReport, machine: Machine, provider: Provider) -> Check:
    """List the GPUs, or the reason why none is seen."""
    if not report.gpus:
        return _no_gpu(report, machine, provider)
    seen = visible(report, machine.environ)
    if not seen:
        hidden = f"{len(report.gpus)} GPUs are here and CUDA_VISIBLE_DEVICES hides them"
        return Check("gpu", "warn", hidden, "unset CUDA_VISIBLE_DEVICES")
    words = [_gpu_words(seen[0])]
    if len(seen) > 1:
        words.append(f"the first of {len(seen)}")
    if seen[0].mig and len(report.gpus) > 1:
        words.append(f"one of {len(report.gpus)} MIG instances, a program uses one")
    if report.driver:
        cuda = f" (CUDA {report.cuda[0]}.{report.cuda[1]})" if report.cuda else ""
        words.append(f"driver {report.driver}{cuda}")
    held = _held_bytes(seen[0])
    if held is not None:
        words.append(f"{held / GIB:.1f} GiB are held by other programs")
        return Check("gpu", "warn", ", ".join(words), "nvidia-smi shows them; end what you can")
    return Check("gpu", "ok", ", ".join(words))


def _gpu_words(gpu: Gpu) -> str:
    words = (gpu.name or "GPU").removeprefix("NVIDIA ")
    if gpu.memory_free_bytes is not None and gpu.memory_total_bytes is not None:
        free, whole = gpu.memory_free_bytes / GIB, gpu.memory_total_bytes / GIB
        words += f", {free:.1f} of {whole:.1f} GiB free"
    if gpu.capability is not None:
        words += f", SM {gpu.capability[0]}.{gpu.capability[1]}"
    return words


def _held_bytes(gpu: Gpu) -> int | None:
    """Check the VRAM in use, where it is more than a driver takes for itself."""
    used, total = gpu.memory_used_bytes, gpu.memory_total_bytes
    return used if used is not None and total and used > _HELD_SHARE * total else None


def _no_gpu(report: GpuReport, machine: Machine, provider: Provider) -> Check:
    reason = report.reason or "no GPU is seen"
    if report.code == "mismatch":
        kernel = kernel_driver(machine)
        what = f"{reason} (kernel module {kernel})" if kernel else reason
        rented = provider.name not in ("linux", "lambda")
        fix = "restart the instance, or rent another one" if rented else "sudo reboot"
        return Check("gpu", "fail", what, fix)
    if report.code == "no-module":
        return Check("gpu", "fail", reason, "pip install nvidia-ml-py")
    if report.code in ("no-permission", "failed"):
        return Check("gpu", "fail", reason, "restart the instance; nvidia-smi must list the GPU")
    if kernel_driver(machine) is not None:
        fix = "start the container with GPUs (docker run --gpus all), or restart the instance"
        return Check("gpu", "fail", f"{reason}, but its kernel module is loaded", fix)
    if gpus_on_the_bus(machine):
        fix = "install the driver: sudo apt-get install -y nvidia-driver-580, then sudo reboot"
        return Check("gpu", "fail", f"an NVIDIA GPU is on the bus, but {reason}", fix)
    fix = "rent a machine with a GPU; on this one: vlwm train --config test_local"
    return Check("gpu", "warn", f"none: {reason}", fix)


def torch_check(build: TorchBuild, report: GpuReport, machine: Machine) -> Check:
    """Check that the installed torch fits the driver and the GPU."""
    if build.version is None:
        what = build.error or "it reports no version"
        return Check("torch", "fail", f"torch: {what}", "pip install --upgrade torch")
    if _release(build.version) < _LEAST_TORCH:
        what = f"torch {build.version} loads checkpoints unsafely; 2.6 is the least"
        return Check("torch", "fail", what, "pip install --upgrade 'torch>=2.6'")
    seen = visible(report, machine.environ)
    if not seen:
        built = f"for CUDA {build.cuda}" if build.cuda else "for the CPU"
        return Check("torch", "ok", f"{build.version}, built {built}")
    return _on_gpu(build, report, seen[0])


def _on_gpu(build: TorchBuild, report: GpuReport, gpu: Gpu) -> Check:
    driver = int(head) if (head := (report.driver or "").split(".")[0]).isdigit() else None
    wheel = _wheel(driver, gpu.capability)
    if build.cuda is None:
        what = f"{build.version} is built for the CPU alone"
        return Check("torch", "fail", what, wheel)
    least = least_driver(build.cuda)
    if driver is not None and driver < least:
        what = f"{build.version} needs driver r{least} for CUDA {build.cuda}; here is {driver}"
        return Check("torch", "fail", what, wheel)
    if gpu.capability is not None and build.arch and not runs_on(build, gpu.capability):
        sm = "{}.{}".format(*gpu.capability)
        what = f"{build.version} holds no kernels for SM {sm} ({' '.join(build.arch)})"
        return Check("torch", "fail", what, wheel)
    if not build.available:
        what = f"{build.version} does not reach the GPU: {build.error or 'it gives no reason'}"
        return Check("torch", "fail", what, f"restart the instance; else {wheel}")
    sm = "" if gpu.capability is None else ", kernels for SM {}.{}".format(*gpu.capability)
    return Check("torch", "ok", f"{build.version}, CUDA {build.cuda}{sm}")


def _wheel(driver: int | None, capability: tuple[int, int] | None) -> str:
    """Return the command that installs a torch for this driver and GPU."""
    old = capability is not None and capability < (7, 5)
    if old or (driver is not None and driver < 560):
        build = "cu126" if old or (driver or 0) >= least_driver("12") else "cu118"
    else:
        build = "cu130" if (driver or 0) >= least_driver("13") else "cu128"
    return f"pip install --force-reinstall 'torch>=2.6,<2.14' --index-url {_WHEELS}/{build}"


def _release(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("+")[0].split(".")[:2]:
        digits = "".join(c for c in part if c.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers)
