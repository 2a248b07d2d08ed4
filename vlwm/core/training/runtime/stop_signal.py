"""Signals as a flag that the training loop asks for, so that a checkpoint can be written first.

The first signal raises the flag and is answered at once; a second one ends the process and its
loader workers without a checkpoint, reports it, and leaves no temporary file.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vlwm.core.errors import InterruptedRunError, StoppedError, VlwmError
from vlwm.core.signals import SignalListener, StopRequested, leave_at_once

__all__ = ["GRACE_S", "LAUNCHED", "StopRequested", "StopSignal"]

GRACE_S = 3.0
LAUNCHED = "VLWM_LAUNCHED"
"""environment variable of ranks that our own launcher started: the launcher answers for them"""
_ANSWER = "stopping: writing a checkpoint ... (Ctrl-C again leaves without it)"
_LAST_WORDS = "vlwm: ended at once, without a new checkpoint; the last one written is kept"


class StopSignal(SignalListener):
    """Context manager that turns the first signal into `received`.

    Attributes:
        received: the signal's number.
        repeat_s: a second signal counts only this long after the first.
        last_act: called before a second signal ends the process, such as to write its status.
    """

    def __init__(self) -> None:
        super().__init__()
        answers = os.environ.get("RANK", "0") == "0" and LAUNCHED not in os.environ
        self.answer = _ANSWER if answers else None
        self.last_words = _LAST_WORDS
        self.last_act: Callable[[int], None] | None = None
        self._leave: Callable[[], None] | None = None

    def __enter__(self) -> StopSignal:
        super().__enter__()
        return self

    def first(self) -> None:
        """Give work that never asks for a signal `GRACE_S` seconds to end."""
        # work inside one long call, such as compilation, never asks for the flag
        timer = threading.Timer(GRACE_S, self._leave_now)
        timer.daemon = True
        timer.start()

    def again(self, number: int) -> None:
        """End the process and its workers without a checkpoint."""
        if self.last_act is not None:
            self.last_act(128 + number)
        leave_at_once(128 + number, self.last_words)

    @contextmanager
    def leaving_at_once(self, leave: Callable[[], None]) -> Iterator[None]:
        """Surround long work that would lose nothing and never asks, such as compilation.

        Args:
            leave: ends the process, on another thread, where the work takes longer than `GRACE_S`
                after a signal.

        Raises:
            StopRequested: a signal has come before.
        """
        # a signal that came before this block is answered by the caller
        if self:
            raise StopRequested
        self._leave = leave
        try:
            yield
        finally:
            self._leave = None

    def _leave_now(self) -> None:
        if self._leave is not None:
            self._leave()

    def __bool__(self) -> bool:
        return self.received is not None

    def error(self, command: str) -> VlwmError:
        """Return what the run ends with once its checkpoint is written; `command` resumes it."""
        remedy = f"resume with: {command}"
        if self.received == signal.SIGINT:
            return InterruptedRunError("interrupted; progress is saved", remedy=remedy)
        return StoppedError("stopped by a signal; progress is saved", remedy=remedy)
