"""The live view of `vlwm train`: the dashboard's panels below what was printed before.

A thread draws from the run folder, as `vlwm monitor` does, so the view costs the training loop no
more than a few milliseconds every two seconds. Lines that other code prints meanwhile go above the
picture and stay; the last picture stays too, so that the scrollback tells how the run ended. No
alternate screen is used.
"""

from __future__ import annotations

import collections
import io
import os
import sys
import threading
from typing import TextIO

from rich.console import Console

from vlwm.core.monitoring.dashboard import lines_of
from vlwm.core.monitoring.formatting import Glyphs
from vlwm.core.monitoring.layout import frame
from vlwm.core.monitoring.sampler import Sampler
from vlwm.core.monitoring.terminal.painter import Painter
from vlwm.core.run_folder import RunFolder
from vlwm.core.signals import speaking_through

PERIOD_S = 2.0
_FIRST_S = 0.5  # the first pictures come faster: much changes while a run starts
_QUICK = 10  # pictures that count as first
_LONG_S = 0.3  # a picture takes a few milliseconds
_LEAST = (20, 8)  # columns and lines of the smallest terminal that gets a picture


class LiveView:
    """Context manager: draws while its body runs.

    Args:
        folder: the run folder; it need not exist yet.
        stream: the terminal.
        glyphs: characters that it shows.
        period_s: seconds between pictures.
    """

    def __init__(
        self, folder: RunFolder, stream: TextIO, glyphs: Glyphs, period_s: float = PERIOD_S
    ) -> None:
        self._stream = stream
        self._glyphs = glyphs
        self._period_s = period_s
        self._console = Console(file=io.StringIO(), force_terminal=True, highlight=False)
        self._sampler = Sampler([folder], period_s)
        self._painter = Painter(self._write, whole_screen=False)
        self._pending: collections.deque[str] = collections.deque()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._drawing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="live view", daemon=True)
        self._streams: tuple[TextIO, TextIO] | None = None

    def __enter__(self) -> LiveView:
        self._streams = (sys.stdout, sys.stderr)
        self._painter.open()
        self.draw()
        sys.stdout, sys.stderr = (_Above(self, s) for s in self._streams)
        self._sampler.__enter__()
        self._thread.start()
        self._speaking = speaking_through(self.say_now)
        self._speaking.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._speaking.__exit__(None, None, None)
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=2.0)
        self._sampler.look()
        self._sampler.__exit__()
        if self._streams is not None:
            sys.stdout, sys.stderr = self._streams
        self.draw()
        self._painter.close()

    def say(self, text: str) -> None:
        """Print text above the picture; safe in a signal handler."""
        self._pending.append(text)
        self._wake.set()

    def say_now(self, text: str) -> bool:
        """Print text above the picture before this returns; False where drawing takes too long."""
        self._pending.append(text)
        if not self._drawing.acquire(timeout=_LONG_S):
            self._pending.remove(text)
            return False
        try:
            while self._pending:
                self._painter.above(self._pending.popleft())
        finally:
            self._drawing.release()
        return True

    def draw(self) -> None:
        """Print what waits, then the newest picture."""
        with self._drawing:
            size = self._size()
            while self._pending:
                self._painter.above(self._pending.popleft())
            if size[0] < _LEAST[0] or size[1] < _LEAST[1]:
                return
            width, height = size[0] - 1, size[1] - 2  # the last column wraps on some terminals
            self._console.width = width
            snapshot = self._sampler.latest()[0]
            picture = frame(snapshot, width, height, self._glyphs, keys=False)
            self._painter.paint(lines_of(self._console, picture), size)

    def _run(self) -> None:
        drawn = 0
        while not self._stop.is_set():
            period_s = min(_FIRST_S, self._period_s) if drawn < _QUICK else self._period_s
            self._wake.wait(period_s)
            self._wake.clear()
            self.draw()
            drawn += 1

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return 80, 24
        return size.columns, size.lines

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class _Above(io.TextIOBase):
    """Replace stdout or stderr: whole lines go above the picture.

    A forked child has no thread that draws: its lines go to the stream itself.
    """

    def __init__(self, view: LiveView, stream: TextIO) -> None:
        super().__init__()
        self._view, self._stream = view, stream
        self._owner = os.getpid()
        self._rest = ""

    def write(self, text: str) -> int:
        if os.getpid() != self._owner:
            return self._stream.write(text)
        whole, newline, self._rest = (self._rest + text).rpartition("\n")
        if newline:
            self._view.say(whole)
        return len(text)

    def flush(self) -> None:
        if os.getpid() != self._owner:
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute in the base class
        return self._stream.encoding

    def writable(self) -> bool:
        return True
