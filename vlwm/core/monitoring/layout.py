"""Put the parts together for the size of the terminal.

wide      from 110 x 32    panels in rows
compact   from 60 x 16     made for 80 x 24: two curves, everything else in lines
small     below            lines only
"""

from __future__ import annotations

import re

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vlwm.core.monitoring import machine_panel, panels, plots
from vlwm.core.monitoring.diagnosis import worries
from vlwm.core.monitoring.formatting import Glyphs, clean
from vlwm.core.monitoring.panels import Room, packed
from vlwm.core.monitoring.snapshot import Snapshot

_WIDE, _COMPACT = (110, 32), (60, 16)


def frame(
    snapshot: Snapshot, width: int, height: int, glyphs: Glyphs, *, keys: bool = True
) -> RenderableType:
    """Return one picture of the run.

    Args:
        snapshot: what to show.
        width, height: the terminal, characters.
        glyphs: characters that it can show.
        keys: somebody can press keys.
    """
    room = Room(width, height, glyphs)
    if width >= _WIDE[0] and height >= _WIDE[1]:
        return _wide(snapshot, room, keys)
    if width >= _COMPACT[0] and height >= _COMPACT[1]:
        return _compact(snapshot, room, keys)
    return _small(snapshot, room, keys)


def boxed(title: Text | str, lines: list[Text], room: Room) -> Panel:
    """Return lines in a frame of exactly the room's size."""
    style = box.ASCII if room.glyphs.ascii_only else box.ROUNDED
    return Panel(
        Group(*lines[: room.height - 2]),
        title=title,
        title_align="left",
        box=style,
        border_style="grey42",
        padding=(0, 1),
        width=room.width,
        height=room.height,
    )


def _inside(room: Room) -> Room:
    return Room(room.width - 4, room.height - 2, room.glyphs)


def _split(width: int, *shares: int) -> list[int]:
    """Return widths in proportion to shares, together `width`."""
    widths = [width * share // sum(shares) for share in shares]
    widths[-1] += width - sum(widths)
    return widths


def _row(*parts: Panel) -> Table:
    row = Table.grid(padding=0)
    for part in parts:
        row.add_column(width=part.width)
    row.add_row(*parts)
    return row


def _wide(snapshot: Snapshot, room: Room, keys: bool) -> Group:
    top = _top_row(snapshot, room)
    steps = [*panels.plan(snapshot, room)[:2], *panels.links(snapshot, room)[:1]]
    signs = panels.health(snapshot, Room(room.width - 4, 4, room.glyphs))
    below = Room(room.width, len(signs) + 2, room.glyphs)
    foot = panels.footer(snapshot, room, keys=keys)
    left = room.height - 1 - len(foot) - len(steps) - (top[1] + below.height)
    log_lines = min(len(snapshot.log), max(0, left - 20))
    curves = max(8, (left - log_lines) * 5 // 9)
    log = log_tail(snapshot, Room(room.width, log_lines, room.glyphs))
    return Group(
        panels.header(snapshot, room),
        *steps,
        top[0],
        _curve_row(snapshot, room, curves),
        _number_row(snapshot, room, left - log_lines - curves),
        *log,
        boxed("health", signs, below),
        *foot,
    )


_HEAD = re.compile(r"^\d{4}-\d\d-\d\d (\d\d:\d\d:\d\d),\d+ (INFO )?")
"""what begins a line of the log: here its time is enough"""


def log_tail(snapshot: Snapshot, room: Room) -> list[Text]:
    """Return the last lines of the log that fit."""
    if room.height < 1:
        return []
    texts = [
        clean(_HEAD.sub(r"\1 ", text), room.glyphs)[: room.width]
        for text in snapshot.log[-room.height :]
    ]
    return [panels.line((text, panels.FAINT)) for text in texts]


def _top_row(snapshot: Snapshot, room: Room) -> tuple[Table, int]:
    """Return progress and machine, and the height that they need."""
    widths = _split(room.width, 8, 7)
    left, right = (Room(width - 4, 12, room.glyphs) for width in widths)
    progress = [*panels.progress(snapshot, left), Text(), *panels.pace(snapshot, left)]
    machine = machine_panel.machine(snapshot, right)
    where = "machine (not the run's)" if snapshot.elsewhere else "machine"
    height = 2 + max(len(progress), len(machine))
    first, second = (Room(width, height, room.glyphs) for width in widths)
    return _row(boxed("progress", progress, first), boxed(where, machine, second)), height


def _curve_row(snapshot: Snapshot, room: Room, height: int) -> Table:
    left, right = (Room(w, height, room.glyphs) for w in _split(room.width, 1, 1))
    title = plots.means_title(snapshot, right.width - 6)
    return _row(
        boxed(plots.loss_title(snapshot), plots.loss(snapshot, _inside(left)), left),
        boxed(title, plots.means(snapshot, _inside(right)), right),
    )


def _number_row(snapshot: Snapshot, room: Room, height: int) -> Table:
    a, b, c = (Room(w, height, room.glyphs) for w in _split(room.width, 4, 5, 5))
    inner = _inside(b)
    tested = plots.horizons(snapshot, inner)
    words = tested or packed(plots.validation(snapshot), inner.width)
    words += packed(plots.prediction_items(snapshot), inner.width)
    left = Room(inner.width, inner.height - len(words), room.glyphs)
    curve = plots.validation_chart(snapshot, left) if snapshot.stage.val_count > 1 else []
    return _row(
        boxed("parts of the loss", plots.parts(snapshot, _inside(a)), a),
        boxed("test scores" if tested else "validation", words + curve, b),
        boxed("checkpoints", panels.checkpoints(snapshot, _inside(c)), c),
    )


def _compact(snapshot: Snapshot, room: Room, keys: bool) -> Group:
    above = [panels.header(snapshot, room), *panels.plan(snapshot, room)[:2]]
    above += panels.links(snapshot, room)[:1] if room.height >= 30 else []
    above += [*panels.progress(snapshot, room), *panels.pace(snapshot, room)[:1]]
    foot = panels.footer(snapshot, room, keys=keys)
    below = [
        *plots.horizons(snapshot, room),  # of an ended run: its result comes before the rest
        *plots.parts_line(snapshot, room)[:2],
        *packed(plots.validation(snapshot), room.width, "  ")[:2],
        *machine_panel.machine(snapshot, Room(room.width, 4, room.glyphs)),
        panels.checkpoint_line(snapshot, room),
    ]
    health = panels.health(snapshot, Room(room.width, 3, room.glyphs))
    free = room.height - len(above) - len(below) - len(health) - len(foot)
    charts: list[RenderableType] = [_curve_row(snapshot, room, free)] if free >= 6 else []
    # in a small window a warning is worth more than the numbers above it
    below = below[: max(0, room.height - len(above) - len(health) - len(foot))]
    return Group(*above, *charts, *below, *health, *foot)


def _small(snapshot: Snapshot, room: Room, keys: bool) -> Group:
    foot = panels.footer(snapshot, room, keys=keys)
    end = panels.end_of_run(snapshot)
    health = panels.health(snapshot, Room(room.width, 2, room.glyphs))
    worried = bool(worries(snapshot))
    lines = [
        panels.header(snapshot, room),
        *(health if worried else []),
        *panels.progress(snapshot, room),
        *([] if end is None else [end]),
        plots.loss_title(snapshot),
        plots.means_title(snapshot, room.width),
        *([] if worried else health),
        *plots.horizons(snapshot, room),
        *panels.pace(snapshot, room),
        *packed(plots.validation(snapshot), room.width),
        *machine_panel.machine(snapshot, Room(room.width, 3, room.glyphs)),
    ]
    return Group(*[*lines[: max(1, room.height - len(foot))], *foot][: room.height])
