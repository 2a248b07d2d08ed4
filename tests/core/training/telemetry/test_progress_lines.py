"""Lines of a log say how far a run is, when it ends and what it costs, without the dashboard."""

from __future__ import annotations

import re
import time
from typing import Any

from vlwm.core.run_status import Status
from vlwm.core.training.telemetry.progress_lines import ProgressLines

START = 1_800_000_000.0


def at(seconds: float, part: str, left_s: float | None, **values: Any) -> dict[str, Any]:
    """A status of a run that is `seconds` old and in a part."""
    row = {"name": part, "label": f"the {part}", "state": "now", "share": 0.1, "seconds": 9.0}
    return {**Status().to_dict(), "started": START, "heartbeat": START + seconds, "phase": part,
            "plan": [row], "eta_run_s": left_s, **values}  # fmt: skip


def test_a_line_as_a_part_begins_and_one_a_minute() -> None:
    lines = ProgressLines()
    told = []
    for second in range(200):
        part = "motion" if second < 150 else "world"
        line = lines.due(at(second, part, 1000.0 - second, step=second, steps=400))
        if line is not None:
            told.append((second, line))
    assert [second for second, _ in told] == [0, 60, 120, 150]
    ends = time.strftime("%a %H:%M", time.localtime(START + 1000))
    assert told[1][1] == f"the motion, step 60 of 400; 15 min left, ends {ends}"
    assert told[3][1].startswith("the world, step 150 of 400; 14 min left")


def test_cost_so_far_and_to_the_end_where_a_price_is_given() -> None:
    spent = {"price_per_h": 2.5, "spent_s": 3600.0}
    line = ProgressLines().due(
        at(1800, "world", 3600.0, phase="validate", step=3, steps=9, **spent)
    )
    assert line is not None and line.startswith("the world, validating; 1 h 00 min left, ends ")
    assert line.endswith("; $3.75 so far, about $6.25 in all")
    lines = ProgressLines()
    lines.due(at(0, "world", 60.0, **spent))
    line = lines.due(at(72, "world", 0.0, **{**spent, "phase": "done"}))
    assert line == "done in 1 h 01 min; $2.55 in all"


def test_no_time_before_there_is_one() -> None:
    """Also not for the first minute of a part: a line without a time says little."""
    lines = ProgressLines()
    told = [lines.due(at(s, "tokenizer", None, step=1, steps=9)) for s in range(0, 130, 10)]
    words = "the tokenizer, step 1 of 9"
    assert [line for line in told if line] == [words, words]
    assert told.index(words) == 6
    assert lines.due(at(130, "tokenizer", 60.0)) is None
    assert lines.due({**at(131, "start", None), "plan": []}) is None


def test_frames_and_windows_are_counted_by_their_names() -> None:
    for part, unit in (("prepare", "frame"), ("eval", "window"), ("fusion", "step")):
        line = ProgressLines().due(at(1, part, 60.0, step=1200, steps=4000))
        assert line is not None and re.search(rf", {unit} 1,200 of 4,000; 1 min 00 s left", line)
