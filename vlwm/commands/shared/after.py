"""Options of `vlwm train` about the machine: backups during a run, and commands after it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

_PANEL = "The machine"

BackupUrl = Annotated[
    str | None,
    typer.Option(
        "--backup",
        metavar="URL",
        help="Copy each new checkpoint to file://, s3:// or ssh://; with --resume, fetch the "
        "newest copy into an empty --work-dir first.",
        rich_help_panel=_PANEL,
    ),
]
WhenDone = Annotated[
    str | None,
    typer.Option(
        "--when-done",
        metavar="COMMAND",
        help="Run this after the run has ended well.",
        rich_help_panel=_PANEL,
    ),
]
StopInstance = Annotated[
    bool,
    typer.Option(
        "--stop-instance",
        help="Stop this rented machine after the run has ended well (Vast.ai, RunPod, Lambda).",
        rich_help_panel=_PANEL,
    ),
]


@dataclass(frozen=True)
class After:
    """Steps that the options add around training.

    Attributes:
        backup: URL of a store; None: no copies.
        when_done: shell command; None: none.
        stop: stop the rented machine.
    """

    backup: str | None
    when_done: str | None
    stop: bool

    def check(self, work_dir: Path) -> None:
        """Refuse what could not be done after the run.

        Raises:
            UsageError: an unknown store, or a machine that cannot be stopped.
        """
        from vlwm.core.store.objects import open_store

        if self.backup is not None:
            open_store(self.backup)
        if self.stop:
            from vlwm.core.cloud.stop_instance import refuse_stop

            refuse_stop(_provider(), work_dir, backed_up=self.backup is not None)

    def fetch(self, work_dir: Path) -> None:
        """Bring the newest copy into a work folder that holds no run."""
        from vlwm.commands.shared.output import note
        from vlwm.core.run_folder import RunFolder
        from vlwm.core.store.backup import restore

        if self.backup is None or not _is_lead() or RunFolder(work_dir).holds_a_run():
            return
        files = restore(self.backup, work_dir)
        note(f"{files} files of the run came from {self.backup}")

    @contextmanager
    def around(self, work_dir: Path) -> Iterator[None]:
        """Copy checkpoints while the block runs; after it has ended well, do what was asked."""
        from vlwm.core.store.backup_thread import backed_up

        with backed_up(work_dir, self.backup if _is_lead() else None):
            yield
        if _is_lead():
            self._done()

    def _done(self) -> None:
        from vlwm.commands.shared.output import note
        from vlwm.core.errors import MachineError

        if self.when_done is not None:
            code = subprocess.run(self.when_done, shell=True, check=False).returncode
            if code:
                raise MachineError(
                    f"the command of --when-done ended with {code}",
                    where=self.when_done,
                    remedy="the run itself is finished; run that command by hand",
                )
        if self.stop:
            from vlwm.core.cloud.stop_instance import stop_instance

            note(stop_instance(_provider()))


def _is_lead() -> bool:
    """Return True in the only process of a run, or in the first of several."""
    return os.environ.get("RANK", "0") == "0"


def _provider() -> str:
    from vlwm.core.cloud.provider import detect
    from vlwm.core.hardware.machine import Machine

    return detect(Machine()).name
