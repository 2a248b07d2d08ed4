"""Signals that stop a command: an answer at once, an orderly end; a second one ends at once.

`Stoppable` surrounds every command: the first SIGINT, SIGTERM, SIGHUP or SIGQUIT raises
`KeyboardInterrupt` in the main thread, so that context managers remove what is temporary, and
`vlwm.cli` turns it into one sentence and an exit code. `SignalListener` is the common part; `train`
has its own (`training/runtime/stop_signal.py`), which writes a checkpoint instead.

A thread listens on Python's wake-up pipe, so that the answer and the second signal work while the
main thread is inside a long operation. Signals that were ignored at the start (nohup) stay ignored.
Forked children take no part: their parent stops them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import TypeAlias, TypeVar

from vlwm.core.files import remove_own_files

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
STOPPED, INTERRUPTED = 75, 130
_REPEAT_S = 0.2
_SHOW_CURSOR = b"\x1b[?25h"
_listening: list[int] = []  # wake-up pipes of this process
_received: list[int] = []  # signals of this process, in order

Handler: TypeAlias = Callable[[int, FrameType | None], object] | int | None
"""what the interpreter does on a signal"""
Listener = TypeVar("Listener", bound="SignalListener")


class StopRequested(Exception):
    """A signal has come; raised where the work can be left."""


def last_signal() -> int | None:
    """Return the first signal that stopped this process, or None."""
    return _received[0] if _received else None


def exit_code(number: int | None) -> int:
    """Return 130 after Ctrl-C, 75 after every other signal."""
    return INTERRUPTED if number in (signal.SIGINT, None) else STOPPED


class SignalListener:
    """Context manager that notices the first and the second signal.

    Attributes:
        received: the number of the first signal.
        repeat_s: a second signal counts only this long after the first: launchers often send the
            same one twice, to the process and to its group.
        answer: sentence that is printed at once; None prints nothing.
        last_words: sentence that is printed when the second signal ends the process.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.repeat_s = _REPEAT_S
        self.answer: str | None = "stopping ... (Ctrl-C again ends at once)"
        self.last_words = "vlwm: ended at once by a second signal"
        self._heard = threading.Event()
        self._since_s = 0.0
        self._ending = False
        self._before: dict[int, Handler] = {}
        self._write = self._old_pipe = -1

    def __enter__(self: Listener) -> Listener:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may take signals
        read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._old_pipe = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        _listening.append(self._write)
        for number in STOPPING:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self.handle)
        threading.Thread(target=self._listen, args=(read,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.yield_to_the_end()
        if self._write < 0:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_pipe)
        with suppress(ValueError):
            _listening.remove(self._write)
        os.close(self._write)
        self._write = -1

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Run in the main thread for every signal; the listening thread does the rest."""

    def _listen(self, read: int) -> None:
        while byte := os.read(read, 1):
            if byte[0] in self._before:
                self._note(byte[0])
        os.close(read)

    def _note(self, number: int) -> None:
        if self.received is None:
            self.received, self._since_s = number, time.monotonic()
            _received.append(number)
            if self.answer is not None:
                say(self.answer)
            self._heard.set()
            self.first()
        elif time.monotonic() - self._since_s > self.repeat_s and not self._ending:
            self._ending = True
            self.again(number)

    def leave_with(self, code: int) -> None:
        """Let a further signal end the process with `code`: its last line is already printed.

        In place of the system's own handlers, which would end it with another code or a traceback.
        """

        def leave(number: int, frame: FrameType | None) -> None:
            os._exit(code)

        own = (signal.SIG_DFL, signal.default_int_handler)
        self._before = {n: leave if b in own else b for n, b in self._before.items()}

    def yield_to_the_end(self) -> None:
        """Leave the last word to the listening thread, where it is ending the process."""
        if self._ending:
            time.sleep(60.0)

    def first(self) -> None:
        """Act on the first signal, on the listening thread."""

    def again(self, number: int) -> None:
        """End the process: its children, its temporary files and its locks go first."""
        leave_at_once(128 + number, self.last_words)


class Stoppable(SignalListener):
    """Turns the first signal into `KeyboardInterrupt`, for commands other than `train`."""

    def __init__(self) -> None:
        super().__init__()
        self._raised = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise `KeyboardInterrupt` once: what it unwinds is not interrupted a second time."""
        if not self._raised:
            self._raised = True
            self._heard.wait(1.0)  # the listening thread answers first, and notes the number
            raise KeyboardInterrupt


_speakers: list[Callable[[str], bool]] = []  # who owns the terminal now, the newest last


@contextmanager
def speaking_through(speaker: Callable[[str], bool]) -> Iterator[None]:
    """Hand the lines of `say` to what draws on the terminal, which would be torn by them.

    Args:
        speaker: prints a line, from any thread; returns False where it cannot now.
    """
    _speakers.append(speaker)
    try:
        yield
    finally:
        _speakers.remove(speaker)


def say(text: str) -> None:
    """Write a line to stderr from any thread, also where the terminal is gone."""
    with suppress(OSError, ValueError):
        if _speakers and _speakers[-1](text):
            return
    with suppress(OSError):
        os.write(2, f"{text}\n".encode(sys.stderr.encoding or "ascii", "replace"))


def leave_at_once(code: int, words: str) -> None:
    """End this process and its workers now, from any thread."""
    end_children()
    remove_own_files()
    with suppress(OSError, ValueError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)
    say(words)
    os._exit(code)


def end_children(grace_s: float = 0.5) -> None:
    """Ask worker processes to end, and kill those that do not within `grace_s` seconds."""
    if "multiprocessing" not in sys.modules:
        return
    from multiprocessing import active_children

    children = active_children()
    for child in children:
        child.terminate()
    until = time.monotonic() + grace_s
    while any(child.is_alive() for child in children) and time.monotonic() < until:
        time.sleep(0.02)
    for child in children:
        if child.is_alive():
            child.kill()


def kill_tree(pid: int) -> None:
    """Kill a process and all that it started, found through /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        waiting += children.get(one, [])
        with suppress(OSError):
            os.kill(one, signal.SIGKILL)


def as_a_worker() -> None:
    """Set a forked worker's signals: the terminal's go to its parent, SIGTERM ends it in order."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_worker)


def _end_worker(number: int, frame: FrameType | None) -> None:
    remove_own_files()
    os._exit(128 + number)


def _leave_the_pipe_to_the_parent() -> None:
    if _listening:
        signal.set_wakeup_fd(-1)
        _listening.clear()


os.register_at_fork(after_in_child=_leave_the_pipe_to_the_parent)
