"""How well each motion foresees, by the number of sessions that it learns from: poses alone.

    python benchmarks/motion_ladder.py --data DIR [--sessions 10 20 80 300] [--seeds 0 1 2]
                                       [--train DIR] [--config tokyo_small] [--set KEY=VALUE …]
                                       [--out FILE]

Of n sessions as many as `vlwm prepare` would deal to training and to validation are taken, evenly
spaced over those of the folder; every motion is scored on all test windows. Fitted on the train
sessions: constant twist, turn rate, ridge, analogs (`evaluation.baselines.motions`); `network` is
the motion head alone, `mixed` the same weights mixed with the ridge regression, whose share
validation chooses. Printed: metres at 1, 2, 3 s, the energy score of the draws (lower is better),
its difference to the strongest motion without a network, with the paired 95 % interval over
clusters, the share of the network, and processor seconds. With --train all sessions of
another folder of the same city, split alike, are learned from, and --data is only scored.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config
from vlwm.core.data.datasets import WindowDataset
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.source_splits import open_splits
from vlwm.core.data.splits import deal_sessions
from vlwm.core.data.windows import Window, windows_of
from vlwm.core.evaluation.baselines.fit import fit_motions, motion_of
from vlwm.core.evaluation.baselines.motions import MotionBaseline, PastMotion
from vlwm.core.evaluation.clusters import cluster_of
from vlwm.core.evaluation.column_prior import evenly
from vlwm.core.evaluation.eval_windows import WindowShape
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.motion.energy_score import energy_of
from vlwm.core.model.motion.motion_head import MotionHead
from vlwm.core.model.motion.vehicle_state import planar_of
from vlwm.core.training.runtime.rng import seed_everything
from vlwm.core.training.tasks.motion_pretraining import MotionPretraining, Motions, motions_of
from vlwm.core.training.tasks.pretraining import PhaseProgress, run_phase

SAMPLES = 2000
"""of the bootstrap over clusters"""
PLANAR = [0, 1, 3]
"""x, y and yaw of an ego frame"""


class Folder:
    """The windows of a prepared folder, of which a ladder takes more and more sessions."""

    def __init__(self, root: Path, config: Config) -> None:
        self.config = config
        grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
        self.store = PackedStore.open(root, grid)
        self.splits = open_splits(self.store, grid.horizontal_half_diagonal_m, config.seed)
        self.shape = WindowShape(config.history_frames, config.future_frames, config.frame_dt_s)

    def windows(self, split: str, sessions: int = 0) -> list[Window]:
        """Return the windows of a split, of at most so many sessions; 0: of all."""
        found = windows_of(self.store, self.splits, split, self.config.window_frames)
        names = sorted({w.session for w in found})
        kept = {names[i] for i in evenly(len(names), sessions)}
        return [w for w in found if w.session in kept]

    def dataset(self, windows: list[Window]) -> WindowDataset:
        """Return windows as training reads them."""
        return WindowDataset(self.store, windows, self.config.history_frames)


def network(folder: Folder, train: list[Window], val: list[Window], seed: int) -> MotionHead:
    """Return a motion head trained on poses alone, with the regression, calibrated."""
    config, cpu = folder.config, torch.device("cpu")
    seed_everything(seed)
    model = config.model
    head = MotionHead(
        config.history_frames, config.future_frames, config.frame_dt_s, model.pose_channels,
        model.pose_dof, ridge=True,
    )  # fmt: skip
    motions = Motions(folder.dataset(train), config, 1, cpu)
    motions.seed = seed
    unseen = motions_of(folder.dataset(val), len(val))
    run_phase(MotionPretraining(head, motions, config, unseen), config, cpu, PhaseProgress())
    head.calibrate(unseen)
    return head


def scores(
    planar: np.ndarray, draws: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return distances (N, H) and energy scores (N, H).

    Args:
        planar, truth: (N, H, 3), x, y (m) and yaw (rad) in the anchor frame.
        draws: (N, H, M, 3), as `planar`.
    """
    off = np.linalg.norm(planar[..., :2] - truth[..., :2], axis=-1)
    rows = (torch.from_numpy(v).flatten(0, 1) for v in (draws, truth[:, :, None]))
    return off, energy_of(*rows).view(off.shape).numpy()


def of_baseline(
    motion: MotionBaseline, past: PastMotion, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return `scores` of a motion without a network."""
    expected = motion.expected(past)[..., PLANAR]
    errors = motion.draws(past).transpose(0, 2, 1, 3)  # (N, H, M, 3), in the expected frame
    cos, sin = np.cos(expected[..., 2:]), np.sin(expected[..., 2:])
    x = cos * errors[..., 0] - sin * errors[..., 1]
    y = sin * errors[..., 0] + cos * errors[..., 1]
    return scores(expected, expected[:, :, None] + np.stack([x, y, errors[..., 2]], -1), truth)


@torch.no_grad()
def of_head(head: MotionHead, past: PastMotion, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `scores` of a motion head."""
    poses, ground_z = (torch.from_numpy(v).float() for v in (past.poses, past.ground_z))
    motion = head(poses, ground_z)
    count, horizons = truth.shape[:2]
    windows = torch.arange(count).repeat_interleave(horizons)
    moves = head.moves(motion, windows, torch.arange(horizons).repeat(count))
    expected = planar_of(motion.state).double()
    draws = expected[:, :, None] + moves.view(count, horizons, -1, 3)
    return scores(expected.numpy(), draws.numpy(), truth)


def interval(difference: np.ndarray, clusters: list[Any]) -> tuple[float, float]:
    """Return the 95 % interval of a mean difference (N,) over resampled clusters."""
    _, number = np.unique(np.array([str(c) for c in clusters]), return_inverse=True)
    sums = np.bincount(number, difference)
    sizes = np.bincount(number)
    rows = np.random.default_rng(0).integers(len(sums), size=(SAMPLES, len(sums)))
    means = sums[rows].sum(axis=1) / sizes[rows].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def rung(folder: Folder, source: Folder, sessions: int, seeds: list[int]) -> dict[str, Any]:
    """Return what every motion scores on a folder after so many sessions of a source; 0: all."""
    dealt = deal_sessions(sessions) if sessions else []
    train, val = (source.windows(s, dealt.count(s)) for s in ("train", "val"))
    test = folder.windows("test")
    past, future = motion_of(folder.store, test, folder.shape)
    truth = future[..., PLANAR]
    clusters = [cluster_of(folder.store, w, folder.shape.history) for w in test]
    begun = time.process_time()
    motions, _ = fit_motions(source.store, train, val, source.shape)
    found = {name: [of_baseline(m, past, truth)] for name, m in motions.items()}
    fit_s = time.process_time() - begun
    strongest = min(found, key=lambda name: float(found[name][0][1].mean()))
    found |= {"network": [], "mixed": []}
    shares, begun = [], time.process_time()
    for seed in seeds:
        head = network(source, train, val, seed)
        shares.append(float(head.network_share))
        found["mixed"].append(of_head(head, past, truth))
        head.network_share.fill_(1.0)
        found["network"].append(of_head(head, past, truth))
    rival = found[strongest][0][1].mean(axis=1)
    return {
        "sessions": sessions, "train_windows": len(train), "val_windows": len(val),
        "test_windows": len(test), "clusters": len({str(c) for c in clusters}),
        "strongest": strongest, "network_share": shares, "fit_s": round(fit_s, 1),
        "network_s": round((time.process_time() - begun) / len(seeds), 1),
        "motions": {
            name: {
                "m": np.mean([off.mean(axis=0) for off, _ in runs], axis=0).tolist(),
                "energy": float(np.mean([energy.mean() for _, energy in runs])),
                "energy_by_seed": [float(energy.mean()) for _, energy in runs],
                "difference": float(np.mean([e.mean(axis=1) - rival for _, e in runs])),
                "interval": interval(
                    np.mean([e.mean(axis=1) for _, e in runs], axis=0) - rival, clusters
                ),
            }
            for name, runs in found.items()
        },
    }  # fmt: skip


def show(result: dict[str, Any]) -> None:
    """Print the rows of docs/benchmarks.md."""
    print(f"{result['sessions']} sessions: {result['train_windows']} + {result['val_windows']} "
          f"windows, {result['test_windows']} tested in {result['clusters']} clusters; shares of "
          f"the network {result['network_share']}; {result['network_s']} s a network")  # fmt: skip
    for name, row in result["motions"].items():
        metres = " ".join(f"{row['m'][i]:.2f}" for i in (1, 3, 5))
        low, high = row["interval"]
        ends = (
            ""
            if name == result["strongest"]
            else f"{row['difference']:+.3f} ({low:+.3f}, {high:+.3f})"
        )
        print(f"| {name} | {metres} | {row['energy']:.3f} | {ends} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared session folders")
    parser.add_argument("--sessions", type=int, nargs="+", default=[10, 20, 80, 300])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train", type=Path, help="folder to learn from, all of it")
    parser.add_argument("--config", default="tokyo_small")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="one JSON line per rung is appended")
    given = parser.parse_args()
    config = load_config(given.config, tuple(given.set))
    folder = Folder(given.data, config)
    source = folder if given.train is None else Folder(given.train, config)
    for sessions in given.sessions if given.train is None else [0]:
        result = rung(folder, source, sessions, given.seeds)
        show(result)
        if given.out is not None:
            with given.out.open("a") as file:
                file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
