"""How `prepare` scales with --workers, and that its bytes do not depend on it.

    python benchmarks/workers.py --input DIR [--workers 1 2 4] [--frames 250] [--json]

Each number of workers prepares the same plan in a process of its own. `serial` is the share of all
processor seconds that the parent spends, `expected` what Amdahl's law makes of it; both hold on a
busy machine, where `speed_up`, of wall time, does not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from vlwm.core.city.read import read_city
from vlwm.core.config.load import load_config
from vlwm.core.data.generation.prepare import PreparePlan, prepare


def digest(folder: Path) -> str:
    """Hash every file's name and bytes, except packed shards, which hold times of files."""
    whole = hashlib.sha256()
    files = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".shard")
    for path in sorted(files):
        whole.update(str(path.relative_to(folder)).encode())
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]


def alone(options: argparse.Namespace) -> dict[str, Any]:
    """Prepare in this process, after reading the city."""
    city = read_city(options.input)
    plan = PreparePlan(
        frames=options.frames, sessions=options.sessions, agents=("drone", "rover"), seed=42,
        workers=options.workers[0],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        wall, own = time.monotonic(), time.process_time()
        prepare(city, load_config(options.config), Path(name), plan)
        wall, own = time.monotonic() - wall, time.process_time() - own
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        children = used.ru_utime + used.ru_stime
        return {
            "workers": plan.workers,
            "wall_s": round(wall, 2),
            "parent_s": round(own, 2),
            "children_s": round(children, 2),
            "digest": digest(Path(name)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, nargs="+", required=True)
    parser.add_argument("--config", default="finetune_tokyo")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--sessions", type=int, default=6)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(alone(options)))
        return
    rows = []
    for workers in options.workers:
        command = [sys.executable, __file__, "--alone", "--workers", str(workers)]
        command += ["--config", options.config, "--input", *map(str, options.input)]
        command += ["--frames", str(options.frames), "--sessions", str(options.sessions)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        total = row["parent_s"] + row["children_s"]
        row["serial"] = round(row["parent_s"] / total, 4) if workers > 1 else 1.0
        row["expected"] = round(total / (row["parent_s"] + row["children_s"] / workers), 2)
        row["speed_up"] = round(rows[0]["wall_s"] / row["wall_s"], 2) if rows else 1.0
        rows.append(row)
    same = len({row["digest"] for row in rows}) == 1
    if options.json:
        print(json.dumps({"rows": rows, "same_bytes": same}))
        return
    for row in rows:
        print("  ".join(f"{k} {v}" for k, v in row.items()))
    print("same bytes" if same else "THE BYTES DIFFER")


if __name__ == "__main__":
    main()
