"""Estimate when the whole run ends, from its first minutes on.

A run has parts: prepare the data, stage 1, two warm-ups, stage 2, the test. The clock of a stage
knows when that stage ends; the parts after it are estimated from their number of steps and the
pace of a step. The pace comes from the last run of this config on this device, which is kept in
`~/.cache/vlwm/pace.json`; without one, from the ratios below, measured on two CPU cores. What has
been measured in this run corrects the scale of everything that is still to come.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlwm.core.errors import VlwmError
from vlwm.core.files import read_json, write_json
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

_RATIOS = {
    "test_local": {
        "tokenizer": 0.36,
        "motion": 0.022,
        "fusion": 0.105,
        "completion": 0.12,
        "world": 3.3,
        "eval": 35.0,
    },
    "": {
        "tokenizer": 3.8,
        "motion": 0.03,
        "fusion": 0.31,
        "completion": 0.6,
        "world": 6.3,
        "eval": 60.0,
    },
}
"""seconds a step (of the test: in all) on two cores, by preset; only their ratios matter"""

_STEPS = "/steps"  # ending of the names under which numbers of steps are kept
_IN_STAGE = (Phase.VALIDATE, Phase.SAVE, Phase.PROBE, Phase.COMPILE)
"""phases that belong to the stage they interrupt"""


@dataclass
class _Part:
    """One part of the run and what is known about its length."""

    name: str
    steps: int | None = None
    pace_s: float | None = None
    state: str = "todo"
    share: float = 0.0
    began: float | None = None
    took_s: float = 0.0
    left_s: float | None = None

    @property
    def expected_s(self) -> float | None:
        """Length by the number of steps and the expected pace."""
        if self.pace_s is None or self.steps is None:
            return None
        return self.pace_s * self.steps

    def total_s(self) -> float | None:
        """Return the length as this run measures it; None where nothing is measured yet."""
        if self.state == "done":
            return self.took_s
        if self.state != "now":
            return None
        if self.left_s is not None:
            return self.took_s + self.left_s
        return self.took_s / self.share if self.share > 0.02 else None


class RunPlan:
    """The parts of one run; receives the same events as status.json.

    Args:
        parts: names of the parts of this run, in order, as in `LABELS`.
        config: name of the preset, for the ratios of a first run.
        memory: where paces of earlier runs are kept; None keeps nothing.
        key: what a pace holds for: config, grid, batch, device.
        clock: seconds.
    """

    def __init__(
        self,
        parts: tuple[str, ...],
        config: str,
        memory: Path | None = None,
        key: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._memory, self._key = memory, key
        remembered = self._remembered()
        self._sure = bool(remembered)
        ratios = _RATIOS.get(config, _RATIOS[""])
        self.parts = [_Part(name, pace_s=remembered.get(name, ratios.get(name))) for name in parts]
        for part in self.parts:
            part.steps = int(remembered.get(part.name + _STEPS, 0)) or None
            if part.name in ("prepare", "eval"):
                part.steps = 1
            if part.name == "prepare":
                part.pace_s = remembered.get("prepare")

    def expect(self, **steps: int) -> None:
        """Set the number of optimizer steps of parts, once the data are known."""
        for part in self.parts:
            if part.name in steps:
                part.steps = steps[part.name]

    def observe(self, status: Mapping[str, Any]) -> None:
        """Take the phase, stage, step, steps and eta_s that status.json is about to show."""
        name = status["stage"] if status["phase"] in _IN_STAGE else status["phase"]
        if name in ("done", "failed", "stopped"):
            self._finish(len(self.parts))
            return
        index = next((i for i, part in enumerate(self.parts) if part.name == name), None)
        if index is None:
            return
        self._finish(index)
        part, now = self.parts[index], self._clock()
        if part.state != "now" or part.began is None:
            part.state = "now"
            part.began = now
        part.took_s = now - part.began
        part.left_s = status["eta_s"]
        if status["steps"]:
            # an estimate from the share is used where the stage's own clock has none yet
            part.share = min(1.0, status["step"] / status["steps"])
            if name not in ("prepare", "eval"):
                part.steps = status["steps"]

    def _finish(self, before: int) -> None:
        """Close every part in front of number `before`; one that never began was not needed."""
        for part in self.parts[:before]:
            if part.state == "now":
                part.state, part.share = "done", 1.0
                if part.began is not None:
                    part.took_s = self._clock() - part.began
            elif part.state == "todo":
                part.state = "skipped"

    def values(self) -> dict[str, Any]:
        """Return `plan` and `eta_run_s` for status.json."""
        scale = self._scale()
        left_s: float | None = 0.0
        rows = []
        for part in self.parts:
            total_s = part.total_s()
            # a part that has not begun: its expected length on this run's scale
            if total_s is None and part.expected_s is not None and scale is not None:
                total_s = part.expected_s * scale
            if part.state in ("now", "todo"):
                rest = None if total_s is None else max(0.0, total_s - part.took_s)
                left_s = None if rest is None or left_s is None else left_s + rest
            rows.append(
                {
                    "name": part.name,
                    "label": LABELS[part.name],
                    "state": part.state,
                    "share": round(part.share, 4),
                    "seconds": None if total_s is None else round(total_s, 1),
                }
            )
        return {"plan": rows, "eta_run_s": left_s}

    def _scale(self) -> float | None:
        """Return the ratio of measured to expected time, over the parts measured so far."""
        measured = expected = 0.0
        for part in self.parts:
            total_s = part.total_s()
            if total_s is not None and part.expected_s and part.name != "prepare":
                measured, expected = measured + total_s, expected + part.expected_s
        if expected > 0:
            return measured / expected
        return 1.0 if self._sure else None

    def remember(self) -> None:
        """Keep the pace of each finished part for the next run of this config here."""
        if self._memory is None:
            return
        paces = {
            part.name: part.took_s / (part.steps or 1)
            for part in self.parts
            if part.state == "done" and part.took_s > 0
        }
        paces |= {
            p.name + _STEPS: float(p.steps) for p in self.parts if p.name in paces and p.steps
        }
        known = _read(self._memory)
        known[self._key] = {**known.get(self._key, {}), **paces}
        try:
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._memory, known)
        except (OSError, VlwmError):
            return  # a pace is a convenience; a full or read-only home must not fail the run

    def _remembered(self) -> dict[str, float]:
        return {} if self._memory is None else _read(self._memory).get(self._key, {})


def pace_file() -> Path:
    """Return where paces are kept: below XDG_CACHE_HOME or ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "vlwm" / "pace.json"


def _read(path: Path) -> dict[str, dict[str, float]]:
    """Return what is kept there; a damaged file counts as empty."""
    try:
        values = read_json(path)
    except (VlwmError, OSError, json.JSONDecodeError):
        return {}
    if not isinstance(values, dict):
        return {}
    good = {}
    for key, paces in values.items():
        if isinstance(paces, dict):
            good[key] = {
                name: float(pace)
                for name, pace in paces.items()
                if isinstance(pace, (int, float)) and 0 < pace < 1e9
            }
    return good
