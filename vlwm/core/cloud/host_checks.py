"""CPU quota, memory, shared memory, process limit."""

from __future__ import annotations

from vlwm.core.cloud.check import Check
from vlwm.core.hardware.advice import GIB, Advice
from vlwm.core.hardware.host import Host

_FEW_CPUS = 4
_LITTLE_RAM, _LEAST_RAM = 8 * GIB, 3 * GIB
_FEW_PIDS = 256
_WANTED_WORKERS = 8


def cpu_check(host: Host, advice: Advice) -> Check:
    """Check the processors granted, which are often fewer than processors shown."""
    usable = host.usable_cpus
    if usable is None:
        return Check("cpu", "warn", "unknown", "look with nproc")
    detail = f"{usable:g} processor{'' if usable == 1 else 's'}"
    if host.cpu_quota is not None and host.cpus is not None and host.cpu_quota < host.cpus:
        detail = f"{host.cpu_quota:g} of {host.cpus} processors are granted"
    if advice.device == "cuda" and usable < _FEW_CPUS:
        fix = f"{_FEW_CPUS} or more CPUs are recommended to keep the GPU busy"
        return Check("cpu", "warn", detail, fix)
    return Check("cpu", "ok", detail)


def ram_check(host: Host) -> Check:
    """Check the memory granted."""
    usable = host.usable_ram_bytes
    if usable is None:
        return Check("ram", "warn", "unknown", "look with free -g")
    limit = ", the container's limit" if host.ram_limit_bytes is not None else ""
    detail = f"{usable / GIB:.1f} GiB{limit}"
    if usable < _LEAST_RAM:
        return Check("ram", "fail", detail, f"take a machine with {_LITTLE_RAM // GIB} GiB or more")
    if usable < _LITTLE_RAM:
        return Check("ram", "warn", detail, "prepare with --workers 1; tokyo_small needs less")
    return Check("ram", "ok", detail)


def shm_check(host: Host, advice: Advice) -> Check:
    """Check the room for the loader's workers, which hand over batches in /dev/shm."""
    if host.shm_bytes is None:
        return Check("shm", "warn", "/dev/shm is missing", "vlwm train --workers 0")
    size = host.shm_bytes / GIB
    detail = f"/dev/shm has {size:.1f} GiB" if size >= 1 else f"/dev/shm has {size * 1024:.0f} MiB"
    cpus = host.usable_cpus
    wanted = _WANTED_WORKERS if cpus is None else min(_WANTED_WORKERS, max(0, int(cpus) - 1))
    if advice.gpus < 2 and advice.workers < wanted:
        fix = f"docker run --shm-size=8g; until then vlwm train --workers {advice.workers}"
        return Check("shm", "warn", f"{detail}, enough for {advice.workers} workers", fix)
    return Check("shm", "ok", detail)


def pids_check(host: Host) -> Check:
    """Check how many processes and threads may run."""
    limit = host.pids_limit
    if limit is None:
        return Check("processes", "ok", "no limit")
    if limit < _FEW_PIDS:
        fix = "docker run --pids-limit=-1; until then vlwm train --workers 0"
        return Check("processes", "warn", f"at most {limit}", fix)
    return Check("processes", "ok", f"at most {limit}")
