"""The fused occupancy loss is the plain float64 formula, in value and gradient."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from vlwm.core.config.schema import LossConfig
from vlwm.core.model.losses import (
    DICE_SMOOTHING,
    MEAN_EPSILON,
    gaussian_nll,
    occupancy_loss,
    token_loss,
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


@pytest.mark.parametrize("target", list(TARGETS))
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_equals_the_plain_formula_in_float32_at_extreme_logits(target: str, scale: float) -> None:
    """1e4 is far beyond where exp overflows and 1 − p becomes 0 in float32."""
    torch.manual_seed(1)
    t = TARGETS[target]()
    x = (torch.randn(3, 5, 6, 7) * scale).requires_grad_()
    ours, known = occupancy_loss(x, t, LossConfig()).total, plain(x, t, LossConfig())
    (gradient,), (expected,) = torch.autograd.grad(ours, x), torch.autograd.grad(known, x)
    torch.testing.assert_close(ours.double(), known, rtol=1e-5, atol=1e-7)
    largest = float(expected.abs().max())
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=5e-5 * largest)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_logits_are_summed_wide(kind: torch.dtype) -> None:
    """Sums of 8,000 voxels in bf16 itself would be off by per cent."""
    torch.manual_seed(0)
    x = (torch.randn(2, 20, 20, 10) * 4).to(kind).requires_grad_()
    t = torch.rand(2, 20, 20, 10) < 0.05
    ours = occupancy_loss(x, t, LossConfig())
    known = plain(x, t, LossConfig())
    torch.testing.assert_close(ours.total.double(), known, rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(ours.total, x)
    (expected,) = torch.autograd.grad(plain(wide := x.detach().double().requires_grad_(), t,
                                            LossConfig()), wide)  # fmt: skip
    assert gradient.dtype == kind
    steps = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-10}
    smallest = {torch.float32: 1e-9, torch.bfloat16: 1e-9, torch.float16: 2**-24}
    torch.testing.assert_close(gradient.double(), expected, rtol=steps[kind], atol=smallest[kind])


@pytest.mark.parametrize("chunk", [7, 64, 210])
def test_chunks_change_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, 6, 7, dtype=torch.float64, requires_grad=True)
    t = TARGETS["some"]()
    monkeypatch.setattr("vlwm.core.model.losses._CHUNK", chunk)
    ours, known = occupancy_loss(x, t, LossConfig()).total, plain(x, t, LossConfig())
    torch.testing.assert_close(ours, known, rtol=1e-12, atol=0)
    (gradient,), (expected,) = torch.autograd.grad(ours, x), torch.autograd.grad(known, x)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("mode", ["relative", "absolute"])
@pytest.mark.parametrize("gamma", [0.0, 2.0, 2.5])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_gradcheck(mode: str, gamma: float, share: float) -> None:
    """Against finite differences: no formula of ours on the other side."""
    torch.manual_seed(0)
    config = LossConfig(mean_mode=mode, focal_gamma=gamma, focal_alpha=0.8)
    t = torch.rand(2, 8) < share
    x = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: occupancy_loss(x, t, config).total, (x,))


def test_microbatches_add_up() -> None:
    torch.manual_seed(0)
    x, t = torch.randn(4, 500), torch.rand(4, 500) < 0.1
    whole = occupancy_loss(x, t, LossConfig())
    parts = [occupancy_loss(x[i : i + 1], t[i : i + 1], LossConfig()) for i in range(4)]
    for name in ("total", "focal", "dice", "mean", "pred_mean", "target_mean"):
        mean = torch.stack([getattr(p, name) for p in parts]).mean()
        torch.testing.assert_close(getattr(whole, name), mean, rtol=1e-6, atol=1e-7)


def test_gradients_of_unequal_microbatches_add_up_to_the_whole_batch() -> None:
    torch.manual_seed(0)
    t = torch.rand(5, 500) < 0.1
    x = torch.randn(5, 500, requires_grad=True)
    (whole,) = torch.autograd.grad(occupancy_loss(x, t, LossConfig()).total, x)
    for part in (slice(0, 3), slice(3, 5)):
        loss = occupancy_loss(x[part], t[part], LossConfig()).total
        (loss * len(t[part]) / len(t)).backward()
    torch.testing.assert_close(x.grad, whole, rtol=1e-5, atol=1e-10)


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


def peak_bytes(work: Callable[[], object]) -> int:
    """Most bytes that torch held at once of what `work` allocated.

    Resident memory would also tell what the kernel takes away and gives back.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kept = work()
    assert seen.profiler is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    del kept
    return max(itertools.accumulate(event.nbytes() for event in events))


def test_memory_beyond_the_logits_is_less_than_two_frames() -> None:
    """Forward beyond the logits, backward beyond the logits and their gradient."""
    frames, voxels = 6, 200 * 200 * 121
    frame, config = voxels * 4, LossConfig()
    x = torch.full((frames, voxels), -4.0, requires_grad=True)
    t = torch.ones(frames, voxels, dtype=torch.bool)
    assert peak_bytes(lambda: x.detach() * 2 + 1) >= 2 * frames * frame  # it sees what is made
    held: list[Tensor] = []
    forward = peak_bytes(lambda: held.append(occupancy_loss(x, t, config).total))
    backward = peak_bytes(lambda: held[0].backward())
    assert forward < 2.0 * frame and backward < (frames + 2.0) * frame, (forward, backward)


def test_token_loss_is_cross_entropy() -> None:
    logits, codes = torch.zeros(2, 3, 8, 4, 4), torch.randint(8, (2, 3, 4, 4))
    torch.testing.assert_close(token_loss(logits, codes), torch.log(torch.tensor(8.0)))


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_token_loss_equals_the_plain_formula(kind: torch.dtype, scale: float) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(2, 3, 8, 4, 4) * scale).to(kind).requires_grad_()
    codes = torch.randint(8, (2, 3, 4, 4))
    wide = logits.detach().double().requires_grad_()
    right = wide.gather(2, codes[:, :, None])[:, :, 0]
    known = (wide.logsumexp(2) - right).mean()
    ours = token_loss(logits, codes)
    torch.testing.assert_close(ours.double(), known, rtol=1e-5, atol=1e-6)
    (gradient,), (expected,) = torch.autograd.grad(ours, logits), torch.autograd.grad(known, wide)
    step = 2**-8 if kind == torch.bfloat16 else 1e-5
    torch.testing.assert_close(gradient.double(), expected, rtol=step, atol=1e-8)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_gaussian_nll_equals_torch(scale: float) -> None:
    torch.manual_seed(0)
    error = (scale * torch.randn(40, dtype=torch.float64)).requires_grad_()
    log_sigma = torch.randn(40, dtype=torch.float64, requires_grad=True)
    reference = torch.nn.GaussianNLLLoss(eps=1e-30)
    known = reference(error, torch.zeros_like(error), torch.exp(2 * log_sigma))
    ours = gaussian_nll(error, log_sigma)
    torch.testing.assert_close(ours, known, rtol=1e-12, atol=0)
    slopes = torch.autograd.grad(ours, (error, log_sigma))
    torch.testing.assert_close(slopes, torch.autograd.grad(known, (error, log_sigma)))


def test_gaussian_nll_is_least_where_sigma_is_the_error() -> None:
    error = torch.full((100,), 0.7)
    at = [float(gaussian_nll(error, torch.full((100,), s).log())) for s in (0.35, 0.7, 1.4)]
    assert at[1] == min(at)


@pytest.mark.parametrize("mode", ["relative", "absolute"])
def test_unknown_cells_count_in_no_term_and_get_no_gradient(mode: str) -> None:
    """The loss is that of the known cells alone, whatever the truth says elsewhere."""
    torch.manual_seed(0)
    config = LossConfig(mean_mode=mode)
    x = torch.randn(3, 4, 50, dtype=torch.float64, requires_grad=True)
    t, known = torch.rand(3, 4, 50) < 0.1, torch.rand(3, 4, 50) < 0.4
    known[2] = False  # a frame of which nothing is known
    loss = occupancy_loss(x, t, config, known)
    loss.total.backward()
    alone = [occupancy_loss(x[n][known[n]][None], t[n][known[n]][None], config) for n in range(2)]
    torch.testing.assert_close(loss.total, sum(a.total for a in alone) / 3)
    assert x.grad is not None and not x.grad[~known].any() and x.grad[known].all()
    poisoned = torch.where(known, t, ~t)
    assert torch.equal(occupancy_loss(x, poisoned, config, known).total, loss.total)
    every = occupancy_loss(x, t, config, torch.ones_like(known))
    torch.testing.assert_close(every.total, occupancy_loss(x, t, config).total)
