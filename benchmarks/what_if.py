"""What if: plans through a wall beside free ones, on the blocks of a split, as the model sees them.

    python benchmarks/what_if.py --run RUN [--data DIR] [--split test] [--windows 120] [--json]

Printed: windows with a pair of plans (`vlwm.core.evaluation.what_if`), the share in which the plan
through the wall meets the higher predicted occupancy, the mean of both, how often each is above one
half, and seconds of a forecast of six frames.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from vlwm.core.evaluation.opening import open_run
from vlwm.core.evaluation.what_if import met_by, pair_in


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="run folder or checkpoint")
    parser.add_argument("--data", type=Path, help="other data than the run's own")
    parser.add_argument("--split", default="test")
    parser.add_argument("--windows", type=int, default=120, help="looked at; 0: all")
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    given = parser.parse_args()
    subject = open_run(given.run, given.split, data=given.data, max_windows=given.windows).subject
    judge = subject.judge
    assert judge.model is not None
    met, seconds = [], []
    for batch in subject.batches(1):
        pair = pair_in(batch, judge.model, judge.horizons_s, judge.history)
        if pair is not None:
            begun = time.perf_counter()
            met.append(met_by(judge.model, batch, judge.history, pair))
            seconds.append((time.perf_counter() - begun) / 2)
    if not met:
        parser.exit(1, "no window has a wall in reach and a free way beside it\n")
    into, beside = np.array(met).T
    told = {
        "windows": len(subject.windows),
        "pairs": len(met),
        "higher_through_the_wall": float((into > beside).mean()),
        "mean_through_the_wall": float(into.mean()),
        "mean_beside": float(beside.mean()),
        "above_half_through_the_wall": float((into >= 0.5).mean()),
        "above_half_beside": float((beside >= 0.5).mean()),
        "forecast_s_median": float(np.median(seconds)),
    }
    if given.json:
        print(json.dumps(told))
    else:
        for name, value in told.items():
            print(f"{name.replace('_', ' '):32}{value:10.3f}")


if __name__ == "__main__":
    main()
