"""What the dashboard knows at one moment: values only, made by the reader, drawn by the panels.

Snapshot
├── Status            status.json, whatever its age
├── Stage (1 or 2)    metrics.jsonl: training and validation records, newest last
├── CheckpointFile…   what lies in the folder
└── MachineSample     GPUs, CPU, memory, disk of the machine the dashboard runs on
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlwm.core.hardware.gpu import GpuReport
from vlwm.core.hardware.host import Host
from vlwm.core.hardware.mounts import DiskSpace

Record = Mapping[str, Any]

STAGES = ("tokenizer", "world")
ENDED = ("done", "failed", "stopped")


def number(record: Record | None, name: str) -> float | None:
    """A finite number of a record, or None."""
    value = (record or {}).get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


@dataclass(frozen=True)
class HealthSign:
    """A warning of the run and what helps."""

    name: str
    level: str
    """"warn" or "fail" """
    message: str
    remedy: str


@dataclass(frozen=True)
class Status:
    """status.json, with None or a neutral value for whatever it lacks."""

    state: str = "unknown"
    """running, done, failed, stopped; unknown before the first status"""
    phase: str = ""
    stage: str | None = None
    epoch: int = 0
    """epochs finished"""
    epochs: int = 0
    step: int = 0
    steps: int = 0
    eta_s: float | None = None
    """seconds left in this stage when the status was written"""
    device: str | None = None
    config: str | None = None
    pid: int | None = None
    host: str | None = None
    started: float | None = None
    """unix seconds"""
    heartbeat: float | None = None
    """unix seconds"""
    exit_code: int | None = None
    next: str | None = None
    """command to type next"""
    health: tuple[HealthSign, ...] = ()


@dataclass(frozen=True)
class Stage:
    """Records of one stage, oldest first."""

    name: str
    train: tuple[Record, ...] = ()
    val: tuple[Record, ...] = ()

    @property
    def last(self) -> Record | None:
        """Newest training record."""
        return self.train[-1] if self.train else None

    @property
    def last_val(self) -> Record | None:
        """Newest validation record."""
        return self.val[-1] if self.val else None

    def series(self, name: str) -> tuple[tuple[float, float], ...]:
        """(step, value) of every training record that holds a finite `name`."""
        return _series(self.train, name)

    def val_series(self, name: str) -> tuple[tuple[float, float], ...]:
        """(step, value) of every validation record that holds a finite `name`."""
        return _series(self.val, name)


def _series(records: tuple[Record, ...], name: str) -> tuple[tuple[float, float], ...]:
    pairs = ((number(r, "step"), number(r, name)) for r in records)
    return tuple((step, value) for step, value in pairs if step is not None and value is not None)


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint that lies in the run folder."""

    name: str
    """relative to the run folder"""
    size_bytes: int
    age_s: float


@dataclass(frozen=True)
class MachineSample:
    """The machine of the dashboard, which is the run's where both have the same host name."""

    host_name: str
    gpus: GpuReport = field(default_factory=GpuReport)
    host: Host | None = None
    cpu_share: float | None = None
    """of the usable processor time, 0 to 1"""
    disk: DiskSpace | None = None
    """of the disk that holds the run folder"""


@dataclass(frozen=True)
class Snapshot:
    """One moment of a run."""

    path: Path
    now: float
    """unix seconds"""
    status: Status
    liveness: str
    """waiting (no status yet), alive, stalled (old heartbeat, process there), gone (process
    dead), silent (old heartbeat, process on another host), ended"""
    stages: Mapping[str, Stage]
    checkpoints: tuple[CheckpointFile, ...] = ()
    machine: MachineSample | None = None
    notes: tuple[str, ...] = ()
    """what is odd about the files themselves"""

    @property
    def stage(self) -> Stage:
        """The stage that is shown: the one of the status, else the newest with records."""
        if self.status.stage in self.stages:
            return self.stages[self.status.stage or ""]
        filled = [stage for stage in self.stages.values() if stage.train or stage.val]
        return filled[-1] if filled else self.stages["world"]

    @property
    def heartbeat_age_s(self) -> float | None:
        """Seconds since the run last wrote its status."""
        beat = self.status.heartbeat
        return None if beat is None else max(0.0, self.now - beat)

    @property
    def eta_s(self) -> float | None:
        """Seconds left in this stage, counted down since the status was written."""
        left, age = self.status.eta_s, self.heartbeat_age_s
        if left is None or self.liveness != "alive":
            return None
        return max(0.0, left - (age or 0.0))

    @property
    def elsewhere(self) -> bool:
        """Whether the run is on another machine than the dashboard."""
        known = self.machine is not None and self.status.host is not None
        return known and self.machine.host_name != self.status.host  # type: ignore[union-attr]

    @property
    def throughput(self) -> tuple[float, str] | None:
        """Samples a second and what a sample is."""
        for name in ("windows", "frames", "samples"):
            value = number(self.stage.last, f"{name}_per_s")
            if value is not None:
                return value, name
        return None
