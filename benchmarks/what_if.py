"""What if: plans through a wall beside free ones, on the blocks of a split, as the model sees them.

    python benchmarks/what_if.py --run RUN [--data DIR] [--split test] [--windows 120] [--json]

Printed: windows with a pair of plans (`plan_pairs`), the share in which the plan
through the wall meets the higher predicted occupancy, the mean of both, how often each is above one
half, and seconds of a forecast of six frames.
"""

from __future__ import annotations

import json
import time

import numpy as np

from of_a_run import parser_of, subject_of
from plan_pairs import met_by, pair_in


def main() -> None:
    parser = parser_of(__doc__, windows=120)
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    given = parser.parse_args()
    subject = subject_of(given)
    scorer = subject.scorer
    assert scorer.model is not None
    met, seconds = [], []
    for batch in subject.batches(1):
        pair = pair_in(batch, scorer.model, scorer.horizons_s, scorer.history)
        if pair is not None:
            begun = time.perf_counter()
            met.append(met_by(scorer.model, batch, scorer.history, pair))
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
