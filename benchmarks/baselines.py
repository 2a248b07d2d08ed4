"""The baselines of both tracks on a data folder: no training, no GPU.

    python benchmarks/baselines.py --data DIR [--config tokyo_small] [--split test]
                                   [--windows 160] [--out DIR] [--json]

Fits motions to the train split and thresholds to validation windows of every cluster, then scores
windows that are evenly spaced over the split. Printed: IoU and structure IoU of every method per
horizon, with the 95 % interval at 1, 2 and 3 s, motion errors, and seconds of the processor.

The set of docs/benchmarks.md has at least 30 clusters in validation and in test (many short
sessions instead of few long ones):

    vlwm prepare --input CITY --output DIR --config tokyo_small --frames 20 --sessions 400

In a city of two tiles, such as Matsumoto, the regions are too small for that; these are not:

    vlwm prepare … --seed 0 --set prepare.held_out=0.6

With --out the fitted parameters are kept, and another call with the same folder scores at once.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from vlwm.core.config.load import load_config
from vlwm.core.evaluation.baselines.fitted import FittedBaselines
from vlwm.core.evaluation.evaluator import score_subject
from vlwm.core.evaluation.load import EvalData, open_baselines
from vlwm.core.evaluation.scores.score_table import methods_of, sentences
from vlwm.core.files import make_folder, write_json

FITTED = "baselines.pth"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared session folders")
    parser.add_argument("--config", default="tokyo_small")
    parser.add_argument("--split", default="test")
    parser.add_argument("--windows", type=int, default=160, help="scored; 0: all")
    parser.add_argument("--out", type=Path, help="folder for scores.json and what was fitted")
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    given = parser.parse_args()
    begun, processor = time.monotonic(), time.process_time()
    kept = None if given.out is None else make_folder(given.out) / FITTED
    fitted = None
    if kept is not None and kept.exists():
        fitted = FittedBaselines.of(torch.load(kept, weights_only=True))
    data = EvalData(given.split, given.data, given.windows)
    opened = open_baselines(load_config(given.config), data, fitted)
    found = opened.subject.scorer.fitted
    if kept is not None and fitted is None and found is not None:
        torch.save(found.content(), kept)
    fitted_s = time.monotonic() - begun
    sheet = score_subject(opened.subject, given.split, None)
    sheet["seconds"] = {
        "fit": round(fitted_s),
        "all": round(time.monotonic() - begun),
        "processor": round(time.process_time() - processor),
    }
    if given.out is not None:
        write_json(given.out / "scores.json", sheet)
    print(json.dumps(sheet)) if given.json else show(sheet)


def show(sheet: dict[str, Any]) -> None:
    """Print the tables of docs/benchmarks.md."""
    windows = sheet["baseline_parameters"].get("windows")  # none for an observed past
    print(f"{sheet['n_windows']} windows, {sheet['n_clusters']} clusters; fitted on {windows}; "
          f"{sheet['seconds']} s; strongest on validation: {sheet['baseline']}")  # fmt: skip
    marks = [i for i, s in enumerate(sheet["horizons_s"]) if s in (1.0, 2.0, 3.0)]
    for track in ("predicted", "plan"):
        print(f"\n| {track} | IoU | structure IoU | seen | new | intervals of IoU |")
        print("|---|---|---|---|---|---|")
        for method in methods_of(sheet, track):
            block, ends = sheet["scores"][method], sheet["intervals"][method]["iou"]
            cells = [_row(block[key]) for key in ("iou", "iou_structure")]
            cells += [_row(block[key][i] for i in marks) for key in ("iou_seen", "iou_new")]
            cells.append(", ".join("–".join(_row([v]) for v in ends[i] or ()) for i in marks))
            print(f"| `{method}` |", " | ".join(cells), "|")
    print("\n| motion | m at 1/2/3 s | degrees |\n|---|---|---|")
    for name, errors in sheet["pose"].items():
        parts = ("/".join(f"{errors[k][i]:.2f}" for i in marks) for k in ("m", "deg"))
        print(f"| {name} |", " | ".join(parts), "|")
    print("\n" + "\n".join(sentences(sheet)))


def _row(values: Any) -> str:
    return " ".join("–" if v is None else f"{v:.2f}".replace("0.", ".") for v in values)


if __name__ == "__main__":
    main()
