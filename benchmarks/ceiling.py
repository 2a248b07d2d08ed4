"""What the predicted track could reach at most with the motion as uncertain as a run's own.

    python benchmarks/ceiling.py --run RUN [--data DIR] [--split test] [--windows 180] [--json]

A forecaster that knows the whole city but not where the vehicle will be can do no better than to
average the city over where it may be. So the *true* future frames, read under the run's predicted
motion and averaged over the spread of its errors, are cut where that is best on these very windows,
for each score and horizon apart. Beyond the border of a true frame its outermost cells hold.
Printed: IoU and structure IoU per horizon.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from of_a_run import parser_of, subject_of
from vlwm.core.evaluation.calibration.histogram import ProbabilityHistogram
from vlwm.core.evaluation.metrics import structure_mask
from vlwm.core.model.memory.warp import under_spread
from vlwm.core.model.torch_frames import wrap_angle


def best(swept: list[ProbabilityHistogram]) -> list[float | None]:
    """The highest IoU over all thresholds, per horizon."""
    return [horizon.best_threshold()[1] for horizon in swept]


@torch.no_grad()
def main() -> None:
    parser = parser_of(__doc__, windows=180)
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    given = parser.parse_args()
    subject = subject_of(given)
    model, history = subject.scorer.model, subject.scorer.history
    assert model is not None
    everything = [ProbabilityHistogram() for _ in range(model.future)]
    structure = [ProbabilityHistogram() for _ in range(model.future)]
    for batch in subject.batches(1):
        voxels = model.reader.voxels(batch.bits, batch.symmetry)
        tokens = None
        if model.config.model.use_tokens:
            tokens = model.embedded(model.codes(voxels[:, :history]))
        motion = model.predict_motion(batch.past(history), tokens)
        true = batch.plan(history).ego
        off = (motion.ego - true)[..., [0, 1, 3]]
        off[..., 2] = wrap_angle(off[..., 2])
        for h in range(model.future):
            truth = voxels[:, history + h]
            moves = (
                model.motion_head.moves(motion, torch.tensor([0]), torch.tensor([h]))
                + off[:, h, None]
            )
            layers = truth.permute(0, 3, 1, 2).float()
            said = under_spread(layers, true[:, h], moves, model.grid).permute(0, 2, 3, 1)
            everything[h].add(said, truth)
            above = structure_mask(truth) > 0
            structure[h].add(said[above], truth[above])
    told: dict[str, Any] = {
        "windows": len(subject.windows),
        "iou": best(everything),
        "iou_structure": best(structure),
    }
    if given.json:
        print(json.dumps(told))
        return
    for name in ("iou", "iou_structure"):
        print(f"{name:14}", *("  -  " if v is None else f"{v:.3f}" for v in told[name]))


if __name__ == "__main__":
    main()
