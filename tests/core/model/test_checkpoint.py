"""A checkpoint is whole or refused in one sentence, and reading one never runs anything."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlwm.core.config.schema import Config
from vlwm.core.errors import CheckpointError, MachineError
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model import checkpoint
from vlwm.core.model.checkpoint import (
    grid_of,
    load_checkpoint,
    load_weights,
    newest_valid,
    peek_checkpoint,
    save_checkpoint,
)
from vlwm.core.vocabulary import Stage


def content(step: int = 3) -> dict[str, Any]:
    """A small checkpoint with every kind of value a real one has."""
    return {
        "stage": "world",
        "epoch": 1,
        "step": step,
        "model": {"layer.weight": torch.arange(12.0).reshape(3, 4), "count": torch.tensor(7)},
        "rng": {"python": [3, [1, 2, 3], None], "half": torch.zeros(2, dtype=torch.bfloat16)},
        "config": Config().to_dict(),
        "best": None,
    }


def same(a: Any, b: Any) -> bool:
    """Equality of nested values with tensors in them, at tolerance 0."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def test_round_trip_and_no_temporary_left(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pth", content())
    loaded = load_checkpoint(tmp_path / "last.pth", stage="world")
    assert same({k: loaded[k] for k in content()}, content())
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth"]


def test_a_file_that_is_cut_while_it_is_read_is_damaged_and_ends_nothing(tmp_path: Path) -> None:
    """Nothing maps a checkpoint: a page of a mapped file that is gone would be a SIGBUS."""
    path = tmp_path / "last.pth"
    save_checkpoint(path, {**content(), "model": {"a": torch.arange(1 << 20).float()}})
    loaded, looked = load_checkpoint(path), peek_checkpoint(path)
    assert looked is not None and looked["config"] == content()["config"]
    assert str(path) not in Path("/proc/self/maps").read_text()
    os.truncate(path, 5000)
    assert float(loaded["model"]["a"].sum()) > 0 and looked["step"] == 3
    assert peek_checkpoint(path) is None
    with pytest.raises(CheckpointError, match="cut short"):
        load_checkpoint(path)


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_checkpoint_that_shrinks_between_its_sums_and_its_tensors(
    tmp_path: Path, at: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pth"
    save_checkpoint(path, {**content(), "model": {"a": torch.arange(1 << 20).float()}})
    check = checkpoint._check_sums

    def check_and_cut(path: Path) -> None:
        check(path)
        os.truncate(path, int(path.stat().st_size * at))

    monkeypatch.setattr(checkpoint, "_check_sums", check_and_cut)
    with pytest.raises(CheckpointError, match="its parts do not fit together"):
        load_checkpoint(path)


def test_what_weights_only_would_not_read_is_refused_when_saving(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"\['rng'\]\['numpy'\]"):
        save_checkpoint(tmp_path / "last.pth", {"rng": {"numpy": np.zeros(3)}})
    with pytest.raises(TypeError, match="a key of"):
        save_checkpoint(tmp_path / "last.pth", {"fresh": {Stage.WORLD: 1}})
    assert not list(tmp_path.iterdir())


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    save_checkpoint(path, content())
    whole = path.read_bytes()
    for size in [0, 1, 30, len(whole) // 2, len(whole) - 30, len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(path)


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    """Padding between records and fields nobody reads may flip; contents may not."""
    path = tmp_path / "last.pth"
    save_checkpoint(path, content())
    whole, meant = path.read_bytes(), load_checkpoint(path)
    refused = 0
    rng = np.random.default_rng(0)
    places = rng.choice(len(whole), size=400, replace=False)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            assert same(load_checkpoint(path), meant), f"byte {place} passed unseen"
        except CheckpointError:
            refused += 1
    assert refused > 100


def test_a_record_that_claims_to_be_compressed_is_refused(tmp_path: Path) -> None:
    """A flipped method sends stored bytes to the decompressor, whose errors are its own."""
    path = tmp_path / "last.pth"
    save_checkpoint(path, content())
    damaged = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        method = archive.start_dir + 10  # of the first record, in the directory
    assert damaged[method] == zipfile.ZIP_STORED
    damaged[method] = zipfile.ZIP_DEFLATED
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


def test_a_flipped_weight_is_always_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    save_checkpoint(path, content())
    weights = content()["model"]["layer.weight"].numpy().tobytes()
    whole = path.read_bytes()
    start = whole.index(weights)
    for place in range(start, start + len(weights)):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="changed since it was written"):
            load_checkpoint(path)


class Attack:
    """A pickle that would write a file if it were run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("wrapping", ["zip", "bare"])
def test_a_malicious_pickle_does_not_run(tmp_path: Path, wrapping: str) -> None:
    marker, path = tmp_path / "ran", tmp_path / "last.pth"
    evil = pickle.dumps({"format": "vlwm-checkpoint", "model": Attack(marker)}, protocol=2)
    if wrapping == "bare":
        path.write_bytes(evil)
    else:
        save_checkpoint(path, content())
        with zipfile.ZipFile(path) as good:
            records = {name: good.read(name) for name in good.namelist()}
        with zipfile.ZipFile(path, "w") as bad:
            for name, data in records.items():
                bad.writestr(name, evil if name.endswith("data.pkl") else data)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert not marker.exists()
    assert "\n" not in str(caught.value)
    pickle.loads(evil)  # the attack is real: run plainly it leaves its mark
    assert marker.exists()


def test_foreign_files_are_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "latest.pth"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of vlwm"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "none.pth")


def test_other_grid_and_other_stage_are_named(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    save_checkpoint(path, content())
    grid = grid_of(load_checkpoint(path))
    load_checkpoint(path, expect_grid=grid)
    other = VoxelGrid(grid.lower_m, (0.8, 0.8, 2.5), (100, 100, 60))
    with pytest.raises(CheckpointError, match=r"200×200×121 .* not 100×100×60"):
        load_checkpoint(path, expect_grid=other)
    with pytest.raises(CheckpointError, match="world stage"):
        load_checkpoint(path, stage="tokenizer")


def test_weights_of_another_model_are_refused_by_name() -> None:
    model = torch.nn.Linear(4, 3)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    load_weights(model, state, "here")
    with pytest.raises(CheckpointError, match="only the model has bias"):
        load_weights(model, {"weight": state["weight"]}, "here")
    with pytest.raises(CheckpointError, match="only the checkpoint has extra"):
        load_weights(model, {**state, "extra": torch.zeros(1)}, "here")
    with pytest.raises(CheckpointError, match=r"weight has shape \(3, 5\) against \(3, 4\)"):
        load_weights(model, {**state, "weight": torch.zeros(3, 5)}, "here")


def test_the_newest_valid_checkpoint_is_found_and_the_damaged_ones_named(tmp_path: Path) -> None:
    assert newest_valid(tmp_path) is None
    for number, name in enumerate(["epoch_5.pth", "best.pth", "epoch_10.pth", "last.pth"]):
        save_checkpoint(tmp_path / name, content(step=number))
        os.utime(tmp_path / name, (1000 + number, 1000 + number))
    found = newest_valid(tmp_path)
    assert found is not None and found.path.name == "last.pth" and not found.refused
    for name in ("last.pth", "epoch_10.pth"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:200])
    found = newest_valid(tmp_path)
    assert found is not None and found.path.name == "best.pth" and found.content["step"] == 1
    assert "last.pth" in found.refused[0] and "epoch_10.pth" in found.refused[1]
    for name in ("best.pth", "epoch_5.pth"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint can be read"):
        newest_valid(tmp_path)


def test_a_full_disk_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pth"
    save_checkpoint(path, content(step=1))

    def full(value: Any, handle: Any) -> None:
        handle.write(b"half")
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904 - as torch does it

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(MachineError, match="disk is full"):
        save_checkpoint(path, content(step=2))
    assert load_checkpoint(path)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth"]
