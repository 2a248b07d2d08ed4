"""Motion of many windows at once: a step sees few windows, but poses cost nothing beside voxels.

So the pose module learns from poses alone first, in a minute, and goes on beside the frames.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from vlwm.core.config.schema import Config
from vlwm.core.data.batch import mirrored_poses
from vlwm.core.data.datasets import WindowDataset
from vlwm.core.model.motion.motion_head import MoreMotion, PoseModule
from vlwm.core.training.loop.optimizer import Schedule, build_optimizer, clip_gradients, set_lr
from vlwm.core.training.tasks.pretraining import BeginCourse

_MOST = 200_000  # windows that are held: 120 MB
_SCALED = 20_000  # windows that the scale of the features comes from
_LR = 5e-3  # of what is learnt before the frames
_DECAYED = 10_000  # windows up to which the weight decay is 1


def motions_of(windows: WindowDataset, most: int, device: torch.device | None = None) -> MoreMotion:
    """The motion of at most so many windows, evenly spaced, as they were driven."""
    every = range(0, len(windows), max(1, -(-len(windows) // most))) if most else ()
    found = [windows.motion(i) for i in every]
    if not found:
        none = torch.zeros(0, 0, 13, device=device)
        return MoreMotion(none, none[..., 0], share=1.0)
    poses, ground_z = (
        torch.from_numpy(np.array(values, np.float32)).to(device)
        for values in zip(*found, strict=True)
    )
    return MoreMotion(poses, ground_z, share=1.0)


class Motions:
    """The motion of the train windows, and a choice of them for each step.

    Args:
        windows: the train split.
        config: how many a step takes, mirroring, seed, the batch they stand beside.
        ranks: processes that share a batch; all choose alike.
        device: where the choice goes.
    """

    def __init__(
        self, windows: WindowDataset, config: Config, ranks: int, device: torch.device
    ) -> None:
        self.seed, self.mirror, self.device = config.seed, config.data.mirror, device
        self.count = min(config.data.motion_samples, len(windows))
        self.share = self.count / max(self.count + config.data.samples_per_gpu * ranks, 1)
        held = motions_of(windows, _MOST)
        self.poses, self.ground_z = held.poses.numpy(), held.ground_z.numpy()

    def some(self, most: int) -> tuple[MoreMotion, MoreMotion]:
        """At most so many, evenly spaced, and their mirror images."""
        rows = slice(None, None, max(1, -(-len(self.poses) // most)))
        mirrored = mirrored_poses(self.poses[rows].astype(np.float64)).astype(np.float32)
        ground_z = torch.from_numpy(self.ground_z[rows]).to(self.device)
        driven, image = (
            MoreMotion(torch.from_numpy(poses).to(self.device), ground_z, share=1.0)
            for poses in (self.poses[rows], mirrored)
        )
        return driven, image

    def of_step(self, step: int) -> MoreMotion | None:
        """The choice of a step, a function of it and the seed; None where none are wanted."""
        if not self.count:
            return None
        random = np.random.default_rng([self.seed, step])
        rows = random.integers(len(self.poses), size=self.count)
        poses, ground_z = self.poses[rows], self.ground_z[rows]
        if self.mirror:
            flip = random.random(self.count) < 0.5
            poses[flip] = mirrored_poses(poses[flip].astype(np.float64))
        return MoreMotion(
            torch.from_numpy(poses).to(self.device),
            torch.from_numpy(ground_z).to(self.device),
            self.share,
        )


def learn_motion(pose: PoseModule, motions: Motions, config: Config, begin: BeginCourse) -> None:
    """What poses alone say of motion: the scale of the features, then `data.motion_steps` steps.

    Args:
        pose: changed in place.
        motions: of the train split.
        begin: gives the steps that are to be made.
    """
    pose.learn_scale(*motions.some(_SCALED))
    steps = config.data.motion_steps
    own = replace(config.optimizer, weight_decay=_weight_decay(len(motions.poses)))
    optimizer, schedule = build_optimizer(pose, own, _LR), Schedule(config.lr_config, _LR, steps)
    for step in begin(pose, optimizer, steps):
        more = motions.of_step(step)
        if more is None:
            return
        set_lr(optimizer, schedule.lr(step))
        optimizer.zero_grad()
        pose.loss_of(more).backward()
        clip_gradients(pose.parameters(), config.grad_clip)
        optimizer.step()
    optimizer.zero_grad()


def _weight_decay(windows: int) -> float:
    """The more was seen, the less is assumed."""
    return min(1.0, _DECAYED / max(windows, 1))
