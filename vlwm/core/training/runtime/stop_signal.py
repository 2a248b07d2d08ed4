"""SIGTERM and Ctrl-C as a flag that the loop asks for, so that a checkpoint can be written first.

The first signal only raises the flag; a second one, a moment later, ends the process
at once. (Launchers often send the same signal twice, to the process and to its group.) A thread
listens on Python's wake-up pipe, so both work while the main thread is inside a long operation.
Forked children take no part: stopping them is their parent's business.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from vlwm.core.errors import InterruptedRunError, StoppedError, VlwmError

GRACE_S = 3.0
_WATCHED = (signal.SIGTERM, signal.SIGINT)
_listening: list[int] = []  # wake-up pipes of this process


class StopRequested(Exception):
    """A signal has come; raised by the loop where the run can be left."""


class StopSignal:
    """Context manager that turns the first SIGTERM or SIGINT into `received`.

    Attributes:
        received: the signal's number.
        patience_s: a second signal counts only this long after the first.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.patience_s = 0.2
        self._since_s = 0.0
        self._leave: Callable[[], None] | None = None
        self._before: dict[int, Any] = {}
        self._write = self._old_pipe = -1

    def __enter__(self) -> StopSignal:
        read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._old_pipe = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        _listening.append(self._write)
        for number in _WATCHED:
            self._before[number] = signal.signal(number, _carry_on)
        threading.Thread(target=self._listen, args=(read,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_pipe)
        _listening.remove(self._write)
        os.close(self._write)

    def _listen(self, read: int) -> None:
        while byte := os.read(read, 1):
            if byte[0] in _WATCHED:
                self._note(byte[0])
        os.close(read)

    def _note(self, number: int) -> None:
        if self.received is None:
            self.received, self._since_s = number, time.monotonic()
            timer = threading.Timer(GRACE_S, self._leave_now)
            timer.daemon = True
            timer.start()
        elif time.monotonic() - self._since_s > self.patience_s:
            os._exit(128 + number)

    @contextmanager
    def leaving_at_once(self, leave: Callable[[], None]) -> Iterator[None]:
        """Long work that would lose nothing, such as compilation, which never asks for a signal.

        Args:
            leave: ends the process, on another thread, where the work goes on for `GRACE_S`
                after a signal.

        Raises:
            StopRequested: a signal has come before.
        """
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
        """What the run ends with once its checkpoint is written; `command` goes on with it."""
        remedy = f"go on with: {command}"
        if self.received == signal.SIGINT:
            return InterruptedRunError("interrupted, all that was done is kept", remedy=remedy)
        return StoppedError("stopped by a signal, all that was done is kept", remedy=remedy)


def _carry_on(number: int, frame: FrameType | None) -> None:
    """The listening thread does the rest."""


def _leave_the_pipe_to_the_parent() -> None:
    if _listening:
        signal.set_wakeup_fd(-1)
        _listening.clear()


os.register_at_fork(after_in_child=_leave_the_pipe_to_the_parent)
