"""status.json: what the run is doing now, for the dashboard and for foreign launchers.

The heart beats from the loop itself, not from a thread: a beat means that work progressed.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import Any

from vlwm.core.run_folder import RunFolder
from vlwm.core.run_status import FIELDS, Status
from vlwm.core.training.telemetry.progress_lines import ProgressLines
from vlwm.core.training.telemetry.run_plan import RunPlan
from vlwm.core.vocabulary import Phase

log = logging.getLogger("vlwm.training")

_PERIOD_S = 1.0


class StatusWriter:
    """Holds the status of a run and writes it by rename, at most once a second.

    Args:
        folder: the run folder (the root one, in both stages).
        writes: False for a process that leaves writing to another one.
        plan: the parts of the whole run; adds `plan` and `eta_run_s` to each status, and lines
            of progress to the log.
        fields: what stays the same: device, config name, work_dir.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        writes: bool = True,
        plan: RunPlan | None = None,
        **fields: object,
    ) -> None:
        self.folder = folder
        self.writes = writes
        self.plan = plan
        self._lines = ProgressLines()
        now = time.time()
        first = Status(
            state="running",
            phase=Phase.START,
            pid=os.getpid(),
            host=socket.gethostname(),
            started=now,
            heartbeat=now,
        )
        self.values: dict[str, Any] = first.to_dict()
        """status.json, by the names of `Status`"""
        self._change(fields)
        self.copy: RunFolder | None = None
        """the stage's own folder, which holds the same tree"""
        self._written = 0.0

    def update(self, **fields: object) -> None:
        """Change fields and write at once.

        Raises:
            TypeError: `Status` has no such field.
        """
        self._change(fields)
        self._write()

    def beat(self, **fields: object) -> None:
        """Change fields; write if the last write is a second ago."""
        self._change(fields)
        if time.monotonic() - self._written >= _PERIOD_S:
            self._write()

    def _change(self, fields: dict[str, Any]) -> None:
        unknown = fields.keys() - FIELDS
        if unknown:  # else the dashboard would never show it
            raise TypeError(f"status.json has no field {', '.join(sorted(unknown))}")
        self.values.update(fields)

    def _write(self) -> None:
        if not self.writes:
            return
        self.values["heartbeat"] = time.time()
        # the plan sees each status before it is written, and adds its estimate
        if self.plan is not None:
            self.plan.observe(self.values)
            self.values |= self.plan.values()
            line = self._lines.due(self.values)
            if line is not None:
                log.info("%s", line)
        self.folder.write_status(self.values)
        if self.copy is not None:
            self.copy.write_status(self.values)
        self._written = time.monotonic()
