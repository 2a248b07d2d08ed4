"""The best, the typical and the worst window of a run: pictures to look at, and how windows differ.

    python benchmarks/extremes.py --run RUN --output DIR [--data DIR] [--split test] [--windows 60]

Windows are ordered by structure IoU of the model less that of the memory baseline, predicted track,
at 2 s. Written: best.png, typical.png (the median), worst.png. Printed: the share of windows in
which the model is above the baseline, quantiles of the difference, and the three windows' scores.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from of_a_run import parser_of, subject_of
from vlwm.core.evaluation.metrics import ZONES, iou_of
from vlwm.core.figures.eval_figures import clip_of, notes_of
from vlwm.core.figures.window_figure import WindowFrames, write_window_picture

_AT_S = 2.0
_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def main() -> None:
    parser = parser_of(__doc__, windows=60)
    parser.add_argument("--output", type=Path, required=True, help="folder of the pictures")
    given = parser.parse_args()
    subject = subject_of(given)
    scorer = subject.scorer
    rows = [scorer.methods.index(name) for name in ("model", "memory_baseline")]
    at, zone = int(np.argmin(np.abs(scorer.horizons_s - _AT_S))), ZONES.index("structure")
    found = np.empty((len(subject.windows), 2))
    for k in range(len(subject.windows)):
        tally = scorer.new_tally()
        scorer.add(subject.batch([k]), [0], tally)
        found[k] = iou_of(tally.total.counts[rows, at, zone])
    gain = found[:, 0] - found[:, 1]
    told = np.flatnonzero(np.isfinite(gain))
    order = told[np.argsort(gain[told])]
    if not len(order):
        parser.exit(1, "no window has a structure to foresee\n")
    print(f"{len(order)} windows, above the baseline in {100 * (gain[order] > 0).mean():.0f} %")
    print("quantiles", *(f"{q:g}: {np.quantile(gain[order], q):+.3f}" for q in _QUANTILES))
    given.output.mkdir(parents=True, exist_ok=True)
    for name, index in (("worst", order[0]), ("typical", order[len(order) // 2]),
                        ("best", order[-1])):  # fmt: skip
        clip = clip_of(subject, int(index))
        past = len(clip.past)
        frames = WindowFrames(
            clip.past, clip.truth, clip.forecast, clip.times_s[:past], clip.times_s[past:]
        )
        path = given.output / f"{name}.png"
        write_window_picture(
            path, frames, subject.store.grid, title=f"{name}: {clip.title}", notes=notes_of(subject)
        )
        model, rival = found[index]
        print(f"{path}: {model:.3f}, baseline {rival:.3f}, {clip.title}")


if __name__ == "__main__":
    main()
