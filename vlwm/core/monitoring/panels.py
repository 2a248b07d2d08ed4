"""The parts of the dashboard: functions from a Snapshot to lines of text.

Nothing is read here and nothing placed: `layout.py` puts the parts together. Texts of a run pass
`clean` and never rich's markup, so that a file cannot draw on the screen.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.text import Text

from vlwm.core.monitoring.diagnosis import PHASE_WORDS, STAGE_WORDS, next_step, state_of, worries
from vlwm.core.monitoring.formatting import Glyphs, clean, percent, short, size
from vlwm.core.monitoring.snapshot import Snapshot
from vlwm.core.monitoring.terminal.charts import bar, sparkline
from vlwm.core.run_status import HealthSign
from vlwm.core.run_status import finite as number
from vlwm.core.text import span, time_of_day
from vlwm.core.vocabulary import Stage

LABEL, FAINT = "grey62", "dim"
_LEVELS = {"warn": "yellow", "fail": "red"}


@dataclass(frozen=True)
class Room:
    """Characters that a part may fill."""

    width: int
    height: int
    glyphs: Glyphs


def line(*pieces: str | tuple[str, str]) -> Text:
    """Return one line of plain and styled pieces that is cut, never wrapped."""
    return Text.assemble(*pieces, no_wrap=True, overflow="crop")


def spread(left: Text, right: Text, width: int) -> Text:
    """Return two texts at the two ends of a line; the left one is cut where there is no room."""
    gap = width - left.cell_len - right.cell_len
    if gap < 1:
        left = left.copy()
        left.truncate(max(0, width - right.cell_len - 1))
        gap = width - left.cell_len - right.cell_len
    return Text.assemble(left, " " * max(0, gap), right, no_wrap=True, overflow="crop")


def packed(items: Sequence[Text], width: int, gap: str = "   ") -> list[Text]:
    """Return items one after another, as many on a line as fit."""
    lines: list[Text] = []
    for item in items:
        if lines and lines[-1].cell_len + len(gap) + item.cell_len <= width:
            lines[-1].append(gap)
            lines[-1].append_text(item)
        else:
            lines.append(item.copy())
    return lines


def named(name: str, value: str, style: str = "bold") -> Text:
    """Return a value behind its name."""
    return line((f"{name} ", LABEL), (value, style))


def gauge(share: float | None, width: int, glyphs: Glyphs, colour: str = "cyan") -> Text:
    """Return a bar."""
    filled, empty = bar(share, width, ascii_only=glyphs.ascii_only)
    return line((filled, colour), (empty, "on grey23" if not glyphs.ascii_only else FAINT))


def trend(snapshot: Snapshot, name: str, width: int, glyphs: Glyphs) -> Text:
    """Return a sparkline of the newest half of a metric."""
    values = snapshot.stage.series(name).values
    shown = values[len(values) // 2 :] if len(values) > 2 * width else values
    return line((sparkline(shown, width, ascii_only=glyphs.ascii_only), "cyan"))


_PATH = 24  # characters of a path that are worth more than clock and heartbeat


def header(snapshot: Snapshot, room: Room) -> Text:
    """Return which run this is and its state; the least important words go first."""
    glyphs, status = room.glyphs, snapshot.status
    state = state_of(snapshot, glyphs)
    facts = [clean(v, glyphs) for v in (status.config, status.device) if v]
    if snapshot.elsewhere and status.host:
        facts.insert(0, f"on {clean(status.host, glyphs)}")
    age = snapshot.heartbeat_age_s
    beat = "" if age is None or snapshot.liveness == "ended" else f"  heartbeat {span(age)}"
    clock = f"  {time_of_day(snapshot.now, '%H:%M:%S')}"
    path = clean(str(snapshot.path), glyphs)
    marked = line((f"{state.mark} {state.word}", f"bold {state.colour}"))
    name = f"vlwm {path}"
    for tail in (beat + clock, beat, ""):
        free = room.width - marked.cell_len - len(tail) - 1
        if free >= min(cell_len(name), _PATH):
            break
    while facts and cell_len(name + f" {glyphs.dot} ".join(["", *facts])) > free:
        facts.pop()
    if cell_len(name) > free:  # the end of a path tells runs apart
        name = path if cell_len(path) <= free else ".." + path[-max(1, free - 2) :]
    left = line((name[: max(0, free)], "bold"))
    if name.startswith("vlwm "):
        left.stylize("cyan", 0, 4)
    for fact in facts:
        left.append(f" {glyphs.dot} {fact}", LABEL)
    return spread(left, marked.append(tail, LABEL), room.width)


_UNITS = {"prepare": "frame", "eval": "window", "done": ""}
"""what the status counts in phases that take no optimizer steps"""


def progress(snapshot: Snapshot, room: Room) -> list[Text]:
    """Return stage, phase, bar, epoch, step, time and money left."""
    status, glyphs = snapshot.status, room.glyphs
    lines = [_stage_line(snapshot, room)]
    if snapshot.earlier_stage:
        return lines
    share = status.step / status.steps if status.steps else None
    tail = line((f" {percent(share):>5}", "bold"))
    lines.append(gauge(share, room.width - tail.cell_len, glyphs).append_text(tail))
    epochs = f"{status.running_epoch} of {status.epochs}"
    items = [named("epoch", epochs)] if status.epochs else []
    unit = _UNITS.get(status.phase, "step")
    if status.steps and unit:
        items.append(named(unit, f"{status.step:,} of {status.steps:,}"))
    if status.started is not None and snapshot.liveness != "ended":
        items.append(named("running", span(snapshot.running_s), ""))
    return lines + packed([*items, *cost(snapshot)], room.width)[:1]


def cost(snapshot: Snapshot) -> list[Text]:
    """Return what the run has cost and will cost; nothing where no price was given."""
    price, spent = snapshot.status.price_per_h, snapshot.running_s
    if price is None or spent is None:
        return []
    items = [named("cost", f"${price * spent / 3600:.2f}")]
    if snapshot.eta_run_s is not None:
        items.append(named("to the end", f"${price * (spent + snapshot.eta_run_s) / 3600:.2f}"))
    return items


_PLAN_MARKS = {"done": "good", "now": "live", "todo": "wait", "skipped": "dash"}


def plan(snapshot: Snapshot, room: Room) -> list[Text]:
    """Return the parts of the whole run, and when it ends; nothing where the run has no plan."""
    steps, glyphs = snapshot.status.plan, room.glyphs
    if not steps:
        return []
    items = []
    for step in steps:
        mark = getattr(glyphs, _PLAN_MARKS.get(step.state, "wait"))
        words = clean(step.label, glyphs)
        if step.state == "now" and 0 < step.share < 1:
            words += f" {percent(step.share)}"
        elif step.state == "todo" and step.seconds is not None:
            words += f" {span(step.seconds)}"
        style = "bold" if step.state == "now" else LABEL
        items.append(line((f"{mark} ", "green" if step.state == "done" else style), (words, style)))
    end = end_of_run(snapshot)
    ends = [] if end is None else [end]
    lines = packed([*items, *ends], room.width)
    done = sum(step.state in ("done", "skipped") for step in steps)
    if len(lines) > 2 and done > 1:  # in a narrow window what is over needs no names
        over = line((f"{glyphs.good} ", "green"), (f"{done} of {len(steps)} parts", LABEL))
        coming = [item for item, s in zip(items, steps, strict=True) if s.state in ("now", "todo")]
        lines = packed([over, *coming, *ends], room.width)
    if len(lines) > 2 and ends:  # when it ends is what people ask
        lines = [lines[0], end or Text()]
    return lines


def end_of_run(snapshot: Snapshot) -> Text | None:
    """Return when the whole run ends."""
    left_s = snapshot.eta_run_s
    if left_s is None:
        return None
    ends = time_of_day(snapshot.now + left_s, "%a %H:%M")
    return line(("end of the run in ", LABEL), (span(left_s), "bold"), (f", {ends}", LABEL))


def _stage_line(snapshot: Snapshot, room: Room) -> Text:
    glyphs, phase = room.glyphs, snapshot.status.phase
    word = STAGE_WORDS.get(snapshot.stage.name, snapshot.stage.name)
    place = "1 of 2" if snapshot.stage.name == Stage.TOKENIZER else "2 of 2"
    if snapshot.liveness == "waiting":
        left = line(("no status yet: ", LABEL), "the run has not begun")
    elif phase in ("prepare", "eval", "done", "start"):
        left = line((PHASE_WORDS[phase], "bold"))
    else:
        doing = PHASE_WORDS.get(phase, clean(phase, glyphs))
        left = line((word, "bold"), f" {glyphs.dot} {doing}", (f"  stage {place}", LABEL))
    left_s = snapshot.eta_s
    if snapshot.earlier_stage:
        return line((word, "bold"), f" {glyphs.dot} values of this stage", ("  s: next", LABEL))
    if left_s is None:
        return left
    what = "this stage: " if snapshot.status.plan else ""
    if left.cell_len + len(what) + len(span(left_s)) + 6 > room.width:
        what = ""
    right = line((what, LABEL), (span(left_s), "bold"), (" left", LABEL))
    if not snapshot.status.plan:
        ends = time_of_day(snapshot.now + left_s, "%H:%M")
        right.append(f", until {ends}" if room.width >= 64 else "", LABEL)
    return spread(left, right, room.width)


def pace(snapshot: Snapshot, room: Room) -> list[Text]:
    """Return throughput, loader share, learning rate, memory."""
    record, glyphs = snapshot.stage.last, room.glyphs
    items = []
    if snapshot.throughput is not None:
        value, unit = snapshot.throughput
        rate = line((f"{short(value)} {unit}/s ", "bold"))
        items.append(rate.append_text(trend(snapshot, f"{unit}_per_s", 8, glyphs)))
    share = number(record, "loader_share")
    if share is not None:
        items.append(named("waits for data", percent(share), "yellow" if share > 0.3 else "bold"))
    for label, name, unit in (
        ("learning rate", "lr", ""), ("gradient norm", "grad_norm", ""),
        ("peak memory", "memory_gb", " GB"),
    ):  # fmt: skip
        value_or_none = number(record, name)
        if value_or_none is not None:
            items.append(named(label, short(value_or_none) + unit))
    skipped = number(record, "skipped_steps")
    if skipped:
        items.append(named("skipped steps", f"{skipped:.0f}", "yellow"))
    return packed(items, room.width)


def codebook(snapshot: Snapshot) -> list[Text]:
    """Return how much of the codebook is used."""
    record = snapshot.stage.last
    used, whole = number(record, "codebook/used"), number(record, "codebook/size")
    perplexity = number(record, "codebook/perplexity")
    items = []
    if used is not None:
        items.append(named("codes used", f"{used:.0f}" + (f" of {whole:.0f}" if whole else "")))
    if perplexity is not None:
        items.append(named("perplexity", short(perplexity)))
    return items


def checkpoints(snapshot: Snapshot, room: Room) -> list[Text]:
    """Return the checkpoints, newest first."""
    if not snapshot.checkpoints:
        return [line(("none yet", FAINT))]
    lines = []
    for file in snapshot.checkpoints[: max(1, room.height)]:
        name, age = clean(file.name, room.glyphs), f"{span(file.age_s)} ago"
        right = line((f"{size(file.size_bytes)}  ", LABEL), (age, ""))
        if len(name) + 1 + len(right) > room.width:  # the name is worth more than the size
            right = line((age, ""))
        lines.append(spread(line((name, "bold")), right, room.width))
    hidden = len(snapshot.checkpoints) - room.height
    if hidden > 0:
        lines[-1] = line((f"and {hidden + 1} older", FAINT))
    return lines


def checkpoint_line(snapshot: Snapshot, room: Room) -> Text:
    """Return the checkpoints in one line."""
    items = [
        line((clean(f.name, room.glyphs), "bold"), (f" {size(f.size_bytes)}, {span(f.age_s)}", ""))
        for f in snapshot.checkpoints
    ] or [line(("none yet", FAINT))]
    return line(("saved ", LABEL)).append_text(packed(items, room.width - 6, "  ")[0])


def health(snapshot: Snapshot, room: Room) -> list[Text]:
    """Return warnings with their remedy, worst first."""
    glyphs = room.glyphs
    step = next_step(snapshot)
    signs = sorted(worries(snapshot), key=lambda sign: sign.level != "fail")
    # the last line of the picture has that command whole
    signs = [replace(sign, remedy="") if sign.name == "gone" and step else sign for sign in signs]
    if not signs:
        calm = "all healthy" if snapshot.stage.last else "no measurements yet"
        return [line((f"{glyphs.good} ", "green"), (calm, LABEL))]
    lines = _sign(signs[0], room)  # the worst one is always whole
    for number_, sign in enumerate(signs[1:], 1):
        more = _sign(sign, room)
        last = number_ == len(signs) - 1
        if len(lines) + len(more) + (not last) > room.height:
            hidden = f"and more: {', '.join(s.name for s in signs[number_:])}"
            return [*lines, line((clean(hidden, glyphs)[: room.width], "yellow"))]
        lines += more
    return lines


def _sign(sign: HealthSign, room: Room) -> list[Text]:
    """Return the warning and its remedy in full, over as many lines as they need."""
    glyphs = room.glyphs
    mark = glyphs.bad if sign.level == "fail" else glyphs.warn
    colour = _LEVELS.get(sign.level, "yellow")
    head = f"{mark} {clean(sign.name, glyphs)} "
    remedy = f" {glyphs.arrow} {clean(sign.remedy, glyphs)}" if sign.remedy else ""
    message = clean(sign.message, glyphs)
    if cell_len(head + message + remedy) <= room.width:
        rows = [head + message + remedy]
    else:
        rows = wrapped(head + message, room.width, "  ")
        rows += wrapped("  " + remedy.strip(), room.width, "    ") if remedy else []
    lines = [line(row) for row in rows]
    lines[0].stylize(f"bold {colour}", 0, len(head))
    return lines


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Return a text broken at blanks; the lines after the first are indented."""
    rows: list[str] = []
    row = text[: len(text) - len(text.lstrip(" "))]
    empty = True
    for word in text.strip(" ").split(" "):
        if not empty and cell_len(row) + 1 + cell_len(word) > width:
            rows.append(row)
            row, empty = indent, True
        row += word if empty else f" {word}"
        empty = False
        while cell_len(row) > width > len(indent):  # one word that is longer than a line
            fits = next(n for n in range(len(row), 0, -1) if cell_len(row[:n]) <= width)
            fits = row.rfind("/", len(indent) + 1, fits) + 1 or fits  # names of a path stay whole
            rows.append(row[:fits])
            row = indent + row[fits:]
    return [*rows, row]


def links(snapshot: Snapshot, room: Room) -> list[Text]:
    """Return the pages about the run that fit whole into one line, and how to see all."""
    found = snapshot.links
    hint = line(("w all links", FAINT))
    shown: list[Text] = []
    for name, value in found.items():
        item = named(clean(name, room.glyphs), clean(value, room.glyphs), "cyan")
        tail = [] if len(shown) + 1 == len(found) else [hint]
        if len(packed([*shown, item, *tail], room.width)) == 1 and item.cell_len <= room.width:
            shown.append(item)
    if len(shown) < len(found):
        shown.append(hint)
    return packed(shown, room.width)


def footer(snapshot: Snapshot, room: Room, *, keys: bool = True) -> list[Text]:
    """Return the command to type next, whole over as many lines as it takes, and the keys."""
    step = next_step(snapshot)
    hint = "? help  q quit" if snapshot.liveness == "ended" else "? help  q quit (run continues)"
    lines = command_lines(step, room) if step else []
    if not keys:
        return lines
    if lines and lines[-1].cell_len + 2 + len(hint) <= room.width:
        return [*lines[:-1], spread(lines[-1], line((hint, FAINT)), room.width)]
    return [*lines, spread(line(), line((hint[: room.width], FAINT)), room.width)]


_WORDS = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""")


def command_lines(command: str, room: Room) -> list[Text]:
    """Return a command broken between words with backslashes, so that it can be copied whole."""
    words = _WORDS.findall(clean(command, room.glyphs))
    rows, row, empty = [], "next: ", True
    for index, word in enumerate(words):
        end = 2 if index < len(words) - 1 else 0  # room for " \\"
        if not empty and len(row) + 1 + len(word) + end > room.width:
            rows.append(row + " \\")
            row, empty = "  ", True
        if len(row) + len(word) + end > room.width:
            *whole, word = _pieces(word, room.width - len(row) - 3)
            for piece in whole:
                rows.append(row + piece + "\\")
                row = ""  # blanks would end the word
        row += word if empty else f" {word}"
        empty = False
    lines = []
    for text in [*rows, row]:
        head = "next: " if text.startswith("next: ") else ""
        lines.append(line((head, LABEL), (text[len(head) :], "bold cyan")))
    return lines


def _pieces(word: str, width: int) -> list[str]:
    """Return a long word of a command as quoted pieces; a shell joins them over line ends."""
    try:
        value = "".join(shlex.split(word))
    except ValueError:  # a quote that is not closed
        return [word]
    step = max(4, width - 2)
    return [shlex.quote(value[i : i + step]) for i in range(0, len(value), step)] or [word]
