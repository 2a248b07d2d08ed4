"""Define status.json: what a run writes while it works, and what the dashboard reads of it.

The writer (training/telemetry/status_writer) holds its values by the names of `Status`, and may
write no others; the reader takes whatever a file holds, of any version, as a `Status`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

VERSION = 1
_MOST_STEPS = 20
"""parts of a run that are read; a longer list is not one of ours"""


@dataclass(frozen=True)
class HealthSign:
    """A warning of the run and what helps."""

    name: str
    """the check that found it"""
    level: str
    """"warn" or "fail" """
    message: str
    """what is wrong"""
    remedy: str
    """what to do"""
    step: int | None = None
    """optimizer step at which it was found"""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> HealthSign:
        """Return the sign that a file holds, with "" for what it lacks."""
        words = {name: _text(values, name) or "" for name in ("name", "level", "message", "remedy")}
        return cls(**words, step=_count(values, "step"))

    def to_dict(self) -> dict[str, Any]:
        """Return it as status.json holds it."""
        return asdict(self)


@dataclass(frozen=True)
class PlanStep:
    """One part of the whole run: prepare, stage 1, warm-up, stage 2, test."""

    name: str
    """phase, as in `phase`"""
    label: str
    """for people"""
    state: str
    """"done", "now", "todo" or "skipped" """
    share: float
    """part of it that is done, 0 to 1"""
    seconds: float | None
    """expected length in all; null where it is not known"""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> PlanStep:
        """Return the part that a file holds, with neutral values for what it lacks."""
        return cls(
            name=_text(values, "name") or "",
            label=_text(values, "label") or _text(values, "name") or "",
            state=_text(values, "state") or "todo",
            share=min(1.0, max(0.0, finite(values, "share") or 0.0)),
            seconds=finite(values, "seconds"),
        )


@dataclass(frozen=True)
class Status:
    """status.json, with None or a neutral value for whatever a file lacks."""

    version: int = VERSION
    """format of the file"""
    state: str = "unknown"
    """running, done, failed, stopped; unknown before the first status"""
    phase: str = ""
    """what the run does now: a word of `vocabulary.Phase`"""
    stage: str | None = None
    """tokenizer or world"""
    epoch: int = 0
    """epochs finished"""
    epochs: int = 0
    """epochs of the stage"""
    step: int = 0
    """optimizer steps finished, of the stage or the warm-up"""
    steps: int = 0
    """optimizer steps of the stage or the warm-up"""
    eta_s: float | None = None
    """seconds left in this stage when the status was written"""
    device: str | None = None
    """name of the GPU, or CPU"""
    config: str | None = None
    """name of the preset or config file"""
    work_dir: str | None = None
    """the run folder, as it was given"""
    processes: int = 1
    """processes that train together"""
    pid: int | None = None
    """of the process that writes"""
    host: str | None = None
    """machine of that process"""
    started: float | None = None
    """unix seconds"""
    heartbeat: float | None = None
    """unix seconds of the last write"""
    exit_code: int | None = None
    """of an ended run"""
    message: str | None = None
    """the sentence with which a run failed"""
    next: str | None = None
    """command to type next"""
    skipped_steps: int = 0
    """steps whose loss or gradients were not finite, since the beginning"""
    health: tuple[HealthSign, ...] = ()
    """what is wrong now"""
    eta_run_s: float | None = None
    """seconds left to the end of the whole run when the status was written"""
    plan: tuple[PlanStep, ...] = ()
    """the parts of the whole run, in order"""
    price_per_h: float | None = None
    """what the machine costs, as given with --price"""
    spent_s: float = 0.0
    """seconds of earlier processes of this run"""
    command: str | None = None
    """command that resumes this run, run in `cwd`"""
    cwd: str | None = None
    """folder in which the run was started"""
    links: Mapping[str, str] = field(default_factory=dict)
    """pages about the run: wandb, tensorboard, report"""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Status:
        """Return the status that a file holds; a value of the wrong kind counts as missing."""
        whole = ("version", "epoch", "epochs", "step", "steps", "processes", "skipped_steps")
        return cls(
            **{name: _count(values, name) or getattr(cls, name) for name in whole},
            state=_text(values, "state") or "unknown",
            phase=_text(values, "phase") or "",
            stage=_text(values, "stage"),
            eta_s=finite(values, "eta_s"),
            device=_text(values, "device"),
            config=_text(values, "config"),
            work_dir=_text(values, "work_dir"),
            pid=_count(values, "pid"),
            host=_text(values, "host"),
            started=finite(values, "started"),
            heartbeat=finite(values, "heartbeat"),
            exit_code=_count(values, "exit_code"),
            message=_text(values, "message"),
            next=_text(values, "next"),
            health=tuple(HealthSign.of(sign) for sign in _dicts(values.get("health"))),
            eta_run_s=finite(values, "eta_run_s"),
            plan=tuple(PlanStep.of(s) for s in _dicts(values.get("plan"))[:_MOST_STEPS]),
            price_per_h=finite(values, "price_per_h"),
            spent_s=finite(values, "spent_s") or 0.0,
            command=_text(values, "command"),
            cwd=_text(values, "cwd"),
            links=_links(values.get("links")),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as status.json holds it."""
        return asdict(self)

    @property
    def running_epoch(self) -> int:
        """Epoch that runs, or that the run was stopped in, from 1 on; the last one at the end."""
        return min(self.epoch + 1, self.epochs)


FIELDS = frozenset(f.name for f in fields(Status))
"""names that status.json may hold"""


def finite(values: Mapping[str, Any] | None, name: str) -> float | None:
    """Return a finite number of a record, or None."""
    value = (values or {}).get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    return value if isinstance(value, str) else None


def _count(values: Mapping[str, Any], name: str) -> int | None:
    value = finite(values, name)
    return None if value is None else int(value)


def _dicts(values: object) -> list[dict[str, Any]]:
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []


def _links(values: object) -> dict[str, str]:
    if not isinstance(values, dict):
        return {}
    return {k: v for k, v in values.items() if isinstance(k, str) and isinstance(v, str)}
