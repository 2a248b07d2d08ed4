"""How long `--help` takes: vlwm beside other tools of the trade, in one run.

    python benchmarks/startup.py [--runs 5] [--json]

User CPU seconds of the whole process, the median of several runs after one warm-up, and the ratio
to vlwm. A tool that is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

TOOLS = {
    "vlwm": ["vlwm", "--help"],
    "vlwm train": ["vlwm", "train", "--help"],
    "hf": ["hf", "--help"],
    "wandb": ["wandb", "--help"],
    "tensorboard": ["tensorboard", "--help"],
    "torchrun": ["torchrun", "--help"],
}


def user_seconds(command: list[str]) -> float:
    """User CPU seconds of one run of a command and its children."""
    before = os.times().children_user
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return os.times().children_user - before


def median_user_seconds(command: list[str], runs: int) -> float:
    user_seconds(command)
    return statistics.median(user_seconds(command) for _ in range(runs))


def measure(runs: int) -> dict[str, float]:
    beside = str(Path(sys.executable).parent)
    path = os.pathsep.join([beside, os.environ.get("PATH", "")])
    found = {}
    for name, (program, *rest) in TOOLS.items():
        where = shutil.which(program, path=path)
        if where:
            found[name] = median_user_seconds([where, *rest], runs)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seconds = measure(options.runs)
    ratios = {name: value / seconds["vlwm"] for name, value in seconds.items()}
    if options.json:
        print(json.dumps({"user_s": seconds, "ratio_to_vlwm": ratios}))
        return
    for name, value in seconds.items():
        print(f"{name:12s} {value:6.2f} s   {ratios[name]:5.1f} x vlwm")


if __name__ == "__main__":
    main()
