"""The parts of the dashboard: functions from a Snapshot to lines of text.

Nothing is read here and nothing placed: `layout.py` puts the parts together. Texts of a run pass
`clean` and never rich's markup, so that a file cannot draw on the screen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from vlwm.core.hardware.gpu import Gpu
from vlwm.core.monitoring.diagnosis import PHASE_WORDS, STAGE_WORDS, next_step, state_of, worries
from vlwm.core.monitoring.formatting import (
    Glyphs,
    clean,
    gib,
    percent,
    short,
    size,
    span,
    time_of_day,
)
from vlwm.core.monitoring.snapshot import MachineSample, Snapshot
from vlwm.core.monitoring.terminal.charts import bar, sparkline
from vlwm.core.run_status import HealthSign
from vlwm.core.run_status import finite as number
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


def header(snapshot: Snapshot, room: Room) -> Text:
    """Return which run this is and its state."""
    glyphs, status = room.glyphs, snapshot.status
    state = state_of(snapshot, glyphs)
    facts = [clean(v, glyphs) for v in (status.config, status.device) if v]
    if snapshot.elsewhere and status.host:
        facts.append(f"on {clean(status.host, glyphs)}")
    tail = f" {glyphs.dot} " + f" {glyphs.dot} ".join(facts) if facts else ""
    left = line(("vlwm ", "bold cyan"), (clean(str(snapshot.path), glyphs), "bold"), (tail, LABEL))
    age = snapshot.heartbeat_age_s
    beat = "" if age is None or snapshot.liveness == "ended" else f"  heartbeat {span(age)}"
    clock = time.strftime("  %H:%M:%S", time.localtime(snapshot.now))
    right = line((f"{state.mark} {state.word}", f"bold {state.colour}"), (beat + clock, LABEL))
    return spread(left, right, room.width)


def progress(snapshot: Snapshot, room: Room) -> list[Text]:
    """Return stage, phase, bar, epoch, step, time and money left."""
    status, glyphs = snapshot.status, room.glyphs
    lines = [_stage_line(snapshot, room)]
    share = status.step / status.steps if status.steps else None
    tail = line((f" {percent(share):>5}", "bold"))
    lines.append(gauge(share, room.width - tail.cell_len, glyphs).append_text(tail))
    epoch = min(status.epoch + (snapshot.liveness != "ended"), status.epochs)
    items = [named("epoch", f"{epoch} of {status.epochs}")] if status.epochs else []
    if status.steps:
        items.append(named("step", f"{status.step:,} of {status.steps:,}"))
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
    lines = packed(items, room.width)
    left_s = snapshot.eta_run_s
    if left_s is not None:
        ends = time_of_day(snapshot.now + left_s, "%a %H:%M")
        end = line(("end of the run in ", LABEL), (span(left_s), "bold"), (f", {ends}", LABEL))
        if lines[-1].cell_len + 3 + end.cell_len <= room.width:
            lines[-1].append("   ").append_text(end)
        else:
            lines.append(end)
    return lines


def _stage_line(snapshot: Snapshot, room: Room) -> Text:
    glyphs, phase = room.glyphs, snapshot.status.phase
    place = "1 of 2" if snapshot.stage.name == Stage.TOKENIZER else "2 of 2"
    if snapshot.liveness == "waiting":
        left = line(("no status yet: ", LABEL), "the run has not begun")
    elif phase in ("prepare", "eval", "done", "start"):
        left = line((PHASE_WORDS[phase], "bold"))
    else:
        word = STAGE_WORDS.get(snapshot.stage.name, snapshot.stage.name)
        doing = PHASE_WORDS.get(phase, clean(phase, glyphs))
        left = line((word, "bold"), f" {glyphs.dot} {doing}", (f"  stage {place}", LABEL))
    left_s = snapshot.eta_s
    if left_s is None:
        return left
    what = "this stage: " if snapshot.status.plan else ""
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


def machine(snapshot: Snapshot, room: Room) -> list[Text]:
    """Return GPUs, CPU, memory, disk."""
    sample = snapshot.machine
    if sample is None:
        return [line(("looking at the machine", FAINT))]
    below = _host(sample, room)
    gpus, height = sample.gpus.gpus, max(1, room.height - len(below))
    if not gpus:
        reason = clean(sample.gpus.reason or "none found", room.glyphs)
        return [line(("no GPU", "bold"), (f": {reason}", LABEL)), *below]
    two_lines = 2 * len(gpus) <= height
    lines = [part for gpu in gpus for part in _gpu(gpu, room, two_lines)]
    if len(lines) > height:
        hidden = len(lines) - height + 1
        lines = [*lines[: height - 1], line((f"and {hidden} more of {len(gpus)} GPUs", LABEL))]
    return lines + below


def _gpu(gpu: Gpu, room: Room, two_lines: bool) -> list[Text]:
    glyphs = room.glyphs
    name = clean((gpu.name or "GPU").replace("NVIDIA ", "").replace("GeForce ", ""), glyphs)
    head = line((f"GPU {gpu.index} ", LABEL), (name, "bold"))
    used, total = gpu.memory_used_bytes, gpu.memory_total_bytes
    memory = line((f"{gib(used)}/{gib(total)} GiB", "bold"))
    state = line((f"{_temperature(gpu, glyphs)}{_power(gpu)}", LABEL))
    if gpu.slowed_by:
        state.append(f" slowed: {', '.join(gpu.slowed_by)}", "yellow")
    if len(gpu.processes) > 1:
        state.append(f" {len(gpu.processes)} processes", "yellow")
    load = line((f" {percent(gpu.utilization):>4} ", "bold"))
    share = used / total if used is not None and total else None
    if not two_lines:
        head.truncate(max(10, room.width - 44))
        right = Text.assemble(gauge(gpu.utilization, 6, glyphs, "green"), load, memory, " ", state)
        return [spread(head, right, room.width)]
    bars = max(4, (room.width - load.cell_len - memory.cell_len - 6) // 2)
    second = line(("  ", ""))
    second.append_text(gauge(gpu.utilization, bars, glyphs, "green")).append_text(load)
    second.append("  ").append_text(gauge(share, bars, glyphs)).append(" ").append_text(memory)
    return [spread(head, state, room.width), second]


def _temperature(gpu: Gpu, glyphs: Glyphs) -> str:
    return "" if gpu.temperature_c is None else f"{gpu.temperature_c:.0f}{glyphs.degree}C"


def _power(gpu: Gpu) -> str:
    if gpu.power_w is None:
        return ""
    return f" {gpu.power_w:.0f}" + (f"/{gpu.power_limit_w:.0f} W" if gpu.power_limit_w else " W")


def _host(sample: MachineSample, room: Room) -> list[Text]:
    host, glyphs = sample.host, room.glyphs
    items = []
    if host is not None and host.usable_cpus is not None:
        cpu = line(("CPU ", LABEL)).append_text(gauge(sample.cpu_share, 6, glyphs, "green"))
        items.append(cpu.append(f" {percent(sample.cpu_share)} of {host.usable_cpus:g}", "bold"))
    if host is not None and host.usable_ram_bytes:
        used, whole = host.ram_used_bytes, host.usable_ram_bytes
        ram = line(("RAM ", LABEL)).append_text(
            gauge(None if used is None else used / whole, 6, glyphs)
        )
        items.append(ram.append(f" {gib(used)}/{gib(whole)} GiB", "bold"))
    if sample.disk is not None:
        free = sample.disk.free_bytes
        soon = sample.disk_full_s is not None and sample.disk_full_s < 86_400
        colour = "yellow" if soon or (free is not None and free < 5e9) else "bold"
        full = f", full in {span(sample.disk_full_s)}" if soon else ""
        items.append(named("disk", f"{size(free)} free{full}", colour))
    return packed(items, room.width)


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
    signs = sorted(worries(snapshot), key=lambda sign: sign.level != "fail")
    if not signs:
        calm = "all healthy" if snapshot.stage.last else "no measurements yet"
        return [line((f"{glyphs.good} ", "green"), (calm, LABEL))]
    lines = [text for sign in signs for text in _sign(sign, room)]
    if len(lines) > room.height > 0:
        hidden = f"and more: {', '.join(s.name for s in signs[1:])}"
        lines = [*lines[: room.height - 1], line((clean(hidden, glyphs), "yellow"))]
    return lines


def _sign(sign: HealthSign, room: Room) -> list[Text]:
    """Return the warning and its remedy; on two lines where one is too short."""
    glyphs = room.glyphs
    mark = glyphs.bad if sign.level == "fail" else glyphs.warn
    colour = _LEVELS.get(sign.level, "yellow")
    text = line((f"{mark} {clean(sign.name, glyphs)} ", f"bold {colour}"))
    text.append(clean(sign.message, glyphs))
    if not sign.remedy:
        return [text]
    remedy = line((f"{glyphs.arrow} ", LABEL), (clean(sign.remedy, glyphs), "bold"))
    if text.cell_len + 1 + remedy.cell_len <= room.width:
        return [text.append(" ").append_text(remedy)]
    return [text, line("  ").append_text(remedy)]


def links(snapshot: Snapshot, room: Room) -> list[Text]:
    """Return the pages about the run."""
    found = snapshot.status.links
    items = [named(clean(k, room.glyphs), clean(v, room.glyphs), "cyan") for k, v in found.items()]
    return packed(items, room.width)


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


def command_lines(command: str, room: Room) -> list[Text]:
    """Return a command broken at blanks with backslashes, so that it can be copied whole."""
    words = clean(command, room.glyphs).split(" ")
    rows, row = [], "next: "
    for number_, word in enumerate(words):
        end = 2 if number_ < len(words) - 1 else 0  # room for " \\"
        empty = row in ("next: ", "  ")
        if not empty and len(row) + 1 + len(word) + end > room.width:
            rows.append(row + " \\")
            row = "  " + word
        else:
            row += word if empty else " " + word
    lines = []
    for text in [*rows, row]:
        head = "next: " if text.startswith("next: ") else ""
        lines.append(line((head, LABEL), (text[len(head) :], "bold cyan")))
    return lines
