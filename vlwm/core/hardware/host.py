"""CPU, memory and limits of this machine, as a container sees them.

A rented container shows the host's 384 cores and grants 46 of them: the quota of the control
group (version 1 or 2, its own group and every parent) and the affinity of the process count.
Unknown is None.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import PurePosixPath

from vlwm.core.hardware.machine import Machine
from vlwm.core.hardware.mounts import disk_space, mount_of, read_mounts

_NO_LIMIT = 1 << 60
_GROUPS = "/sys/fs/cgroup"


@dataclass(frozen=True)
class Host:
    """Resources that a process may use here."""

    cpus: int | None
    """processors that the process may run on"""
    cpu_quota: float | None
    """processors' worth of time granted, None without a quota"""
    ram_bytes: int | None
    """memory of the machine"""
    ram_limit_bytes: int | None
    """limit of the container, None without one"""
    ram_used_bytes: int | None
    """used of the limit, or of the machine where there is none; page cache apart"""
    shm_bytes: int | None
    """size of /dev/shm, through which loader workers hand over batches"""
    pids_limit: int | None
    """processes and threads allowed, None without a limit"""
    in_container: bool

    @property
    def usable_cpus(self) -> float | None:
        """Processors' worth of time, quota and affinity together."""
        known = [float(v) for v in (self.cpus, self.cpu_quota) if v is not None]
        return min(known) if known else None

    @property
    def usable_ram_bytes(self) -> int | None:
        """Memory that can be had, limit and machine together."""
        known = [v for v in (self.ram_bytes, self.ram_limit_bytes) if v is not None]
        return min(known) if known else None


def read_host(machine: Machine) -> Host:
    """Look once."""
    ram, limit = _meminfo(machine, "MemTotal"), _ram_limit(machine)
    if limit is not None and ram is not None and limit >= ram:
        limit = None
    return Host(
        cpus=_cpus(machine),
        cpu_quota=_cpu_quota(machine),
        ram_bytes=ram,
        ram_limit_bytes=limit,
        ram_used_bytes=_ram_used(machine, limited=limit is not None),
        shm_bytes=_shm_bytes(machine),
        pids_limit=_least(machine, "pids", ("pids.max",)),
        in_container=_in_container(machine),
    )


def usable_workers(machine: Machine | None = None) -> int:
    """Return the cores granted to this process, at least one: a quota may be lower."""
    return max(1, int(read_host(machine or Machine()).usable_cpus or 1))


def _cpus(machine: Machine) -> int | None:
    for line in (machine.text("/proc/self/status") or "").splitlines():
        if line.startswith("Cpus_allowed_list:"):
            return _count(line.split(":", 1)[1].strip())
    online = _count((machine.text("/sys/devices/system/cpu/online") or "").strip())
    return online or ("\n" + (machine.text("/proc/cpuinfo") or "")).count("\nprocessor") or None


def _count(ranges: str) -> int | None:
    """Return numbers in a list such as 0-3,8."""
    total = 0
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or not (last or "0").isdigit():
            return None
        total += int(last or first) - int(first) + 1
    return total


def _folders(machine: Machine, controller: str) -> list[str]:
    """Return folders of the process's control group and its parents, for one controller."""
    found = [_GROUPS, f"{_GROUPS}/{controller}", f"{_GROUPS}/unified"]
    for line in (machine.text("/proc/self/cgroup") or "").splitlines():
        _, names, path = (*line.split(":", 2), "", "")[:3]
        bases = [_GROUPS, f"{_GROUPS}/unified"] if not names else [f"{_GROUPS}/{names}"]
        if names and controller not in names.split(","):
            continue
        if names:
            bases.append(f"{_GROUPS}/{controller}")
        for group in (PurePosixPath(path or "/"), *PurePosixPath(path or "/").parents):
            found += [f"{base}{group}".rstrip("/") for base in bases]
    return list(dict.fromkeys(found))


def _least(machine: Machine, controller: str, names: tuple[str, ...]) -> int | None:
    """Return the smallest limit among the group's own and its parents' files."""
    limits = [
        value
        for folder in _folders(machine, controller)
        for name in names
        if (value := machine.number(f"{folder}/{name}")) is not None and 0 <= value < _NO_LIMIT
    ]
    return min(limits) if limits else None


def _cpu_quota(machine: Machine) -> float | None:
    quotas = []
    for folder in _folders(machine, "cpu"):
        words = (machine.text(f"{folder}/cpu.max") or "").split()
        if not words:
            quota, period = (machine.text(f"{folder}/cpu.cfs_{w}_us") for w in ("quota", "period"))
            words = [(quota or "").strip(), (period or "").strip()]
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]) > 0:
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas) if quotas else None


def _ram_limit(machine: Machine) -> int | None:
    return _least(machine, "memory", ("memory.max", "memory.limit_in_bytes"))


def _meminfo(machine: Machine, name: str) -> int | None:
    for line in (machine.text("/proc/meminfo") or "").splitlines():
        words = line.split()
        if words[:1] == [f"{name}:"] and words[1:2] and words[1].isdigit():
            return int(words[1]) * 1024
    return None


def _ram_used(machine: Machine, *, limited: bool) -> int | None:
    if limited:
        for folder in reversed(_folders(machine, "memory")):
            for name, cache in (
                ("memory.current", "inactive_file"),
                ("memory.usage_in_bytes", "total_inactive_file"),
            ):
                used = machine.number(f"{folder}/{name}")
                if used is not None:
                    return max(0, used - _stat(machine, folder, cache))
    total, free = _meminfo(machine, "MemTotal"), _meminfo(machine, "MemAvailable")
    return None if total is None or free is None else total - free


def _stat(machine: Machine, folder: str, name: str) -> int:
    for line in (machine.text(f"{folder}/memory.stat") or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return 0


def _shm_bytes(machine: Machine) -> int | None:
    mount = mount_of("/dev/shm", read_mounts(machine))
    if mount is not None and mount.point == "/dev/shm" and mount.size_bytes is not None:
        return mount.size_bytes
    if not machine.exists("/dev/shm"):
        return None
    space = disk_space("/dev/shm", machine)
    return None if space is None else space.total_bytes


def _in_container(machine: Machine) -> bool:
    if machine.exists("/.dockerenv") or machine.exists("/run/.containerenv"):
        return True
    if machine.environ.get("container") or machine.environ.get("KUBERNETES_SERVICE_HOST"):
        return True
    mount = mount_of("/", read_mounts(machine))
    return mount is not None and mount.container_layer


class CpuMeter:
    """Share of the usable processor time spent since the last look, 0 to 1."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._last: tuple[float, float] | None = None

    def read(self) -> float | None:
        """Return the share in use; None at the first look and where it is unknown."""
        now = self._busy()
        last, self._last = self._last, now
        if now is None or last is None or now[1] <= last[1]:
            return None
        return min(1.0, max(0.0, (now[0] - last[0]) / (now[1] - last[1])))

    def _busy(self) -> tuple[float, float] | None:
        """Return busy and available processor seconds so far."""
        quota = _cpu_quota(self._machine)
        group = self._group_seconds() if quota is not None else None
        if quota is not None and group is not None:
            return group, time.monotonic() * quota
        first = (self._machine.text("/proc/stat") or "").split("\n", 1)[0].split()
        ticks = [int(w) for w in first[1:9] if w.isdigit()]
        if first[:1] != ["cpu"] or len(ticks) < 5:
            return None
        idle = ticks[3] + ticks[4]
        return float(sum(ticks) - idle), float(sum(ticks))

    def _group_seconds(self) -> float | None:
        for folder in reversed(_folders(self._machine, "cpu")):
            for line in (self._machine.text(f"{folder}/cpu.stat") or "").splitlines():
                if line.startswith("usage_usec "):
                    return int(line.split()[1]) / 1e6
        for folder in reversed(_folders(self._machine, "cpuacct")):
            nanoseconds = self._machine.number(f"{folder}/cpuacct.usage")
            if nanoseconds is not None:
                return nanoseconds / 1e9
        return None
