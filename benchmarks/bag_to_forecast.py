"""From a ROS bag to a forecast in two commands, with times.

    python benchmarks/bag_to_forecast.py [--minutes 10] [--place DIR] [--slice-s 200] [--json FILE]

Makes a bag first (the tests' known city, rays of a 16-beam lidar at 5 Hz from a drone that turns,
odometry at 50 Hz), which is not timed. Then, as an operator would:

    vlwm prepare --points flight.bag --output data/flight --config finetune_6dof ...
    vlwm train --config finetune_6dof --data data/flight ...

with the test grid (30 x 30 x 6 cells of 1.6 x 1.6 x 5 m) and a narrow network, so that a CPU can.
Both processor and wall seconds are reported: the machine may be shared. With --place the bag, the
sessions and the run are kept; with --slice-s a command is ended after that many seconds, and the
same line run again resumes it, as it would after a lost instance. The times of all parts add up.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def timed(line: list[str], slice_s: float | None) -> dict[str, Any]:
    """Run a command; return wall and processor seconds, peak memory in MB, and if it ended."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(
        line, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    try:
        out, err = process.communicate(timeout=slice_s)
        ended = True
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
        ended = False
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(out[-2600:], flush=True)
    if ended and process.returncode:
        raise SystemExit(err[-2000:])
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall_s": round(time.monotonic() - start, 1),
        "processor_s": round(used, 1),
        "peak_mb": round(after.ru_maxrss / 1024, 1),
        "slices": 1,
        "ended": ended,
    }


def added(one: dict[str, Any] | None, other: dict[str, Any]) -> dict[str, Any]:
    """Return the sums of two parts of a command."""
    if one is None:
        return other
    sums = {k: round(one[k] + other[k], 1) for k in ("wall_s", "processor_s", "slices")}
    return {**sums, "peak_mb": max(one["peak_mb"], other["peak_mb"]), "ended": other["ended"]}


def step(place: Path, name: str, line: list[str], slice_s: float | None) -> dict[str, Any]:
    """Run a command unless it has ended, and keep its times in `place`.

    Raises:
        SystemExit: the slice was too short; the same call goes on.
    """
    file = place / f"{name}.json"
    before = json.loads(file.read_text()) if file.exists() else None
    if before is not None and before["ended"]:
        return dict(before)
    found = added(before, timed(line, slice_s))
    file.write_text(json.dumps(found))
    if not found["ended"]:
        raise SystemExit(f"{name}: {found['wall_s']:.0f} s so far; run the same line again")
    return found


def measure(place: Path, minutes: float, slice_s: float | None) -> dict[str, Any]:
    """Return the times of both commands for a bag of that many minutes."""
    sys.path.insert(0, str(ROOT))
    from tests.core.data.recordings.readers.test_bags import write_rosbags
    from tests.core.data.recordings.sessions import CITY
    from tests.core.training.test_presets import SMALL_GRID, TINY

    sets = [w for pair in (*SMALL_GRID, *TINY) for w in ("--set", pair)]
    vlwm = [sys.executable, "-m", "vlwm"]
    bag, data, work = (place / name for name in ("flight.bag", "data", "run"))
    if not bag.exists():
        begun = bag.with_name("part.bag")
        begun.unlink(missing_ok=True)
        city = replace(CITY, seconds=60.0 * minutes)
        write_rosbags(begun, "ROS1_NOETIC", "", "cloud", "odom", city)
        begun.rename(bag)
        print(f"{len(city.scans)} scans in a bag", flush=True)
    size = bag.stat().st_size / 1e6
    common = ["--config", "finetune_6dof", *sets]
    prepare = [*vlwm, "prepare", "--points", str(bag), "--output", str(data), "--workers", "1"]
    train = [*vlwm, "train", "--data", str(data), "--work-dir", str(work), "--from-scratch",
             "--no-live", *(["--resume"] if work.exists() else [])]  # fmt: skip
    found: dict[str, Any] = {"minutes": minutes, "bag_mb": round(size, 1)}
    found["prepare"] = step(place, "prepare", [*prepare, *common], slice_s)
    found["train"] = step(place, "train", [*train, *common], slice_s)
    found["iou"] = json.loads((work / "scores.json").read_text())["scores"]["model"]["iou"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--place", type=Path, help="folder to keep; a temporary one otherwise")
    parser.add_argument("--slice-s", type=float, help="end each command after that many seconds")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = given.place or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        found = measure(place, given.minutes, given.slice_s)
    print(json.dumps(found, indent=1))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
