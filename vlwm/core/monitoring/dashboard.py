"""The live dashboard: a full screen that follows a run until q or Ctrl-C; lines where no screen is.

Drawing and looking are apart: a background thread looks at files and driver (`sampler.py`), this
one waits for keys and draws. Leaving never touches the run.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console, ConsoleDimensions
from rich.live import Live

from vlwm.core.monitoring.diagnosis import next_step
from vlwm.core.monitoring.export import to_line
from vlwm.core.monitoring.formatting import Glyphs
from vlwm.core.monitoring.layout import frame
from vlwm.core.monitoring.sampler import Sampler
from vlwm.core.run_folder import RunFolder

SCREEN_PERIOD_S, LINES_PERIOD_S = 1.0, 10.0
_KEY_WAIT_S = 0.1


def watch(folder: RunFolder, console: Console, glyphs: Glyphs, period_s: float) -> None:
    """Show the run on the whole screen until somebody leaves.

    Args:
        folder: the run folder.
        console: a console on a terminal.
        glyphs: characters that the terminal shows.
        period_s: seconds between pictures.
    """
    with (
        _gentle_signals(),
        _keys() as pressed,
        Sampler(folder, period_s) as sampler,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            console.size = size = _window_size(console)
            live.update(frame(sampler.latest(), *size, glyphs), refresh=True)
            until = time.monotonic() + period_s
            while time.monotonic() < until and _window_size(console) == size:
                if "q" in pressed().lower():
                    return


def _window_size(console: Console) -> ConsoleDimensions:
    """Of the window itself: COLUMNS and LINES of a shell do not follow when it is resized."""
    try:
        return ConsoleDimensions(*os.get_terminal_size(sys.stdout.fileno()))
    except (OSError, ValueError):
        return console.size


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """A function that waits a moment and returns the keys pressed, without Enter and echo."""
    if not sys.stdin.isatty():
        yield _no_keys
        return
    import termios
    import tty

    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    tty.setcbreak(handle)
    try:
        yield lambda: _read_keys(handle)
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def _no_keys() -> str:
    time.sleep(_KEY_WAIT_S)
    return ""


def _read_keys(handle: int) -> str:
    ready, _, _ = select.select([handle], [], [], _KEY_WAIT_S)
    if not ready:
        return ""
    typed = os.read(handle, 64)
    if not typed:  # the terminal went away
        return "q"
    return typed.decode(errors="replace")


@contextlib.contextmanager
def _gentle_signals() -> Iterator[None]:
    """Leave the screen as it was when the terminal closes or somebody ends the process."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def follow_in_lines(folder: RunFolder, write: Callable[[str], None], period_s: float) -> None:
    """A line every `period_s` seconds until the run ends, for pipes and logs."""
    with contextlib.suppress(KeyboardInterrupt), Sampler(folder, min(period_s, 1.0)) as sampler:
        while True:
            snapshot = sampler.latest()
            write(to_line(snapshot))
            if snapshot.liveness in ("ended", "gone"):
                step = next_step(snapshot)
                if step:
                    write(f"next: {step}")
                return
            time.sleep(period_s)
