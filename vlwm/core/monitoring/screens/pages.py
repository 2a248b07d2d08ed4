"""Draw the dashboard's other pages: help, log, list of runs, a zoomed chart, two runs."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from vlwm.core.monitoring import plots
from vlwm.core.monitoring.diagnosis import state_of
from vlwm.core.monitoring.formatting import clean, percent, short
from vlwm.core.monitoring.panels import FAINT, LABEL, Room, header, line, spread, wrapped
from vlwm.core.monitoring.screens.view import CHARTS, View
from vlwm.core.monitoring.snapshot import Snapshot
from vlwm.core.run_status import finite as number
from vlwm.core.text import span

KEYS = (
    ("?", "this help"),
    ("q", "quit; the run continues"),
    ("p", "pause the picture"),
    ("z", "one chart on the whole screen; again: the next chart"),
    ("l", "the log; arrows up and down move in it"),
    ("/", "filter the log: type, then Enter"),
    ("s", "stage 1, stage 2, or the one that runs"),
    ("r", "list of runs; arrows and digits choose one"),
    ("c", "compare this run with the next one in the list"),
    ("w", "links: W&B, TensorBoard, report"),
    ("Esc", "back"),
)
LABELS = (
    ("loss", "what training lowers; stage 2 begins at another level than stage 1 ends"),
    ("prediction / target", "mean predicted and true occupancy: they should be close"),
    ("highest prediction", "largest probability of a step: healthy above 0.5"),
    ("predicted occupied", "share of cells with a probability above one half"),
    ("IoU", "overlap of forecast and truth on validation, 0 to 1"),
    ("baseline", "the same for the best forecast without learning: be above it"),
    ("IoU (true motion given)", "the forecast where the future motion is known, as in a plan"),
    ("round trip IoU", "how well the tokenizer restores a frame"),
    ("occupied from", "probability from which a cell counts as occupied"),
    ("waits for data", "share of the time in which training waits for the loader"),
    ("gradient norm", "size of a step before clipping; a sudden rise is a warning"),
    ("peak memory", "largest use so far, of the GPU where there is one"),
    ("codes used, perplexity", "how much of the tokenizer's codebook is in use"),
    ("tokens, motion, codebook", "parts of the loss; motion may be negative (a log-likelihood)"),
)


def help_page(room: Room, scroll: int = 0) -> Group:
    """Return the keys and what each label means, from line `scroll` on."""
    lines = [line(("Keys", "bold"))]
    for key, text in KEYS:
        lines += _explained(key, text, 5, room, "bold cyan")
    lines += [line(), line(("Labels", "bold"))]
    width = max(len(label) for label, _ in LABELS) + 1
    for label, text in LABELS:
        lines += _explained(label, text, width, room, LABEL)
    return Group(*_part_of(lines, scroll, room))


def _explained(label: str, text: str, width: int, room: Room, style: str) -> list[Text]:
    """Return a label and its meaning: next to it where there is room, else below it."""
    if room.width < width + 30 and width > 10:
        rows = wrapped(f"    {text}", room.width, "    ")
        return [line((f"  {label}", style)), *map(line, rows)]
    first, *rest = wrapped(text, room.width - width - 2)
    lines = [line((f"  {label:<{width}}", style), first)]
    return lines + [line(f"{'':{width + 2}}{row}") for row in rest]


def _part_of(lines: list[Text], scroll: int, room: Room) -> list[Text]:
    """Return the lines that fit, and a hint how to see the others."""
    if len(lines) <= room.height:
        return lines
    start = min(scroll, len(lines) - room.height + 1)
    shown = lines[start : start + room.height - 1]
    where = f"lines {start + 1} to {start + len(shown)} of {len(lines)}: arrows up and down"
    return [*shown, line((where[: room.width], FAINT))]


def links_page(snapshot: Snapshot, room: Room) -> Group:
    """Return the pages about the run, whole, and what to type to see them."""
    lines = [line(("Links", "bold"))]
    for name, value in snapshot.links.items():
        lines.append(line((f"  {clean(name, room.glyphs)}", LABEL)))
        rows = wrapped(f"    {clean(value, room.glyphs)}", room.width, "    ")
        lines += [line((row, "bold cyan")) for row in rows]
    if not snapshot.links:
        lines.append(line(("the run has named none", FAINT)))
    return Group(*lines[: room.height])


def log_page(snapshot: Snapshot, view: View, room: Room) -> Group:
    """Return the end of the log, filtered; a long line takes as many rows as it needs."""
    wanted = view.pattern.lower()
    texts = [text for text in snapshot.log if wanted in text.lower()]
    title = f"log of {snapshot.path}" + (f"   /{view.pattern}" if view.pattern else "")
    end = "_" if view.typing else ""
    lines = [line((clean(title + end, room.glyphs)[: room.width], "bold"))]
    rows: list[Text] = []
    for text in texts[-(room.height + view.scroll) :]:
        style = "yellow" if "WARNING" in text else "red" if "ERROR" in text else ""
        cut = wrapped(clean(text, room.glyphs), room.width, "  ")
        rows += [line((row, style)) for row in cut]
    if not rows:
        rows = [line(("no such line" if wanted else "no log yet", FAINT))]
    last = max(len(rows) - view.scroll, min(len(rows), room.height - 1))
    return Group(*lines, *rows[max(0, last - room.height + 1) : last])


def runs_page(snapshots: Sequence[Snapshot], chosen: int, room: Room) -> Group:
    """Return the list of runs: number, state, place in the run, path."""
    hint = "   digits or arrows choose, Enter opens"
    head = line(("runs", "bold"), (hint if room.width > 44 else "", FAINT))
    lines = [head]
    most = max(1, room.height - 1)
    first = max(0, min(chosen - most // 2, len(snapshots) - most))
    for index, snapshot in enumerate(snapshots[first : first + most], first):
        state, status = state_of(snapshot, room.glyphs), snapshot.status
        share = percent(status.step / status.steps) if status.steps else ""
        word = state.word if room.width > 60 else state.word.split(",")[0][:12]
        config = f"{clean(status.config or '', room.glyphs):<16.16} " if room.width > 60 else ""
        left = line(
            (f"{'>' if index == chosen else ' '}{index + 1:>3} ", "bold"),
            (f"{state.mark} {word:<{18 if room.width > 60 else 12}} ", state.colour),
            (f"{config}{share:>5} ", LABEL),
        )
        path = clean(str(snapshot.path), room.glyphs)
        free = room.width - left.cell_len
        if len(path) > free > 2:  # the end of a path tells runs apart
            path = ".." + path[-(free - 2) :]
        lines.append(left.append(path, "bold" if index == chosen else ""))
    return Group(*lines)


def zoom_page(snapshot: Snapshot, view: View, room: Room) -> Group:
    """Return one chart on the whole screen."""
    name = CHARTS[view.chart]
    stage = snapshot.stage
    series = stage.series(name)
    if name == "val/iou":
        body = plots.validation_chart(snapshot, _below(room))
        newest = number(stage.last_val, name)
    elif name == "pred/mean":
        body, newest = plots.means(snapshot, _below(room)), number(stage.last, name)
    else:
        body, newest = plots.curve([series], _below(room)), number(stage.last, name)
    title = _titled(line((name, "bold"), (f"  {short(newest)}", "bold cyan")), room)
    return Group(header(snapshot, room), title, *body)


def compare_page(first: Snapshot, second: Snapshot, view: View, room: Room) -> Group:
    """Return one chart with the curves of two runs."""
    name = CHARTS[view.chart]
    glyphs = room.glyphs
    titles = [
        _run_title(mark, colour, s, name, room)
        for mark, colour, s in (("1", "cyan", first), ("2", "yellow", second))
    ]
    body = plots.overlay(first, second, name, Room(room.width, room.height - 3, glyphs), glyphs)
    return Group(*titles, _titled(line((name, "bold")), room), *body)


def _titled(title: Text, room: Room) -> Text:
    """Return a chart's title, and the keys where there is room."""
    hint = line(("z next chart  Esc back", FAINT))
    if title.cell_len + 2 + hint.cell_len > room.width:
        return title
    return spread(title, hint, room.width)


def _run_title(mark: str, colour: str, snapshot: Snapshot, name: str, room: Room) -> Text:
    """Return one of two runs: its path, shortened at its beginning, and its newest value."""
    value = _newest(snapshot, name)
    path = clean(str(snapshot.path), room.glyphs)
    free = room.width - 4 - len(value)
    if len(path) > free > 2:
        path = ".." + path[-(free - 2) :]
    return line((f"{mark} ", colour), (path, "bold"), f"  {value}")


def _newest(snapshot: Snapshot, name: str) -> str:
    stage = snapshot.stage
    value = number(stage.last, name)
    value = number(stage.last_val, name) if value is None else value
    return f"{short(value)}, running {span(snapshot.running_s)}"


def _below(room: Room) -> Room:
    return Room(room.width, room.height - 2, room.glyphs)
