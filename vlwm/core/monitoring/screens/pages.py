"""Draw the dashboard's other pages: help, log, list of runs, a zoomed chart, two runs."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from vlwm.core.monitoring import plots
from vlwm.core.monitoring.diagnosis import state_of
from vlwm.core.monitoring.formatting import clean, percent, short, span
from vlwm.core.monitoring.panels import FAINT, LABEL, Room, header, line, spread
from vlwm.core.monitoring.screens.view import CHARTS, View
from vlwm.core.monitoring.snapshot import Snapshot
from vlwm.core.run_status import finite as number

KEYS = (
    ("?", "this help"),
    ("q", "quit; the run continues"),
    ("p", "pause the picture"),
    ("z", "one chart on the whole screen; again: the next chart"),
    ("l", "the log"),
    ("/", "filter the log: type, then Enter"),
    ("s", "stage 1, stage 2, or the one that runs"),
    ("r", "list of runs; arrows and digits choose one"),
    ("c", "compare this run with the next one in the list"),
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


def help_page(room: Room) -> Group:
    """Return the keys and what each label means."""
    lines = [line(("Keys", "bold"))]
    lines += [line((f"  {key:<5}", "bold cyan"), text) for key, text in KEYS]
    lines += [line(), line(("Labels", "bold"))]
    width = max(len(label) for label, _ in LABELS) + 2
    for label, text in LABELS:
        lines.extend(_explained(label, text, width, room))
    return Group(*lines[: room.height])


def _explained(label: str, text: str, width: int, room: Room) -> list[Text]:
    if room.width >= width + len(text) + 2:
        return [line((f"  {label:<{width}}", LABEL), text)]
    return [line((f"  {label}", LABEL)), line(f"    {text}"[: room.width])]


def log_page(snapshot: Snapshot, view: View, room: Room) -> Group:
    """Return the end of the log, filtered."""
    wanted = view.pattern.lower()
    texts = [text for text in snapshot.log if wanted in text.lower()]
    title = f"log of {snapshot.path}" + (f"   /{view.pattern}" if view.pattern else "")
    end = "_" if view.typing else ""
    lines = [line((clean(title + end, room.glyphs)[: room.width], "bold"))]
    shown = texts[-(room.height - 2) :] if room.height > 2 else []
    for text in shown:
        style = "yellow" if "WARNING" in text else "red" if "ERROR" in text else ""
        lines.append(line((clean(text, room.glyphs)[: room.width], style)))
    if not shown:
        lines.append(line(("no such line" if wanted else "no log yet", FAINT)))
    return Group(*lines)


def runs_page(snapshots: Sequence[Snapshot], chosen: int, room: Room) -> Group:
    """Return the list of runs: number, state, place in the run, path."""
    lines = [line(("runs", "bold"), ("   digits or arrows choose, Enter opens", FAINT))]
    for index, snapshot in enumerate(snapshots[: room.height - 1]):
        state, status = state_of(snapshot, room.glyphs), snapshot.status
        share = percent(status.step / status.steps) if status.steps else ""
        left = line(
            (f"{'>' if index == chosen else ' '}{index + 1:>3} ", "bold"),
            (f"{state.mark} {state.word:<18} ", state.colour),
            (f"{clean(status.config or '', room.glyphs):<16.16} {share:>5} ", LABEL),
        )
        path = clean(str(snapshot.path), room.glyphs)
        free = room.width - left.cell_len
        if len(path) > free > 8:  # the end of a path tells runs apart
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
    title = spread(
        line((name, "bold"), (f"  {short(newest)}", "bold cyan")),
        line(("z next chart  Esc back", FAINT)),
        room.width,
    )
    return Group(header(snapshot, room), title, *body)


def compare_page(first: Snapshot, second: Snapshot, view: View, room: Room) -> Group:
    """Return one chart with the curves of two runs."""
    name = CHARTS[view.chart]
    glyphs = room.glyphs
    titles = [
        line((f"{mark} ", colour), (clean(str(s.path), glyphs), "bold"), f"  {_newest(s, name)}")
        for mark, colour, s in (("1", "cyan", first), ("2", "yellow", second))
    ]
    body = plots.overlay(first, second, name, Room(room.width, room.height - 3, glyphs), glyphs)
    hint = spread(line((name, "bold")), line(("z next chart  Esc back", FAINT)), room.width)
    return Group(*titles, hint, *body)


def _newest(snapshot: Snapshot, name: str) -> str:
    stage = snapshot.stage
    value = number(stage.last, name)
    value = number(stage.last_val, name) if value is None else value
    return f"{short(value)}, running {span(snapshot.running_s)}"


def _below(room: Room) -> Room:
    return Room(room.width, room.height - 2, room.glyphs)
