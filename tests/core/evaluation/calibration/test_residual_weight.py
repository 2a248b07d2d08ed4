"""A network is listened to as far as it helps on validation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vlwm.core.evaluation.calibration.residual_weight import SHARES, ResidualWeightSweep

SHAPE = (10, 10, 6)


def frame(seed: int) -> tuple[Tensor, Tensor]:
    """Logits of a fair forecast of a random frame, and the frame."""
    rng = np.random.default_rng(seed)
    truth = rng.random(SHAPE) < 0.3
    logits = rng.normal(2.0 * truth - 1.0, 1.5)
    return torch.from_numpy(logits).float(), torch.from_numpy(truth.astype(np.uint8))


@pytest.mark.parametrize(("helps", "share"), [(-1.0, 0.0), (0.0, 0.0), (0.05, 1.0)])
def test_what_harms_is_left_and_what_helps_is_taken(helps: float, share: float) -> None:
    sweep = ResidualWeightSweep(2)
    for seed in range(4):
        known, truth = frame(seed)
        residual = helps * (2.0 * truth - 1.0) * 20
        sweep.add(known, known + residual, truth, seed % 2)
    chosen, cells = sweep.best()
    assert chosen == share
    assert cells is sweep.histograms[SHARES.index(share)]


def test_noise_is_not_taken_whole() -> None:
    sweep = ResidualWeightSweep(1)
    for seed in range(4):
        known, truth = frame(seed)
        noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
        sweep.add(known, known + 3 * noise, truth, 0)
    assert sweep.best()[0] == 0.0


def test_ranks_add_up_to_the_whole() -> None:
    whole, parts = ResidualWeightSweep(2), [ResidualWeightSweep(2), ResidualWeightSweep(2)]
    for seed in range(6):
        known, truth = frame(seed)
        for sweep in (whole, parts[seed % 2]):
            sweep.add(known, 2 * known, truth, seed // 3)
    parts[0].counts += parts[1].counts
    assert np.array_equal(parts[0].counts, whole.counts)
    assert parts[0].best()[0] == whole.best()[0]
    assert parts[0].best()[1].best() == whole.best()[1].best()
