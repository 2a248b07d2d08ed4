"""More rules of docs/evaluation.md: what is counted belongs to its own track, frame and side."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

from tests.core.evaluation.test_protocol import CONFIG, FUTURE, GRID, HISTORY, LEVELS, RIGHT, Oracle
from tests.small_world import batch_of, model_of
from vlwm.core.data.batch import Batch
from vlwm.core.evaluation import window_scorer
from vlwm.core.evaluation.accumulators import Tally
from vlwm.core.evaluation.calibration.histogram import BINS
from vlwm.core.evaluation.eval_windows import WindowShape
from vlwm.core.evaluation.metrics import HIT, PREDICTED, TRUE, ZONES
from vlwm.core.evaluation.model_forecasts import LearnedForecasts
from vlwm.core.evaluation.validation import ValidationMeter
from vlwm.core.evaluation.window_scorer import WindowScorer
from vlwm.core.geometry.frames import quaternion_from_heading
from vlwm.core.model.bit_packing import unpack_bits
from vlwm.core.training.tasks.prior_pretraining import count_unseen

PRIOR = np.arange(GRID.shape[2]) == 0


def tally_of(scorer: WindowScorer, batch: Batch) -> Tally:
    tally = scorer.new_tally()
    scorer.add(batch, ["here"] * len(batch.index), tally)
    return tally


def test_a_window_is_sorted_by_how_its_past_turns():
    """Fault: the stratum of the true future, which no forecast knows."""
    batch = batch_of(CONFIG, size=1)
    yaw = np.concatenate([0.3 * np.arange(HISTORY), np.full(FUTURE, 0.9)])  # rad, then straight on
    poses = batch.poses.clone()
    poses[0, :, 3:7] = torch.from_numpy(quaternion_from_heading(yaw)).float()
    scorer = WindowScorer(GRID, PRIOR, HISTORY, FUTURE, 0.5)
    strata = tally_of(scorer, replace(batch, poses=poses)).strata
    rates = {part: c.windows for (name, part), c in strata.items() if name == "yaw_rate_deg_s"}
    assert rates == {"below 5": 0, "5 to 15": 0, "15 and more": 1}


def test_reliability_is_that_of_the_predicted_track():
    """Fault: the probabilities of the plan track, which knows more."""
    batch = batch_of(CONFIG, size=1)
    scorer = WindowScorer(GRID, PRIOR, HISTORY, FUTURE, 0.5, Oracle(batch.bits), RIGHT)
    counts = tally_of(scorer, batch).probabilities.counts.sum(0)  # (BINS,)
    centres = (np.flatnonzero(counts) + 0.5) / BINS
    assert np.allclose(sorted(centres), sorted(LEVELS["model"]), atol=1 / BINS)


def test_validation_names_each_baseline_by_its_own_track():
    """Fault: the strongest baselines of the two tracks exchanged in the metric lines."""
    strongest = {"predicted": "copy_last", "plan": "true_pose_memory"}
    fitted = SimpleNamespace(baseline=strongest, methods=())
    meter = ValidationMeter(GRID, PRIOR, WindowShape(HISTORY, FUTURE, 0.5), fitted=fitted)
    assert meter.baselines["val/iou_baseline"] == strongest["predicted"]
    assert meter.baselines["val/iou_plan_baseline"] == strongest["plan"]


def test_a_sigma_belongs_to_its_horizon():
    """Fault: the sigma of the horizon before or after."""
    batch = batch_of(CONFIG, size=1)
    model, sigmas = Oracle(batch.bits), 0.1 * torch.arange(1, FUTURE + 1)
    forecast = model.forecast

    def widening(past, plan=None):
        log_sigma = sigmas.log()[None, :, None].expand(1, FUTURE, 4)
        return SimpleNamespace(**{**vars(forecast(past, plan)), "log_sigma": log_sigma})

    model.forecast = widening
    motion = LearnedForecasts(model, batch, HISTORY, RIGHT).motion(0)
    assert np.allclose(motion.sigma, sigmas[:, None].expand(FUTURE, 4))


def test_baselines_of_the_plan_are_asked_for_the_pose_of_their_own_frame(monkeypatch):
    """Fault: the true pose of the frame before."""
    batch, asked = batch_of(CONFIG, size=1), []

    class Asked:
        ego: dict[str, np.ndarray] = {}  # noqa: RUF012

        def __init__(self, *_) -> None:
            pass

        def predicted(self, horizon):
            return {}

        def planned(self, ego):
            asked.append(ego)
            return {}

    monkeypatch.setattr(window_scorer, "BaselineForecasts", Asked)
    fitted = SimpleNamespace(methods=(), baseline={"predicted": "copy_last", "plan": "copy_last"})
    scorer = WindowScorer(GRID, PRIOR, HISTORY, FUTURE, 0.5, fitted=fitted)
    (window,) = scorer.forecasts(batch)
    list(window.frames)
    assert np.array_equal(np.array(asked), window.window.future_ego)


def test_a_window_ranks_by_the_structure_that_the_model_foresees():
    """Fault: best and worst windows of the report chosen by another method."""
    tally = Tally(("model", "copy_last"), 1)
    counts = np.zeros((2, 1, len(ZONES), 4), np.int64)
    counts[:, 0, ZONES.index("structure"), [PREDICTED, TRUE]] = 10
    counts[:, 0, ZONES.index("structure"), HIT] = 5, 10
    tally.add(counts, "here", [])
    assert tally.window_structure == [5 / 15]


def test_what_is_beyond_the_edge_is_counted_on_the_frames_that_follow():
    """Fault: statistics of the edge against the frame before, or at the past poses."""
    model, batch, found = model_of(CONFIG), batch_of(CONFIG, size=2), {}

    def keep(past, past_ego, truth, ego, horizons, known):
        found.update(past=past, truth=truth, ego=ego, horizons=list(horizons))

    model.memory.count_unseen = keep
    count_unseen(model, batch)
    cells = unpack_bits(batch.bits, GRID.shape)
    assert torch.equal(found["past"].to(cells), cells[:, :HISTORY])
    assert torch.equal(found["truth"].to(cells), cells[:, HISTORY:])
    assert torch.allclose(found["ego"][..., :2].float(), batch.poses[:, HISTORY:, :2])
    assert set(found["horizons"]) <= set(range(FUTURE))
