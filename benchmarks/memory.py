"""Memory of `prepare` while the city grows: the same tiles once, and laid side by side 16 times.

    python benchmarks/memory.py --input DIR [--times 1 16] [--workers 1] [--json]

The input is OBJ tiles; a copy stands beside the others, under names of its own, so the city has as
many times the buildings, the triangles and the ground. Each size is prepared in a process of its
own by the command itself, and watched every few milliseconds, workers with it:

* `anonymous_mb`: memory that nothing but this program can give back (Pss_Anon of /proc, the sum
  over all its processes), at its highest. This is what `flat` speaks of.
* `resident_mb`: the highest RSS of a single process, with the pages of mapped files, which the
  kernel takes back when memory is short.
* `scratch_mb`: what is laid down in nameless files beside the output.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

_MB = 1024.0
_GAP_M = 20.0
_PAUSE_S = 0.02


def repeated(tiles: list[Path], times: int, folder: Path) -> Path:
    """OBJ tiles laid side by side `times` times, in rows as long as columns."""
    texts = {path: path.read_text() for path in tiles}
    corners = [v for text in texts.values() for v in _vertices(text)]
    east, north = ([v[k] for v in corners] for k in (0, 1))
    wide, high = max(east) - min(east) + _GAP_M, max(north) - min(north) + _GAP_M
    rows = max(1, round(times**0.5))
    folder.mkdir(parents=True)
    for copy in range(times):
        i, j = divmod(copy, rows)
        move = partial(_moved, east=i * wide, north=j * high, copy=copy)
        for path, text in texts.items():
            moved = re.sub(r"^(v|o|g) (.*)$", move, text, flags=re.M)
            (folder / f"c{copy}_{path.name}").write_text(moved)
    return folder


def _vertices(text: str) -> list[tuple[float, float]]:
    found = re.findall(r"^v (\S+) (\S+)", text, flags=re.M)
    return [(float(x), float(y)) for x, y in found]


def _moved(line: re.Match[str], east: float, north: float, copy: int) -> str:
    kind, rest = line.groups()
    if kind != "v":
        return f"{kind} c{copy}_{rest}"
    x, y, z = rest.split()[:3]
    return f"v {float(x) + east:.3f} {float(y) + north:.3f} {z}"


def tree(root: int) -> list[int]:
    """A process and its descendants."""
    found = [root]
    for process in found:
        try:
            text = Path(f"/proc/{process}/task/{process}/children").read_text()
        except OSError:
            continue
        found += [int(child) for child in text.split()]
    return found


def memory_of(process: int) -> tuple[float, float]:
    """Anonymous memory, what forked processes share counted once, and RSS; MB."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:  # it has ended
        return 0.0, 0.0
    found = dict(re.findall(r"^(Rss|Pss_Anon):\s+(\d+) kB", text, flags=re.M))
    return int(found.get("Pss_Anon", 0)) / _MB, int(found.get("Rss", 0)) / _MB


def scratch_of(process: int) -> float:
    """Sizes of nameless files that a process has open, MB."""
    sizes = {}
    for link in Path(f"/proc/{process}/map_files").glob("*"):
        try:
            if str(link.readlink()).endswith("(deleted)"):
                sizes[link.stat().st_ino] = link.stat().st_size
        except OSError:
            continue
    return sum(sizes.values()) / _MB**2


def watched(command: list[str]) -> dict[str, float]:
    """Run a command and see how much memory it and its workers take at most, MB."""
    highest = {"anonymous_mb": 0.0, "resident_mb": 0.0, "scratch_mb": 0.0}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    running = subprocess.Popen(command, text=True, **quiet)
    rounds = 0
    while running.poll() is None:
        each = [memory_of(process) for process in tree(running.pid)]
        now = {
            "anonymous_mb": sum(anonymous for anonymous, _ in each),
            "resident_mb": max(resident for _, resident in each),
            "scratch_mb": scratch_of(running.pid) if rounds % 20 == 0 else 0.0,
        }
        highest = {name: max(value, now[name]) for name, value in highest.items()}
        rounds += 1
        time.sleep(_PAUSE_S)
    assert running.stderr is not None
    told = running.stderr.read()
    if running.returncode:
        raise SystemExit(told)
    return {name: round(value, 1) for name, value in highest.items()}


def measure(options: argparse.Namespace, times: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        tiles = sorted(p for given in options.input for p in given.rglob("*.obj"))
        city = repeated(tiles, times, Path(name) / "city")
        command = [sys.executable, "-m", "vlwm", "prepare", "--input", str(city)]
        command += ["--output", f"{name}/data", "--config", options.config]
        command += ["--workers", str(options.workers), "--frames", str(options.frames)]
        command += ["--sessions", str(options.sessions)]
        found = watched(command)
        report = json.loads((Path(name) / "data/city_report.json").read_text())
        counts = {k: report[k] for k in ("buildings", "triangles")}
    return {"times": times, **counts, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, nargs="+", required=True, help="folders of OBJ tiles")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--config", default="finetune_tokyo")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--frames", type=int, default=15)
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where cities and data are put meanwhile")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [measure(options, times) for times in options.times]
    ratios = {
        name: round(rows[-1][name] / rows[0][name], 3) for name in ("anonymous_mb", "resident_mb")
    }
    if options.json:
        print(json.dumps({"rows": rows, "ratios": ratios}))
        return
    for row in rows:
        print("  ".join(f"{k} {v}" for k, v in row.items()))
    print("  ".join(f"ratio of {k} {v}" for k, v in ratios.items()))


if __name__ == "__main__":
    main()
