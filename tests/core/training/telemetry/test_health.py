"""Each sign of ill health is seen when it is there, and only then."""

from __future__ import annotations

import pytest
import torch

from vlwm.core.config.schema import HealthConfig
from vlwm.core.training.telemetry.health import CHECKS, Watch, examine, is_spike

WELL = {
    "train/loss": 0.3,
    "running_loss": 0.32,
    "loss/occupancy": 0.25,
    "pred/mean": 0.011,
    "target/mean": 0.009,
    "skipped_steps": 0.0,
    "codebook/used": 500.0,
    "codebook/size": 512.0,
    "loader_share": 0.01,
    "disk_free_gb": 50.0,
}
ILL = {
    "collapse": {"pred/mean": 0.0005},
    "saturation": {"pred/mean": 0.2},
    "nan": {"skipped_steps": 2.0},
    "spike": {"train/loss": 3.0},
    "dead_codes": {"codebook/used": 40.0},
    "empty_targets": {"target/mean": 0.0},
    "starving": {"loader_share": 0.5},
    "disk": {"disk_free_gb": 1.0},
}


def names(record: dict[str, float], *, first_epoch: bool = False) -> list[str]:
    found = examine(record, HealthConfig(), first_epoch=first_epoch, step=7)
    assert all(f.remedy and f.message and f.step == 7 for f in found)
    return [f.name for f in found]


def test_a_healthy_line_has_no_finding() -> None:
    assert names(WELL) == [] and names({}) == []


@pytest.mark.parametrize("name", ILL)
def test_each_sign_is_found_alone(name: str) -> None:
    assert names(WELL | ILL[name]) == [name]


def test_every_check_is_provoked_above() -> None:
    assert {check.name for check in CHECKS} == set(ILL)


def test_a_loss_near_zero_is_a_collapse_within_the_first_epoch_only() -> None:
    record = WELL | {"loss/occupancy": 5e-5}
    assert names(record, first_epoch=True) == ["collapse"]
    assert names(record) == []


def test_young_codebooks_are_given_an_epoch() -> None:
    assert names(WELL | ILL["dead_codes"], first_epoch=True) == []


def test_bad_steps_are_counted_named_and_followed_in_rows() -> None:
    watch = Watch(HealthConfig(bad_steps=3))
    flags = [False, True, True, False, True]
    for step, bad in enumerate(flags):
        watch.note(step, torch.tensor(bad))
    assert not watch.calm()
    assert watch.bad_steps() == [1, 2, 4] and watch.skipped == 3 and watch.diverged() is None
    for step in (5, 6):
        watch.note(step, torch.tensor(True))
    assert "3 steps in a row" in str(watch.diverged())


def test_the_state_of_the_watch_survives() -> None:
    watch = Watch(HealthConfig())
    for step in range(8):
        watch.note(step, torch.tensor(step == 5))
        watch.note_loss(1.0 / (step + 1))
    again = Watch(HealthConfig())
    again.load_state(watch.state())
    assert again.state() == watch.state() and again.bad_steps() == [5]


def test_a_spike_does_not_move_the_mean_it_is_judged_by() -> None:
    watch = Watch(HealthConfig(spike_factor=5.0, bad_steps=3))
    for _ in range(10):
        watch.note_loss(1.0)
    watch.note_loss(100.0)
    assert watch.running_loss == 1.0 and watch.spikes == 1
    watch.note_loss(2.0)
    assert watch.spikes == 0
    for _ in range(3):
        watch.note_loss(100.0)
    assert "stayed above 5 times" in str(watch.diverged())


def test_a_loss_that_passes_through_zero_is_no_spike() -> None:
    """A Gaussian likelihood can be negative: five times nothing is nothing."""
    config = HealthConfig()
    for mean, loss in ((0.01, 0.2), (-0.01, 0.3), (-0.3, 0.4), (0.0, 0.3)):
        assert not is_spike(loss, mean, config)
    for mean, loss in ((1.0, 5.1), (-0.3, 1.0), (0.0, 0.5), (0.2, 1.1)):
        assert is_spike(loss, mean, config)
