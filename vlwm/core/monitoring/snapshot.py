"""State of a run at one moment: values only, made by the reader, drawn by the panels.

Snapshot
├── Status            status.json, whatever its age
├── StageView (1 or 2)    metrics.jsonl: training and validation records, newest last
├── CheckpointFile…   a checkpoint in the folder
└── MachineSample     GPUs, CPU, memory, disk of the machine the dashboard runs on
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlwm.core.hardware.gpu import GpuReport
from vlwm.core.hardware.host import Host
from vlwm.core.hardware.mounts import DiskSpace
from vlwm.core.run_status import Status
from vlwm.core.run_status import finite as number
from vlwm.core.vocabulary import Stage

Record = Mapping[str, Any]

STAGES = tuple(Stage)
ENDED = ("done", "failed", "stopped")


@dataclass(frozen=True)
class Series:
    """One metric over steps, oldest first; old points are thinned."""

    steps: Sequence[float] = ()
    values: Sequence[float] = ()
    count: int = 0
    """values seen so far, thinned ones included: it changes whenever the series does"""

    def points(self) -> tuple[tuple[float, float], ...]:
        """Return (step, value) pairs."""
        return tuple(zip(self.steps, self.values, strict=True))


_NO_SERIES = Series()


@dataclass(frozen=True)
class StageView:
    """Metrics of one stage."""

    name: str
    train: Mapping[str, Series] = field(default_factory=dict)
    val: Mapping[str, Series] = field(default_factory=dict)
    last: Record | None = None
    """newest training record"""
    last_val: Record | None = None
    """newest validation record"""
    train_count: int = 0
    val_count: int = 0

    def series(self, name: str) -> Series:
        """Return a training metric; empty where no record holds it."""
        return self.train.get(name, _NO_SERIES)

    def val_series(self, name: str) -> Series:
        """Return a validation metric; empty where no record holds it."""
        return self.val.get(name, _NO_SERIES)


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint in the run folder."""

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
    lost_gpus: tuple[str, ...] = ()
    """GPUs that were there before and do not answer any more"""
    disk_full_s: float | None = None
    """seconds until that disk is full at the pace of the last minutes; None while it is not"""


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
    stages: Mapping[str, StageView]
    checkpoints: tuple[CheckpointFile, ...] = ()
    machine: MachineSample | None = None
    log: tuple[str, ...] = ()
    """last lines of the newest train_*.log, oldest first"""
    scores: Mapping[str, Any] | None = None
    """scores.json, once there is one"""
    links: Mapping[str, str] = field(default_factory=dict)
    """name -> address or command of the pages about the run"""
    earlier_stage: bool = False
    """the stage in view is not the one that runs: somebody chose it"""
    notes: tuple[str, ...] = ()
    """what is odd about the files themselves"""
    beat_seen: float | None = None
    """unix seconds at which this process saw the heartbeat change; None until it has"""

    @property
    def stage(self) -> StageView:
        """The stage that is shown: the one of the status, else the newest with records."""
        if self.status.stage in self.stages:
            return self.stages[self.status.stage or ""]
        filled = [s for s in self.stages.values() if s.train_count or s.val_count]
        return filled[-1] if filled else self.stages[Stage.WORLD]

    @property
    def heartbeat_age_s(self) -> float | None:
        """Seconds since the run last wrote its status.

        Where this process saw the status change, its own clock counts: the clock of another host
        may be wrong, and any clock may jump.
        """
        beat = self.status.heartbeat if self.beat_seen is None else self.beat_seen
        return None if beat is None else max(0.0, self.now - beat)

    @property
    def eta_s(self) -> float | None:
        """Seconds left in this stage, counted down since the status was written."""
        left, age = self.status.eta_s, self.heartbeat_age_s
        if left is None or self.liveness != "alive":
            return None
        return max(0.0, left - (age or 0.0))

    @property
    def eta_run_s(self) -> float | None:
        """Seconds left in the whole run, counted down since the status was written."""
        left, age = self.status.eta_run_s, self.heartbeat_age_s
        if left is None or self.liveness != "alive":
            return None
        return max(0.0, left - (age or 0.0))

    @property
    def running_s(self) -> float | None:
        """Seconds that the run has taken so far, earlier processes included."""
        if self.status.started is None:
            return None
        end = self.status.heartbeat if self.liveness == "ended" else self.now
        return self.status.spent_s + max(0.0, (end or self.now) - self.status.started)

    @property
    def elsewhere(self) -> bool:
        """Return whether the run is on another machine than the dashboard."""
        if self.machine is None or self.status.host is None:
            return False
        return self.machine.host_name != self.status.host

    @property
    def throughput(self) -> tuple[float, str] | None:
        """Samples a second and what a sample is."""
        for name in ("windows", "frames", "samples"):
            value = number(self.stage.last, f"{name}_per_s")
            if value is not None:
                return value, name
        return None
