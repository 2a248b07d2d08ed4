"""Data that a training run prepares by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlwm.core.config.load import load_config
from vlwm.core.data.splits import HELD_OUT, PLAN_FILE
from vlwm.core.training.startup.data_on_demand import _plan


@pytest.mark.parametrize(
    ("begun", "held_out"), [(None, 0.4), ({"seed": 7}, HELD_OUT), ({"held_out": 0.5}, 0.5)]
)
def test_a_folder_that_was_begun_keeps_its_share(
    begun: dict[str, float] | None, held_out: float, tmp_path: Path
) -> None:
    """One of an earlier version names none: it has the default, whatever the config says."""
    if begun is not None:
        (tmp_path / PLAN_FILE).write_text(json.dumps(begun))
    config = load_config("tokyo_small", ["prepare.held_out=0.4"])
    assert _plan(config, tmp_path).held_out == held_out
