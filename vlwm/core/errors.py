"""Every error an operator can meet, and the exit code each one ends the command with.

    VlwmError                 1   the work was started and failed
    ├── UsageError            2   the command line or a config is wrong
    │   └── ConfigError       2
    ├── MachineError          3   this machine cannot do it (driver, disk, memory)
    ├── DataError             4   data or weights are missing or damaged
    │   └── CheckpointError   4
    ├── TrainingError         1   training cannot continue (diverged, out of memory at the end)
    ├── StoppedError         75   a signal stopped the run after a checkpoint was written
    └── InterruptedRunError 130   Ctrl-C stopped the run after a checkpoint was written

An error is one sentence: what happened, where, and what to type next. Anything that is not a
`VlwmError` is a bug and is reported as one by `vlwm.cli`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from vlwm.core.text import safe_lines


class VlwmError(Exception):
    """Base of all errors: what happened, where, and the remedy, as one sentence for the operator.

    Args:
        what: what happened, without a final full stop.
        where: the file, folder, key or option it concerns.
        remedy: what to do or type next.
    """

    exit_code = 1

    def __init__(
        self, what: str, *, where: str | Path | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.remedy = remedy

    def __str__(self) -> str:
        sentence = self.what if self.where is None else f"{self.what} ({self.where})"
        return safe_lines(sentence if self.remedy is None else f"{sentence}: {self.remedy}")


class UsageError(VlwmError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file, key or value is wrong."""


class MachineError(VlwmError):
    """This machine cannot do what was asked."""

    exit_code = 3


class DataError(VlwmError):
    """Data or weights are missing or damaged."""

    exit_code = 4


class CheckpointError(DataError):
    """A checkpoint is damaged, foreign, or does not fit the model."""


class TrainingError(VlwmError):
    """Training cannot continue."""


class StoppedError(VlwmError):
    """A signal stopped the run after a checkpoint was written; the same command resumes it."""

    exit_code = 75


class InterruptedRunError(VlwmError):
    """Ctrl-C stopped the run after a checkpoint was written; the same command resumes it."""

    exit_code = 130


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like `word`, or None where nothing is near."""
    words = list(known)
    matches = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    turned = [w for w in words if sorted(w) == sorted(word)]  # `rl` for `lr`: too short to be near
    return next(iter(matches or turned), None)
