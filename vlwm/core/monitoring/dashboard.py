"""The dashboard on the whole screen: follows runs until q or Ctrl-C; lines where no screen is.

Drawing and looking are apart: a background thread looks at files and driver (`sampler.py`), this
one waits for keys and draws. Only lines that changed are written. Leaving never touches a run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from rich.console import Console, ConsoleDimensions, RenderableType

from vlwm.core.monitoring.diagnosis import next_step
from vlwm.core.monitoring.export import to_line
from vlwm.core.monitoring.formatting import Glyphs
from vlwm.core.monitoring.layout import frame
from vlwm.core.monitoring.panels import Room
from vlwm.core.monitoring.sampler import Sampler
from vlwm.core.monitoring.screens import pages
from vlwm.core.monitoring.screens.alerts import Alerts
from vlwm.core.monitoring.screens.view import COMPARE, HELP, LINKS, LOG, RUNS, ZOOM, View
from vlwm.core.monitoring.snapshot import Snapshot
from vlwm.core.monitoring.terminal.keys import pressed_keys
from vlwm.core.monitoring.terminal.painter import Painter
from vlwm.core.run_folder import RunFolder
from vlwm.core.run_status import Status
from vlwm.core.signals import last_signal

SCREEN_PERIOD_S, LINES_PERIOD_S = 2.0, 10.0


def watch(
    folders: Sequence[RunFolder],
    console: Console,
    glyphs: Glyphs,
    period_s: float,
    alerts: Alerts | None = None,
    *,
    choose: bool = False,
) -> None:
    """Show runs on the whole screen until somebody leaves.

    Args:
        folders: run folders, at least one; the first is shown.
        console: a console on a terminal.
        glyphs: characters that the terminal shows.
        period_s: seconds between pictures.
        alerts: looks at every snapshot.
        choose: begin with the list of the runs, where there are several.
    """
    painter = Painter(_writer(), whole_screen=True)
    view = View(screen=RUNS) if choose and len(folders) > 1 else View()
    with (
        _leave_by_signal(),
        pressed_keys() as pressed,
        Sampler(folders, period_s) as sampler,
        _screen(painter),
    ):
        shown: list[Snapshot] = []
        while not view.left:
            size = console.size = _window_size(console)
            latest = sampler.latest()
            if alerts is not None:
                for snapshot in latest:
                    alerts.look(snapshot)
            if not view.paused or not shown:
                shown = latest
            lines = lines_of(console, picture(shown, view, *size, glyphs))
            if view.paused:
                lines = [*lines[: size.height - 1], "paused: p continues"[: size.width]]
            painter.paint(lines, size)
            view = _after_keys(view, pressed, period_s, console, size, len(folders))
            sampler.focus(view.run, (view.run + 1) % len(folders))


def _after_keys(
    view: View,
    pressed: Callable[[], list[str]],
    period_s: float,
    console: Console,
    size: ConsoleDimensions,
    runs: int,
) -> View:
    """Wait for the next picture's time, a key, or another window size; the view after it."""
    until = time.monotonic() + period_s
    while time.monotonic() < until and _window_size(console) == size:
        keys = pressed()
        for key in keys:
            view = view.pressed(key, runs)
        if keys:
            break
    return view


def picture(
    snapshots: Sequence[Snapshot], view: View, width: int, height: int, glyphs: Glyphs
) -> RenderableType:
    """Return what the screen shows."""
    room = Room(width, height, glyphs)
    snapshot = snapshots[view.run]
    if view.stage is not None and view.stage != snapshot.status.stage:
        status: Status = replace(snapshot.status, stage=view.stage)
        snapshot = replace(snapshot, status=status, earlier_stage=True)
    if view.screen == HELP:
        return pages.help_page(room, view.scroll)
    if view.screen == LINKS:
        return pages.links_page(snapshot, room)
    if view.screen == LOG:
        return pages.log_page(snapshot, view, room)
    if view.screen == RUNS:
        return pages.runs_page(snapshots, view.run, room)
    if view.screen == ZOOM:
        return pages.zoom_page(snapshot, view, room)
    if view.screen == COMPARE and len(snapshots) > 1:
        other = snapshots[(view.run + 1) % len(snapshots)]
        return pages.compare_page(snapshot, other, view, room)
    return frame(snapshot, width, height, glyphs)


def lines_of(console: Console, renderable: RenderableType) -> list[str]:
    """Return a picture as lines of text with ANSI colours."""
    with console.capture() as capture:
        console.print(renderable, crop=True, no_wrap=True, overflow="crop")
    return capture.get().rstrip("\n").split("\n")


def _writer() -> Callable[[str], object]:
    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    return write


@contextlib.contextmanager
def _screen(painter: Painter) -> Iterator[None]:
    painter.open()
    try:
        yield
    finally:
        painter.close()


def _window_size(console: Console) -> ConsoleDimensions:
    """Return the size of the window itself: a shell's COLUMNS and LINES do not follow a resize."""
    try:
        return ConsoleDimensions(*os.get_terminal_size(sys.stdout.fileno()))
    except (OSError, ValueError):
        return console.size


@contextlib.contextmanager
def _leave_by_signal() -> Iterator[None]:
    """Leave on Ctrl-C, and ignore Ctrl-Z, which would not give the terminal back."""
    before = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        yield
    except KeyboardInterrupt:
        if last_signal() not in (None, signal.SIGINT):  # Ctrl-C is a key of the view, as q is
            raise
    finally:
        signal.signal(signal.SIGTSTP, before)


def follow_in_lines(
    folder: RunFolder,
    write: Callable[[str], None],
    period_s: float,
    alerts: Alerts | None = None,
) -> None:
    """Write a line every `period_s` seconds until the run ends, for pipes and logs."""
    with Sampler([folder], min(period_s, 1.0)) as sampler:
        while True:
            snapshot = sampler.latest()[0]
            if alerts is not None:
                alerts.look(snapshot)
            write(to_line(snapshot))
            if snapshot.liveness in ("ended", "gone"):
                step = next_step(snapshot)
                if step:
                    write(f"next: {step}")
                return
            time.sleep(period_s)
