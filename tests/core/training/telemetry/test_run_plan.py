"""The end of the whole run is foreseen from its parts, measured or remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlwm.core.training.telemetry.run_plan import RunPlan

PARTS = ("prepare", "tokenizer", "motion", "fusion", "world", "eval")
TRUE = {"prepare": 10.0, "tokenizer": 50.0, "motion": 8.0, "fusion": 20.0, "world": 300.0,
        "eval": 30.0}  # fmt: skip
STEPS = {"tokenizer": 100, "motion": 300, "fusion": 200, "world": 90}


class Run:
    """A made-up run whose parts last as long as `TRUE` says."""

    def __init__(self, memory: Path | None = None, slow: float = 1.0) -> None:
        self.now, self.slow = 0.0, slow
        self.plan = RunPlan(PARTS, "test_local", memory, "key", lambda: self.now)
        self.estimates: list[tuple[float, float | None]] = []

    def go(self, begin_at: str = "prepare") -> None:
        for part in PARTS[PARTS.index(begin_at) :]:
            if part == "tokenizer" or part == begin_at:
                self.plan.expect(**STEPS)
            self.last(part)
        self.observe("done", 0, 0, None)
        self.plan.remember()

    def last(self, part: str) -> None:
        begun, whole = self.now, TRUE[part] * self.slow
        for tenth in range(10):
            self.now = begun + whole * tenth / 10
            steps = STEPS.get(part, 10)
            eta = None if part in ("prepare", "eval") else whole * (1 - tenth / 10)
            self.observe(part, steps * tenth // 10, 0 if part == "prepare" else steps, eta)
        self.now = begun + whole

    def observe(self, phase: str, step: int, steps: int, eta: float | None) -> None:
        stage = "tokenizer" if phase == "tokenizer" else "world"
        status: dict[str, Any] = {"phase": phase, "stage": stage, "step": step, "steps": steps,
                                  "eta_s": eta}  # fmt: skip
        self.plan.observe(status)
        self.estimates.append((self.now, self.plan.values()["eta_run_s"]))

    def worst_error(self) -> float:
        """Largest error of the foreseen end, as a share of the whole, from a tenth on."""
        whole = self.now
        errors = [
            float("inf") if left is None else abs(now + left - whole) / whole
            for now, left in self.estimates
            if now >= whole / 10
        ]
        return max(errors)


def test_a_second_run_knows_its_end_from_the_first_second(tmp_path: Path) -> None:
    first = Run(tmp_path / "pace.json")
    first.go()
    second = Run(tmp_path / "pace.json", slow=1.5)
    second.go()
    assert second.estimates[0][1] is not None
    assert second.worst_error() < 0.4  # all of it is a third slower than remembered, at first
    same = Run(tmp_path / "pace.json", slow=1.5)
    same.go()
    assert same.worst_error() < 0.01


def test_a_first_run_foresees_its_end_by_ratios() -> None:
    run = Run()
    run.go()
    assert run.worst_error() < 0.4  # stage 1 of this one is a third slower than the ratios say


def test_parts_that_a_resumed_run_leaves_out_are_skipped() -> None:
    run = Run()
    run.plan.expect(**STEPS)
    run.go(begin_at="world")
    states = {row["name"]: row["state"] for row in run.plan.values()["plan"]}
    assert states == {"prepare": "skipped", "tokenizer": "skipped", "motion": "skipped",
                      "fusion": "skipped", "world": "done", "eval": "done"}  # fmt: skip
    assert run.worst_error() < 0.2


def test_a_damaged_memory_is_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "pace.json"
    for text in ("", "[]", '{"key": {"world": "x", "eval": -1}}', '{"key": 3}', "\x00"):
        path.write_text(text)
        run = Run(path)
        run.go()
        assert run.worst_error() < 0.4
