"""How well motion is foreseen, and how sure that is said to be: the pose module alone.

    python benchmarks/motion.py --data DIR [--unseen DIR] [--split test] [--windows 0] [--dof 6]
                                [--steps 610] [--share 1] [--config tokyo_small] [--json]

Poses cost nothing beside voxels, so what a run learns of motion is had in a minute: the steps from
poses alone, then those of stage 2 with the same windows a step, optimiser and schedule, and the
same widths and sigmas from the validation split. Told for
each component, over the windows of `--unseen` (the data themselves if not given): the share of
errors within the sigma that is said, 0.5 … 3 s, and mean errors at 1 and 3 s beside constant twist.
`--share 4` trains on every fourth session, which tells what more windows would give.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config
from vlwm.core.data.datasets import WindowDataset
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.source_splits import open_splits
from vlwm.core.data.windows import windows_of
from vlwm.core.evaluation.column_prior import evenly
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.motion.motion_head import MotionHead
from vlwm.core.model.motion.vehicle_state import constant_motion, motion_error, true_state
from vlwm.core.training.loop.optimizer import Schedule, build_optimizer, clip_gradients, set_lr
from vlwm.core.training.runtime.rng import seed_everything
from vlwm.core.training.tasks.motion_pretraining import MotionPretraining, Motions, motions_of
from vlwm.core.training.tasks.pretraining import PhaseProgress, run_phase

CALIBRATION = 2000
"""validation windows that the sigmas come from, as in training"""
COMPONENTS = ("x", "y", "z", "yaw", "roll", "pitch", "vx", "vy", "vz", "wx", "wy", "wz")


def windows(config: Config, root: Path, split: str, most: int = 0, share: int = 1) -> WindowDataset:
    """At most so many windows of a split, of every `share`-th session."""
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    store = PackedStore.open(root, grid)
    splits = open_splits(store, grid.horizontal_half_diagonal_m, config.seed)
    found = windows_of(store, splits, split, config.window_frames)
    kept = set(sorted({w.session for w in found})[::share])
    found = [w for w in found if w.session in kept]
    chosen = [found[i] for i in evenly(len(found), most)]
    return WindowDataset(store, chosen, config.history_frames, seed=config.seed)


def trained(config: Config, train: WindowDataset, steps: int) -> MotionHead:
    """A pose module after `steps` steps of the pose loss."""
    motions = Motions(train, config, 1, torch.device("cpu"))
    seed_everything(config.seed)
    model = config.model
    pose = MotionHead(config.history_frames, config.future_frames, config.frame_dt_s,
                      model.pose_channels, model.pose_dof)  # fmt: skip
    phase = MotionPretraining(pose, motions, config)
    run_phase(phase, config, torch.device("cpu"), PhaseProgress())
    optimizer = build_optimizer(pose, config.optimizer, config.optimizer.lr)
    schedule = Schedule(config.lr_config, config.optimizer.lr, steps)
    for step in range(steps):
        set_lr(optimizer, schedule.lr(step))
        extra = motions.of_step(step)
        assert extra is not None
        optimizer.zero_grad()
        (config.loss.pose_weight * pose.loss_of_windows(extra.windows)).backward()
        clip_gradients(pose.parameters(), config.grad_clip)
        optimizer.step()
    return pose


@torch.no_grad()
def judged(pose: MotionHead, unseen: WindowDataset) -> dict[str, Any]:
    """What is told of each component."""
    seen = motions_of(unseen, len(unseen))
    past, ground = seen.poses[:, : pose.history], seen.ground_z[:, : pose.history]
    truth = true_state(seen.poses[:, pose.history :], pose.size)
    motion = pose(past, ground)
    twist = constant_motion(past, pose.horizons_s, pose.dt_s, pose.size)
    error, rival = (motion_error(s, truth).abs() for s in (motion.state, twist))
    within = (error <= motion.log_sigma.exp() * pose.sigma_scale).float().mean(0)  # (H, D)
    told: dict[str, Any] = {"windows": len(unseen), "within_sigma_all": float(within.mean())}
    for i, name in enumerate(COMPONENTS[: pose.size]):
        told[name] = {
            "within_sigma": within[:, i].tolist(),
            "error": error[..., i].mean(0).tolist(),
            "constant_twist": rival[..., i].mean(0).tolist(),
        }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared session folders")
    parser.add_argument("--unseen", type=Path, help="other data to judge on")
    parser.add_argument("--split", default="test", help="judged")
    parser.add_argument("--windows", type=int, default=0, help="of it; 0: all")
    parser.add_argument("--dof", type=int, choices=(3, 6), default=6)
    parser.add_argument("--steps", type=int, default=610)
    parser.add_argument("--share", type=int, default=1, help="train on every n-th session")
    parser.add_argument("--config", default="tokyo_small")
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    given = parser.parse_args()
    config = load_config(given.config, (f"model.pose_dof={given.dof}",))
    begun = time.process_time()
    train = windows(config, given.data, "train", share=given.share)
    pose = trained(config, train, given.steps)
    pose.calibrate(motions_of(windows(config, given.data, "val"), CALIBRATION))
    told = judged(pose, windows(config, given.unseen or given.data, given.split, given.windows))
    told |= {"train_windows": len(train), "processor_s": round(time.process_time() - begun)}
    print(json.dumps(told)) if given.json else show(told)


def show(told: dict[str, Any]) -> None:
    """The table of docs/benchmarks.md."""
    print(f"{told['train_windows']} windows to train on, {told['processor_s']} s; "
          f"{told['windows']} judged, {told['within_sigma_all']:.3f} within one sigma")  # fmt: skip
    print("| component | within one sigma | mean | 1 s | constant twist | 3 s | constant twist |")
    print("|---|---|---|---|---|---|---|")
    for name in COMPONENTS:
        if name in told:
            each, error, twist = (
                told[name][k] for k in ("within_sigma", "error", "constant_twist")
            )
            shares = " ".join(f"{v:.2f}".lstrip("0") for v in each)
            means = (f"{v:.3f}" for v in (error[1], twist[1], error[-1], twist[-1]))
            print(f"| {name} | {shares} | {sum(each) / len(each):.2f} |", " | ".join(means), "|")


if __name__ == "__main__":
    main()
