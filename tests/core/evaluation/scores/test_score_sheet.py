"""The score sheet holds the keys others read; the table says in words what must not be missed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vlwm.core.evaluation.accumulators import Tally
from vlwm.core.evaluation.metrics import CELLS, HIT, PREDICTED, TRUE, ZONES
from vlwm.core.evaluation.scores.score_sheet import score_sheet
from vlwm.core.evaluation.scores.score_table import ScoreTable, score_table

METHODS = ("model", "model_plan", "memory_baseline", "true_pose_memory")


def words_of(table: ScoreTable) -> str:
    return " ".join([table.title, *(cell for row in table.rows for cell in row), *table.sentences])


def tally_of(clusters: int, quality: dict[str, float], methods: tuple[str, ...] = METHODS) -> Tally:
    rng = np.random.default_rng(0)
    tally = Tally(methods, 3)
    for cluster in range(clusters):
        true = rng.integers(100, 1000, (3, len(ZONES)))
        counts = np.zeros((len(methods), 3, len(ZONES), 4), np.int64)
        for m, method in enumerate(methods):
            counts[m, ..., HIT] = quality[method] * true
            counts[m, ..., PREDICTED] = true
            counts[m, ..., TRUE] = true
            counts[m, ..., CELLS] = 10 * true
        tally.add(counts, (cluster, 0), [("yaw_rate_deg_s", "below 5")])
    tally.add_pose("constant_twist", np.zeros((3, 4)), np.tile([3.0, 4.0, 0.0, -0.1], (3, 1)))
    return tally


def sheet_of(clusters: int = 40, **quality: float) -> dict:
    chosen = {"model": 0.8, "model_plan": 0.9, "memory_baseline": 0.7, "true_pose_memory": 0.85}
    sheet = score_sheet(tally_of(clusters, chosen | quality))
    meta = {"split": "test", "checkpoint": "best.pth", "threshold": 0.4, "procedural": False}
    return {**meta, "horizons_s": [1.0, 2.0, 3.0], "attribution": "PLATEAU", **sheet}


def test_sheet_has_every_key_and_is_plain_json():
    sheet = sheet_of()
    assert json.loads(json.dumps(sheet, allow_nan=False)) == sheet
    assert set(sheet["scores"]) == set(METHODS)
    keys = {"iou", "iou_structure", "iou_seen", "iou_new", "precision", "recall", "mean_ratio"}
    assert set(sheet["scores"]["model"]) == keys
    assert all(len(values) == 3 for values in sheet["scores"]["model"].values())
    assert sheet["n_windows"] == sheet["n_clusters"] == 40
    assert sheet["pose"]["constant_twist"]["m"] == pytest.approx([5.0] * 3)
    assert sheet["pose"]["constant_twist"]["deg"] == pytest.approx([np.degrees(0.1)] * 3)
    assert sheet["strata"]["yaw_rate_deg_s"]["below 5"]["n_windows"] == 40
    assert sheet["strata"]["yaw_rate_deg_s"]["5 to 15"]["iou"]["model"] == [None] * 3


def test_poses_are_told_by_stratum_and_beside_their_own_sigma():
    tally = Tally(METHODS, 2)
    turning = [("yaw_rate_deg_s", "15 and more")]
    for metres, strata in ((1.0, turning), (3.0, turning), (8.0, [("yaw_rate_deg_s", "below 5")])):
        tally.add_pose("model", np.zeros((2, 4)), np.tile([metres, 0, 0, 0], (2, 1)), strata)
        tally.state.add(np.tile([metres, -metres, 0.1, 0.0], (2, 1)), np.full((2, 4), 2.0))
    counts = np.zeros((len(METHODS), 2, len(ZONES), 4), np.int64)
    tally.add(counts, "here", [])
    pose = score_sheet(tally)["pose"]["model"]
    by_turn = pose["strata"]["yaw_rate_deg_s"]
    assert by_turn["15 and more"] == {"n_windows": 2, "m": [2.0, 2.0], "deg": [0.0, 0.0]}
    assert by_turn["5 to 15"] == {"n_windows": 0, "m": None, "deg": None}
    assert pose["mean_error"]["y"] == pytest.approx([4.0, 4.0])
    assert pose["within_sigma"]["x"] == pytest.approx([1 / 3] * 2)
    assert pose["within_sigma_all"] == pytest.approx((1 / 3 + 1 / 3 + 1 + 1) / 4)


def test_intervals_hold_their_score_and_differences_stay_in_their_track():
    sheet = sheet_of()
    for method in METHODS:
        for value, ends in zip(
            sheet["scores"][method]["iou"], sheet["intervals"][method]["iou"], strict=True
        ):
            assert ends[0] <= value <= ends[1]
    assert set(sheet["differences"]) == {"model-memory_baseline", "model_plan-true_pose_memory"}
    difference = sheet["differences"]["model-memory_baseline"]["iou"]
    assert all(ends[0] > 0 for ends in difference["interval"])


def test_fewer_than_thirty_clusters_have_no_interval():
    sheet = sheet_of(clusters=29)
    assert sheet["too_few_clusters"]
    assert sheet["intervals"]["model"]["iou"] == [None] * 3
    text = words_of(score_table(sheet, wide=True))
    assert "too few" in text and "Too few clusters" in text


def test_a_model_below_its_baseline_is_called_so():
    words = " ".join(score_table(sheet_of(model=0.6)).sentences)
    assert "BELOW its baseline: model forecasts worse than memory_baseline" in words
    assert "model_plan is above its baseline true_pose_memory" in words
    assert "BELOW" not in " ".join(score_table(sheet_of()).sentences)


def test_the_verdict_is_about_the_baseline_that_validation_chose():
    """Above the memory baseline and below the strongest one is BELOW; both differences stay."""
    methods = (*METHODS, "mean_ridge")
    tally = tally_of(40, {"model": 0.8, "model_plan": 0.9, "memory_baseline": 0.7,
                          "true_pose_memory": 0.85, "mean_ridge": 0.9}, methods)  # fmt: skip
    sheet = score_sheet(tally, {"predicted": "mean_ridge", "plan": "true_pose_memory"})
    sheet |= {"split": "test", "horizons_s": [1.0, 2.0, 3.0], "procedural": False}
    assert sheet["baseline"] == {"predicted": "mean_ridge", "plan": "true_pose_memory"}
    assert set(sheet["differences"]) == {
        "model-memory_baseline", "model-mean_ridge", "model_plan-true_pose_memory"
    }  # fmt: skip
    words = " ".join(score_table(sheet).sentences)
    assert "BELOW its baseline: model forecasts worse than mean_ridge" in words


def test_a_baseline_that_is_stronger_here_than_on_validation_is_named():
    sheet = sheet_of(model=0.8, memory_baseline=0.7)
    sheet["scores"]["copy_last"] = {**sheet["scores"]["memory_baseline"], "iou": [0.9] * 3}
    words = " ".join(score_table(sheet).sentences)
    assert "copy_last (mean IoU 0.900) is stronger than memory_baseline" in words
    assert "model is BELOW it by 0.2" in words  # hits of 0.8 are an IoU of 2/3


def test_rows_of_a_track_go_from_strong_to_weak_after_the_model():
    table = score_table(sheet_of(model=0.5, memory_baseline=0.7))
    names = [row[0] for row in table.rows]
    assert names == ["PREDICTED TRACK", "model", "memory_baseline",
                     "PLAN TRACK", "model_plan", "true_pose_memory"]  # fmt: skip


def test_a_procedural_city_and_the_source_are_named():
    sheet = {**sheet_of(), "procedural": True}
    text = words_of(score_table(sheet))
    assert "procedural" in text and "PLATEAU" in text


def test_a_tally_without_windows_is_no_error():
    sheet = score_sheet(Tally(METHODS, 3))
    assert sheet["n_windows"] == 0 and sheet["scores"]["model"]["iou"] == [None] * 3
