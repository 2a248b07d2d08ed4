"""Write, rotate and name the checkpoints of a run folder.

    last.pth      newest: by time, at each epoch's end, on signals
    epoch_N.pth   every `interval` epochs and at the end
    best.pth      lowest validation loss; in stage 1, highest IoU of the round trip
The three may be hard links to one file; each is replaced by rename, never written into.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from vlwm.core.config.schema import CheckpointConfig
from vlwm.core.errors import MachineError
from vlwm.core.files import atomic_path
from vlwm.core.model.checkpoint import load_checkpoint, save_checkpoint
from vlwm.core.run_folder import RunFolder

log = logging.getLogger("vlwm.training")


class Checkpointer:
    """Writes and prunes the checkpoints of one stage."""

    def __init__(self, folder: RunFolder, config: CheckpointConfig) -> None:
        self.folder = folder
        self.config = config

    def begin(self, content: dict[str, Any]) -> None:
        """Write the first checkpoint and read it back."""
        self.sweep()
        self.save_last(content)
        # read it back now: a disk that corrupts files must not show hours later
        load_checkpoint(self.folder.last)

    def sweep(self) -> None:
        """Remove what a killed process left half-written, and make room as far as is allowed."""
        for path in self.folder.path.glob(".*.pth.*.tmp"):
            path.unlink(missing_ok=True)
        self._prune()

    def save_last(self, content: dict[str, Any]) -> None:
        """Replace last.pth; keep the old one if this fails.

        Raises:
            MachineError: the disk is full or read-only.
        """
        try:
            save_checkpoint(self.folder.last, content)
            # pre-training is in the checkpoint now
            self.folder.opening.unlink(missing_ok=True)
        except MachineError as error:
            if self._could_prune() and _full(error.__cause__):
                error.remedy = f"{error.remedy}; --keep 2 keeps only the newest two epoch_*.pth"
            raise

    def _could_prune(self) -> bool:
        return self.config.max_keep_ckpts < 1 and len(self._periodic()) > 2

    def close_epoch(self, epoch: int, content: dict[str, Any], *, best: bool, end: bool) -> None:
        """Write last.pth, and link it under the other names that are due after `epoch` epochs."""
        self.save_last(content)
        if end or epoch % self.config.interval == 0:
            _second_name(self.folder.last, self.folder.epoch(epoch))
            self._prune()
        if best:
            _second_name(self.folder.last, self.folder.best)

    def _prune(self) -> None:
        """Keep the newest `max_keep_ckpts` periodic checkpoints; -1 keeps all."""
        if self.config.max_keep_ckpts < 1:
            return
        for path in self._periodic()[: -self.config.max_keep_ckpts]:
            path.unlink(missing_ok=True)
            log.info("removed %s (max_keep_ckpts)", path.name)

    def _periodic(self) -> list[Path]:
        """Return epoch_*.pth, oldest first."""
        return [p for p in self.folder.checkpoints() if p.name.startswith("epoch_")]


def _full(cause: BaseException | None) -> bool:
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


def _second_name(source: Path, target: Path) -> None:
    """Give a whole checkpoint another name, by hard link if the file system has them."""
    # atomic_path made an empty file: a hard link needs a free name
    with atomic_path(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:  # a file system without hard links; a full disk shows in the copy
            shutil.copyfile(source, temporary)
