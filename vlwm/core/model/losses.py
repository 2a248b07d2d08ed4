"""Compute losses on logits, per frame and averaged.

The occupancy loss is the guide's composite: focal (Lin et al. 2017, equation 5), soft dice
(Milletari et al. 2016, equation 3) and mean-matching. It is fused and runs in chunks: a forward
pass keeps three sums per frame, the backward pass recomputes the rest from the logits, so nothing
of a frame's size is stored, other than the logits and their gradient. Sums are always float64.

Per frame with M voxels, p = sigmoid(x), t the target:
    focal  mean of α_t (1 − p_t)^γ · (−log p_t)
    dice   1 − (2 Σpt + 1) / (Σp + Σt + 1)
    mean   relative: log((Σp/M + ε) / (Σt/M + ε))²,   absolute: (Σp/M − Σt/M)²
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vlwm.core.config.schema import LossConfig

MEAN_EPSILON = 1e-5
"""added to a mean before a division"""
DICE_SMOOTHING = 1.0
"""cells added to both sides of the ratio: an empty frame has a value"""
_CHUNK = 1 << 19
"""voxels that stay in the cache of a CPU; a GPU takes a frame at once"""
_SUMS = 3
"""focal, Σ p, Σ p t"""


@dataclass(frozen=True)
class OccupancyLoss:
    """The composite over N frames, each term a mean over frames.

    Attributes:
        total: weighted sum, with gradient.
        focal, dice, mean: terms before weighting, without gradient.
        pred_mean, pred_min, pred_max: of the probabilities, without gradient.
        occupancy_rate: share of probabilities above one half.
        target_mean: share of occupied target voxels.
    """

    total: Tensor
    focal: Tensor
    dice: Tensor
    mean: Tensor
    pred_mean: Tensor
    pred_min: Tensor
    pred_max: Tensor
    occupancy_rate: Tensor
    target_mean: Tensor

    def statistics(self) -> dict[str, Tensor]:
        """Return the statistics that health checks and the dashboard read, by logged name."""
        return {
            "pred/mean": self.pred_mean,
            "pred/min": self.pred_min,
            "pred/max": self.pred_max,
            "pred/occupancy_rate": self.occupancy_rate,
            "target/mean": self.target_mean,
        }


def occupancy_loss(
    logits: Tensor, target: Tensor, config: LossConfig, known: Tensor | None = None
) -> OccupancyLoss:
    """Return the composite loss of frames.

    Args:
        logits: (N, ...) of any floating type.
        target: (N, ...) of the same shape, bool or 0/1.
        known: (N, ...) of the same shape, bool or 0/1: cells whose truth is known. Other cells
            count in no term and in no statistic; None: all are known.

    Raises:
        ValueError: the shapes differ.
    """
    if logits.shape != target.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} differ")
    # (N, M), M cells of a frame
    flat, truth = logits.reshape(len(logits), -1), target.reshape(len(target), -1)
    mask = None if known is None else known.reshape(len(known), -1) > 0
    per_frame, stats = _Composite.apply(flat, truth, config, mask)
    focal, dice, mean, low, high, above, share, rate = stats.unbind(dim=1)  # (N,) each
    return OccupancyLoss(
        total=per_frame.mean(),
        focal=focal.mean(),
        dice=dice.mean(),
        mean=mean.mean(),
        pred_mean=share.mean(),
        pred_min=low.min(),
        pred_max=high.max(),
        occupancy_rate=above.mean(),
        target_mean=rate.mean(),
    )


class _Composite(torch.autograd.Function):
    """Maps (N, M) logits and targets to the loss of each frame (N,), and statistics (N, 8)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, t: Tensor, config: LossConfig, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        frames = len(x)
        voxels: int | Tensor = x.shape[1]  # counted in each frame
        if mask is None:
            rows = [_frame_sums(x[n], t[n], config) for n in range(frames)]
        else:
            # The known cells of a frame make a smaller frame; one without any counts as one cell.
            rows = [_frame_sums(x[n][mask[n]], t[n][mask[n]], config) for n in range(frames)]
            voxels = mask.sum(dim=1).clamp(min=1).double()  # (N,)
        sums = torch.stack([s for s, _ in rows])  # (N, 4): focal, p, pt, t
        extremes = torch.stack([e for _, e in rows])  # (N, 3): lowest, highest, above half
        # the three terms follow from the sums of a frame alone
        focal = sums[:, 0] / voxels
        dice = 1 - (2 * sums[:, 2] + DICE_SMOOTHING) / (sums[:, 1] + sums[:, 3] + DICE_SMOOTHING)
        share, rate = sums[:, 1] / voxels, sums[:, 3] / voxels
        mean = _mean_term(share, rate, config.mean_mode)
        # the sums are all that backward needs to recompute the rest chunk by chunk
        ctx.save_for_backward(x, t, sums, mask)
        ctx.config = config
        weights = (config.focal_weight, config.dice_weight, config.mean_weight)
        total = sum(w * term for w, term in zip(weights, (focal, dice, mean), strict=True))
        low, high, above = extremes.unbind(dim=1)
        stats = torch.stack([focal, dice, mean, low, high, above / voxels, share, rate], dim=1)
        kind = x.dtype if x.dtype == torch.float64 else torch.float32
        ctx.mark_non_differentiable(stats := stats.to(kind))
        return torch.as_tensor(total).to(kind), stats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        x, t, sums, mask = ctx.saved_tensors
        gradient = torch.empty_like(x) if mask is None else torch.zeros_like(x)
        for n in range(len(x)):
            if mask is None:
                _frame_gradient(x[n], t[n], sums[n], ctx.config, grads[0][n], gradient[n])
                continue
            part = x[n][mask[n]]
            out = torch.empty_like(part)
            if part.numel():
                _frame_gradient(part, t[n][mask[n]], sums[n], ctx.config, grads[0][n], out)
            gradient[n][mask[n]] = out
        return gradient, None, None, None


def _mean_term(share: Tensor, rate: Tensor, mode: str) -> Tensor:
    if mode == "absolute":
        return (share - rate) ** 2
    return torch.log((share + MEAN_EPSILON) / (rate + MEAN_EPSILON)) ** 2


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _parts(x: Tensor) -> Iterator[slice]:
    """Return slices of a frame (M,), one after the other."""
    size = _CHUNK if x.device.type == "cpu" else max(1, x.numel())
    return (slice(start, start + size) for start in range(0, x.numel(), size))


def _frame_sums(x: Tensor, t: Tensor, config: LossConfig) -> tuple[Tensor, Tensor]:
    """Return the sums of one frame's cells (M,): focal, p, p · t and t; and lowest p, highest p and
    the number of p above one half."""
    # float64: millions of float32 summands would lose the last digits
    sums = torch.zeros(_SUMS + 1, dtype=torch.float64, device=x.device)
    if not x.numel():
        return sums, torch.zeros(3, dtype=torch.float64, device=x.device)
    low = torch.full((), torch.inf, dtype=torch.float64, device=x.device)
    high, above = -low, torch.zeros_like(low)
    for part in _parts(x):
        logit = _wide(x[part])
        truth = t[part].to(logit.dtype)
        p = torch.sigmoid(logit)
        sums[0] += _focal(logit, truth, config).sum(dtype=torch.float64)
        sums[1] += p.sum(dtype=torch.float64)
        sums[2] += (p * truth).sum(dtype=torch.float64)
        sums[3] += truth.sum(dtype=torch.float64)
        low, high = torch.minimum(low, p.min().double()), torch.maximum(high, p.max().double())
        above += (logit > 0).sum()
    return sums, torch.stack([low, high, above])


def _focal(logit: Tensor, truth: Tensor, config: LossConfig) -> Tensor:
    signed = torch.where(truth > 0.5, logit, -logit)
    wrong = torch.sigmoid(-signed)  # 1 − p_t
    weight = config.focal_alpha * truth + (1 - config.focal_alpha) * (1 - truth)
    return weight * wrong**config.focal_gamma * functional.softplus(-signed)


def _frame_gradient(
    x: Tensor, t: Tensor, sums: Tensor, config: LossConfig, scale: Tensor, out: Tensor
) -> None:
    """Write d loss / d x of one frame into `out`."""
    voxels = x.numel()
    both = sums[1] + sums[3] + DICE_SMOOTHING
    # d dice / d p = along_p + along_pt · t, from the quotient rule on the frame's sums
    along_p = config.dice_weight * (2 * sums[2] + DICE_SMOOTHING) / both**2
    along_pt = -config.dice_weight * 2 / both
    # d mean / d p is the same for every voxel
    share, rate = sums[1] / voxels, sums[3] / voxels
    if config.mean_mode == "absolute":
        slope = 2 * (share - rate)
    else:
        ratio = torch.log((share + MEAN_EPSILON) / (rate + MEAN_EPSILON))
        slope = 2 * ratio / (share + MEAN_EPSILON)
    along_p = along_p + config.mean_weight * slope / voxels
    focal_scale = config.focal_weight / voxels
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    along_p, along_pt, scale = along_p.to(kind), along_pt.to(kind), scale.to(kind)
    for part in _parts(x):
        logit = _wide(x[part])
        truth = t[part].to(logit.dtype)
        p = torch.sigmoid(logit)
        # chain rule through the sigmoid; focal is given directly in the logit
        slope_p = (along_p + along_pt * truth) * p * (1 - p)
        whole = slope_p + focal_scale * _focal_slope(logit, truth, config)
        out[part] = (whole * scale).to(out.dtype)


def _focal_slope(logit: Tensor, truth: Tensor, config: LossConfig) -> Tensor:
    """Return d focal / d logit of each voxel."""
    sign = 2 * truth - 1
    signed = sign * logit
    right, wrong = torch.sigmoid(signed), torch.sigmoid(-signed)
    weight = config.focal_alpha * truth + (1 - config.focal_alpha) * (1 - truth)
    inner = -config.focal_gamma * right * functional.softplus(-signed) - wrong
    return sign * weight * wrong**config.focal_gamma * inner


def token_loss(logits: Tensor, codes: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the cross-entropy of codes int64 (B, F, h, w) under logits (B, F, K, h, w).

    Args:
        weight: (B, F, h, w), share of each code in the mean of its window; None: all the same. A
            window without any weight adds 0.
    """
    flat, truth = wide(logits.flatten(0, 1)), codes.flatten(0, 1)
    if weight is None:
        return functional.cross_entropy(flat, truth)
    each = functional.cross_entropy(flat, truth, reduction="none").view_as(weight)
    # a mean for each window, so that the split into microbatches does not matter
    counted = (each * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp(min=1e-6)
    return counted.mean()


def token_weight(known: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the share (B, F, h, w) of known cells in the columns of each code.

    Args:
        known: uint8 (B, F, X, Y, Z) of 0 and 1.
        size: h and w of a token map.
    """
    share = known.sum(dim=-1, dtype=torch.float32) / known.shape[-1]  # (B, F, X, Y)
    return functional.adaptive_avg_pool2d(share, size)


def wide(x: Tensor) -> Tensor:
    """Return x in float32 at least: half precision is widened, float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def gaussian_nll(error: Tensor, log_sigma: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of errors under Gaussians, less its constant."""
    return (log_sigma + 0.5 * (error * torch.exp(-log_sigma)) ** 2).mean()
