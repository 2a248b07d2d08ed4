"""What the clock says of a run's pace and of the time that is left."""

from __future__ import annotations

import pytest

from vlwm.core.training.loop import progress
from vlwm.core.training.loop.progress import Clock


class Hands:
    """A clock's hands, moved by the test."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    found = Hands()
    monkeypatch.setattr(progress, "time", found)
    return found


def steps(clock: Clock, hands: Hands, count: int, seconds: float) -> None:
    for _ in clock.waits(range(count)):
        hands.now += seconds
        clock.step_done(4)


def test_validations_belong_to_the_time_left_and_to_no_pace(hands: Hands) -> None:
    clock = Clock()
    assert clock.eta_s(10, 2) is None
    steps(clock, hands, 1, 50.0)  # compiles
    assert clock.eta_s(10, 2) is None
    steps(clock, hands, 5, 2.0)
    assert clock.eta_s(10, 2) == pytest.approx(20.0)  # nobody knows what a validation takes
    assert clock.eta_s(0, 1) is None and clock.eta_s(0, 0) == 0.0
    clock.rates()
    steps(clock, hands, 5, 2.0)
    with clock.validation():
        hands.now += 30.0
        assert clock.eta_s(10, 2) == pytest.approx(20.0)
        hands.now += 30.0
    assert clock.rates()[0] == pytest.approx(4 / 2.0)
    assert clock.eta_s(10, 1) == pytest.approx(20.0 + 60.0)
    with clock.validation():
        hands.now += 20.0
        assert clock.eta_s(0, 1) == pytest.approx(40.0)
        hands.now += 70.0
        assert clock.eta_s(0, 1) == 0.0
    assert clock.eta_s(10, 1) == pytest.approx(20.0 + 90.0)
