"""Curves of a run in little memory, whatever the length of its metrics file.

A run of weeks writes a million lines. The dashboard draws at most a few hundred points of a curve,
so each metric keeps at most `MOST_POINTS` points: when there are more, every second one of the
older half is dropped, and the newest stay exact.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlwm.core.monitoring.snapshot import STAGES, Record, Series, StageView
from vlwm.core.run_status import finite as number

MOST_POINTS = 2048
_PLACES = frozenset(("time", "epoch", "step"))  # where a record belongs, no metric


class _Curve:
    """One metric: steps and values, thinned."""

    def __init__(self) -> None:
        self.steps = array("d")
        self.values = array("d")
        self.count = 0

    def add(self, step: float, value: float) -> None:
        self.steps.append(step)
        self.values.append(value)
        self.count += 1
        if len(self.steps) > MOST_POINTS:
            half = len(self.steps) // 2
            self.steps = self.steps[:half:2] + self.steps[half:]
            self.values = self.values[:half:2] + self.values[half:]

    def frozen(self) -> Series:
        return Series(self.steps[:], self.values[:], self.count)


@dataclass
class _Kind:
    """Records of one kind, training or validation."""

    curves: dict[str, _Curve]
    last: Record | None = None
    count: int = 0

    def add(self, record: Mapping[str, Any]) -> None:
        self.last, self.count = record, self.count + 1
        step = number(record, "step")
        if step is None:
            return
        for name in record:
            value = number(record, name) if name not in _PLACES else None
            if value is not None:
                self.curves.setdefault(name, _Curve()).add(step, value)

    def frozen(self) -> dict[str, Series]:
        return {name: curve.frozen() for name, curve in self.curves.items()}


class History:
    """Records of one stage, added one by one; `stage` is what the panels draw."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.clear()

    def clear(self) -> None:
        """Forget everything: the file was cut or replaced."""
        self._kinds = {"train": _Kind({}), "val": _Kind({})}
        self._stage: StageView | None = None

    def add(self, record: Mapping[str, Any]) -> None:
        """Take one record of metrics.jsonl."""
        self._kinds["val" if record.get("kind") == "val" else "train"].add(record)
        self._stage = None

    def stage(self) -> StageView:
        """Return all that was added, immutable; made again only after a new record."""
        if self._stage is None:
            train, val = self._kinds["train"], self._kinds["val"]
            newest = (train.last or val.last or {}).get("stage")
            self._stage = StageView(
                name=newest if newest in STAGES else self.name,
                train=train.frozen(),
                val=val.frozen(),
                last=train.last,
                last_val=val.last,
                train_count=train.count,
                val_count=val.count,
            )
        return self._stage
