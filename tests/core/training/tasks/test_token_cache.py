"""Codes that are kept are the codes; a damaged or foreign file costs time and nothing else."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlwm.core.config.load import load_config
from vlwm.core.data.batch import Batch, collate
from vlwm.core.data.datasets import WindowDataset
from vlwm.core.model.world_model import WorldModel
from vlwm.core.training.startup.train_data import TrainData, open_data
from vlwm.core.training.tasks.token_cache import FrameCodes, TokenFile


def codes(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 512, (5, 4))


def test_what_is_put_comes_back_and_nothing_else(tmp_path: Path) -> None:
    file = TokenFile(tmp_path, "k", 6, (5, 4))
    assert file.get(3, 1) is None
    file.put(3, 1, codes(0))
    again = TokenFile(tmp_path, "k", 6, (5, 4))  # another process
    assert np.array_equal(again.get(3, 1), codes(0))
    assert again.get(3, 0) is None and again.get(4, 0) is None
    file.close()
    again.close()


def test_damaged_codes_are_not_known(tmp_path: Path) -> None:
    file = TokenFile(tmp_path, "k", 6, (5, 4))
    file.put(2, 0, codes(1))
    with open(tmp_path / "k.codes", "r+b") as handle:
        handle.seek(4 * file.size + 3)
        handle.write(b"\xff")
    assert file.get(2, 0) is None
    (tmp_path / "k.codes").write_bytes(b"")  # cut by a restored backup
    assert file.get(2, 0) is None


def test_a_full_disk_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = TokenFile(tmp_path, "k", 6, (5, 4))

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    file.put(1, 0, codes(2))
    file.put(2, 0, codes(3))
    assert file.get(1, 0) is None and caplog.text.count("not kept any more") == 1


@pytest.fixture(scope="module")
def world(tiny: Any, tiny_data: Path) -> tuple[WorldModel, TrainData, Batch]:
    config = load_config("test_local", (*tiny.overrides, f"data_root={str(tiny_data)!r}"))
    data = open_data(config, lambda: None)
    torch.manual_seed(0)
    model = WorldModel(config, data.grid)
    windows = WindowDataset(data.store, data.train, 2, mirror=True, seed=1)
    batch = collate([windows[(0, i)] for i in range(4)])
    assert 0 < int((batch.symmetry != 0).sum()) < 4
    return model, data, batch


def test_kept_codes_are_those_of_each_frame_by_itself(
    world: tuple[WorldModel, TrainData, Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data, batch = world
    plain = FrameCodes(model, data, None, lead=True).of(batch)
    cached = FrameCodes(model, data, tmp_path, lead=True)
    assert torch.equal(cached.of(batch), plain)
    assert plain.shape == (4, 4, *model.vae.latent_shape[1:])
    with torch.no_grad():
        voxels = model.reader.voxels(batch.bits, batch.symmetry)
        at_once = model.vae.tokenise(voxels.flatten(0, 1)).view_as(plain)
    assert (at_once == plain).float().mean() > 0.999

    def refuse(*_: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(model.vae, "tokenise", refuse)
    assert torch.equal(cached.of(batch), plain)
    assert torch.equal(FrameCodes(model, data, tmp_path, lead=True).of(batch), plain)


def test_another_tokenizer_has_a_file_of_its_own(
    world: tuple[WorldModel, TrainData, Batch], tmp_path: Path
) -> None:
    model, data, batch = world
    FrameCodes(model, data, tmp_path, lead=True).of(batch)
    first = {path.name for path in tmp_path.iterdir()}
    bias = model.vae.vqvae.quant_conv.bias
    assert bias is not None
    with torch.no_grad():
        bias.add_(1.0)
        FrameCodes(model, data, tmp_path, lead=False).of(batch)
        both = {path.name for path in tmp_path.iterdir()}
        assert first < both and len(both) == 4
        FrameCodes(model, data, tmp_path, lead=True).of(batch)
        bias.sub_(1.0)
    assert not first & {path.name for path in tmp_path.iterdir()}


def test_a_folder_that_cannot_be_made_costs_only_time(
    world: tuple[WorldModel, TrainData, Batch], caplog: pytest.LogCaptureFixture
) -> None:
    model, data, batch = world
    found = FrameCodes(model, data, Path("/sys/vlwm_tokens"), lead=True).of(batch)
    assert torch.equal(found, FrameCodes(model, data, None, lead=True).of(batch))
    assert "tokens are not kept" in caplog.text


def test_caching_and_resuming_change_no_bit_of_a_run(
    tiny: Any, tmp_path: Path, tiny_data: Path, whole_run: Path
) -> None:
    """`whole_run` keeps its codes; this one does not, and is stopped and goes on with a cache."""
    assert list((whole_run / "tokens").glob("*.codes"))
    plain = tmp_path / "plain"
    code, _, err = tiny.finish(plain, tiny_data, "--set", "data.cache_tokens=False")
    assert code == 0, err
    assert not (plain / "tokens").exists()
    tiny.assert_same_run(plain, whole_run)
    stopped = tmp_path / "stopped"
    shutil.copytree(whole_run / "tokenizer", stopped / "tokenizer")
    child = tiny.process(stopped, tiny_data, "--set", "data.cache_tokens=False")
    tiny.wait_for(stopped, "world", 2, child)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    code, _, err = tiny.finish(stopped, tiny_data)
    assert code == 0, err
    tiny.assert_same_run(stopped, whole_run)
