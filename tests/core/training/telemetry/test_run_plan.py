"""The end of the whole run is estimated from its parts, measured or remembered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vlwm.core.training.telemetry.expected_paces import PaceMemory, expected_paces
from vlwm.core.training.telemetry.run_plan import RunPlan

PARTS = ("prepare", "tokenizer", "motion", "fusion", "world", "eval")
BATCHES = {"tokenizer": 8, "world": 4}
UNITS = {
    "prepare": 320.0, "tokenizer": 120.0, "tokenizer/validate": 31.0, "motion": 300.0,
    "fusion": 200.0, "world": 94.0, "world/validate": 31.0, "world/first": 31.0, "eval": 31.0,
}  # fmt: skip
DUE = {"tokenizer": (0.25, 0.5, 0.75, 1.0), "world": (0.5, 1.0)}
Moment = tuple[float, dict[str, Any]]


def moments(
    paces: dict[str, float], resumed_at: int = 0, validated: bool = False
) -> Iterator[Moment]:
    """Yield (seconds, status) of a made-up run in which each unit takes what `paces` says.

    A run that is resumed at the end of an epoch may have validated it or not.
    """
    now = 3.0
    if not resumed_at:
        for frame in range(0, 321, 20):
            yield now, status("prepare", None, frame, 320)
            now += 20 * paces["prepare"]
    for part in PARTS[1:-1]:
        count = int(UNITS[part])
        stage = "tokenizer" if part == "tokenizer" else "world"
        if resumed_at and part != "world":
            continue
        epochs = len(DUE.get(part, ()))
        epoch = sum(share * count < resumed_at + validated for share in DUE.get(part, ()))
        for step in range(resumed_at, count + 1):
            yield now, status(part, stage, step, count, epoch, epochs)
            if epoch < epochs and abs(DUE[part][epoch] * count - step) < 0.5:
                now += 0.01
                first = part == "world" and step == count // 2
                long_s = 31 * (paces[f"{part}/validate"] + first * paces.get(f"{part}/first", 0.0))
                for tenth in range(10):
                    values = status("validate", stage, step, count, epoch, epochs)
                    yield now + long_s * tenth / 10, values
                now += long_s
                epoch += 1
                yield now, status("save", stage, step, count, epoch, epochs)
                yield now, status(part, stage, step, count, epoch, epochs)
            now += paces[part]
    for window in range(0, 32, 4):
        yield now, status("eval", "world", window, 31)
        now += 4 * paces["eval"]
    yield now, status("done", "world", 31, 31)


def status(
    phase: str, stage: str | None, step: int, steps: int, epoch: int = 0, epochs: int = 0
) -> dict[str, Any]:
    return {"phase": phase, "stage": stage, "step": step, "steps": steps, "epoch": epoch,
            "epochs": epochs, "eta_s": None}  # fmt: skip


def worst(
    paces: dict[str, float],
    memory: Path | None = None,
    resumed_at: int = 0,
    since: float = 0.1,
    validated: bool = False,
) -> float:
    """Return the largest error of the estimated length, as a share of the true one."""
    seen = list(moments(paces, resumed_at, validated))
    whole = seen[-1][0]
    now = [0.0]
    kept = PaceMemory(memory, "key")
    plan = RunPlan(PARTS, expected_paces("test_local", BATCHES), kept, absolute=True,
                   clock=lambda: now[0])  # fmt: skip
    plan.expect(UNITS, DUE)
    errors = []
    for now[0], values in seen:
        plan.observe(values)
        left = plan.values()["eta_run_s"]
        assert left is not None
        if now[0] >= since * whole:
            errors.append(abs(now[0] + left - whole) / whole)
    plan.remember()
    return max(errors)


@pytest.mark.parametrize("slower", [0.3, 1.0, 2.5])
def test_a_first_run_on_a_faster_or_slower_machine(slower: float) -> None:
    paces = {kind: slower * s for kind, s in expected_paces("test_local", BATCHES).items()}
    assert worst(paces) < 0.15


@pytest.mark.parametrize("kind", ["motion", "fusion", "world/validate", "world/first", "eval"])
def test_one_kind_of_work_may_take_twice_as_long_as_expected(kind: str) -> None:
    paces = expected_paces("test_local", BATCHES)
    assert worst({**paces, kind: 2 * paces[kind]}) < 0.2


def test_a_second_run_knows_its_end_from_the_first_second(tmp_path: Path) -> None:
    paces = {k: s * (3 if "world" in k else 0.7)
             for k, s in expected_paces("test_local", BATCHES).items()}  # fmt: skip
    memory = tmp_path / "pace.json"
    assert worst(paces, memory) > 0.2
    assert worst(paces, memory, since=0.0) < 0.05


@pytest.mark.parametrize(("step", "validated"), [(5, False), (47, False), (47, True), (90, True)])
def test_a_resumed_run_counts_what_is_left(step: int, validated: bool) -> None:
    paces = expected_paces("test_local", BATCHES)
    assert worst(paces, resumed_at=step, since=0.0, validated=validated) < 0.1


def test_parts_that_a_resumed_run_leaves_out_are_skipped() -> None:
    plan = RunPlan(PARTS, expected_paces("test_local", BATCHES), PaceMemory(None, ""),
                   absolute=True, clock=lambda: 0.0)  # fmt: skip
    plan.expect(UNITS, DUE)
    for _, values in moments(expected_paces("test_local", BATCHES), resumed_at=20):
        plan.observe(values)
    states = {row["name"]: row["state"] for row in plan.values()["plan"]}
    assert states == {"prepare": "skipped", "tokenizer": "skipped", "motion": "skipped",
                      "fusion": "skipped", "world": "done", "eval": "done"}  # fmt: skip


def test_on_an_unknown_gpu_there_is_no_estimate_before_a_measurement() -> None:
    plan = RunPlan(PARTS, expected_paces("", BATCHES), PaceMemory(None, ""), absolute=False)
    plan.expect(UNITS, DUE)
    plan.observe(status("prepare", None, 0, 320))
    assert plan.values()["eta_run_s"] is None
    for step in range(4):
        plan.observe(status("tokenizer", "tokenizer", step, 120))
    assert plan.values()["eta_run_s"] is not None


def test_a_damaged_memory_is_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "pace.json"
    for text in ("", "[]", '{"key": {"world": "x", "eval": -1}}', '{"key": 3}', "\x00"):
        path.write_text(text)
        assert worst(expected_paces("test_local", BATCHES), path) < 0.1
