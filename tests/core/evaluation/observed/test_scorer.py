"""An observed data set is scored in its zones; the truth of the past is never read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.core.data.small_data import OBSERVED, SENSORS, make_in
from vlwm.core.config.load import load_config
from vlwm.core.data.batch import collate
from vlwm.core.data.datasets import WindowDataset
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.splits import Splits
from vlwm.core.data.windows import Window, windows_of
from vlwm.core.errors import DataError
from vlwm.core.evaluation import evaluator
from vlwm.core.evaluation.baselines.fit import fit_motions, split_windows
from vlwm.core.evaluation.baselines.fitted import MEMORY, track_of
from vlwm.core.evaluation.baselines.motions import ConstantTwist, PastMotion
from vlwm.core.evaluation.baselines.tri_state import METHODS, TriState, evidence_of
from vlwm.core.evaluation.baselines.tri_state_fit import ValidationWindow
from vlwm.core.evaluation.eval_windows import WindowShape, windows_in
from vlwm.core.evaluation.evaluator import evaluate, validation_merits
from vlwm.core.evaluation.window_scorer import WindowScorer
from vlwm.core.geometry.frames import ego_of
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.vocabulary import Split

CONFIG = load_config("test_local_lidar")
GRID = VoxelGrid.from_range(CONFIG.point_cloud_range, CONFIG.voxel_size)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PackedStore:
    root = make_in(tmp_path_factory.mktemp("noisy"), OBSERVED, frames=12, pose_noise="15cm")
    return PackedStore.open(root, GRID)


class Stands(ConstantTwist):
    """Stays at the last past frame."""

    def expected(self, past: PastMotion) -> np.ndarray:
        return np.tile(past.ego[:, -1:], (1, len(self.horizons_s), 1))


def windows(store: PackedStore) -> WindowDataset:
    found = windows_of(store, Splits.read(store.root / "splits.json"), "all", CONFIG.window_frames)
    return WindowDataset(store, found, CONFIG.history_frames, observed=True)


def test_a_window_holds_what_was_seen_and_no_truth_of_the_past(store: PackedStore) -> None:
    data = windows(store)
    batch, rows = data[0, 0], data.windows[0].rows
    history = CONFIG.history_frames
    seen = torch.from_numpy(store.read_layer("seen.occupied", rows[:history]))
    assert torch.equal(batch.bits[:history], seen)
    assert torch.equal(batch.bits[history:], torch.from_numpy(store.read_bits(rows[history:])))
    assert not torch.equal(batch.bits[:history], torch.from_numpy(store.read_bits(rows[:history])))


def test_a_forecast_gets_believed_poses_and_scores_the_true_ones(store: PackedStore) -> None:
    data = windows(store)
    poses, _ = data.motion(0)
    true, _ = data.true_motion(0)
    history = CONFIG.history_frames
    assert not np.allclose(poses[: history - 1], true[: history - 1])
    np.testing.assert_array_equal(poses[history:], true[history:])
    batch = dataclasses.replace(
        data[0, 0],
        **{
            name: None if (value := getattr(data[0, 0], name)) is None else value[None]
            for name in (f.name for f in dataclasses.fields(data[0, 0]))
        },
    )
    np.testing.assert_allclose(batch.past(history).poses[0], poses[:history], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(batch.plan(history).poses[0], true[history:], rtol=1e-5, atol=1e-4)


def test_methods_read_believed_poses_and_are_laid_over_the_truth_at_true_ones(
    store: PackedStore,
) -> None:
    """Fault: baselines that read where the vehicle truly was."""
    batch = collate([windows(store)[0, 0]])
    history = CONFIG.history_frames
    window = next(windows_in(batch, history, GRID))
    assert batch.believed is not None and batch.believed_ground_z is not None
    believed, ground = batch.believed[0, :history].double(), batch.believed_ground_z[0, :history]
    true = ego_of(batch.poses[0].double().numpy(), batch.ground_z[0].double().numpy())
    own = ego_of(believed.numpy(), ground.double().numpy())
    assert window.seen is not None and not np.allclose(own[:-1], true[: history - 1], atol=0.01)
    np.testing.assert_allclose(window.past.ego, own)
    np.testing.assert_allclose(window.seen.ego, own)
    np.testing.assert_allclose(window.last_pose, believed[-1].numpy())
    np.testing.assert_allclose(window.seen.true_ego, true[:history])
    np.testing.assert_allclose(window.future_ego, true[history:])


def test_the_sheet_scores_every_method_in_every_zone(store: PackedStore) -> None:
    splits = Splits.read(store.root / "splits.json")
    sheet = evaluate(None, None, store, splits, "all", CONFIG, max_windows=3)
    keys = {"iou_observed", "iou_occluded", "iou_new", "iou_near_way", "false_free_on_way"}
    for method, block in sheet["scores"].items():
        assert keys <= set(block), method
    assert set(METHODS) <= set(sheet["scores"])
    shares = np.array(list(sheet["observed"]["share_of_cells"].values()))
    np.testing.assert_allclose(shares.sum(axis=0), 1.0)
    assert (shares > 0).all()
    best = sheet["scores"]["true_pose_tri_state_prior"]["iou"][0]
    assert best > sheet["scores"]["true_pose_tri_state"]["iou"][0]
    assert sheet["tri_state"]["tri_state"]["threshold"]


def test_tri_state_parameters_are_chosen_on_the_validation_split_alone(
    store: PackedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: chosen on the windows that are scored."""
    splits = Splits.read(store.root / "splits.json")
    every = windows_of(store, splits, "all", CONFIG.window_frames)
    of_split = {Split.TRAIN: every[3:], Split.VAL: every[:1], Split.TEST: every[1:3]}
    fitted_to: list[int] = []

    def fit(inputs: list[ValidationWindow], layers: np.ndarray, *more: object) -> TriState:
        fitted_to.append(len(inputs))
        return TriState(layers, GRID)

    def of(own: PackedStore, splits: Splits, split: str, *more: object) -> list[Window]:
        return of_split[Split(split)]

    monkeypatch.setattr(evaluator, "windows_of", of)
    monkeypatch.setattr(evaluator, "split_windows", of)
    monkeypatch.setattr(evaluator, "fit_tri_state", fit)
    subject = evaluator.prepare_subject(None, store, splits, Split.TEST, CONFIG)
    assert fitted_to == [1] and len(subject.windows) == 2


def test_the_predicted_track_moves_by_the_strongest_motion_without_learning(
    store: PackedStore,
) -> None:
    """Fault: constant twist, which any forecast of the motion is above."""
    splits = Splits.read(store.root / "splits.json")
    subject = evaluator.prepare_subject(None, store, splits, "all", CONFIG, max_windows=1)
    shape = WindowShape(CONFIG.history_frames, CONFIG.future_frames, CONFIG.frame_dt_s, True)
    train, val = (split_windows(store, splits, s, shape) for s in (Split.TRAIN, Split.VAL))
    _, best = fit_motions(store, train, val, shape)
    chosen = subject.scorer.tri_state
    assert chosen is not None and chosen.motion_name == best
    # a motion that stands still: the evidence is then that of the last past frame's place
    batch = collate([windows(store)[0, 0]])
    methods = dataclasses.replace(chosen, motion=Stands(shape.horizons_s))
    scorer = WindowScorer(
        GRID, methods.layers, shape.history, shape.future, shape.dt_s, tri_state=methods
    )
    (forecast,) = scorer.forecasts(batch)
    assert forecast.window.seen is not None
    here = np.tile(forecast.window.past.ego[-1:], (shape.future, 1))
    evidence = evidence_of(forecast.window.seen, here, GRID)
    for frame, found in zip(forecast.frames, evidence, strict=True):
        expected = methods.plane("tri_state", found, frame.horizon)
        assert torch.equal(frame.planes["tri_state"] > 0, expected)


def test_the_baseline_of_an_observed_past_is_the_strongest_of_all_methods(
    store: PackedStore,
) -> None:
    """Fault: the memory baselines, which take the unknown for free, so that any model is above."""
    batch = collate([windows(store)[0, 0]])
    fitted = TriState(np.arange(GRID.shape[2]) == GRID.ground_slice, GRID)
    merits = validation_merits(fitted, [batch], CONFIG)
    scorer = WindowScorer(
        GRID, fitted.layers, CONFIG.history_frames, CONFIG.future_frames, 0.5,
        tri_state=dataclasses.replace(fitted, merits=merits),
    )  # fmt: skip
    assert set(merits) == set(scorer.methods) > set(METHODS)
    tally = scorer.new_tally()
    scorer.add(batch, ["here"], tally)
    for track, name in scorer.baseline.items():
        own = {m: v for m, v in merits.items() if track_of(m) == track}
        assert own[name] == max(own.values()) > own[MEMORY[track]]
        scores = tally.total.scores(name)
        assert merits[name] == pytest.approx(sum(scores["iou"] + scores["iou_structure"]))


def test_frames_that_nobody_observed_are_refused(tmp_path: Path) -> None:
    root = make_in(tmp_path / "plain", SENSORS, frames=11, lidar=None, camera=False)
    with pytest.raises(DataError, match="no sensor observed these frames") as error:
        windows(PackedStore.open(root, GRID))
    assert "vlwm prepare --observe lidar" in str(error.value.remedy)
