"""status.json has the fields of `Status`: no other is written, and any file can be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlwm.core.run_folder import RunFolder
from vlwm.core.run_status import FIELDS, HealthSign, PlanStep, Status
from vlwm.core.training.telemetry.status_writer import StatusWriter


def test_a_status_comes_back_from_its_file() -> None:
    status = Status(
        state="failed", phase="world", stage="world", epoch=2, step=7, eta_s=3.5, exit_code=4,
        health=(HealthSign("spike", "warn", "the loss rose", "wait", 7),),
        plan=(PlanStep("world", "stage 2", "now", 0.5, None),), links={"W&B": "there"},
    )  # fmt: skip
    assert Status.of(json.loads(json.dumps(status.to_dict()))) == status


@pytest.mark.parametrize("value", [None, "x", 3, [1], {"a": 1}, float("nan"), True])
def test_no_value_of_any_kind_breaks_a_reader(value: Any) -> None:
    status = Status.of(dict.fromkeys(FIELDS, value))
    assert isinstance(status.epoch, int) and isinstance(status.state, str)


def test_a_writer_refuses_a_field_that_nobody_would_read(tmp_path: Path) -> None:
    writer = StatusWriter(RunFolder(tmp_path).create(), device="CPU")
    writer.update(step=3)
    with pytest.raises(TypeError, match="stepp"):
        writer.update(stepp=4)
    written = RunFolder(tmp_path).read_status()
    assert written is not None and set(written) == FIELDS
    assert Status.of(written).step == 3 and Status.of(written).device == "CPU"
