"""From a run folder to Snapshots. Files of a running process are met in any condition.

The reader never writes and never raises for what it finds: a damaged status is noted and the last
good one kept.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlwm.core.errors import DataError
from vlwm.core.files import read_json
from vlwm.core.monitoring.history import History
from vlwm.core.monitoring.jsonl_tail import LineFollower
from vlwm.core.monitoring.snapshot import (
    ENDED,
    STAGES,
    CheckpointFile,
    MachineSample,
    Snapshot,
    StageView,
)
from vlwm.core.run_folder import RunFolder
from vlwm.core.run_status import Status
from vlwm.core.run_status import finite as number
from vlwm.core.vocabulary import Stage

_STALLED_S = 120.0  # where the run's config does not set it
_SURELY_GONE_S = 10.0  # a dead process id counts only with a heartbeat this old
_MOST_STEPS = 16  # of a plan
_LOG_BYTES = 64_000  # of the log's end
_CATCH_UP_S = 0.4  # longest time of one look into long metrics files


def process_exists(pid: int) -> bool:
    """Return whether a process of this machine has the id; a zombie does not count."""
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
        self._metrics: dict[str, _Metrics] = {
            Stage.TOKENIZER: _Metrics(folder.tokenizer, Stage.TOKENIZER),
            Stage.WORLD: _Metrics(folder, Stage.WORLD),
        }
        self._log = _LogTail(folder)
        self._status = Status()
        self._stalled_s: float | None = None
        self._beat_seen: tuple[float | None, float] | None = None  # heartbeat, monotonic seconds
        self._beat_changed = False
        self._was_there = False

    def read(self, machine: MachineSample | None = None) -> Snapshot:
        """Return the newest state of the run; a long history comes over several calls."""
        notes = self._read_status()
        until = time.monotonic() + _CATCH_UP_S
        for metrics in self._metrics.values():
            metrics.take()
            while metrics.behind and time.monotonic() < until:
                metrics.take()
        stages: dict[str, StageView] = {name: self._metrics[name].stage() for name in STAGES}
        damaged = sum(metrics.damaged for metrics in self._metrics.values())
        if damaged:
            notes.append(f"{damaged} damaged metric lines were skipped")
        notes += self._refused()
        return replace(self._look(notes), stages=stages, log=self._log.read(), machine=machine)

    def glance(self) -> Snapshot:
        """Return the state of the run without its metrics: for a list of many runs."""
        return self._look(self._read_status())

    def _look(self, notes: list[str]) -> Snapshot:
        now = self._clock()
        there = self.folder.path.is_dir()
        if self._was_there and not there:
            notes = [*notes, "the run folder has vanished (moved, deleted, or its disk is gone)"]
        self._was_there = self._was_there or there
        beat_seen = self._watch_beat(now)
        return Snapshot(
            path=self.folder.path.absolute(),
            now=now,
            status=self._status,
            liveness=self._liveness(now, beat_seen),
            stages={name: StageView(name) for name in STAGES},
            checkpoints=_checkpoints(self.folder, now),
            scores=self._scores(),
            links=self._links(),
            notes=tuple(notes),
            beat_seen=beat_seen,
        )

    def _watch_beat(self, now: float) -> float | None:
        """Return when the heartbeat was seen to change, on the clock of `now`; None before."""
        beat = self._status.heartbeat
        if self._beat_seen is None or self._beat_seen[0] != beat:
            self._beat_changed = self._beat_seen is not None
            self._beat_seen = (beat, time.monotonic())
        if not self._beat_changed or beat is None:
            return None
        return now - (time.monotonic() - self._beat_seen[1])

    @property
    def behind(self) -> int:
        """Bytes of metrics that are not read yet."""
        return sum(metrics.behind for metrics in self._metrics.values())

    def _scores(self) -> Mapping[str, Any] | None:
        """Return the test scores of an ended run."""
        if self._status.state not in ENDED or not self.folder.scores_json.exists():
            return None
        try:
            scores = read_json(self.folder.scores_json)
        except DataError:
            return None
        return scores if isinstance(scores, dict) else None

    def _links(self) -> dict[str, str]:
        """Return the pages that the run named, and its report once that is written."""
        found = dict(self._status.links)
        if self.folder.report_html.exists():
            found["report"] = str(self.folder.report_html.absolute())
        return found

    def _read_status(self) -> list[str]:
        try:
            values = self.folder.read_status()
        except DataError as error:
            return [f"status.json cannot be read: {error.what.removeprefix('cannot read: ')}"]
        if values is not None and not isinstance(values, dict):
            return ["status.json holds no status"]
        self._status = Status.of(values) if values is not None else Status()
        return []

    def _refused(self) -> list[str]:
        """Return a note for each file of the run that this user may not read."""
        run, first = self.folder, self.folder.tokenizer
        files = (run.metrics_jsonl, first.metrics_jsonl, run.scores_json, run.config_json)
        return [
            f"{path.relative_to(run.path)} cannot be read: permission denied"
            for path in files
            if _may_not_read(path)
        ]

    def _liveness(self, now: float, beat_seen: float | None) -> str:
        status = self._status
        if status.state in ENDED:
            return "ended"
        if status.heartbeat is None:
            return "waiting"
        age = now - (status.heartbeat if beat_seen is None else beat_seen)
        here = status.host is None or status.host == self._host_name
        dead = here and status.pid is not None and not self._exists(status.pid)
        if dead and age > _SURELY_GONE_S:
            return "gone"
        if age <= self._stall_limit_s():
            return "alive"
        return "stalled" if here else "silent"

    def _stall_limit_s(self) -> float:
        """Return the run's own `health.stalled_seconds`."""
        if self._stalled_s is None:
            try:
                health = read_json(self.folder.config_json).get("health", {})
                self._stalled_s = number(health, "stalled_seconds") or _STALLED_S
            except (DataError, AttributeError):
                return _STALLED_S
        return self._stalled_s


class _Metrics:
    """The metrics file of one stage and its history."""

    def __init__(self, folder: RunFolder, name: str) -> None:
        self._follower = LineFollower(folder.metrics_jsonl)
        self._history = History(name)
        self.behind = 0

    @property
    def damaged(self) -> int:
        return self._follower.damaged

    def take(self) -> None:
        """Read the next block of records."""
        news = self._follower.read()
        if news.restarted:
            self._history.clear()
        for record in news.records:
            self._history.add(record)
        self.behind = news.behind

    def stage(self) -> StageView:
        """Return all records so far."""
        return self._history.stage()


class _LogTail:
    """Last lines of the newest train_*.log of a run folder."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._state: tuple[str, int] = ("", 0)
        self._lines: tuple[str, ...] = ()

    def read(self) -> tuple[str, ...]:
        try:
            paths = list(self._folder.path.glob("train_*.log"))
            newest = max(paths, key=lambda path: path.name, default=None)
            if newest is None:
                return ()
            size = newest.stat().st_size
            if (newest.name, size) == self._state:
                return self._lines
            with open(newest, "rb") as handle:
                handle.seek(max(0, size - _LOG_BYTES))
                text = handle.read(_LOG_BYTES).decode(errors="replace")
        except OSError:
            return self._lines
        lines = text.splitlines()
        self._lines = tuple(lines[1:] if size > _LOG_BYTES else lines)
        self._state = (newest.name, size)
        return self._lines


def _may_not_read(path: Path) -> bool:
    try:
        path.open("rb").close()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _checkpoints(folder: RunFolder, now: float) -> tuple[CheckpointFile, ...]:
    """Return checkpoints of both stages, newest first."""
    found, paths = [], []
    for part in (folder.tokenizer, folder):
        with suppress(PermissionError):  # `RunReader` notes what may not be read
            paths += part.checkpoints()
    for path in paths:
        try:
            entry = path.stat()
        except OSError:  # pruned meanwhile
            continue
        name = str(path.relative_to(folder.path))
        found.append(CheckpointFile(name, entry.st_size, max(0.0, now - entry.st_mtime)))
    return tuple(sorted(found, key=lambda c: (c.age_s, c.name)))
