"""From a ROS bag to a forecast in two commands, with times.

    python benchmarks/bag_to_forecast.py [--minutes 10] [--json FILE]

Makes a bag first (the tests' known city, rays of a 16-beam lidar at 5 Hz from a drone that turns,
odometry at 50 Hz), which is not timed. Then, as an operator would:

    vlwm prepare --points flight.bag --output data/flight --config finetune_6dof ...
    vlwm train --config finetune_6dof --data data/flight ...

with the test grid (30 x 30 x 6 cells of 1.6 x 1.6 x 5 m) and a narrow network, so that a CPU can.
Both processor and wall seconds are told: the machine may be shared.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]


def timed(line: list[str]) -> dict[str, float]:
    """Run a command and return its wall and processor seconds, and peak memory in MB."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(line, text=True, capture_output=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(done.stdout[-2600:], flush=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall_s": round(time.monotonic() - start, 1),
        "processor_s": round(used, 1),
        "peak_mb": round(after.ru_maxrss / 1024, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from tests.core.data.recordings.readers.test_bags import write_rosbags
    from tests.core.data.recordings.sessions import CITY
    from tests.core.training.test_presets import SMALL_GRID, TINY

    sets = [w for pair in (*SMALL_GRID, *TINY) for w in ("--set", pair)]
    vlwm = [sys.executable, "-m", "vlwm"]
    with tempfile.TemporaryDirectory() as place:
        bag, data, work = (Path(place) / name for name in ("flight.bag", "data", "run"))
        city = replace(CITY, seconds=60.0 * given.minutes)
        write_rosbags(bag, "ROS1_NOETIC", "", "cloud", "odom", city)
        size = bag.stat().st_size / 1e6
        print(f"{len(city.scans)} scans in a bag of {size:.0f} MB", flush=True)
        common = ["--config", "finetune_6dof", *sets]
        found = {
            "minutes": given.minutes,
            "bag_mb": round(size, 1),
            "prepare": timed([*vlwm, "prepare", "--points", str(bag), "--output", str(data),
                              "--workers", "1", *common]),
            "train": timed([*vlwm, "train", "--data", str(data), "--work-dir", str(work),
                            "--from-scratch", "--no-live", *common]),
        }  # fmt: skip
        found["iou"] = json.loads((work / "scores.json").read_text())["scores"]["model"]["iou"]
    print(json.dumps(found, indent=1))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
