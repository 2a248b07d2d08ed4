"""Write the log lines that say how far a run is, when it ends and what it costs.

    stage 1: tokenizer, step 3 of 9; 41 min left, ends Mon 14:32; $0.40 so far, about $2 in all

The dashboard draws the same numbers; these lines are for a log, a pipe and `nohup`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlwm.core.text import span, time_of_day
from vlwm.core.vocabulary import Phase

_EVERY_S = 60.0
"""seconds between two lines of one part"""

_DOING: dict[str, str] = {
    Phase.VALIDATE: "validating",
    Phase.PROBE: "trying the batch size",
    Phase.COMPILE: "compiling",
}
_UNITS: dict[str, str] = {Phase.PREPARE: "frame", Phase.EVAL: "window"}
"""counted in parts that take no optimizer steps"""


class ProgressLines:
    """Decides when a line is due: once as each part of the run begins, then every minute."""

    def __init__(self) -> None:
        self._part: str | None = None
        self._last_s: float | None = None

    def due(self, status: Mapping[str, Any]) -> str | None:
        """Return the line that a status is due, or None.

        Args:
            status: values that status.json is about to show, those of the plan included.
        """
        now = float(status["heartbeat"])
        if self._last_s is None:
            self._last_s = now  # no line in the first minute of a part without an estimate
        if status["phase"] == Phase.DONE:
            return None if self._part is None else _ended(status, now)
        part = next((p for p in status["plan"] if p["state"] == "now"), None)
        if part is None:
            return None
        begins = part["name"] != self._part and status["eta_run_s"] is not None
        if not begins and now - self._last_s < _EVERY_S:
            return None
        self._part, self._last_s = part["name"], now
        return _line(part["label"], status, now)


def _line(label: str, status: Mapping[str, Any], now: float) -> str:
    words = [label]
    phase, left_s = status["phase"], status["eta_run_s"]
    if phase in _DOING:
        words.append(_DOING[phase])
    elif status["steps"]:
        words.append(f"{_UNITS.get(phase, 'step')} {status['step']:,} of {status['steps']:,}")
    parts = [", ".join(words)]
    if left_s is not None:
        parts.append(f"{span(left_s)} left, ends {time_of_day(now + left_s, '%a %H:%M')}")
    return "; ".join([*parts, *_cost(status, now, left_s)])


def _ended(status: Mapping[str, Any], now: float) -> str:
    spent_s = _spent_s(status, now)
    return "; ".join([f"done in {span(spent_s)}", *_cost(status, now, None)])


def _cost(status: Mapping[str, Any], now: float, left_s: float | None) -> list[str]:
    """Return what the run has cost and will cost; nothing where no price was given."""
    price = status["price_per_h"]
    if price is None:
        return []
    spent_s = _spent_s(status, now)
    so_far = f"${price * spent_s / 3600:.2f} so far"
    if left_s is None:
        return [so_far if status["phase"] != Phase.DONE else so_far.replace("so far", "in all")]
    return [f"{so_far}, about ${price * (spent_s + left_s) / 3600:.2f} in all"]


def _spent_s(status: Mapping[str, Any], now: float) -> float:
    return float(status["spent_s"]) + max(0.0, now - float(status["started"]))
