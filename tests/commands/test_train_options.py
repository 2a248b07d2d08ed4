"""`vlwm train` takes every option of the training guide, under its name, with its default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from vlwm.cli import app
from vlwm.core.config.load import load_config
from vlwm.core.training.options import WandbOptions

COMMAND = typer.main.get_command(app).commands["train"]
PRESET = load_config("finetune_tokyo")
GUIDE: dict[str, Any] = {
    "--config": "finetune_tokyo", "--work-dir": "./checkpoints", "--batch-size": 3, "--lr": 1e-4,
    "--epochs": 50, "--resume": False, "--resume-from": None, "--from-scratch": False,
    "--gpu-ids": "0", "--seed": 42, "--eval-only": False, "--wandb": False,
    "--wandb-project": "occworld-tokyo", "--wandb-run-name": None, "--wandb-tags": None,
    "--amp": True,
}  # fmt: skip
"""option → default of the guide; where it names none, the preset's: batch 3, mixed precision
on a GPU"""
MORE = {
    "--backup", "--packed-dir", "--stop-instance", "--when-done","--live", "--no-live", "--price", 
    "--set", "--data", "--stage", "--workers", "--compile", "--no-compile", "--dry-run", "--json",
    "--auto", "--no-amp", "--keep", "--no-resume",
}  # fmt: skip
FLAGS = {"--resume", "--from-scratch", "--eval-only", "--wandb", "--amp"}
CONFIGS = {
    "--batch-size": PRESET.data.samples_per_gpu, "--lr": PRESET.optimizer.lr,
    "--epochs": PRESET.max_epochs, "--seed": PRESET.seed, "--amp": PRESET.amp,
    "--gpu-ids": "0", "--resume": False,
}  # fmt: skip
"""what stands where the option is left out and its own default is None"""


def parameter(option: str) -> Any:
    (found,) = [p for p in COMMAND.params if option in (*p.opts, *p.secondary_opts)]
    return found


@pytest.mark.parametrize(("option", "default"), GUIDE.items(), ids=list(GUIDE))
def test_an_option_of_the_guide_is_here_with_its_default(option: str, default: Any) -> None:
    found = parameter(option)
    assert found.is_flag is (option in FLAGS)
    own = found.default
    if own is None and default is not None:
        own = CONFIGS[option]
    if isinstance(own, Path):
        assert own == Path(default)
    else:
        assert own == default


def test_the_options_that_vlwm_adds_are_here() -> None:
    names = {name for p in COMMAND.params for name in (*p.opts, *p.secondary_opts)}
    options = {name for name in names if name.startswith("--")} - {"--help"}
    assert options == set(GUIDE) | MORE


def test_tags_and_names_go_to_wandb_as_the_guide_has_them() -> None:
    assert WandbOptions() == WandbOptions("occworld-tokyo", None, ())
    assert parameter("--wandb-tags").multiple


def test_the_list_above_is_the_guides_own(shared_data: Path) -> None:
    """Names and defaults are read from the guide's text where it lies beside the repository."""
    guide = (shared_data.parent / "training_guide.md").read_text(encoding="utf-8")
    part = guide.split("## train.py Arguments")[1].split("```")[1]
    rows = re.findall(r"^  (--[a-z-]+).*?(?:\(default: (.*?)\))?$", part, re.M)
    assert {name for name, _ in rows} == set(GUIDE)
    for name, default in rows:
        if default:
            meant = GUIDE[name]
            assert type(meant)(default) == meant, name
