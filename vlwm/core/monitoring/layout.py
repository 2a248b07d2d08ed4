"""Puts the parts together for the size of the terminal.

wide      from 110 x 32    panels in rows
compact   from 60 x 16     made for 80 x 24: two curves, everything else in lines
small     below            lines only
"""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vlwm.core.monitoring import panels, plots
from vlwm.core.monitoring.formatting import Glyphs
from vlwm.core.monitoring.panels import Room, packed
from vlwm.core.monitoring.snapshot import Snapshot

_WIDE, _COMPACT = (110, 32), (60, 16)


def frame(
    snapshot: Snapshot, width: int, height: int, glyphs: Glyphs, *, keys: bool = True
) -> RenderableType:
    """One picture of the run.

    Args:
        snapshot: what to show.
        width, height: the terminal, characters.
        glyphs: characters that it can show.
        keys: whether somebody can press q.
    """
    room = Room(width, height, glyphs)
    if width >= _WIDE[0] and height >= _WIDE[1]:
        return _wide(snapshot, room, keys)
    if width >= _COMPACT[0] and height >= _COMPACT[1]:
        return _compact(snapshot, room, keys)
    return _small(snapshot, room, keys)


def boxed(title: Text | str, lines: list[Text], room: Room) -> Panel:
    """Lines in a frame of exactly the room's size."""
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
    """Widths in proportion to shares, together `width`."""
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
    signs = panels.health(snapshot, Room(room.width - 4, 4, room.glyphs))
    below = Room(room.width, len(signs) + 2, room.glyphs)
    left = room.height - 2 - (top[1] + below.height)
    curves = max(8, left * 5 // 9)
    return Group(
        panels.header(snapshot, room),
        top[0],
        _curve_row(snapshot, room, curves),
        _number_row(snapshot, room, left - curves),
        boxed("health", signs, below),
        panels.footer(snapshot, room, keys=keys),
    )


def _top_row(snapshot: Snapshot, room: Room) -> tuple[Table, int]:
    """Progress and machine, and the height that they need."""
    widths = _split(room.width, 8, 7)
    left, right = (Room(width - 4, 12, room.glyphs) for width in widths)
    progress = [*panels.progress(snapshot, left), Text(), *panels.pace(snapshot, left)]
    machine = panels.machine(snapshot, right)
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
    words = packed(plots.validation(snapshot), inner.width)
    words += packed(plots.prediction_items(snapshot), inner.width)
    left = Room(inner.width, inner.height - len(words), room.glyphs)
    curve = plots.validation_chart(snapshot, left) if len(snapshot.stage.val) > 1 else []
    return _row(
        boxed("parts of the loss", plots.parts(snapshot, _inside(a)), a),
        boxed("validation", words + curve, b),
        boxed("checkpoints", panels.checkpoints(snapshot, _inside(c)), c),
    )


def _compact(snapshot: Snapshot, room: Room, keys: bool) -> Group:
    above = [panels.header(snapshot, room), *panels.progress(snapshot, room)]
    above += panels.pace(snapshot, room)[:1]
    below = [
        *plots.parts_line(snapshot, room)[:2],
        *packed(plots.validation(snapshot), room.width, "  ")[:2],
        *panels.machine(snapshot, Room(room.width, 4, room.glyphs)),
        panels.checkpoint_line(snapshot, room),
        *panels.health(snapshot, Room(room.width, 3, room.glyphs)),
    ]
    free = room.height - len(above) - len(below) - 1
    charts: list[RenderableType] = [_curve_row(snapshot, room, free)] if free >= 6 else []
    below = below[: room.height - len(above) - 1]
    return Group(*above, *charts, *below, panels.footer(snapshot, room, keys=keys))


def _small(snapshot: Snapshot, room: Room, keys: bool) -> Group:
    lines = [
        panels.header(snapshot, room),
        *panels.progress(snapshot, room),
        plots.loss_title(snapshot),
        plots.means_title(snapshot),
        *panels.health(snapshot, Room(room.width, 2, room.glyphs)),
        *panels.pace(snapshot, room),
        *packed(plots.validation(snapshot), room.width),
        *panels.machine(snapshot, Room(room.width, 3, room.glyphs)),
    ]
    return Group(*lines[: max(1, room.height - 1)], panels.footer(snapshot, room, keys=keys))
