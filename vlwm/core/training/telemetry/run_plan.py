"""Estimate when the whole run ends, from its first minutes on.

A run has parts: prepare the data, stage 1, two warm-ups, stage 2, the test. A part has one or more
kinds of work, each a number of units (frames, optimizer steps, windows) of one pace: stage 2 is
steps, validations, and what only the first validation does. The pace of a kind is expected before
it is measured (`expected_paces.py`). Measurements replace it as they come in, and what the run has
measured so far scales the paces of everything that is still to come.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vlwm.core.training.telemetry.expected_paces import COUNT, FIRST, VALIDATE, PaceMemory
from vlwm.core.vocabulary import Phase

LABELS: dict[str, str] = {
    Phase.PREPARE: "prepare data",
    Phase.TOKENIZER: "stage 1: tokenizer",
    Phase.MOTION: "warm-up: motion",
    Phase.FUSION: "warm-up: fusion",
    Phase.COMPLETION: "warm-up: completion",
    Phase.WORLD: "stage 2: world model",
    Phase.EVAL: "test",
}
"""parts of a run in order, with their labels"""

_IN_STAGE = (Phase.VALIDATE, Phase.SAVE, Phase.PROBE, Phase.COMPILE)
"""phases that belong to the stage they interrupt"""

_TRUST_S = 5.0
"""an expected pace counts as much as a measurement of this length"""

_START_S = 0.05
"""that this machine is as fast as expected counts as much as a measurement of this length"""

_LATE = 0.1
"""work that takes longer than expected: this share of its time is expected to be left"""


@dataclass
class _Work:
    """One kind of work: units of one pace.

    Attributes:
        name: the part's name, or that with an ending of `expected_paces.py`.
        expected_s: seconds a unit before anything is measured; None where nothing is known.
        units: of the part; of one validation. None before the data are known.
        done: units that this process has measured.
        spent_s: seconds that they took.
    """

    name: str
    expected_s: float | None = None
    units: float | None = None
    done: float = 0.0
    spent_s: float = 0.0

    def pace_s(self, scale: float | None) -> float | None:
        """Return seconds a unit: the expected pace, replaced as measurements come in."""
        # without an expectation, or before anything set its scale, only the measurement counts
        measured_s = self.spent_s / self.done if self.done else None
        if self.expected_s is None or scale is None:
            return measured_s
        expected_s = self.expected_s * scale
        if measured_s is None:
            return expected_s
        weight = _TRUST_S / expected_s  # units that the expectation counts as
        # a tenth of the whole at most: a long part is soon known by its own pace
        weight = min(weight, 0.1 * (self.units or weight))
        return (self.spent_s + weight * expected_s) / (self.done + weight)

    def whole_s(self, scale: float | None) -> float:
        """Return the seconds of all units; 0 where that is unknown."""
        return (self.pace_s(scale) or 0.0) * (self.units or 0.0)

    def measure(self, units: float, seconds: float) -> None:
        """Add a measurement."""
        self.done += units
        self.spent_s += seconds


class _Part:
    """One part of the run: its steps, and for a stage its validations."""

    def __init__(self, name: str, paces: Mapping[str, float]) -> None:
        def work(kind: str) -> _Work:
            return _Work(kind, paces.get(kind), paces.get(kind + COUNT))

        self.name = name
        self.steps = work(name)
        self.one = work(name + VALIDATE)
        """the windows of one validation"""
        self.first = work(name + FIRST)
        """extra work of the first validation, by the window"""
        self.due: tuple[float, ...] = ()
        """shares of the part at which a validation comes"""
        self.state = "todo"
        self.step = 0
        self.count = 0
        """steps as the status counts them; 0 where it does not"""
        self.took_s = 0.0
        self.validating_s: float | None = None
        """of the validation that runs"""
        self.past = 0
        """validations that are over, those of earlier processes included"""

    @property
    def share(self) -> float:
        """Part of its steps that is done, 0 to 1."""
        return min(1.0, self.step / self.count) if self.count else 0.0

    def left_s(self, scale: float | None) -> float | None:
        """Return the seconds left; None where a pace or a number of units is unknown."""
        if self.state in ("done", "skipped"):
            return 0.0
        pace_s = self.steps.pace_s(scale)
        units = float(self.count) if self.count else self.steps.units
        if pace_s is None or units is None:
            return None
        if self.state == "now" and not self.count:  # nothing counts its units
            return _rest_s(pace_s * units, self.took_s)
        return (units - self.step) * pace_s + self._validations_left_s(scale)

    def _validations_left_s(self, scale: float | None) -> float:
        """Return the seconds of the validations to come and of the one that runs."""
        coming = len(self.due) - self.past
        if coming <= 0:
            return 0.0
        one_s = self.one.whole_s(scale)
        # the first one also fits the baselines
        next_s = one_s + (self.first.whole_s(scale) if self.past == 0 else 0.0)
        if self.validating_s is not None:
            next_s = _rest_s(next_s, self.validating_s)
        # what runs now may be nearly over; the others are whole
        return next_s + (coming - 1) * one_s

    def end_validation(self, scale: float | None) -> None:
        """Take the time of the validation that ran as a measurement."""
        if self.validating_s is None:
            return
        one_s, first_s = self.one.whole_s(scale), self.first.whole_s(scale)
        share = one_s / (one_s + first_s) if self.past == 0 and first_s else 1.0
        self.one.measure(self.one.units or 0.0, share * self.validating_s)
        if share < 1.0:
            self.first.measure(self.first.units or 0.0, (1.0 - share) * self.validating_s)
        self.validating_s = None


def _rest_s(expected_s: float, elapsed_s: float) -> float:
    """Return the seconds left of work whose units are not counted."""
    return max(expected_s - elapsed_s, _LATE * elapsed_s)


@dataclass(frozen=True)
class _Look:
    """State of the run at the plan's last look."""

    part: _Part | None
    phase: str
    at_s: float
    warm: bool
    """a step of this part is over; the first one compiles, and is not measured"""


class RunPlan:
    """The parts of one run; receives the same events as status.json.

    Args:
        parts: names of the parts of this run, in order, as in `LABELS`.
        paces: kind of work -> seconds a unit that are expected (`expected_paces`).
        memory: paces of earlier runs, which come before the expected ones.
        absolute: the expected paces are those of this machine; else only their ratios count, and
            there is no estimate before something is measured.
        clock: seconds.
    """

    def __init__(
        self,
        parts: tuple[str, ...],
        paces: Mapping[str, float],
        memory: PaceMemory,
        *,
        absolute: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._memory = memory
        remembered = memory.read()
        self._absolute = absolute or bool(remembered)
        self.parts = [_Part(name, {**paces, **remembered}) for name in parts]
        self._last = _Look(None, Phase.START, clock(), warm=False)

    def expect(
        self,
        units: Mapping[str, float],
        due: Mapping[str, tuple[float, ...]],
    ) -> None:
        """Set how much there is to do, once the data are known.

        Args:
            units: kind of work -> frames, steps or windows.
            due: stage -> shares of its steps at which it validates.
        """
        for part in self.parts:
            for work in (part.steps, part.one, part.first):
                if work.name in units:
                    work.units = units[work.name]
            part.due = due.get(part.name, part.due)

    def observe(self, status: Mapping[str, Any]) -> None:
        """Take phase, stage, step and steps that status.json is about to show."""
        phase, now = status["phase"], self._clock()
        name = status["stage"] if phase in _IN_STAGE else phase
        part = next((part for part in self.parts if part.name == name), None)
        warm = self._measure(now - self._last.at_s, part, phase, status)
        if phase == Phase.DONE:
            self._finish(len(self.parts))
        if part is not None:
            self._finish(self.parts.index(part))
            part.state = "now"
            part.step, part.count = status["step"], status["steps"]
            done = status["epoch"] / status["epochs"] if status["epochs"] else 0.0
            part.past = sum(share <= done + 1e-6 for share in part.due)
            if phase == Phase.VALIDATE and part.validating_s is None:
                part.validating_s = 0.0
        self._last = _Look(part, phase, now, warm)

    def _measure(
        self, seconds: float, part: _Part | None, phase: str, status: Mapping[str, Any]
    ) -> bool:
        """Attribute the time since the last look; return whether the part is warm."""
        last = self._last
        if last.part is None:
            return False
        last.part.took_s += seconds
        if last.phase == Phase.VALIDATE:
            last.part.validating_s = (last.part.validating_s or 0.0) + seconds
            if phase != Phase.VALIDATE or part is not last.part:
                last.part.end_validation(self._scale())
        if part is not last.part:
            return False
        steps = max(0, status["step"] - last.part.step)
        if last.phase == last.part.name and last.warm:
            last.part.steps.measure(steps, seconds)
        return last.warm or steps > 0

    def _finish(self, before: int) -> None:
        """Close every part in front of number `before`; one that never began was not needed."""
        for part in self.parts[:before]:
            part.state = {"now": "done", "todo": "skipped"}.get(part.state, part.state)
            if part.state == "done":
                part.step = part.count

    def values(self) -> dict[str, Any]:
        """Return `plan`, `eta_run_s` and `eta_s`, the rest of the current part, for status.json."""
        scale = self._scale()
        run_s: float | None = 0.0
        part_s: float | None = None
        rows = []
        for part in self.parts:
            left_s = part.left_s(scale)
            run_s = None if left_s is None or run_s is None else run_s + left_s
            part_s = left_s if part.state == "now" else part_s
            rows.append(
                {
                    "name": part.name,
                    "label": LABELS[part.name],
                    "state": part.state,
                    "share": 1.0 if part.state == "done" else round(part.share, 4),
                    "seconds": None if left_s is None else round(part.took_s + left_s, 1),
                }
            )
        return {"plan": rows, "eta_run_s": run_s, "eta_s": part_s}

    def _scale(self) -> float | None:
        """Return how much slower this run is than expected, by what it has measured.

        The mean of the logarithms over the kinds of work, by the root of their expected seconds:
        a wrong expectation of one kind is weak evidence about the others. Preparing data is left
        out: it does not run on the GPU.
        """
        logs, weights = 0.0, math.sqrt(_START_S) if self._absolute else 0.0
        for part in self.parts:
            if part.name == Phase.PREPARE:
                continue
            for work in (part.steps, part.one, part.first):
                expected_s = work.done * (work.expected_s or 0.0)
                if expected_s > 0 and work.spent_s > 0:
                    weight = math.sqrt(expected_s)
                    logs += weight * math.log(work.spent_s / expected_s)
                    weights += weight
        return math.exp(logs / weights) if weights else None

    def remember(self) -> None:
        """Keep the measured paces for the next run of this config here."""
        kept: dict[str, float] = {}
        for part in self.parts:
            for work in (part.steps, part.one, part.first):
                if work.done and work.spent_s > 0:
                    kept[work.name] = work.spent_s / work.done
                    kept[work.name + COUNT] = float(work.units or work.done)
        self._memory.write(kept)
