"""Copy a run folder to a store while training runs.

A thread looks at the run folder every few seconds and copies it when a checkpoint is new, so
training waits for nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlwm.core.errors import VlwmError
from vlwm.core.store.backup import Backup
from vlwm.core.store.backup_signs import SignsSender

log = logging.getLogger("vlwm.training")

_LOOK_S = 2.0
"""between two looks at the run folder"""


@contextmanager
def backed_up(folder: Path, url: str | None) -> Iterator[None]:
    """Copy a run folder to a store while the block runs, and once more at its end.

    A store that does not answer is a warning while the block runs. After a block without an error
    the last copy has to succeed.

    Raises:
        VlwmError: the copy at the end failed.
    """
    if url is None:
        yield
        return
    backup, stop = Backup(folder, url), threading.Event()
    signs = SignsSender(folder, backup.store)
    thread = threading.Thread(target=_watch, args=(backup, signs, stop), daemon=True)
    thread.start()
    failed = True
    try:
        yield
        failed = False
    finally:
        stop.set()
        thread.join()
        try:
            backup.copy_if_new()
            if not failed:
                backup.copy()  # scores and status of the end
            signs.send(float("inf"))
        except VlwmError as error:
            if not failed:
                raise
            log.warning("backup: %s", error)


def _watch(backup: Backup, signs: SignsSender, stop: threading.Event) -> None:
    """Copy whenever a checkpoint is new; a fault is a warning and is tried again."""
    while not stop.wait(_LOOK_S):
        try:
            signs.send()
            if backup.copy_if_new():
                log.info("backup: the newest checkpoint is copied and read back")
        except (VlwmError, OSError) as error:
            log.warning("backup: %s", error)
