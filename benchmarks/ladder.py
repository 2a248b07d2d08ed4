"""Every forecaster under one protocol: one JSON line per method, seed and city.

    python benchmarks/ladder.py --data CITY=DIR [CITY=DIR ...] --out FILE [--minutes 12]
                                [--methods NAME ...] [--seeds 0 1 2] [--config tokyo_small_lidar]
                                [--val-windows 24] [--test-windows 60]
    python benchmarks/ladder.py --out FILE --table

Methods: the tri-state baselines; peers (`peers/`): unet, simvp, convlstm, ff4d; this project's
model: memory (the count of evidence alone), completion (and the network that completes it: the
default), tokens (tokenizer and transformer, OccWorld's recipe), all; tokens of the fused evidence
(`token_designs/`): masked_tokens, continuous_latents, completion_tokens. Each learns on the train
split of its city for the given *processor* minutes, gets its thresholds on validation windows, and
is scored on test windows, along the true plan. Lines that are in the file are not made again, and a
method that was stopped resumes from a state file next to it that is written every minute: run the
same command again.

The table shows the mean over seeds and, against the strongest tri-state baseline, 95 % intervals of
the paired difference over clusters.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learners import LEARNERS, Learner, learner_of
from scoreboard import Scoreboard, table_of
from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config
from vlwm.core.data.batch import collate
from vlwm.core.data.datasets import WindowDataset
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.splits import Splits
from vlwm.core.data.windows import frame_rows, windows_of
from vlwm.core.evaluation.baselines.tri_state import PLANNED, TriState, evidence_of
from vlwm.core.evaluation.baselines.tri_state_fit import ValidationWindow, fit_tri_state
from vlwm.core.evaluation.clusters import cluster_of
from vlwm.core.evaluation.column_prior import evenly, train_prior
from vlwm.core.evaluation.eval_windows import windows_in
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.completion_net import fast_convolutions

SAVE_EVERY_S = 60.0
LR = 2e-3
BATCH = 2
CPU = torch.device("cpu")
FIT_WINDOWS = 12


@dataclass(frozen=True)
class City:
    """Windows of one data folder.

    Attributes:
        train, val, test: observed pasts and true futures.
        column: float64 (Z,), share of occupied cells by height in the train split.
        layers: bool (Z,), layers that the column prior calls occupied.
    """

    name: str
    store: PackedStore
    train: WindowDataset
    val: WindowDataset
    test: WindowDataset
    column: np.ndarray
    layers: np.ndarray


def open_city(name: str, root: Path, config: Config, val: int, test: int) -> City:
    """Open a data folder that `vlwm prepare --observe` made."""
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    store = PackedStore.open(root, grid)
    splits = Splits.read(root / "splits.json")

    def windows(split: str, most: int) -> WindowDataset:
        found = windows_of(store, splits, split, config.window_frames)
        chosen = [found[i] for i in evenly(len(found), most)]
        mirror = split == "train" and config.data.mirror
        return WindowDataset(store, chosen, config.history_frames, mirror=mirror, observed=True)

    rows = frame_rows(store, splits, "train")
    column = store.column_prior(rows[evenly(len(rows), 200)])
    return City(
        name, store, windows("train", 0), windows("val", val), windows("test", test), column,
        train_prior(store, splits).layers,
    )  # fmt: skip


def train(learner: Learner, city: City, seed: int, minutes: float, state: Path) -> dict[str, Any]:
    """Train a learner for processor minutes, from its state file where there is one."""
    budget, spent, step = 60.0 * minutes, 0.0, 0
    optimizer = torch.optim.AdamW(learner.module.parameters(), lr=LR, weight_decay=0.01)
    if state.exists():
        kept = torch.load(state, weights_only=True)
        learner.module.load_state_dict(kept["module"])
        optimizer.load_state_dict(kept["optimizer"])
        spent, step = kept["spent"], kept["step"]
    begun, saved = time.process_time() - spent, spent
    learner.module.train()
    while spent < budget:
        # The rate is a function of the time that is gone.
        learner.progress = spent / budget
        for group in optimizer.param_groups:
            group["lr"] = LR * learner.rate()
        rng = np.random.default_rng([seed, step])
        chosen = rng.integers(len(city.train), size=BATCH)
        batch = collate([city.train[epoch_of(step, city), int(i)] for i in chosen])
        with fast_convolutions(CPU):
            loss = learner.loss(batch, step, rng)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.module.parameters(), 35.0)
        optimizer.step()
        step += 1
        spent = time.process_time() - begun
        if spent - saved > SAVE_EVERY_S:
            saved = spent
            kept = {
                "module": learner.module.state_dict(),
                "optimizer": optimizer.state_dict(),
                "spent": spent,
                "step": step,
            }
            torch.save(kept, state.with_suffix(".tmp"))
            state.with_suffix(".tmp").replace(state)
    return {"steps": step, "processor_min": round(spent / 60, 2)}


def epoch_of(step: int, city: City) -> int:
    """Return the epoch of a step: a window is turned and mirrored anew in each."""
    return step * BATCH // max(1, len(city.train))


@torch.no_grad()
def score_learner(learner: Learner, city: City, config: Config) -> dict[str, Any]:
    """Choose thresholds on validation windows and count test windows."""
    learner.module.eval()
    board = Scoreboard(config, city.store.grid)
    for index in range(len(city.val)):
        batch = collate([city.val[0, index]])
        window = next(windows_in(batch, config.history_frames, city.store.grid))
        with fast_convolutions(CPU):
            board.calibrate(learner.probabilities(batch)[0], window)
    board.choose()
    for index in range(len(city.test)):
        batch = collate([city.test[0, index]])
        window = next(windows_in(batch, config.history_frames, city.store.grid))
        cluster = cluster_of(city.store, city.test.windows[index], config.history_frames)
        with fast_convolutions(CPU):
            probabilities = learner.probabilities(batch)[0]
        board.add(board.planes(probabilities), window, cluster)
    return board.content()


def score_tri_state(city: City, config: Config) -> dict[str, dict[str, Any]]:
    """Count test windows of every tri-state baseline along the plan."""
    grid, history = city.store.grid, config.history_frames
    fit = []
    for index in evenly(len(city.val), FIT_WINDOWS):
        window = next(windows_in(collate([city.val[0, int(index)]]), history, grid))
        assert window.seen is not None
        fit.append(ValidationWindow(window.seen, window.truth, window.future_ego))
    methods = fit_tri_state(fit, city.layers, grid, history, config.future_frames)
    boards = {name: Scoreboard(config, grid) for name in PLANNED}
    for index in range(len(city.test)):
        window = next(windows_in(collate([city.test[0, index]]), history, grid))
        cluster = cluster_of(city.store, city.test.windows[index], history)
        for name, planes in _tri_state_planes(methods, window).items():
            boards[name].add(planes, window, cluster)
    return {name: board.content() for name, board in boards.items()}


def _tri_state_planes(methods: TriState, window: Any) -> dict[str, Tensor]:
    """Return uint8 (H, X, Y, Z) of each variant."""
    evidence = evidence_of(window.seen, window.future_ego, methods.grid)
    frames = [methods.planes(found, h, "true_pose_") for h, found in enumerate(evidence)]
    return {name: torch.stack([f[name] for f in frames]) for name in frames[0]}


def run(options: argparse.Namespace) -> None:
    """Make every line that the file lacks."""
    config = load_config(options.config)
    done = {(r["city"], r["method"], r["seed"]) for r in read_lines(options.out)}
    for pair in options.data:
        name, _, root = pair.partition("=")
        city = open_city(name, Path(root), config, options.val_windows, options.test_windows)
        if not {(name, method, 0) for method in PLANNED} <= done:
            for method, content in score_tri_state(city, config).items():
                if (name, method, 0) not in done:
                    write_line(options.out, name, method, 0, {}, content)
        for seed in options.seeds:
            for method in options.methods:
                if (name, method, seed) in done:
                    continue
                torch.manual_seed(seed)
                learner = learner_of(method, config, city.store.grid)
                learner.prepare(city.column)
                state = options.out.with_name(f"{options.out.stem}.{name}.{method}.{seed}.pt")
                how = train(learner, city, seed, options.minutes, state)
                how["parameters"] = sum(p.numel() for p in learner.module.parameters())
                content = score_learner(learner, city, config)
                write_line(options.out, name, method, seed, how, content)
                state.unlink(missing_ok=True)


def write_line(
    out: Path, city: str, method: str, seed: int, how: dict[str, Any], content: dict[str, Any]
) -> None:
    """Append one line, and print its IoU."""
    row = {"city": city, "method": method, "seed": seed, **how, **content}
    with open(out, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(city, method, seed, "IoU", [round(v, 3) for v in content["iou"]], flush=True)


def read_lines(out: Path) -> list[dict[str, Any]]:
    """Return the rows of the file; none where it is missing."""
    if not out.exists():
        return []
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines() if line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=[], metavar="CITY=DIR")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines")
    parser.add_argument("--config", default="tokyo_small_lidar")
    parser.add_argument("--methods", nargs="*", default=list(LEARNERS), choices=LEARNERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=12.0, help="processor minutes a method")
    parser.add_argument("--val-windows", type=int, default=24)
    parser.add_argument("--test-windows", type=int, default=60)
    parser.add_argument("--table", action="store_true", help="print the table of the file")
    options = parser.parse_args()
    if options.table:
        print(table_of(read_lines(options.out)))
        return
    run(options)


if __name__ == "__main__":
    main()
