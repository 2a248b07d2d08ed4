"""Made and recorded folders train together by their weights; what was read travels on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vlwm
from tests.core.training.test_presets import SMALL_GRID, kitti, run, sets
from vlwm.core.training.telemetry.provenance import non_commercial


@pytest.mark.endurance
def test_a_made_city_and_recordings_train_together(tmp_path: Path) -> None:
    """One grid, splits by folder, and the stricter of two licences on all that is made."""
    preset = ("--config", "finetune_6dof", *sets("finetune_6dof"))
    made, recorded, work = (tmp_path / name for name in ("made", "recorded", "run"))
    city = (*SMALL_GRID, "prepare.procedural_size_m=500")
    changes = [word for pair in city for word in ("--set", pair)]
    run("prepare", "--config", "test_local", *changes, "--sessions", 3, "--frames", 8,
        "--output", made)  # fmt: skip
    for line in kitti(tmp_path / "in"):
        run("prepare", *line, *preset, "--output", recorded, "--window", "0.5")
    sources = f"[{{'root': '{made}', 'weight': 2.0}}, {{'root': '{recorded}'}}]"
    train = ("--set", f"data.train={sources}", "--work-dir", work, "--from-scratch", "--no-live")
    result = run("train", *preset, *train)
    assert "non-commercial use, and so are the weights" in result.stderr
    splits = json.loads((work / "splits.json").read_text())["sources"]
    assert splits["made"]["regions"] and not splits["made"]["sessions"]  # by area
    assert set(splits["recorded"]["sessions"].values()) == {"train", "val", "test"}
    model = vlwm.load(work)
    assert "KITTI" in model.attribution and non_commercial(model.attribution)
    model.export(tmp_path / "exported")
    card = (tmp_path / "exported/README.md").read_text()
    assert "The weights are for non-commercial use only." in card
    scores = json.loads((work / "scores.json").read_text())
    assert scores["n_windows"] >= 1 and "KITTI" in json.dumps(scores["attribution"])
