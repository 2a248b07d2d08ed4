"""Which term of the occupancy loss keeps a forecast from collapsing, on blocks never seen.

    python benchmarks/collapse.py [--seeds 3] [--steps 60] [--only LOSS] [--json]

Stage 1 at `test_local` size, trained from scratch by the product's own parts: the tokenizer has to
make every probability by itself. (Stage 2 begins at the past frames, so that no loss
could make it collapse within a short budget.) A seed makes a city of its own, weights and order.
Every loss gets the same steps on the same frames; what is told comes from the blocks of the
validation and test splits, which the training never saw.

    iou, structure   of the test split's frames, cut at the threshold that is best on validation
    ratio            mean probability over the share of occupied cells: what the loss matches
    cut              occupied cells after the cut over the truly occupied ones
    collapsed        ratio below 0.1 (empty) or above 10 (full): the thresholds of the health checks
    ground only      structure IoU below 0.05: after the cut nothing but the ground is left
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config, LossConfig
from vlwm.core.data.windows import frame_rows
from vlwm.core.evaluation.calibration.histogram import ProbabilityHistogram
from vlwm.core.evaluation.metrics import ZONES, count_zones, iou_of, structure_mask
from vlwm.core.model.tokenizer.vqvae import Tokenizer
from vlwm.core.training.loop.optimizer import Schedule, build_optimizer, set_lr
from vlwm.core.training.loop.stepper import Stepper
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.runtime.rng import seed_everything
from vlwm.core.training.startup.train_data import TrainData, open_data
from vlwm.core.training.tasks.tokenizer_task import TokenizerTask

DEFAULT = LossConfig()
FOCAL = replace(DEFAULT, dice_weight=0.0, mean_weight=0.0)
WEIGHT = 10.0
"""the guide's weight of mean-matching"""
LOSSES = {
    "focal": FOCAL,
    "focal + dice": replace(FOCAL, dice_weight=1.0),
    "focal + dice + absolute mean": replace(
        FOCAL, dice_weight=1.0, mean_weight=WEIGHT, mean_mode="absolute"
    ),
    "focal + relative mean": replace(FOCAL, mean_weight=WEIGHT, mean_mode="relative"),
    "focal + dice + relative mean": replace(DEFAULT, mean_weight=WEIGHT),
    "default": DEFAULT,
}
GROUND_ONLY = 0.05
TOLD = ("iou", "structure", "ratio", "cut")
DEVICE = torch.device("cpu")


def data_of(seed: int, folder: Path) -> tuple[Config, TrainData]:
    """A procedural city of its own for each seed, and its splits by area."""
    sets = (f"data_root={str(folder)!r}", f"seed={seed}", f"prepare.seed={seed}")
    config = load_config("test_local", sets)
    return config, open_data(config, lambda: None)


def train(config: Config, data: TrainData, loss: LossConfig, steps: int) -> Tokenizer:
    """A tokenizer after `steps` steps of stage 1."""
    config = replace(config, loss=loss)
    seed_everything(config.seed)
    model = Tokenizer(config.tokenizer, data.grid.shape)
    model.init_output_rate(torch.from_numpy(data.column))
    task = TokenizerTask(model, data, config, DEVICE, 0, Ranks())
    optimizer = build_optimizer(model, config.optimizer, config.tokenizer.lr)
    schedule = Schedule(config.lr_config, config.tokenizer.lr, steps)
    size = config.tokenizer.samples_per_gpu
    stepper = Stepper(task, optimizer, config.grad_clip, DEVICE, None, size)
    model.train()
    for step, batch in enumerate(batches(task, steps)):
        set_lr(optimizer, schedule.lr(step))
        stepper(batch, step, len(batch.index))
    return model.eval()


def batches(task: TokenizerTask, steps: int) -> Iterator[Any]:
    """The first `steps` batches of as many epochs as it takes."""
    epoch, left = 0, steps
    while left:
        for batch in task.batches(epoch, 0):
            yield batch
            left -= 1
            if not left:
                return
        epoch += 1


@torch.inference_mode()
def forecasts(model: Tokenizer, data: TrainData, split: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Probabilities and truth (X, Y, Z) of each frame of a split."""
    for row in frame_rows(data.store, data.splits, split):
        truth = torch.from_numpy(data.store.read_frame(int(row)))[None]
        logits = model.decode(model.quantize(model.encode(truth)).z_q)
        yield torch.sigmoid(logits[0].float()), truth[0]


def judge(model: Tokenizer, data: TrainData) -> dict[str, float]:
    """What is told of a trained tokenizer, on unseen blocks."""
    histogram = ProbabilityHistogram()
    for probability, truth in forecasts(model, data, "val"):
        histogram.add(probability, truth)
    threshold, _ = histogram.best_threshold()
    counts, mass = np.zeros((len(ZONES), 4), np.int64), 0.0
    for probability, truth in forecasts(model, data, "test"):
        cut = (probability >= threshold).to(torch.uint8)
        counts += count_zones([cut], truth, torch.ones_like(truth), structure_mask(truth))[0]
        mass += float(probability.double().sum())
    _, predicted, true, _ = counts[ZONES.index("all")]
    return {
        "iou": float(iou_of(counts[ZONES.index("all")])),
        "structure": float(iou_of(counts[ZONES.index("structure")])),
        "ratio": float(mass / true),
        "cut": float(predicted / true),
        "threshold": threshold,
    }


def collapsed(ratio: float, config: Config) -> bool:
    """Whether the health checks would call a mean prediction over the target's a collapse."""
    return not config.health.collapse_ratio <= ratio <= config.health.saturation_ratio


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every loss on every seed."""
    torch.set_num_threads(options.threads)
    losses = {name: LOSSES[name] for name in options.only or LOSSES}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in losses}
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory(prefix="vlwm-collapse-") as folder:
            config, data = data_of(seed, Path(folder) / "city")
            for name, loss in losses.items():
                started = time.process_time()
                found = judge(train(config, data, loss, options.steps), data)
                gone = collapsed(found["ratio"], config)
                cpu_s = round(time.process_time() - started, 1)
                runs[name].append({**found, "collapsed": gone, "cpu_s": cpu_s})
                print(f"seed {seed}, {name}: {runs[name][-1]}", file=sys.stderr)
    return {"seeds": options.seeds, "steps": options.steps, "losses": runs}


def show(found: dict[str, Any]) -> None:
    """The table: means over seeds; for the ratio also the lowest and the highest."""
    columns = ["loss", "IoU", "structure IoU", "ratio", "lowest-highest", "cut"]
    columns += ["collapsed", "ground only"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for name, runs in found["losses"].items():
        mean = {key: statistics.mean(run[key] for run in runs) for key in TOLD}
        ratios = [run["ratio"] for run in runs]
        gone = sum(run["collapsed"] for run in runs)
        flat = sum(run["structure"] < GROUND_ONLY for run in runs)
        print(
            f"| {name} | {mean['iou']:.3f} | {mean['structure']:.3f} | {mean['ratio']:.2f} | "
            f"{min(ratios):.2f}-{max(ratios):.2f} | {mean['cut']:.2f} | "
            f"{gone} of {len(runs)} | {flat} of {len(runs)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="cities and weights")
    parser.add_argument("--steps", type=int, default=60, help="of stage 1, eight frames each")
    parser.add_argument("--only", action="append", choices=tuple(LOSSES), help="a row; repeat it")
    parser.add_argument("--threads", type=int, default=1, help="of the processor")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options)
    print(json.dumps(found)) if options.json else show(found)


if __name__ == "__main__":
    main()
