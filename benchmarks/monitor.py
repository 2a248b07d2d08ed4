"""Measure the dashboard: bytes, processor time and memory next to a full redraw.

    python benchmarks/monitor.py [--lines 1000 100000 1000000] [--seconds 20] [--size 120x40]
                                 [--runs 10]

For each length of metrics.jsonl it starts `vlwm monitor` on a pseudo-terminal, with the other runs
in its list, waits until the whole file is read (its processor share falls), and prints: seconds to
the first picture, processor seconds until the file is read, then bytes per second, share of one
core, resident memory, and the bytes next to a full redraw at the same pace (the baseline).
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests import fake_run
from vlwm.core.run_folder import RunFolder

_PICTURE_BYTES = 600
"""more than the modes of the terminal, less than the smallest list of runs"""


def write_lines(folder: RunFolder, count: int) -> None:
    """Write `count` metric lines; one record is made anew for every hundred."""
    folder.create()
    with open(folder.metrics_jsonl, "w") as handle:
        for step in range(count):
            if step % 100 == 0:
                record = fake_run.train_record("world", step)
            handle.write(json.dumps({**record, "step": step}) + "\n")
            if step % 1000 == 999:
                handle.write(json.dumps(fake_run.val_record("world", step)) + "\n")


def stat(pid: int) -> tuple[float, float]:
    """Return (processor seconds, resident MB)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(
    folder: RunFolder, others: list[Path], seconds: float, size: tuple[int, int]
) -> dict[str, float]:
    """Watch a run whose status changes every second, with others in the list."""
    lead, follow = pty.openpty()
    fcntl.ioctl(follow, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    environ = {**os.environ, "LANG": "C.UTF-8", "TERM": "xterm-256color"}
    begun = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "vlwm", "monitor", str(folder.path), *map(str, others)],
        stdin=follow, stdout=follow, stderr=subprocess.DEVNULL, env=environ,
    )  # fmt: skip
    first = _drain(lead, folder, 60.0, until_first=True) and time.monotonic() - begun
    os.write(lead, b"1")
    read_s = _read_whole(lead, folder, child.pid)
    before, start = stat(child.pid)[0], time.monotonic()
    sent = _drain(lead, folder, seconds)
    cpu, memory = stat(child.pid)
    lasted = time.monotonic() - start
    os.write(lead, b"q")
    child.wait(10)
    return {
        "first_s": first,
        "read_s": read_s,
        "bytes_per_s": sent / lasted,
        "cpu": (cpu - before) / lasted,
        "memory_mb": memory,
    }


def _read_whole(lead: int, folder: RunFolder, pid: int) -> float:
    """Wait until the history is read; return the processor seconds since the start."""
    calm = 0
    before = stat(pid)[0]
    for _ in range(200):
        _drain(lead, folder, 2.0)
        now = stat(pid)[0]
        calm = calm + 1 if now - before < 0.2 else 0
        before = now
        if calm == 3:
            break
    return before


def _drain(lead: int, folder: RunFolder, seconds: float, *, until_first: bool = False) -> int:
    total, until, step = 0, time.monotonic() + seconds, 0
    while time.monotonic() < until:
        step += 1
        folder.write_status(fake_run.status(folder, step=1000 + step))
        beat = time.monotonic() + 1.0
        while time.monotonic() < beat:
            ready, _, _ = select.select([lead], [], [], 0.05)
            if ready:
                total += len(os.read(lead, 65536))
                if until_first and total > _PICTURE_BYTES:
                    return total
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lines", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--size", default="120x40")
    parser.add_argument("--runs", type=int, default=10, help="runs in the list")
    options = parser.parse_args()
    columns, rows = (int(n) for n in options.size.split("x"))
    full = columns * rows * 1.9 / 2  # characters with their colours, every two seconds
    print(
        f"{'lines':>9} {'first':>7} {'read':>7} {'B/s':>8} {'of full':>8} {'core':>6} {'memory':>8}"
    )
    for count in options.lines:
        with tempfile.TemporaryDirectory() as place:
            folder = RunFolder(Path(place) / "run")
            write_lines(folder, count)
            others = [Path(place) / f"other_{n}" for n in range(1, options.runs)]
            for other in others:
                fake_run.write_run(other, steps=200)
            row = measure(folder, others, options.seconds, (columns, rows))
        print(
            f"{count:>9} {row['first_s']:>6.2f}s {row['read_s']:>6.1f}s {row['bytes_per_s']:>8.0f} "
            f"{row['bytes_per_s'] / full:>7.2f}x {row['cpu']:>6.1%} {row['memory_mb']:>6.1f}MB"
        )


if __name__ == "__main__":
    main()
