"""The fused occupancy loss is the plain float64 formula, in value and gradient."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from vlwm.core.config import LossConfig
from vlwm.core.model.losses import (
    DICE_SMOOTHING,
    MEAN_EPSILON,
    gaussian_nll,
    occupancy_loss,
    token_loss,
    wrap_to_pi,
)


def plain(x: Tensor, t: Tensor, config: LossConfig) -> Tensor:
    """The formulas as written, in float64."""
    x, t = x.double().flatten(1), t.double().flatten(1)
    p = torch.sigmoid(x)
    right = torch.where(t > 0.5, p, 1 - p)
    log_right = torch.where(t > 0.5, torch.nn.functional.logsigmoid(x),
                            torch.nn.functional.logsigmoid(-x))  # fmt: skip
    alpha = config.focal_alpha * t + (1 - config.focal_alpha) * (1 - t)
    focal = -(alpha * (1 - right) ** config.focal_gamma * log_right).mean(1)
    dice = 1 - (2 * (p * t).sum(1) + DICE_SMOOTHING) / (p.sum(1) + t.sum(1) + DICE_SMOOTHING)
    if config.mean_mode == "absolute":
        mean = (p.mean(1) - t.mean(1)) ** 2
    else:
        mean = torch.log((p.mean(1) + MEAN_EPSILON) / (t.mean(1) + MEAN_EPSILON)) ** 2
    terms = config.focal_weight * focal + config.dice_weight * dice + config.mean_weight * mean
    return terms.mean()


TARGETS = {
    "some": lambda: torch.rand(3, 5, 6, 7) < 0.1,
    "empty": lambda: torch.zeros(3, 5, 6, 7, dtype=torch.bool),
    "full": lambda: torch.ones(3, 5, 6, 7, dtype=torch.bool),
}


@pytest.mark.parametrize("mode", ["relative", "absolute"])
@pytest.mark.parametrize("target", list(TARGETS))
@pytest.mark.parametrize("scale", [0.0, 1.0, 60.0])
def test_equals_the_plain_formula(mode: str, target: str, scale: float) -> None:
    torch.manual_seed(0)
    config = LossConfig(mean_mode=mode)
    t = TARGETS[target]()
    x = (torch.randn(3, 5, 6, 7, dtype=torch.float64) * scale).requires_grad_()
    ours = occupancy_loss(x, t, config).total
    (gradient,) = torch.autograd.grad(ours, x)
    known = plain(x, t, config)
    (expected,) = torch.autograd.grad(known, x)
    torch.testing.assert_close(ours, known, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-12)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_narrow_logits_are_summed_wide(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    x = (torch.randn(2, 20, 20, 10) * 4).to(kind).requires_grad_()
    t = torch.rand(2, 20, 20, 10) < 0.05
    ours = occupancy_loss(x, t, LossConfig())
    known = plain(x, t, LossConfig())
    torch.testing.assert_close(ours.total.double(), known, rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(ours.total, x)
    (expected,) = torch.autograd.grad(known, x)
    assert gradient.dtype == kind
    tolerance = 1e-6 if kind == torch.float32 else 1e-3 * float(expected.abs().max())
    torch.testing.assert_close(gradient.double(), expected.double(), rtol=2e-2, atol=tolerance)


def test_gradcheck() -> None:
    torch.manual_seed(0)
    t = torch.rand(2, 30) < 0.2
    x = torch.randn(2, 30, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: occupancy_loss(x, t, LossConfig()).total, (x,))


def test_microbatches_add_up() -> None:
    torch.manual_seed(0)
    x, t = torch.randn(4, 500), torch.rand(4, 500) < 0.1
    whole = occupancy_loss(x, t, LossConfig())
    parts = [occupancy_loss(x[i : i + 1], t[i : i + 1], LossConfig()) for i in range(4)]
    for name in ("total", "focal", "dice", "mean", "pred_mean", "target_mean"):
        mean = torch.stack([getattr(p, name) for p in parts]).mean()
        torch.testing.assert_close(getattr(whole, name), mean, rtol=1e-6, atol=1e-7)


def test_statistics_are_those_of_the_probabilities() -> None:
    x, t = torch.randn(2, 1000), torch.rand(2, 1000) < 0.3
    loss, p = occupancy_loss(x, t, LossConfig()), torch.sigmoid(x)
    torch.testing.assert_close(loss.pred_mean, p.mean())
    assert (float(loss.pred_min), float(loss.pred_max)) == (float(p.min()), float(p.max()))
    torch.testing.assert_close(loss.occupancy_rate, (p > 0.5).float().mean())
    torch.testing.assert_close(loss.target_mean, t.float().mean())


def test_dice_forbids_all_zeros_where_the_mean_term_does_not() -> None:
    t = torch.rand(1, 50_000) < 0.0083
    nothing = torch.full((1, 50_000), -20.0)
    loss = occupancy_loss(nothing, t, LossConfig(mean_mode="absolute"))
    assert 10 * float(loss.mean) < 0.001 and float(loss.dice) > 0.99


MEMORY = """
import resource, torch
from vlwm.core.config import LossConfig
from vlwm.core.model.losses import occupancy_loss
torch.set_num_threads(1)
frames, voxels = 6, 200 * 200 * 121
x = torch.zeros(frames, voxels, requires_grad=True)
t = torch.zeros(frames, voxels, dtype=torch.bool)
x.grad = torch.zeros_like(x)
occupancy_loss(x[:, :9], t[:, :9], LossConfig()).total.backward()
x.grad = None
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
loss = occupancy_loss(x, t, LossConfig()).total
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024 / (voxels * 4))
"""


def test_memory_beyond_the_logits_is_less_than_two_frames() -> None:
    out = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(out.stdout) < 2.0
    assert resource.RUSAGE_SELF == 0


def test_token_loss_is_cross_entropy() -> None:
    logits, codes = torch.zeros(2, 3, 8, 4, 4), torch.randint(8, (2, 3, 4, 4))
    torch.testing.assert_close(token_loss(logits, codes), torch.log(torch.tensor(8.0)))


def test_gaussian_nll_is_least_where_sigma_is_the_error() -> None:
    error = torch.full((100,), 0.7)
    at = [float(gaussian_nll(error, torch.full((100,), s).log())) for s in (0.35, 0.7, 1.4)]
    assert at[1] == min(at)


def test_wrapped_angles() -> None:
    angle = torch.tensor([3.2, -3.2, 6.4, 0.1], requires_grad=True)
    wrapped = wrap_to_pi(angle)
    assert (wrapped.abs() <= torch.pi + 1e-6).all()
    torch.testing.assert_close(torch.cos(wrapped), torch.cos(angle))
    wrapped.sum().backward()
    assert angle.grad is not None and angle.grad.tolist() == [1.0] * 4
