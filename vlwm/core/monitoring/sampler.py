"""Looks at run folder and machine in a thread of its own, so that drawing never waits.

A driver may take seconds to answer and a network disk may hang; the dashboard then shows the last
snapshot, and its clock goes on.
"""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace

from vlwm.core.hardware.gpu import GpuReader
from vlwm.core.hardware.host import CpuMeter, read_host
from vlwm.core.hardware.machine import Machine
from vlwm.core.hardware.mounts import disk_space
from vlwm.core.monitoring.reader import RunReader
from vlwm.core.monitoring.snapshot import MachineSample, Snapshot
from vlwm.core.run_folder import RunFolder

_CPU_LOOK_S = 0.1  # the least time between two looks at the processor counters


class MachineSampler:
    """Looks at GPUs, CPU, memory and disk."""

    def __init__(self, folder: RunFolder, machine: Machine | None = None) -> None:
        self._folder = folder
        self._machine = machine or Machine()
        self._gpus = GpuReader()
        self._cpu = CpuMeter(self._machine)
        self._cpu.read()
        self._host_name = socket.gethostname()

    def read(self) -> MachineSample:
        """One look."""
        return MachineSample(
            host_name=self._host_name,
            gpus=self._gpus.read(),
            host=read_host(self._machine),
            cpu_share=self._cpu.read(),
            disk=disk_space(self._folder.path, self._machine),
        )

    def close(self) -> None:
        """Let go of the driver."""
        self._gpus.close()


def take_snapshot(folder: RunFolder) -> Snapshot:
    """One look at run and machine, in this thread."""
    machine = MachineSampler(folder)
    time.sleep(_CPU_LOOK_S)
    try:
        return RunReader(folder).read(machine.read())
    finally:
        machine.close()


class Sampler:
    """Keeps the newest Snapshot, taken every `period_s` in a background thread."""

    def __init__(self, folder: RunFolder, period_s: float) -> None:
        self._reader = RunReader(folder)
        self._machine = MachineSampler(folder)
        self._period_s = period_s
        self._latest = self._reader.read()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=1.0)

    def latest(self) -> Snapshot:
        """The newest snapshot, with the clock of now."""
        return replace(self._latest, now=time.time())

    def _run(self) -> None:
        while True:
            machine = self._machine.read()
            self._latest = self._reader.read(machine)
            if self._stop.wait(self._period_s):
                self._machine.close()
                return
