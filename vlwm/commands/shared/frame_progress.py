"""Show how many frames are made: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vlwm.commands.shared.output import console, note
from vlwm.core.text import span, time_of_day

if TYPE_CHECKING:
    from vlwm.core.data.generation.prepare import OnFrames


@contextmanager
def frame_progress(total: int) -> Iterator[OnFrames]:
    """Show a bar with rate and ETA on a terminal; plain lines at a steady pace elsewhere."""
    if sys.stderr.isatty():
        with _bar(total) as report:
            yield report
    else:
        yield LineProgress(total)


@contextmanager
def _bar(total: int) -> Iterator[OnFrames]:
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[rate]}"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console(stderr=True)) as live:
        task = live.add_task("planning routes", total=total, rate="")
        there: dict[str, int] = {}

        def report(session: str, done: int, frames: int) -> None:
            there[session] = done
            speed = live.tasks[task].speed
            rate = f"{speed:.0f} frames/s" if speed else ""
            made = sum(there.values())
            what = session if made < total else "packing and checking"
            live.update(task, completed=made, description=what, rate=rate)

        yield report


class LineProgress:
    """One line every few seconds, for logs and pipes."""

    def __init__(self, total: int, every_s: float = 10.0) -> None:
        self.total, self.every_s = total, every_s
        self.started = self.last = time.monotonic()
        self.first: int | None = None  # frames from which the rate counts
        self.warm = False
        self.there: dict[str, int] = {}
        note("planning routes ...")

    def __call__(self, session: str, done: int, frames: int) -> None:
        self.there[session] = done
        now, made = time.monotonic(), sum(self.there.values())
        if self.first is None or (made > self.first and not self.warm):
            # Neither frames of an earlier process count towards the rate nor the first one of
            # this process, which compiles.
            self.warm = self.first is not None
            self.first, self.started = made, now
        if made == self.total:
            note(f"{made} of {self.total} frames; packing and checking ...")
        elif now - self.last >= self.every_s:
            self.last = now
            rate = (made - self.first) / max(now - self.started, 1e-9)
            pace = ""
            if made > self.first:  # no rate or time until there is one
                left_s = (self.total - made) / rate
                ends = time_of_day(time.time() + left_s, "%a %H:%M")
                pace = f", {rate:.2g}/s, {span(left_s)} left, ends {ends}"
            note(f"{session}: {made} of {self.total} frames{pace}")
