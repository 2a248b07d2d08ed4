"""From a run folder to Snapshots. Files of a running process are met in any condition.

The reader never writes and never raises for what it finds: a damaged status is noted and the last
good one kept.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vlwm.core.errors import DataError
from vlwm.core.files import read_json
from vlwm.core.monitoring.jsonl_tail import LineFollower
from vlwm.core.monitoring.snapshot import (
    ENDED,
    STAGES,
    CheckpointFile,
    HealthSign,
    MachineSample,
    Record,
    Snapshot,
    Stage,
    Status,
    number,
)
from vlwm.core.run_folder import RunFolder

_STALLED_S = 120.0  # where the run's config does not say
_SURELY_GONE_S = 10.0  # a dead process id counts only with a heartbeat this old
_MOST_RECORDS = 20_000  # of one stage; older ones are thinned


def process_exists(pid: int) -> bool:
    """Whether a process of this machine has the id; one that is dead but not buried has not."""
    try:
        os.kill(max(pid, 1), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return True
    return state[:1] != ["Z"]


class RunReader:
    """Follows one run folder.

    Args:
        folder: the run folder; it need not exist yet.
        clock: unix time in seconds.
        exists: whether a process id is alive on this machine.
        host_name: this machine's name.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        clock: Callable[[], float] = time.time,
        exists: Callable[[int], bool] = process_exists,
        host_name: str | None = None,
    ) -> None:
        self.folder = folder
        self._clock = clock
        self._exists = exists
        self._host_name = socket.gethostname() if host_name is None else host_name
        self._histories = {
            "tokenizer": _History(folder.tokenizer),
            "world": _History(folder),
        }
        self._status = Status()
        self._stalled_s: float | None = None

    def read(self, machine: MachineSample | None = None) -> Snapshot:
        """The newest state of the run."""
        notes = self._read_status()
        stages = {name: self._histories[name].read(name) for name in STAGES}
        damaged = sum(history.damaged for history in self._histories.values())
        if damaged:
            notes.append(f"{damaged} damaged metric lines were passed over")
        now = self._clock()
        return Snapshot(
            path=self.folder.path,
            now=now,
            status=self._status,
            liveness=self._liveness(now),
            stages=stages,
            checkpoints=_checkpoints(self.folder, now),
            machine=machine,
            notes=tuple(notes),
        )

    def _read_status(self) -> list[str]:
        try:
            values = self.folder.read_status()
        except DataError as error:
            return [f"status.json cannot be read: {error.what}"]
        if values is not None and not isinstance(values, dict):
            return ["status.json holds no status"]
        self._status = _status(values) if values is not None else Status()
        return []

    def _liveness(self, now: float) -> str:
        status = self._status
        if status.state in ENDED:
            return "ended"
        if status.heartbeat is None:
            return "waiting"
        age = now - status.heartbeat
        here = status.host is None or status.host == self._host_name
        dead = here and status.pid is not None and not self._exists(status.pid)
        if dead and age > _SURELY_GONE_S:
            return "gone"
        if age <= self._stall_limit_s():
            return "alive"
        return "stalled" if here else "silent"

    def _stall_limit_s(self) -> float:
        """The run's own `health.stalled_seconds`."""
        if self._stalled_s is None:
            try:
                health = read_json(self.folder.config_json).get("health", {})
                self._stalled_s = number(health, "stalled_seconds") or _STALLED_S
            except (DataError, AttributeError):
                return _STALLED_S
        return self._stalled_s


class _History:
    """Records of one stage."""

    def __init__(self, folder: RunFolder) -> None:
        self._follower = LineFollower(folder.metrics_jsonl)
        self._train: list[Record] = []
        self._val: list[Record] = []

    @property
    def damaged(self) -> int:
        return self._follower.damaged

    def read(self, name: str) -> Stage:
        """Take what came and show all."""
        news = self._follower.read()
        if news.restarted:
            self._train, self._val = [], []
        for record in news.records:
            (self._val if record.get("kind") == "val" else self._train).append(record)
        self._train = _thinned(self._train)
        newest = (self._train or self._val or [{}])[-1].get("stage")
        return Stage(newest if newest in STAGES else name, tuple(self._train), tuple(self._val))


def _thinned(records: list[Record]) -> list[Record]:
    """Every second record of the older half, once there are too many."""
    if len(records) <= _MOST_RECORDS:
        return records
    half = len(records) // 2
    return records[:half:2] + records[half:]


def _status(values: Mapping[str, Any]) -> Status:
    return Status(
        state=_text(values, "state") or "unknown",
        phase=_text(values, "phase") or "",
        stage=_text(values, "stage"),
        epoch=_count(values, "epoch") or 0,
        epochs=_count(values, "epochs") or 0,
        step=_count(values, "step") or 0,
        steps=_count(values, "steps") or 0,
        eta_s=number(values, "eta_s"),
        device=_text(values, "device"),
        config=_text(values, "config"),
        pid=_count(values, "pid"),
        host=_text(values, "host"),
        started=number(values, "started"),
        heartbeat=number(values, "heartbeat"),
        exit_code=_count(values, "exit_code"),
        next=_text(values, "next"),
        health=_health(values.get("health")),
    )


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    return value if isinstance(value, str) else None


def _count(values: Mapping[str, Any], name: str) -> int | None:
    value = number(values, name)
    return None if value is None else int(value)


def _health(signs: object) -> tuple[HealthSign, ...]:
    if not isinstance(signs, list):
        return ()
    names = ("name", "level", "message", "remedy")
    found = [{n: _text(sign, n) or "" for n in names} for sign in signs if isinstance(sign, dict)]
    return tuple(HealthSign(**sign) for sign in found)


def _checkpoints(folder: RunFolder, now: float) -> tuple[CheckpointFile, ...]:
    """Checkpoints of both stages, newest first."""
    found = []
    for path in folder.tokenizer.checkpoints() + folder.checkpoints():
        try:
            entry = path.stat()
        except OSError:  # pruned meanwhile
            continue
        name = str(path.relative_to(folder.path))
        found.append(CheckpointFile(name, entry.st_size, max(0.0, now - entry.st_mtime)))
    return tuple(sorted(found, key=lambda c: (c.age_s, c.name)))
