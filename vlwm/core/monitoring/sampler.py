"""Look at run folders and machine in a thread, so that drawing never waits.

A driver may take seconds to answer and a network disk may hang; the dashboard then shows the last
snapshot, and its clock keeps running.
"""

from __future__ import annotations

import collections
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from vlwm.core.hardware.gpu import Gpu, GpuReader, GpuReport
from vlwm.core.hardware.host import CpuMeter, read_host
from vlwm.core.hardware.machine import Machine
from vlwm.core.hardware.mounts import disk_space
from vlwm.core.monitoring.reader import RunReader
from vlwm.core.monitoring.snapshot import MachineSample, Snapshot
from vlwm.core.run_folder import RunFolder

_DISK_LOOKS, _DISK_LOOK_S = 20, 30.0  # looks that are kept, and seconds between two of them
_CPU_LOOK_S = 0.1  # the least time between two looks at the processor counters


class MachineSampler:
    """Looks at GPUs, CPU, memory and disk."""

    def __init__(self, folder: RunFolder, machine: Machine | None = None) -> None:
        self._folder = folder
        self._machine = machine or Machine()
        self._gpus = GpuReader()
        self._cpu = CpuMeter(self._machine)
        self._cpu.read()
        self._seen: dict[str, Gpu] = {}
        self._host_name = socket.gethostname()
        self._free: collections.deque[tuple[float, float]] = collections.deque(maxlen=_DISK_LOOKS)

    def read(self) -> MachineSample:
        """Look once."""
        disk = disk_space(self._folder.path, self._machine)
        gpus = self._with_their_numbers(self._gpus.read())
        here = {gpu.uuid for gpu in gpus.gpus}
        return MachineSample(
            host_name=self._host_name,
            gpus=gpus,
            lost_gpus=tuple(
                f"GPU {gpu.index} {gpu.name}"
                for uuid, gpu in self._seen.items()
                if uuid not in here
            ),
            host=read_host(self._machine),
            cpu_share=self._cpu.read(),
            disk=disk,
            disk_full_s=None if disk is None else self._until_full(disk.free_bytes),
        )

    def _with_their_numbers(self, report: GpuReport) -> GpuReport:
        """Keep each GPU's first number: the driver renumbers them when one falls off the bus."""
        gpus = []
        for gpu in report.gpus:
            if gpu.uuid is not None:
                gpu = replace(gpu, index=self._seen.setdefault(gpu.uuid, gpu).index)
            gpus.append(gpu)
        return replace(report, gpus=tuple(gpus))

    def _until_full(self, free: float | None) -> float | None:
        """Return the seconds until the disk is full, by the oldest look that is kept."""
        now = time.monotonic()
        if free is None:
            return None
        if not self._free or now - self._free[-1][0] >= _DISK_LOOK_S:
            self._free.append((now, free))
        since, before = self._free[0]
        lost = before - free
        if now - since < _DISK_LOOK_S or lost <= 0:
            return None
        return free / lost * (now - since)

    def close(self) -> None:
        """Let go of the driver."""
        self._gpus.close()


def take_snapshot(folder: RunFolder) -> Snapshot:
    """Take one look at run and machine, in this thread."""
    machine = MachineSampler(folder)
    time.sleep(_CPU_LOOK_S)
    try:
        return RunReader(folder).read(machine.read())
    finally:
        machine.close()


class Sampler:
    """Keeps the newest Snapshots, taken every `period_s` in a background thread.

    Args:
        folders: run folders; the metrics of those in focus are read, of the others the state.
        period_s: seconds between two looks.
    """

    def __init__(self, folders: Sequence[RunFolder], period_s: float) -> None:
        self._readers = [RunReader(folder) for folder in folders]
        self._machine = MachineSampler(folders[0])
        self._period_s = period_s
        self._focus: tuple[int, ...] = (0,)
        self._latest = [
            reader.read() if index == 0 else reader.glance()
            for index, reader in enumerate(self._readers)
        ]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=1.0)

    def focus(self, *runs: int) -> None:
        """Read the metrics of these runs from now on."""
        self._focus = runs

    def latest(self) -> list[Snapshot]:
        """Return the newest snapshots, with the clock of now."""
        now = time.time()
        return [replace(snapshot, now=now) for snapshot in self._latest]

    def look(self) -> bool:
        """Look at machine and runs once; return whether metrics are left to read."""
        machine = self._machine.read()
        focus = self._focus
        for index, reader in enumerate(self._readers):
            snapshot = reader.read() if index in focus else reader.glance()
            self._latest[index] = replace(snapshot, machine=machine)
        return any(self._readers[index].behind for index in focus)

    def _run(self) -> None:
        # a long history is read block after block, without a pause between them
        while not self._stop.wait(0.05 if self.look() else self._period_s):
            pass
        self._machine.close()
