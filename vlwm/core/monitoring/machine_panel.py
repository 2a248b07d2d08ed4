"""The panel of the machine: GPUs with what slows them, CPU, memory, disk."""

from __future__ import annotations

from rich.text import Text

from vlwm.core.hardware.gpu import Gpu
from vlwm.core.monitoring.formatting import Glyphs, clean, gib, percent, size
from vlwm.core.monitoring.panels import FAINT, LABEL, Room, gauge, line, named, packed, spread
from vlwm.core.monitoring.snapshot import MachineSample, Snapshot
from vlwm.core.text import span


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
