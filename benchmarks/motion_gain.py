"""What a learned motion is worth in the predicted track: the same planes under several motions.

    python benchmarks/motion_gain.py --data DIR [--sessions 0] [--windows 84] [--seed 0]
                                     [--config tokyo_small] [--set KEY=VALUE …] [--out FILE]

Nothing but the motion differs: walls as planes, edges, thresholds chosen on validation windows of
every cluster, 64 to 256 draws. Motions: the strongest without a network on validation, the motion
head alone (`network`), and the head mixed with the ridge regression (`mixed`). Printed: IoU and
structure IoU at 0.5 … 3.0 s on test windows of every cluster, the difference to the motion without
a network, and its paired 95 % interval over clusters. `--sessions n` learns from the sessions that
`vlwm prepare --sessions n` would deal to training and to validation; 0: from all.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motion_ladder import PLANAR, Folder, network
from vlwm.core.config.load import load_config
from vlwm.core.data.batch import collate
from vlwm.core.data.datasets import WindowDataset
from vlwm.core.data.splits import deal_sessions
from vlwm.core.data.windows import Window
from vlwm.core.evaluation.baselines.fit import fit_edges, fit_motions
from vlwm.core.evaluation.baselines.motions import MotionBaseline
from vlwm.core.evaluation.baselines.planes import PlaneScene
from vlwm.core.evaluation.baselines.scenes import Background, spread
from vlwm.core.evaluation.calibration.thresholds import ThresholdHistogram, Thresholds
from vlwm.core.evaluation.clusters import cluster_of, over_clusters
from vlwm.core.evaluation.column_prior import MOST_FRAMES, evenly
from vlwm.core.evaluation.eval_windows import EvalWindow, windows_in
from vlwm.core.evaluation.metrics import structure_mask
from vlwm.core.model.memory.warp import under_spread
from vlwm.core.model.motion.motion_head import MotionHead
from vlwm.core.model.motion.vehicle_state import planar_of

SAMPLES = 2000


class Forecasts:
    """Planes of a window under every motion."""

    def __init__(
        self, folder: Folder, motions: dict[str, MotionBaseline | MotionHead], back: Background
    ) -> None:
        self.folder, self.motions, self.back = folder, motions, back

    def of(self, window: EvalWindow) -> list[dict[str, Tensor]]:
        """Return, per horizon, float32 (X, Y, Z) by motion."""
        grid, shape = self.folder.store.grid, self.folder.shape
        scene = PlaneScene(window.past, grid, self.back)
        past = window.past.motion(shape.dt_s)
        found: list[dict[str, Tensor]] = [{} for _ in range(shape.future)]
        for name, motion in self.motions.items():
            if isinstance(motion, MotionBaseline):
                ego, draws = motion.expected(past)[0], motion.draws(past)[0]
                for h, frame in enumerate(found):
                    moved = spread(scene.read(ego[h]), ego[h], draws[:, h], grid)
                    frame[name] = moved.permute(1, 2, 0).contiguous()
                continue
            poses, ground = (torch.from_numpy(v).float() for v in (past.poses, past.ground_z))
            predicted = motion(poses, ground)
            rows = torch.zeros(shape.future, dtype=torch.int64), torch.arange(shape.future)
            moves = motion.moves(predicted, *rows).double()
            places = planar_of(predicted.state)[0].double().numpy()
            for h, frame in enumerate(found):
                ego = np.zeros(4)
                ego[PLANAR] = places[h]
                here = scene.read(ego)[None]
                moved = under_spread(here, torch.from_numpy(ego)[None], moves[h : h + 1], grid)
                frame[name] = moved[0].permute(1, 2, 0).contiguous()
        return found


def each_window(folder: Folder, windows: list[Window]) -> Any:
    """Yield the windows, unpacked."""
    data = folder.dataset(windows)
    for index in range(len(data)):
        yield next(windows_in(collate([data[0, index]]), folder.shape.history, folder.store.grid))


def counts_of(cut: Thresholds, probability: Tensor, truth: Tensor, horizon: int) -> np.ndarray:
    """Return int64 (2, 2): hits and union, of all cells and of structure."""
    cells, true = cut.occupied(probability, horizon) > 0, truth > 0
    structure = structure_mask(truth) > 0
    masks = (torch.ones_like(structure), structure)
    return np.array(
        [[int((cells & true & m).sum()), int(((cells | true) & m).sum())] for m in masks]
    )


@torch.inference_mode()
def measured(folder: Folder, given: argparse.Namespace) -> dict[str, Any]:
    """Return scores and differences of every motion."""
    begun = time.process_time()
    dealt = deal_sessions(given.sessions or 10_000)
    train, val = (folder.windows(s, dealt.count(s)) for s in ("train", "val"))
    motions, strongest = fit_motions(folder.store, train, val, folder.shape)
    with torch.inference_mode(mode=False), torch.enable_grad():
        mixed = network(folder, train, val, given.seed)
        alone = network(folder, train, val, given.seed)
    alone.network_share.fill_(1.0)
    store, shape = folder.store, folder.shape
    rows = np.unique(np.concatenate([w.rows for w in train]))
    column = store.column_prior(rows[evenly(len(rows), MOST_FRAMES)])
    edges = fit_edges(WindowDataset(store, train, shape.history), store, shape)
    back = Background(torch.as_tensor(column, dtype=torch.float32), edges)
    every = {strongest: motions[strongest], "network": alone, "mixed": mixed}
    forecasts = Forecasts(folder, every, back)
    swept = {name: ThresholdHistogram(shape.future) for name in every}
    for window in each_window(folder, over_clusters(store, val, shape.history, 1)):
        for h, found in enumerate(forecasts.of(window)):
            for name, probability in found.items():
                swept[name].add(probability, window.truth[h], h)
    cuts = {name: histogram.best() for name, histogram in swept.items()}
    test = over_clusters(store, folder.windows("test"), shape.history, given.windows)
    clusters: dict[Any, np.ndarray] = {}
    for where, window in zip(test, each_window(folder, test), strict=True):
        key = cluster_of(store, where, shape.history)
        total = clusters.setdefault(key, np.zeros((len(every), shape.future, 2, 2), np.int64))
        for h, found in enumerate(forecasts.of(window)):
            for m, (name, probability) in enumerate(found.items()):
                total[m, h] += counts_of(cuts[name], probability, window.truth[h], h)
    counts = np.stack(list(clusters.values()))  # (C, M, H, 2, 2)
    rows = np.random.default_rng(0).integers(len(counts), size=(SAMPLES, len(counts)))
    samples = _iou(counts[rows].sum(axis=1))  # (S, M, H, 2)
    own = _iou(counts.sum(axis=0))
    off = samples - samples[:, :1]
    return {
        "sessions": given.sessions, "train_windows": len(train), "val_windows": len(val),
        "test_windows": len(test), "clusters": len(counts), "motions": list(every),
        "network_share": float(mixed.network_share), "iou": own.tolist(),
        "difference": (own - own[:1]).tolist(),
        "low": np.quantile(off, 0.025, axis=0).tolist(),
        "high": np.quantile(off, 0.975, axis=0).tolist(),
        "processor_s": round(time.process_time() - begun),
    }  # fmt: skip


def _iou(counts: np.ndarray) -> np.ndarray:
    return counts[..., 0] / np.maximum(counts[..., 1], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared session folders")
    parser.add_argument("--sessions", type=int, default=0)
    parser.add_argument("--windows", type=int, default=84, help="of the test split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", default="tokyo_small")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="one JSON line is appended")
    given = parser.parse_args()
    result = measured(Folder(given.data, load_config(given.config, tuple(given.set))), given)
    print({k: v for k, v in result.items() if not isinstance(v, list)})
    for m, name in enumerate(result["motions"]):
        for k, score in enumerate(("IoU", "structure")):
            cells = (
                f"{iou[k]:.3f} {off[k]:+.3f} ({low[k]:+.3f}, {high[k]:+.3f})"
                for iou, off, low, high in zip(
                    *(result[key][m] for key in ("iou", "difference", "low", "high")), strict=True
                )
            )
            print(f"| planes, {name} | {score} |", " | ".join(cells), "|")
    if given.out is not None:
        with given.out.open("a") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
