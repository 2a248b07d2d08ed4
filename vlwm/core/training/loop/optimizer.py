"""Build AdamW with warm-up and cosine decay, and clip without waiting for the device.

A step whose loss or gradients are not finite is skipped on the device itself: fused AdamW takes
a flag (`found_inf`) for it, so the host reads nothing back. The learning rate is a pure function
of the step, so that a resumed run needs no scheduler state beyond its factor after roll-backs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from vlwm.core.config.schema import GradClipConfig, OptimizerConfig, ScheduleConfig

_NO_DECAY = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.Embedding)


class Schedule:
    """Learning rate at a step: linear warm-up to `peak_lr`, then half a cosine to `min_lr`.

    Args:
        config: warm-up and floor.
        peak_lr: rate at the end of the warm-up.
        total_steps: steps of the whole run; the last one has the rate `min_lr`.
    """

    def __init__(self, config: ScheduleConfig, peak_lr: float, total_steps: int) -> None:
        self.peak_lr = peak_lr
        # the floor is never above the peak, as after --lr
        self.min_lr = min(config.min_lr, peak_lr)
        self.total_steps = max(total_steps, 1)
        wanted = config.warmup_iters if config.warmup == "linear" else 0
        self.warmup_steps = min(wanted, self.total_steps // 2)  # a short run still gets its cosine

    def lr(self, step: int) -> float:
        """Return the rate of step `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.peak_lr * (step + 1) / self.warmup_steps
        # half a cosine from the peak to the floor over the remaining steps
        rest = max(self.total_steps - 1 - self.warmup_steps, 1)
        done = min((step - self.warmup_steps) / rest, 1.0)
        return self.min_lr + (self.peak_lr - self.min_lr) * 0.5 * (1.0 + math.cos(math.pi * done))


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return trainable parameters in two groups: with decay, and without it (norms, biases, …)."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    seen: set[int] = set()
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            # decay pulls towards 0, which has no meaning for scales, offsets and embeddings
            plain = isinstance(part, _NO_DECAY) or parameter.ndim < 2
            (free if plain else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(module: nn.Module, config: OptimizerConfig, lr: float) -> AdamW:
    """Return fused AdamW over the module's trainable parameters."""
    # fused: one kernel for all parameters, which reads `found_inf` on the device
    groups = parameter_groups(module, config.weight_decay)
    return AdamW(groups, lr=lr, betas=config.betas, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def clip_gradients(parameters: Iterable[nn.Parameter], config: GradClipConfig) -> Tensor:
    """Scale all gradients to at most `max_norm` together; return their norm before, on device."""
    return nn.utils.clip_grad_norm_(
        list(parameters), config.max_norm, norm_type=config.norm_type, error_if_nonfinite=False
    )


def guarded_step(optimizer: AdamW, bad: Tensor) -> None:
    """Step, unless `bad` (a boolean on the device) marks loss or gradients that are not finite.

    A skipped step leaves weights, moments and step counts as they were.
    """
    # fused AdamW reads the flag on the device, as it does for a loss scaler
    optimizer.grad_scale = None  # type: ignore[attr-defined]  # torch's types do not have it
    optimizer.found_inf = bad.to(torch.float32)  # type: ignore[attr-defined]  # nor this one
    optimizer.step()
