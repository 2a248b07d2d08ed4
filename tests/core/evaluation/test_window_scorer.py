"""The scorer counts every method, and nothing of the future reaches the predicted track."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from vlwm.core.config.load import config_from_dict
from vlwm.core.config.schema import Config
from vlwm.core.data.batch import Batch
from vlwm.core.evaluation.baselines.warps import (
    BASELINES,
    PREDICTED_MOTION,
    WITHOUT_MOTION,
    predicted_track,
)
from vlwm.core.evaluation.column_prior import ColumnPrior, evenly
from vlwm.core.evaluation.eval_windows import WindowShape, windows_in
from vlwm.core.evaluation.model_forecasts import LEARNED, LearnedForecasts
from vlwm.core.evaluation.validation import ValidationMeter
from vlwm.core.evaluation.window_scorer import WindowScorer
from vlwm.core.geometry.frames import ego_of, from_ego, quaternion_from_heading
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.bit_packing import unpack_bits
from vlwm.core.model.world_model import WorldModel

GRID = VoxelGrid.from_range((-8, -8, -2, 8, 8, 10), (1.0, 1.0, 1.5))
HISTORY, FUTURE, DT_S = 4, 3, 0.5
SHAPE = WindowShape(HISTORY, FUTURE, DT_S)
PREDICTED = WITHOUT_MOTION + PREDICTED_MOTION


def model_config() -> Config:
    return config_from_dict(
        {
            "point_cloud_range": [-8, -8, -2, 8, 8, 10],
            "voxel_size": [1.0, 1.0, 1.5],
            "future_frames": FUTURE,
            "tokenizer": {"base_channels": 8, "embed_dim": 8, "codebook_size": 16,
                          "num_res_blocks": 1, "channel_mult": [1, 2]},
            "model": {"channels": [8, 16], "num_heads": 2, "layers_per_level": 1,
                      "memory_channels": 8, "memory_levels": 2, "pose_channels": 16},
        }
    )  # fmt: skip


class FakeModel:
    """Repeats the last past frame; the plan is answered with the opposite."""

    class Vae:
        def tokenise(self, frames: Tensor) -> Tensor:
            return frames

        def embed(self, indices: Tensor) -> Tensor:
            return indices

        def decode_occupancy(self, z: Tensor) -> Tensor:
            return 8.0 * z.float() - 4.0

    vae = Vae()

    def forecast(self, past, plan=None) -> SimpleNamespace:
        last = (
            unpack_bits(past.bits[:, -1], GRID.shape)
            .float()[:, None]
            .expand(-1, FUTURE, -1, -1, -1)
        )
        sign = 1.0 if plan is None else -1.0
        ego = torch.zeros(len(last), FUTURE, 4)
        poses = torch.zeros(len(last), FUTURE, 13)
        poses[..., 6] = 1.0
        logits, log_sigma = sign * (8.0 * last - 4.0), torch.zeros(len(last), FUTURE, 4)
        return SimpleNamespace(
            classes=None,
            logits=logits,
            memory_logits=logits,
            ego=ego,
            poses=poses,
            log_sigma=log_sigma,
        )


def street(ego: np.ndarray) -> np.ndarray:
    """A static world of ground and square towers, seen from an ego frame (z about 0)."""
    points = from_ego(GRID.centers(), ego)
    tower = (np.floor(points[..., 0] / 5) % 2 == 0) & (np.floor(points[..., 1] / 4) % 3 == 0)
    z = points[..., 2]
    return ((z < 0) & (z > -1.5)) | (tower & (z > 0) & (z < 6))


def make_batch(windows: int = 2, *, speed_m_s: float = 2.0, turn_rad: float = 0.1) -> Batch:
    """Constant twist over flat terrain in the anchor frame."""
    steps = HISTORY + FUTURE
    bits, poses = [], []
    for w in range(windows):
        pose = np.zeros((steps, 13))
        yaw = turn_rad * (np.arange(steps) - HISTORY + 1) * (w + 1)
        pose[1:, :2] = np.cumsum(speed_m_s * DT_S * np.stack([np.cos(yaw), np.sin(yaw)], -1), 0)[
            :-1
        ]
        pose[:, :2] -= pose[HISTORY - 1, :2]
        pose[:, 3:7] = quaternion_from_heading(yaw)
        ego = ego_of(pose, np.zeros(steps))
        bits.append([GRID.pack(street(e)) for e in ego])
        poses.append(pose)
    return Batch(
        torch.from_numpy(np.array(bits)),
        torch.from_numpy(np.array(poses)).float(),
        torch.zeros(windows, steps),
        index=torch.arange(windows),
        symmetry=torch.zeros(windows, dtype=torch.int64),
    )


def make_scorer(model=None) -> WindowScorer:
    ground = np.arange(GRID.shape[2]) == 0
    return WindowScorer(GRID, ground, HISTORY, FUTURE, DT_S, model)


def planes_of(scorer: WindowScorer, batch: Batch) -> list[dict[str, Tensor]]:
    return [f.planes for forecast in scorer.forecasts(batch) for f in forecast.frames]


def test_every_method_is_counted_and_the_order_of_the_truth_holds():
    scorer = make_scorer(FakeModel())
    tally = scorer.new_tally()
    scorer.add(make_batch(), ["a", "b"], tally)
    assert tally.methods == LEARNED + BASELINES
    assert tally.total.windows == 2 and set(tally.clusters) == {"a", "b"}
    iou = {m: tally.total.scores(m)["iou"] for m in tally.methods}
    assert iou["tokenizer_round_trip"] == [1.0] * FUTURE
    assert iou["model"] == iou["copy_last"]  # the fake model copies
    assert iou["empty"] == [0.0] * FUTURE
    for h in range(FUTURE):  # exact up to the nearest cell, so well above standing still
        assert iou["true_pose_memory"][h] > iou["copy_last"][h]
    assert set(tally.poses) == {"model", "constant_twist"}
    assert sum(tally.probabilities.counts.sum(0)) == 2 * FUTURE * GRID.num_cells


def test_standing_still_makes_every_memory_perfect():
    tally = (scorer := make_scorer()).new_tally()
    scorer.add(make_batch(speed_m_s=0.0, turn_rad=0.0), ["a", "a"], tally)
    for method in ("copy_last", *PREDICTED_MOTION, "true_pose_warp", "true_pose_memory"):
        assert tally.total.scores(method)["iou"] == [1.0] * FUTURE
    assert tally.total.scores("copy_last")["iou_new"] == [None] * FUTURE
    assert tally.poses["constant_twist"].summary()["m"] == pytest.approx([0.0] * FUTURE)


def poisoned(batch: Batch) -> Batch:
    """Poses and terrain of the future are NaN, its voxels noise."""
    poses, ground, bits = (v.clone() for v in (batch.poses, batch.ground_z, batch.bits))
    poses[:, HISTORY:], ground[:, HISTORY:] = torch.nan, torch.nan
    bits[:, HISTORY:] = torch.randint(0, 256, bits[:, HISTORY:].shape, dtype=torch.uint8)
    return replace(batch, bits=bits, poses=poses, ground_z=ground)


def test_a_poisoned_future_leaves_the_methods_without_learning_unchanged():
    scorer = make_scorer()
    answers = []
    for batch in (make_batch(1), poisoned(make_batch(1))):
        (window,) = windows_in(batch, HISTORY, GRID)
        track = predicted_track(window.past, scorer.prior, GRID, DT_S, scorer.horizons_s)
        answers.append(list(track))
    for clean, dirty in zip(*answers, strict=True):
        assert set(clean) == set(PREDICTED)
        assert all(torch.equal(clean[method], dirty[method]) for method in PREDICTED)


def living_model(**parts: object) -> WorldModel:
    """A model none of whose parts is silent: untrained, what begins at zero would hide a leak."""
    torch.manual_seed(0)
    values = model_config().to_dict()
    model = WorldModel(config_from_dict({**values, "model": {**values["model"], **parts}}), GRID)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


VARIANTS = ({}, {"pose_dof": 6}, {"use_tokens": False}, {"use_memory": False})


@pytest.mark.parametrize("parts", VARIANTS, ids=str)
def test_a_poisoned_future_leaves_the_world_model_unchanged(parts):
    """The real model, as the scorer asks it in the predicted track."""
    model = living_model(**parts)
    clean, dirty = make_batch(), poisoned(make_batch())
    before, after = (model.forecast(b.past(HISTORY)) for b in (clean, dirty))
    assert bool(torch.isfinite(before.logits).all())
    for name in ("logits", "ego", "poses", "log_sigma"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name


def test_the_living_model_answers_to_its_past_and_to_a_plan():
    """Else the test above would hold for a model that answers to nothing."""
    model, batch = living_model(), make_batch()
    free = model.forecast(batch.past(HISTORY)).logits
    other = replace(batch, bits=batch.bits.flip(1))
    assert not torch.equal(free, model.forecast(other.past(HISTORY)).logits)
    assert not torch.equal(free, model.forecast(batch.past(HISTORY), batch.plan(HISTORY)).logits)


def test_another_future_changes_nothing_that_is_counted_of_the_model():
    """Through the scorer's path; the plan track answers to the plan, so that is finite noise."""
    scorer, clean = make_scorer(living_model()), make_batch(1)
    noise = torch.rand_like(clean.poses[:, HISTORY:])
    dirty = poisoned(clean)
    dirty.poses[:, HISTORY:], dirty.ground_z[:, HISTORY:] = noise, 3.0
    (truth,) = (window.truth for window in windows_in(clean, HISTORY, GRID))
    before, after = (
        LearnedForecasts(scorer.model, batch, HISTORY, scorer.thresholds)
        for batch in (clean, dirty)
    )
    assert not torch.equal(before.plan_logits, after.plan_logits)
    for h in range(FUTURE):
        assert torch.equal(before.probability(0, h), after.probability(0, h))
        assert torch.equal(*(f.planes(0, h, truth[h])["model"] for f in (before, after)))


def test_the_world_model_is_judged_in_both_tracks():
    torch.manual_seed(0)
    scorer = make_scorer(WorldModel(model_config(), GRID).eval())
    tally = scorer.new_tally()
    scorer.add(make_batch(), ["a", "b"], tally)
    assert tally.methods == LEARNED + BASELINES
    assert tally.poses["model"].summary()["m"] == pytest.approx(  # untrained: constant twist
        tally.poses["constant_twist"].summary()["m"], abs=1e-3
    )


def test_the_future_is_told_apart_from_the_past():
    batch = make_batch(1)
    (window,) = windows_in(batch, HISTORY, GRID)
    assert window.past.occupancy.shape == (HISTORY, *GRID.shape)
    assert torch.equal(window.truth[0], unpack_bits(batch.bits[0, HISTORY], GRID.shape))
    assert np.allclose(window.past.ego[-1], 0.0)


def test_mirrored_windows_are_refused():
    """Their poses are mirrored and their voxels are not yet: the two must not be compared."""
    batch = replace(make_batch(1), symmetry=torch.tensor([4]))
    with pytest.raises(ValueError, match="mirrored"):
        next(windows_in(batch, HISTORY, GRID))


def test_prior_is_the_layer_that_is_half_full_and_ground_without_data():
    share = np.zeros(GRID.shape[2])
    share[[2, 4, 5]] = 1.0, 0.5, 0.499
    prior = ColumnPrior.of_shares(share, 2, GRID)
    assert np.flatnonzero(prior.layers).tolist() == [2, 4] and "2 frames" in prior.source
    nothing = ColumnPrior.of_shares(share, 0, GRID)
    assert np.flatnonzero(nothing.layers).tolist() == [GRID.ground_slice]
    assert "no train split" in nothing.source


@pytest.mark.parametrize(("items", "most"), [(10, 3), (3, 10), (1000, 999), (5, 0), (0, 4)])
def test_even_choice_has_no_repetition(items, most):
    chosen = evenly(items, most)
    assert len(set(chosen.tolist())) == len(chosen) == (min(items, most) if most else items)
    assert all(0 <= i < items for i in chosen)


def test_validation_meter_agrees_with_the_judge():
    batch, scorer = make_batch(), make_scorer(FakeModel())
    tally = scorer.new_tally()
    scorer.add(batch, ["a", "b"], tally)
    meter = ValidationMeter(GRID, scorer.prior, SHAPE)
    past, plan = batch.past(HISTORY), batch.plan(HISTORY)
    forecasts = FakeModel().forecast(past), FakeModel().forecast(past, plan)
    meter.add(batch, *forecasts)
    numbers = meter.numbers()
    counts = tally.total.counts[:, :, 0].sum(1)  # all horizons together
    for key, method in (("val/iou", "model"), ("val/iou_memory_baseline", "memory_baseline")):
        hit, predicted, true, _ = counts[tally.methods.index(method)]
        assert numbers[key] == pytest.approx(hit / (predicted + true - hit))
    assert 0.02 < numbers["val/threshold"] < 0.98
    lean = ValidationMeter(GRID, scorer.prior, SHAPE, with_baselines=False)
    lean.add(batch, *forecasts)
    assert "val/iou_memory_baseline" not in lean.numbers()


def test_terrain_below_the_vehicle_enters_the_plan_track_only():
    batch = make_batch(1)
    ground = batch.ground_z.clone()
    ground[:, HISTORY:] = 3.0
    moved = replace(batch, ground_z=ground)
    scorer = make_scorer()
    for before, after in zip(planes_of(scorer, batch), planes_of(scorer, moved), strict=True):
        assert all(torch.equal(before[m], after[m]) for m in PREDICTED)
        assert not torch.equal(before["true_pose_memory"], after["true_pose_memory"])
