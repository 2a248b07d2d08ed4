"""Weights to begin with: everything is accounted for, a missing part is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vlwm.core.config.load import load_config
from vlwm.core.config.schema import TokenizerConfig
from vlwm.core.errors import CheckpointError
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.occworld import OccWorld
from vlwm.core.model.pretrained import read_weights, take_weights
from vlwm.core.model.tokenizer.vqvae import Tokenizer
from vlwm.core.model.world_model import WorldModel


@pytest.fixture(scope="module")
def latest(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the names and shapes of OccWorld's `latest.pth`; every tensor is its index."""
    facts = json.loads((shared_data / "occworld/occworld_state_dict.json").read_text())
    state = {f"module.{n}": torch.full(facts[n]["shape"], float(i)) for i, n in enumerate(facts)}
    path = tmp_path_factory.mktemp("occworld") / "latest.pth"
    torch.save({"state_dict": state, "epoch": 200, "global_iter": 1}, path)
    return path


def test_occworld_itself_takes_everything(latest: Path) -> None:
    model = OccWorld()
    given = take_weights(model, latest, "world")
    state, _ = read_weights(latest)
    assert given.covers_all and not given.left_over and set(given.taken) == set(state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    rows = [line.split()[1:] for line in given.table()[1:]]
    assert sum(int(row[0]) for row in rows) == len(state)
    assert all(row[1:] == ["0", "0"] for row in rows)


def test_the_eighteen_class_tokenizer_takes_everything(latest: Path) -> None:
    tokenizer = Tokenizer(TokenizerConfig(num_classes=18), (200, 200, 16))
    given = take_weights(tokenizer, latest, "tokenizer")
    state, whole = read_weights(latest)
    assert whole and given.covers_all and not given.left_over
    assert len(given.taken) == sum(name.startswith("vae.") for name in state)
    for name, value in tokenizer.state_dict().items():
        assert torch.equal(value, state[f"vae.{name}"])


def test_the_binary_tokenizer_takes_what_fits(latest: Path) -> None:
    tokenizer = Tokenizer(TokenizerConfig(), (200, 200, 121))
    given = take_weights(tokenizer, latest, "tokenizer")
    different = {"encoder.conv_in.weight", "decoder.conv_out.weight", "decoder.conv_out.bias",
                 "class_embeds.weight"}  # fmt: skip
    assert set(given.fresh) == different == set(given.left_over)


def test_the_world_model_takes_the_transformer(latest: Path) -> None:
    config = load_config("finetune_tokyo")
    model = WorldModel(config, VoxelGrid.from_range(config.point_cloud_range, config.voxel_size))
    given = take_weights(model, latest, "world")
    fresh = {n for n in given.fresh if n.startswith("transformer.")}
    assert fresh == {
        "transformer.temporal_embeddings.weight", "transformer.pose_temporal_embeddings.weight",
    }  # fmt: skip
    assert {n.split(".")[0] for n in given.left_over} >= {"pose_encoder", "pose_decoder"}
    table = {line.split()[0]: line.split()[1:] for line in given.table()}
    assert table["vae.encoder"][1:] == ["1", "1"] and table["vae.vqvae"] == ["5", "0", "0"]
    assert table["pose_decoder"] == ["0", "0", "4"]


@pytest.mark.parametrize("part", ["vae.encoder", "vae.vqvae", "transformer"])
def test_a_part_that_is_missing_as_a_whole_is_an_error(
    latest: Path, tmp_path: Path, part: str
) -> None:
    state, _ = read_weights(latest)
    path = tmp_path / "part.pth"
    torch.save({n: v for n, v in state.items() if not n.startswith(part)}, path)
    config = load_config("finetune_tokyo")
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    with pytest.raises(CheckpointError, match=f"nothing of {part}"):
        take_weights(WorldModel(config, grid), path, "world")


class _Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_foreign_and_damaged_files_are_refused(latest: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"state_dict": {"vae.x": _Malicious(mark)}}, tmp_path / "evil.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "cut.pth").write_bytes(latest.read_bytes()[:100_000])
    for name, words in (("evil", "more than tensors"), ("list", "no weights by name"),
                        ("cut", "damaged")):  # fmt: skip
        with pytest.raises(CheckpointError, match=words):
            read_weights(tmp_path / f"{name}.pth")
    assert not mark.exists()
