"""Forms of calibration by self-forecast: each takes what the self-forecast tells, and no more."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vlwm.core.evaluation.baselines.motions import PastMotion

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import self_forecast

WINDOWS, HORIZONS, DRAWS = 240, 2, 64
FORMS = ("scalar", "component", "regression")


def windows(power: float, spread: float = 1.0, seed: int = 0) -> self_forecast.Measured:
    """Return windows whose errors grow as the self-forecast's to a power; the draws do not know."""
    rng = np.random.default_rng(seed)
    own = np.exp(rng.normal(0.0, 0.8, (WINDOWS, 1))) * np.ones(3)
    shape = (WINDOWS, HORIZONS, 3)
    unit = np.array([1.0, 1.0, 0.1])
    truth = rng.normal(size=shape) * own[:, None] ** power * unit
    return self_forecast.Measured(
        past=PastMotion(rng.normal(size=(WINDOWS, 4, 13)), np.zeros((WINDOWS, 4)), 0.5),
        clusters=[str(i % 40) for i in range(WINDOWS)],
        draws=torch.from_numpy(
            rng.normal(size=(*shape[:2], DRAWS, 3)) * (spread * unit),
        ),
        truth=torch.from_numpy(truth),
        sigma=np.broadcast_to(spread * unit, shape),
        error=np.abs(truth),
        own=own,
    )


@pytest.mark.parametrize("name", FORMS)
def test_a_form_widens_the_windows_that_are_unusual(name: str) -> None:
    form = getattr(self_forecast, name)(windows(1.0))
    unseen = windows(1.0, seed=1)
    factor = form(unseen)
    assert np.corrcoef(np.log(factor[:, 0]), np.log(unseen.own[:, 0]))[0, 1] > 0.8
    assert unseen.energy(factor).mean() < 0.97 * unseen.energy(np.ones_like(factor)).mean()


@pytest.mark.parametrize("name", FORMS)
def test_a_form_without_news_changes_little(name: str) -> None:
    form = getattr(self_forecast, name)(windows(0.0))
    unseen = windows(0.0, seed=1)
    factor = form(unseen)
    assert unseen.energy(factor).mean() == pytest.approx(
        unseen.energy(np.ones_like(factor)).mean(), rel=0.02
    )


def test_a_constant_factor_mends_draws_that_are_too_narrow() -> None:
    form = self_forecast.constant(windows(0.0, spread=0.5))
    assert float(form(windows(0.0))[0, 0]) >= 1.6


def test_sigmas_hold_their_share_with_their_scales() -> None:
    seen = windows(1.0)
    factor = np.ones((WINDOWS, 3))
    share = seen.within(factor, seen.scales(factor))
    assert share == pytest.approx(self_forecast.ONE_SIGMA, abs=0.01)
