"""Pre-train the motion head on poses alone, and feed it extra windows in every step of stage 2.

A ridge regression that the head mixes with is fitted first, in closed form.

Loading poses is far cheaper than loading voxels, so a step can use hundreds of windows without
frames in addition to the few of its batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from vlwm.core.config.schema import Config, OptimizerConfig
from vlwm.core.data.batch import mirrored_poses
from vlwm.core.data.datasets import WindowDataset
from vlwm.core.evaluation.baselines.fit import FEWEST_WINDOWS
from vlwm.core.evaluation.baselines.motions import PastMotion, Ridge, TurnRate
from vlwm.core.geometry.frames import ego_of
from vlwm.core.model.loss_report import LossTerm
from vlwm.core.model.motion.motion_head import ExtraMotion, MotionHead, MotionWindows
from vlwm.core.training.tasks.pretraining import PretrainingPhase
from vlwm.core.vocabulary import Phase

_MOST = 200_000
"""windows in memory: 120 MB"""
_SCALED = 20_000
"""windows that the scale of the features is taken from"""
_DECAYED = 10_000
"""windows up to which the weight decay is 1"""


def motions_of(
    windows: WindowDataset, most: int, device: torch.device | None = None
) -> MotionWindows:
    """Return the motion of at most `most` windows, evenly spaced, as they were driven."""
    # every k-th window, k rounded up
    every = range(0, len(windows), max(1, -(-len(windows) // most))) if most else ()
    motions = [windows.motion(i) for i in every]
    if not motions:
        none = torch.zeros(0, 0, 13, device=device)
        return MotionWindows(none, none[..., 0])
    poses, ground_z = (
        torch.from_numpy(np.array(values, np.float32)).to(device)
        for values in zip(*motions, strict=True)
    )
    return MotionWindows(poses, ground_z)


class Motions:
    """The motion of the train windows, and a random choice of them for each step.

    Args:
        windows: the train split.
        config: how many a step takes, mirroring, seed, the batch that they join.
        ranks: shares of a global batch; all processes choose the same windows.
        device: where the choice goes.
    """

    def __init__(
        self, windows: WindowDataset, config: Config, ranks: int, device: torch.device
    ) -> None:
        self.seed = config.seed
        self.mirror = config.data.mirror
        self.device = device
        self.count = min(config.data.motion_samples, len(windows))
        # each window weighs the same, whether its frames are in the batch or not
        self.share = self.count / max(self.count + config.data.samples_per_gpu * ranks, 1)
        every = motions_of(windows, _MOST)
        self.poses = every.poses.numpy()  # (N, P + H, 13)
        self.ground_z = every.ground_z.numpy()  # (N, P + H)
        self._last: tuple[int, ExtraMotion] | None = None

    def evenly(self, most: int) -> tuple[MotionWindows, MotionWindows]:
        """Return at most `most` windows, evenly spaced, and their mirror images."""
        rows = slice(None, None, max(1, -(-len(self.poses) // most)))
        poses = self.poses[rows]
        mirrored = mirrored_poses(poses.astype(np.float64)).astype(np.float32)
        ground_z = torch.from_numpy(self.ground_z[rows]).to(self.device)
        driven, image = (
            MotionWindows(torch.from_numpy(p).to(self.device), ground_z) for p in (poses, mirrored)
        )
        return driven, image

    def of_step(self, step: int) -> ExtraMotion | None:
        """Return the choice of a step, a function of it and the seed; None without windows."""
        if not self.count:
            return None
        if self._last is None or self._last[0] != step:  # microbatches ask again
            self._last = (step, ExtraMotion(self._chosen(step), self.share))
        return self._last[1]

    def _chosen(self, step: int) -> MotionWindows:
        # a generator of the step alone: a resumed run chooses the same windows
        random = np.random.default_rng([self.seed, step])
        rows = random.integers(len(self.poses), size=self.count)
        poses, ground_z = self.poses[rows], self.ground_z[rows]
        if self.mirror:
            # half of the windows are mirrored, as in the batches with frames
            flip = random.random(self.count) < 0.5
            poses[flip] = mirrored_poses(poses[flip].astype(np.float64))
        windows = MotionWindows(torch.from_numpy(poses), torch.from_numpy(ground_z))
        return windows.to(self.device)


def fitted_ridge(
    train: MotionWindows, val: MotionWindows, head: MotionHead
) -> dict[str, torch.Tensor]:
    """Return the values of `Ridge`, fitted to the train windows; validation chooses its penalty."""
    horizons_s = head.dt_s * np.arange(1, head.future + 1, dtype=np.float64)

    def parted(windows: MotionWindows) -> tuple[PastMotion, np.ndarray]:
        poses = windows.poses.double().cpu().numpy()
        ground_z = windows.ground_z.double().cpu().numpy()
        past, future = slice(head.history), slice(head.history, None)
        ego = ego_of(poses[:, future], ground_z[:, future])
        return PastMotion(poses[:, past], ground_z[:, past], head.dt_s), ego

    past, future = parted(train)
    rate = TurnRate.fit(past, future, horizons_s)
    ridge = Ridge.fit(rate, past, future, *parted(val if len(val) else train))
    return {name: torch.from_numpy(value) for name, value in ridge.values().items()}


class MotionPretraining(PretrainingPhase):
    """Learns the scale of the features, then takes `data.motion_steps` steps on poses alone.

    Args:
        head: changed in place.
        motions: of the train split.
        config: steps.
        unseen: windows of the validation split, for the penalty of the ridge regression.
    """

    name = Phase.MOTION
    prefix = "motion_head."
    lr = 5e-3

    def __init__(
        self,
        head: MotionHead,
        motions: Motions,
        config: Config,
        unseen: MotionWindows | None = None,
    ) -> None:
        self.module: MotionHead = head
        self.unseen = unseen
        self.motions = motions
        self.steps = config.data.motion_steps if motions.count else 0
        self._frozen: list[torch.nn.Parameter] = []

    def describe(self) -> str:
        """Return what is done, for the log."""
        return f"motion from poses alone, {self.steps} steps"

    def prepare(self) -> None:
        """Learn the scale; a frozen head that begins fresh is trained before it is frozen."""
        # the freeze of the config holds for stage 2, not for this phase
        self._frozen = [p for p in self.module.parameters() if not p.requires_grad]
        self.module.requires_grad_(True)
        driven, mirrored = self.motions.evenly(_SCALED)
        self.module.learn_scale(driven, mirrored)
        if self.module.ridge is not None and len(driven) >= FEWEST_WINDOWS:
            val = driven if self.unseen is None else self.unseen
            self.module.ridge.take(fitted_ridge(driven, val, self.module))

    def optimizer_config(self, config: OptimizerConfig) -> OptimizerConfig:
        """Return settings whose weight decay falls as the windows grow: data replace a prior."""
        decay = min(1.0, _DECAYED / max(len(self.motions.poses), 1))
        return replace(config, weight_decay=decay)

    def batches(self, first: int) -> Iterator[MotionWindows]:
        """Yield the choice of each step from `first` on."""
        for step in range(first, self.steps):
            extra = self.motions.of_step(step)
            assert extra is not None  # else the phase has no steps
            yield extra.windows

    def loss_terms(self, batch: MotionWindows, step: int) -> Iterator[LossTerm]:
        """Yield the likelihood of the windows' motion."""
        yield LossTerm("pose", self.module.loss_of_windows(batch))

    def finish(self) -> None:
        """Freeze again what was frozen before."""
        for parameter in self._frozen:
            parameter.requires_grad_(False)
