"""Run a command of the operator's when a run turns bad, stalls or ends (`monitor --alert-cmd`)."""

from __future__ import annotations

import os
import subprocess

from vlwm.core.monitoring.diagnosis import state_of, worries
from vlwm.core.monitoring.formatting import ASCII
from vlwm.core.monitoring.snapshot import Snapshot

_OLD_S = 3600.0  # a lost run of this age is one of yesterday
_QUIET = ("waiting", "alive")


class Alerts:
    """Starts the command once for each event, in the background.

    The command gets the event in its environment: VLWM_RUN (path), VLWM_EVENT (a health sign's
    name, or stalled, silent, gone, done, stopped, failed) and VLWM_MESSAGE (one sentence).

    Args:
        command: a shell command, such as 'ntfy publish my-runs "$VLWM_MESSAGE"'.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self._reported: dict[str, set[str]] = {}
        self._running: list[subprocess.Popen[bytes]] = []

    def look(self, snapshot: Snapshot) -> None:
        """Start the command for every event of this snapshot that is new since the last one."""
        self._running = [p for p in self._running if p.poll() is None]
        now = _events(snapshot)
        run = str(snapshot.path)
        before = self._reported.get(run)
        # a run that was over long before the monitor was opened is not news
        old = snapshot.liveness in ("gone", "silent") and (snapshot.heartbeat_age_s or 0) > _OLD_S
        first_and_over = before is None and (snapshot.liveness == "ended" or old)
        for name, message in now.items():
            if not first_and_over and name not in (before or ()):
                self._start(run, name, message)
        self._reported[run] = set(now)

    def _start(self, run: str, event: str, message: str) -> None:
        words = {"VLWM_RUN": run, "VLWM_EVENT": event, "VLWM_MESSAGE": message}
        self._running.append(
            subprocess.Popen(
                self.command,
                shell=True,
                env={**os.environ, **words},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )


def _events(snapshot: Snapshot) -> dict[str, str]:
    """Return sentences by event."""
    where = f"{snapshot.path}: "
    found = {s.name: where + f"{s.message}; {s.remedy}".rstrip("; ") for s in worries(snapshot)}
    if snapshot.liveness == "ended":
        found[snapshot.status.state] = where + state_of(snapshot, ASCII).word
    elif snapshot.liveness not in _QUIET:
        found.setdefault(snapshot.liveness, where + state_of(snapshot, ASCII).word)
    return found
