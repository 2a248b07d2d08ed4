"""Write the metrics of a run to metrics.jsonl, TensorBoard and W&B, and its log file.

A checkpoint holds the byte offset of metrics.jsonl. Resuming from it cuts the file there and moves
the rest to metrics.lost.jsonl; TensorBoard purges the steps that will be written again.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

from vlwm.core.files import explain_os_error
from vlwm.core.run_folder import RunFolder

log = logging.getLogger("vlwm.training")


class Sink(Protocol):
    """Another receiver of every record, such as W&B."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Receive one record."""
        ...


class MetricLog:
    """Writes records of one stage.

    Args:
        folder: the stage's run folder.
        stage: whose log it is.
        sinks: further receivers of each record.
        writes: False for a process that leaves writing to another one.
    """

    def __init__(
        self, folder: RunFolder, stage: str, sinks: tuple[Sink, ...] = (), *, writes: bool = True
    ) -> None:
        self.folder = folder.create()
        self.writes = writes
        self.stage = stage
        self.sinks = sinks
        self._file = open(folder.metrics_jsonl, "ab")  # noqa: SIM115 - closed by close()
        self._board: SummaryWriter | None = None
        self._purge_step: int | None = None

    def write(self, kind: str, epoch: int, step: int, numbers: Mapping[str, float]) -> None:
        """Append a record; numbers that are not finite become null."""
        if not self.writes:
            return
        # JSON has no NaN: a reader in another language must be able to read every line
        finite = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
        head = {"time": round(time.time(), 3), "kind": kind, "stage": self.stage}
        record = {**head, "epoch": epoch, "step": step, **finite}
        try:
            # a whole line in one write, so that a reader never sees half of a record
            self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            self._file.flush()
            self._to_board(step, finite)
        except OSError as error:
            raise explain_os_error(error, self.folder.metrics_jsonl) from error
        for sink in self.sinks:
            sink.write(record)

    def _to_board(self, step: int, numbers: Mapping[str, float | None]) -> None:
        if self._board is None:
            # only when there is a number: an empty event file hides those before it
            self._board = SummaryWriter(str(self.folder.logs), purge_step=self._purge_step)
        for name, value in numbers.items():
            if value is not None:
                self._board.add_scalar(name, value, step)

    def offset(self) -> int:
        """Return the bytes of metrics.jsonl that are on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self.folder.metrics_jsonl.stat().st_size

    def rewind(self, offset: int, step: int) -> None:
        """Cut the file at `offset`; move the rest to metrics.lost.jsonl."""
        if not self.writes:
            return
        path = self.folder.metrics_jsonl
        self._file.close()
        # nothing is deleted: an operator may want to see why the run was rolled back
        lost = path.read_bytes()[offset:]
        if lost:
            with open(path.with_name("metrics.lost.jsonl"), "ab") as handle:
                handle.write(lost)
            os.truncate(path, offset)
        self._file = open(path, "ab")  # noqa: SIM115 - closed by close()
        if self._board is not None:
            self._board.close()
            self._board = None
        self._purge_step = step + 1

    def close(self) -> None:
        """Flush and close every file."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def open_log_file(folder: Path) -> logging.Handler:
    """Start train_YYYYMMDD_HHMMSS.log in `folder`; every log message of vlwm goes there."""
    path = folder / time.strftime("train_%Y%m%d_%H%M%S.log")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("vlwm")
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    return handler


def close_log_file(handler: logging.Handler) -> None:
    """Undo `open_log_file`."""
    logging.getLogger("vlwm").removeHandler(handler)
    handler.close()
