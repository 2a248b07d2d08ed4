"""SIGTERM and Ctrl-C as a flag that the loop asks for, so that a checkpoint can be written first.

The first signal only raises the flag; a second one ends the process at once, as it would have
without us. The handlers stand from the start of a run to its end, in every phase of it.
"""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any

from vlwm.core.errors import InterruptedRunError, StoppedError, VlwmError

_WATCHED = (signal.SIGTERM, signal.SIGINT)


class StopRequested(Exception):
    """A signal has come; raised by the loop where the run can be left."""


class StopSignal:
    """Context manager that turns the first SIGTERM or SIGINT into `received`."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._owner = os.getpid()

    def __enter__(self) -> StopSignal:
        for number in _WATCHED:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if os.getpid() == self._owner:  # a loader's worker leaves the stopping to its parent
            for each in _WATCHED:
                signal.signal(each, signal.SIG_DFL)

    def __bool__(self) -> bool:
        return self.received is not None

    def error(self, command: str) -> VlwmError:
        """What the run ends with once its checkpoint is written; `command` goes on with it."""
        remedy = f"go on with: {command}"
        if self.received == signal.SIGINT:
            return InterruptedRunError("interrupted, all that was done is kept", remedy=remedy)
        return StoppedError("stopped by a signal, all that was done is kept", remedy=remedy)
