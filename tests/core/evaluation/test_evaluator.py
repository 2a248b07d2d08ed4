"""evaluate(): a data folder in, the score sheet of the protocol out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.core.evaluation.street_sessions import FRAMES, NAMES, config_of, write_session
from vlwm.core.config.load import config_from_dict
from vlwm.core.config.schema import Config
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.source_splits import open_splits
from vlwm.core.data.splits import Splits
from vlwm.core.errors import CheckpointError, DataError
from vlwm.core.evaluation.baselines.fit import fit_baselines
from vlwm.core.evaluation.baselines.fitted import FittedBaselines
from vlwm.core.evaluation.baselines.warps import BASELINES
from vlwm.core.evaluation.calibration.thresholds import Thresholds
from vlwm.core.evaluation.eval_windows import WindowShape
from vlwm.core.evaluation.evaluator import evaluate, prepare_subject
from vlwm.core.evaluation.load import EvalData, find_checkpoint, open_baselines, thresholds_of
from vlwm.core.figures.eval_figures import clip_of, write_results
from vlwm.core.geometry.grid import VoxelGrid


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Three sessions without a place: train, test, val."""
    root = tmp_path_factory.mktemp("data")
    config = config_of(root)
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    for number, name in enumerate(NAMES):
        write_session(root / name, grid, number, None)
    return root


def opened(root: Path) -> tuple[Config, PackedStore, Splits]:
    config = config_of(root)
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    store = PackedStore.open(root, grid)
    return config, store, open_splits(store, 1.0, 0)


@pytest.fixture(scope="module")
def fitted(data) -> FittedBaselines:
    _, store, splits = opened(data)
    return fit_baselines(store, splits, WindowShape(4, 6, 0.5), torch.device("cpu"), max_windows=1)


@pytest.mark.parametrize("split", ["test", "all"])
def test_baselines_alone_need_no_training(data, fitted, split):
    config, store, splits = opened(data)
    seen = []
    sheet = evaluate(
        None, None, store, splits, split, config, fitted=fitted, max_windows=6,
        batch_size=3, progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert json.loads(json.dumps(sheet, allow_nan=False)) == sheet
    windows = FRAMES - 9
    assert sheet["n_windows"] == (6 if split == "all" else windows)
    assert seen[-1] == (sheet["n_windows"], sheet["n_windows"])
    assert list(sheet["scores"]) == [*BASELINES, *fitted.methods]
    assert sheet["baseline"] == fitted.baseline
    assert {"constant_twist", "turn_rate"} <= set(sheet["pose"])
    assert sheet["horizons_s"] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert sheet["procedural"] and sheet["attribution"] == "made up"
    assert sheet["split"] == split and sheet["checkpoint"] is sheet["threshold"] is None
    assert sheet["too_few_clusters"] and "reliability" not in sheet
    assert "train split" in sheet["data"]["column_prior"]
    for h in range(6):
        iou = {m: sheet["scores"][m]["iou_seen"][h] for m in BASELINES}
        assert iou["true_pose_memory"] > iou["copy_last"] > iou["empty"] == 0.0
        assert iou["ground_prior"] > 0.2


def test_the_number_of_windows_at_once_changes_nothing(data, fitted):
    config, store, splits = opened(data)
    one = evaluate(None, None, store, splits, "test", config, fitted=fitted, max_windows=2)
    all_ = evaluate(
        None, None, store, splits, "test", config, fitted=fitted, max_windows=2, batch_size=9
    )
    assert one == all_


def test_a_limit_takes_windows_evenly(data, fitted):
    config, store, splits = opened(data)
    subject = prepare_subject(None, store, splits, "all", config, fitted=fitted, max_windows=3)
    assert len(subject.windows) == 3 and subject.available == 3 * (FRAMES - 9)
    assert len({w.session for w in subject.windows}) == 3


def test_clusters_are_tiles_of_the_world_or_of_a_session_without_a_place(tmp_path, fitted):
    config = config_of(tmp_path)
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    place = {"crs": "EPSG:6677", "northing": 50.0, "height": 0.0}
    write_session(tmp_path / NAMES[0], grid, 0, place | {"easting": 1000.0})
    write_session(tmp_path / NAMES[1], grid, 1, place | {"easting": 960.0})  # the same world place
    write_session(tmp_path / NAMES[2], grid, 0, None)
    store = PackedStore.open(tmp_path, grid)
    splits = Splits(None, 1.0, (), dict.fromkeys(NAMES, "test"))
    subject = prepare_subject(None, store, splits, "test", config, fitted=fitted)
    clusters = [subject.cluster_of(i) for i in range(len(subject.windows))]
    per_session = FRAMES - 9
    first, second, third = (clusters[i * per_session : (i + 1) * per_session] for i in range(3))
    assert first == second and set(first) == {("EPSG:6677", 8, 0)}
    assert {c[0] for c in third} == {NAMES[2]}


def test_clips_hold_what_is_scored(data, fitted):
    config, store, splits = opened(data)
    subject = prepare_subject(None, store, splits, "test", config, fitted=fitted)
    clip = clip_of(subject, 0)
    assert clip.forecast_name == clip.baseline_name == subject.scorer.baseline["predicted"]
    assert np.array_equal(clip.forecast, clip.baseline)
    rows = subject.windows[0].rows
    assert np.array_equal(clip.truth[0], store.read_frame(int(rows[4])))
    assert np.allclose(clip.ego[3], 0.0)


def test_results_are_written_whole(data, fitted, tmp_path):
    config, store, splits = opened(data)
    subject = prepare_subject(None, store, splits, "test", config, fitted=fitted, max_windows=2)
    sheet = evaluate(None, None, store, splits, "test", config, fitted=fitted, max_windows=2)
    film = tmp_path / "deep" / "film.mp4"
    written = write_results(sheet, subject, tmp_path / "run", video=film)
    names = {"scores.json", "curves.png", "window.png", "film.mp4"}
    assert {p.name for p in written} == names and all(p.stat().st_size > 0 for p in written)
    assert json.loads((tmp_path / "run" / "scores.json").read_text()) == sheet
    assert write_results(sheet, subject, None) == []


def test_data_of_another_grid_are_refused(data):
    config = config_from_dict({**config_of(data).to_dict(), "voxel_size": [2.0, 2.0, 3.0]})
    with pytest.raises(DataError, match="16x16x8"):
        open_baselines(config, EvalData("test"))


def test_a_folder_without_a_checkpoint_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint in this run folder"):
        find_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no such run or checkpoint"):
        find_checkpoint(tmp_path / "absent")
    (tmp_path / "last.pth").touch()
    assert find_checkpoint(tmp_path).name == "last.pth"
    (tmp_path / "best.pth").touch()
    assert find_checkpoint(tmp_path).name == "best.pth"


def test_cuts_come_from_the_checkpoint():
    assert thresholds_of({"threshold": None}).model == Thresholds(0.5)
    plain = thresholds_of({"threshold": 0.3})
    assert (plain.model, plain.model_plan, plain.tokenizer_round_trip) == (
        Thresholds(0.3), Thresholds(0.3), Thresholds(0.5)
    )  # fmt: skip
    own = Thresholds(0.4, (0.5, 0.4), (0.3, 0.2))
    given = thresholds_of({"threshold": 0.4, "thresholds": {"model": own.content()}})
    assert (given.model, given.model_plan) == (own, Thresholds(0.4))
