"""The fusion first: it is small, shared by all layers and places, and learns from steps, not cells.

A layer of one future frame of one window is ten thousand examples already, and the same cells
teach it more in many small steps than in a few large ones (docs/decisions.md). A step of stage 2
is dear for what else is in it. So the fusion begins alone, with single windows, and goes on beside
the rest of the model.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from vlwm.core.config.schema import Config
from vlwm.core.data.batch import Batch
from vlwm.core.data.datasets import WindowDataset
from vlwm.core.model.world_loss import WorldLoss
from vlwm.core.training.loop.data_loader import epoch_batches
from vlwm.core.training.loop.optimizer import (
    Schedule,
    build_optimizer,
    clip_gradients,
    guarded_step,
    set_lr,
)
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.tasks.pretraining import BeginCourse

_LR = 1e-2


def learn_fusion(
    objective: WorldLoss,
    windows: WindowDataset,
    config: Config,
    device: torch.device,
    workers: int,
    begin: BeginCourse,
) -> None:
    """Train the fusion of a model for `data.fusion_steps` steps of one window.

    Args:
        objective: of the model, whose fusion is changed in place.
        windows: the train split.
        config: steps, decay, warm-up, seed.
        device: of the model.
        workers: loader processes.
        begin: gives the steps that are to be made.
    """
    steps = config.data.fusion_steps
    if not steps or not len(windows):
        return
    fusion = objective.model.fusion
    optimizer = build_optimizer(fusion, config.optimizer, _LR)
    schedule = Schedule(config.lr_config, _LR, steps)
    course = begin(fusion, optimizer, steps)
    batches = _single(windows, config, course.first, steps, workers)
    for step, batch in zip(course, batches, strict=True):
        set_lr(optimizer, schedule.lr(step))
        objective.draw = step
        optimizer.zero_grad()
        loss = objective.fusion(batch.to(device))
        loss.backward()
        norm = clip_gradients(fusion.parameters(), config.grad_clip)
        guarded_step(optimizer, ~torch.isfinite(loss + norm))
    optimizer.zero_grad()


def _single(
    windows: WindowDataset, config: Config, first: int, steps: int, workers: int
) -> Iterator[Batch]:
    """The windows of the steps from `first` on, one by one, in the order of epochs."""
    while first < steps:
        epoch, done = divmod(first, len(windows))
        most = min(len(windows), steps - epoch * len(windows))
        place = (epoch, done)
        yield from epoch_batches(windows, 1, config.seed + 1, place, Ranks(), workers, most)
        first += most - done
