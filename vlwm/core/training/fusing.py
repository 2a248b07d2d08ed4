"""The fusion first: it is small, shared by all layers and places, and learns from steps, not cells.

A layer of one future frame of one window is ten thousand examples already, and the same cells
teach it more in many small steps than in a few large ones (docs/decisions.md). A step of stage 2
is dear for what else is in it. So the fusion begins alone, with single windows, and goes on beside
the rest of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from vlwm.core.config import Config
from vlwm.core.data.dataset import Batch, WindowDataset
from vlwm.core.model.world_loss import WorldLoss
from vlwm.core.training.loader import epoch_batches
from vlwm.core.training.optimizer import (
    Schedule,
    build_optimizer,
    clip_gradients,
    guarded_step,
    set_lr,
)
from vlwm.core.training.ranks import Ranks

_LR = 1e-2


def learn_fusion(
    objective: WorldLoss,
    windows: WindowDataset,
    config: Config,
    device: torch.device,
    workers: int,
    tick: Callable[[], None],
) -> None:
    """Train the fusion of a model for `data.fusion_steps` steps of one window.

    Args:
        objective: of the model, whose fusion is changed in place.
        windows: the train split.
        config: steps, decay, warm-up, seed.
        device: of the model.
        workers: loader processes.
        tick: called after each step.
    """
    steps = config.data.fusion_steps
    if not steps or not len(windows):
        return
    fusion = objective.model.fusion
    optimizer = build_optimizer(fusion, config.optimizer, _LR)
    schedule = Schedule(config.lr_config, _LR, steps)
    for step, batch in enumerate(_single(windows, config, steps, workers)):
        set_lr(optimizer, schedule.lr(step))
        objective.draw = step
        optimizer.zero_grad()
        loss = objective.fusion(batch.to(device))
        loss.backward()
        norm = clip_gradients(fusion.parameters(), config.grad_clip)
        guarded_step(optimizer, ~torch.isfinite(loss + norm))
        tick()
    optimizer.zero_grad()


def _single(windows: WindowDataset, config: Config, steps: int, workers: int) -> Iterator[Batch]:
    """So many windows, one by one, in the order of epochs."""
    epoch = 0
    while steps:
        some = min(steps, len(windows))
        yield from epoch_batches(windows, 1, config.seed + 1, (epoch, 0), Ranks(), workers, some)
        steps, epoch = steps - some, epoch + 1
