"""What no weights covered is trained, whatever the config freezes; what they covered stands still,
and so does what a phase before the first step has trained.

`load_from` is a run's own checkpoint here, less a few tensors: as OccWorld's weights come, which
hold time embeddings of another length and nothing of our pose module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vlwm.core.config.load import load_config
from vlwm.core.model.checkpoint import load_checkpoint
from vlwm.core.training.options import TrainOptions
from vlwm.core.training.run import train

FRESH = {
    "transformer.temporal_embeddings.weight",
    "motion_head.members.0.out.weight",
    "motion_head.members.0.out.bias",
}
FROZEN = ("vae.", "transformer.", "motion_head.")


def model_after(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = load_checkpoint(folder / "last.pth")["model"]
    frozen = {name: value for name, value in state.items() if name.startswith(FROZEN)}
    for name in ("motion_head.spread_scale", "motion_head.sigma_scale"):
        del frozen[name]  # not trained: chosen by each validation, like a threshold
    return frozen


def test_what_is_fresh_is_trained_before_it_is_frozen_also_after_a_resume(
    tiny: Any, tiny_data: Path, whole_run: Path, tmp_path: Path
) -> None:
    given = load_checkpoint(whole_run / "last.pth")["model"]
    torch.save({n: v for n, v in given.items() if n not in FRESH}, tmp_path / "given.pth")
    states = []
    for epochs in (1, 2):
        sets = (
            *tiny.overrides, f"data_root={str(tiny_data)!r}", f"max_epochs={epochs}",
            f"load_from={str(tmp_path / 'given.pth')!r}",
            "model.freeze_transformer=True", "model.freeze_pose=True",
        )  # fmt: skip
        options = TrainOptions(tmp_path / "run", stage="world", resume=epochs > 1)
        train(load_config("test_local", sets), options)
        states.append(model_after(tmp_path / "run"))
    for name in states[0].keys() - FRESH:
        assert torch.equal(states[0][name], given[name]), name
    moved = {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}
    assert moved == FRESH


def test_a_frozen_motion_head_learns_in_its_phase_and_stands_still_afterwards(
    tiny: Any, tiny_data: Path, tmp_path: Path
) -> None:
    states = []
    for epochs in (1, 2):
        sets = (
            *tiny.overrides, f"data_root={str(tiny_data)!r}", f"max_epochs={epochs}",
            "model.freeze_pose=True",
        )  # fmt: skip
        options = TrainOptions(tmp_path / "run", resume=epochs > 1)
        train(load_config("test_local", sets), options)
        found = load_checkpoint(tmp_path / "run" / "last.pth")
        states.append((model_after(tmp_path / "run"), found["fresh"]))
    (first, fresh), (second, _) = states
    motion = [name for name in first if name.startswith("motion_head.members.")]
    assert not [name for name in fresh if name.startswith("motion_head.")]
    assert bool(first["motion_head.members.0.out.weight"].any())  # zero at the start
    assert all(torch.equal(first[name], second[name]) for name in motion)
