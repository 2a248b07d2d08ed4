"""Three lines of Python from a run folder to a forecast."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vlwm
from tests.trained_run import ATTRIBUTION, THRESHOLDS, window_of, write_trained_run
from vlwm.core.data.batch import Past
from vlwm.core.evaluation.calibration.thresholds import Thresholds
from vlwm.core.geometry.frames import (
    anchor_poses,
    multiply_quaternions,
    quaternion_from_heading,
    rotate,
)
from vlwm.core.model.bit_packing import pack_bits
from vlwm.core.model.checkpoint import load_world_model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_trained_run(folder)
    return folder


@pytest.fixture(scope="module")
def model(run: Path) -> vlwm.Model:
    return vlwm.load(run)


def window(model: vlwm.Model, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return window_of(model._trained.config, seed)


def test_a_forecast_is_what_the_world_model_says(run: Path, model: vlwm.Model) -> None:
    occupancy, poses, _ = window(model)
    found = model.forecast(occupancy, poses)
    world, _ = load_world_model(run / "best.pth")
    local, ground = anchor_poses(poses, np.zeros(4), 3)
    past = Past(
        pack_bits(torch.from_numpy(occupancy))[None], torch.from_numpy(local).float()[None],
        torch.from_numpy(ground).float()[None], torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip
    probability = torch.sigmoid(world.forecast(past).logits)[0]
    np.testing.assert_array_equal(found.probability, probability.numpy())
    cut = Thresholds.of(THRESHOLDS["model"])
    for h in range(6):
        np.testing.assert_array_equal(found.occupied[h], cut.occupied(probability[h], h).numpy())
    assert found.attribution == ATTRIBUTION == model.attribution


def test_the_world_frame_of_the_caller_does_not_matter(model: vlwm.Model) -> None:
    """Moved and turned poses give the same cells, and poses that are moved and turned alike."""
    occupancy, poses, plan = window(model)
    turn, shift = quaternion_from_heading(1.2), np.array([3000.0, -200.0, 40.0])

    def moved(values: np.ndarray) -> np.ndarray:
        out = values.copy()
        for part in (slice(0, 3), slice(7, 10), slice(10, 13)):
            out[:, part] = rotate(turn, values[:, part])
        out[:, :3] += shift
        out[:, 3:7] = multiply_quaternions(turn, values[:, 3:7])
        return out

    for flown in (None, plan):
        here = model.forecast(occupancy, poses, plan=flown)
        there = model.forecast(
            occupancy, moved(poses), plan=None if flown is None else moved(flown), ground_z=40.0
        )
        np.testing.assert_allclose(there.probability, here.probability, atol=1e-3)
        np.testing.assert_allclose(there.poses[:, :3], moved(here.poses)[:, :3], atol=1e-3)
        np.testing.assert_allclose(there.ego[:, 2], here.ego[:, 2] + 40.0, atol=1e-3)


def test_a_plan_is_where_the_forecast_looks(model: vlwm.Model) -> None:
    occupancy, poses, plan = window(model)
    found = model.forecast(occupancy, poses, plan=plan)
    assert found.planned and not model.forecast(occupancy, poses).planned
    np.testing.assert_allclose(found.ego[:, :2], plan[:, :2], atol=1e-5)


def test_a_batch_is_its_windows_one_by_one(model: vlwm.Model) -> None:
    windows = [window(model, seed) for seed in (0, 1)]
    batch = model.forecast(
        *(np.stack(part) for part in zip(*(w[:2] for w in windows), strict=True))
    )
    for number, (occupancy, own, _) in enumerate(windows):
        alone = model.forecast(occupancy, own)
        np.testing.assert_allclose(batch[number].probability, alone.probability, atol=1e-5)
        np.testing.assert_allclose(batch[number].poses, alone.poses, atol=1e-5)


def test_unknown_cells_are_never_read_as_free(model: vlwm.Model) -> None:
    occupancy, poses, _ = window(model)
    known = np.ones_like(occupancy)
    model.forecast(occupancy, poses, known=known)
    known[:, 0] = 0
    with pytest.raises(vlwm.VlwmError, match="of the past cells are unknown"):
        model.forecast(occupancy, poses, known=known)


def test_a_device_that_is_missing_is_named(run: Path, model: vlwm.Model) -> None:
    for device in ("cuda:99", "gpu"):
        with pytest.raises(vlwm.VlwmError, match=f"the device '{device}' is not available"):
            vlwm.load(run, device=device)
    assert model.to("cpu").device == "cpu"


def test_the_examples_in_docstrings_run(run: Path, model: vlwm.Model) -> None:
    from vlwm import api

    occupancy, poses, _ = window(model)
    names = {"vlwm": vlwm, "run": run, "occupancy": occupancy, "poses": poses}
    done = doctest.testmod(api, extraglobs=names)
    assert done.attempted >= 5 and done.failed == 0


def test_the_import_is_light() -> None:
    script = (
        "import sys, time; before = set(sys.modules); start = time.process_time(); import vlwm; "
        "spent = time.process_time() - start; "
        "print(spent < 0.02, 'numpy' in sys.modules, 'torch' in sys.modules, dir(vlwm)[-1])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["True", "False", "False", "load"]


def test_a_model_of_observed_frames_takes_what_was_seen(tmp_path: Path) -> None:
    write_trained_run(tmp_path, "data.observed=True", "data.cache_tokens=False")
    model = vlwm.load(tmp_path)
    occupancy, poses, _ = window(model)
    known = np.ones_like(occupancy)
    known[:, :4] = 0
    hidden = occupancy.copy()
    hidden[:, :4] = 1 - hidden[:, :4]
    a, b = (model.forecast(cells, poses, known=known) for cells in (occupancy, hidden))
    np.testing.assert_array_equal(a.probability, b.probability)


def test_a_model_trained_with_unknown_cells_is_told_them(tmp_path: Path) -> None:
    write_trained_run(tmp_path / "run", "model.use_tokens=False", unknown_cells=True)
    model = vlwm.load(tmp_path / "run")
    occupancy, poses, _ = window(model)
    known = np.ones_like(occupancy)
    known[:, :8] = 0  # behind the vehicle
    told = model.forecast(occupancy * known, poses, known=known)
    full = model.forecast(occupancy * known, poses)
    assert not np.array_equal(told.probability[:, :4], full.probability[:, :4])
    folder = tmp_path / "exported"
    model.export(folder)
    again = vlwm.load(folder).forecast(occupancy * known, poses, known=known)
    np.testing.assert_allclose(again.probability, told.probability, atol=1e-6)


def test_a_model_of_classes_takes_and_gives_classes(tmp_path: Path) -> None:
    write_trained_run(tmp_path, "tokenizer.num_classes=18")
    model = vlwm.load(tmp_path)
    occupancy, poses, _ = window(model)
    classes = np.where(occupancy > 0, 15, 17).astype(np.uint8)
    found = model.forecast(occupancy, poses, classes=classes)
    assert found.classes is not None and found.classes.shape == found.occupied.shape
    np.testing.assert_array_equal(found.classes != 17, found.occupied)
    pair = model.forecast(np.stack([occupancy] * 2), np.stack([poses] * 2),
                          classes=np.stack([classes] * 2))  # fmt: skip
    np.testing.assert_array_equal(pair[1].classes, found.classes)
    with pytest.raises(vlwm.VlwmError, match="this model forecasts classes"):
        model.forecast(occupancy, poses)
    with pytest.raises(vlwm.VlwmError, match="classes is uint8 of shape"):
        model.forecast(occupancy, poses, classes=classes[:2])
