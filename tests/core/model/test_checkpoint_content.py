"""A checkpoint's content is known by name, and each stage writes what it has."""

from __future__ import annotations

from typing import Any

import pytest

from vlwm.core.model.checkpoint_content import CheckpointContent


def content(**more: Any) -> CheckpointContent:
    plain: dict[str, Any] = {
        "stage": "world", "epoch": 1, "step": 2, "best": None, "model": {}, "optimizer": {},
        "scheduler": {}, "scaler": {}, "sampler": {}, "rng": {}, "meter": {}, "health": {},
        "config": {}, "threshold": None,
    }  # fmt: skip
    return CheckpointContent(**plain, **more)


def test_it_comes_back_without_what_the_other_stage_has() -> None:
    mine = content(thresholds={"model": {"threshold": 0.5}}, fresh=[])
    written = mine.to_dict()
    assert "codebook" not in written and written["best"] is None and written["fresh"] == []
    assert CheckpointContent.of({**written, "format": "x", "version": 2}) == mine


def test_a_field_of_no_name_is_refused() -> None:
    with pytest.raises(TypeError, match="treshold"):
        content(treshold=0.5)
