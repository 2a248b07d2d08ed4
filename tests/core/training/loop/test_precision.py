"""Precision follows the GPU: bf16 from SM 8.0, fp16 with a loss scaler below, float32 on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.core.training import toy
from vlwm.core.training.loop.optimizer import build_optimizer
from vlwm.core.training.loop.stepper import Stepper, autocast_type

CPU = torch.device("cpu")
CARDS = [
    ("V100", (7, 0), torch.float16),
    ("T4", (7, 5), torch.float16),
    ("A100", (8, 0), torch.bfloat16),
    ("RTX 3090", (8, 6), torch.bfloat16),
    ("RTX 4090", (8, 9), torch.bfloat16),
    ("H100", (9, 0), torch.bfloat16),
    ("B200", (10, 0), torch.bfloat16),
]


@pytest.mark.parametrize(("card", "capability", "wanted"), CARDS, ids=[c[0] for c in CARDS])
def test_the_capability_decides(
    monkeypatch: pytest.MonkeyPatch, card: str, capability: tuple[int, int], wanted: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    gpu = torch.device("cuda:0")
    assert autocast_type(True, gpu) is wanted
    assert autocast_type(False, gpu) is None
    assert autocast_type(True, CPU) is None


def stepper(precision: torch.dtype | None) -> Stepper:
    """The toy task from the same weights, without dropout."""
    torch.manual_seed(0)
    task, cfg = toy.ToyTask(), toy.config()
    task.module[1].p = 0.0
    return Stepper(
        task, build_optimizer(task.module, cfg.optimizer, 0.01), cfg.grad_clip, CPU, precision, 4
    )


def weights(built: Stepper) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in built.parameters])


def batch(size: float) -> Any:
    x = size * torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    return toy.ToyBatch(x, torch.arange(4))


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_only_fp16_has_a_scaler_and_both_step_as_float32_does(precision: torch.dtype) -> None:
    plain, built = stepper(None), stepper(precision)
    assert built.scaler.is_enabled() is (precision is torch.float16)
    wanted, got = plain(batch(1.0), 0, 4).numbers, built(batch(1.0), 0, 4).numbers
    assert float(got["train/loss"]) == pytest.approx(float(wanted["train/loss"]), rel=0.02)
    assert float(got["grad_norm"]) == pytest.approx(float(wanted["grad_norm"]), rel=0.02)
    torch.testing.assert_close(weights(built), weights(plain), rtol=0.0, atol=1e-3)


def test_a_gradient_beyond_fp16_lowers_the_scale_and_is_no_fault() -> None:
    """300 times the inputs: 8192 times the gradient leaves fp16, the gradient itself does not."""
    built = stepper(torch.float16)
    before, scale = weights(built), built.scaler.get_scale()
    result = built(batch(300.0), 0, 4)
    assert bool(result.skipped) and not bool(result.fault)
    assert torch.equal(weights(built), before)
    assert built.scaler.get_scale() == scale / 2
    tries = 1
    while bool(built(batch(300.0), tries, 4).skipped):
        tries += 1
    assert 1 < tries < 14 and not torch.equal(weights(built), before)
    kept = built.scaler.state_dict()
    again = stepper(torch.float16)
    again.scaler.load_state_dict(kept)
    assert again.scaler.get_scale() == built.scaler.get_scale() == scale / 2**tries


def test_a_loss_that_is_not_a_number_is_a_fault_under_fp16_too() -> None:
    built = stepper(torch.float16)
    result = built(batch(float("nan")), 0, 4)
    assert bool(result.skipped) and bool(result.fault)
