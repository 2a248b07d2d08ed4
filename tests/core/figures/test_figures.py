"""Pictures: ahead is up, left is left, colours mean what the legend says; files are whole."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from vlwm.core.figures import canvas
from vlwm.core.figures.score_curves import colours_of, draw_curves, draw_reliability
from vlwm.core.figures.video import Clip, draw_clip, view_above, write_video
from vlwm.core.figures.window_figure import (
    WindowFrames,
    difference_above,
    draw_window,
    from_above,
    height_above,
    in_cut,
    write_window_picture,
)
from vlwm.core.geometry.grid import VoxelGrid

GRID = VoxelGrid.from_range((-8, -8, -2, 8, 8, 10), (1.0, 1.0, 1.5))
SCALE = canvas.HeightScale(2.0, 10.0)
WHITE = np.array(canvas.WHITE)


def one_tower(ix: int, iy: int, layers: int = 5) -> np.ndarray:
    cells = np.zeros(GRID.shape, np.uint8)
    cells[ix, iy, :layers] = 1
    return cells


def test_height_is_the_top_of_the_highest_cell():
    height = height_above(one_tower(3, 4, layers=3), GRID)
    assert height[3, 4] == pytest.approx(3 * 1.5 - 2)
    assert np.isnan(height[0, 0])


def test_ground_is_the_layer_of_z_0_however_thick_it_is():
    coarse = VoxelGrid.from_range((-8, -8, -2, 8, 8, 150), (1.0, 1.0, 5.0))
    cells = np.zeros(coarse.shape, np.uint8)
    cells[..., 0] = 1
    scale = canvas.HeightScale.of(coarse, cells)
    assert (scale.ground_m, scale.top_m) == (3.0, 10.0)
    assert (from_above(cells, coarse, scale) == np.array(canvas.GROUND)).all()


def test_ahead_is_up_and_left_is_left():
    picture = from_above(one_tower(15, 15), GRID, SCALE)  # farthest ahead, farthest left
    assert (picture[0, 0] != WHITE).any()
    assert (picture[-1, -1] == WHITE).all()


def test_in_the_cut_up_is_up_and_ahead_is_right():
    picture = in_cut(one_tower(15, 8, layers=1), GRID, SCALE, 8)
    assert (picture[-1, -1] != WHITE).any()
    assert (picture[0] == WHITE).all() and (picture[:, 0] == WHITE).all()


def test_difference_colours():
    truth, forecast = one_tower(2, 2), one_tower(3, 3)
    truth[5, 5] = forecast[5, 5] = 1
    picture = difference_above(forecast, truth)[::-1, ::-1]
    assert tuple(picture[2, 2]) == canvas.MISSED
    assert tuple(picture[3, 3]) == canvas.FALSE
    assert tuple(picture[5, 5]) == canvas.AGREED
    assert tuple(picture[9, 9]) == canvas.WHITE


def window_frames() -> WindowFrames:
    rng = np.random.default_rng(0)
    frames = (rng.random((10, *GRID.shape)) < 0.2).astype(np.uint8)
    times = 0.5 * np.arange(-3, 7)
    return WindowFrames(frames[:4], frames[4:], frames[3:9], times[:4], times[4:])


def test_window_picture_is_a_whole_png(tmp_path):
    path = tmp_path / "window.png"
    write_window_picture(path, window_frames(), GRID, title="model", notes=["procedural city"])
    image = cv2.imread(str(path))
    assert image.shape == draw_window(window_frames(), GRID, title="model").shape
    assert sorted(p.name for p in tmp_path.iterdir()) == ["window.png"]


def test_unknown_columns_are_tinted_and_count_for_nobody():
    frames = window_frames()
    known = np.ones((10, *GRID.shape), bool)
    known[:, : GRID.shape[0] // 2] = False
    wrong = frames.forecast.copy()
    wrong[:, : GRID.shape[0] // 2] = 1 - frames.truth[:, : GRID.shape[0] // 2]
    masked = replace(frames, known=known)
    scale = canvas.HeightScale.of(GRID, frames.truth)
    empty = np.zeros(GRID.shape, np.uint8)
    above = from_above(empty, GRID, scale, known[0])[::-1, ::-1]
    assert tuple(above[0, 0]) == canvas.UNKNOWN and tuple(above[-1, 0]) == canvas.WHITE
    cut = in_cut(empty, GRID, scale, 1, known[0])
    assert tuple(cut[0, 0]) == canvas.UNKNOWN and tuple(cut[0, -1]) == canvas.WHITE
    one, other = (draw_window(replace(masked, forecast=f), GRID, title="x") for f in
                  (frames.forecast, wrong))  # fmt: skip
    # only the row of the forecast itself differs: the difference row leaves unknown cells out
    rows = np.flatnonzero((one != other).any(axis=(1, 2)))
    assert len(rows) and rows.max() < one.shape[0] - 96 - 300


def test_an_empty_window_can_be_drawn():
    none = np.zeros((6, *GRID.shape), np.uint8)
    frames = WindowFrames(none[:4], none, none, np.arange(-3, 1), np.arange(1, 7))
    assert draw_window(frames, GRID, title="empty").std() > 0


def sheet() -> dict:
    scores = {"iou": [0.5, 0.4, None], "iou_structure": [0.2, 0.1, 0.1]}
    bands = {"iou": [[0.4, 0.6], [0.3, 0.5], None], "iou_structure": [None] * 3}
    methods = ("model", "empty", "memory_baseline")
    return {
        "split": "test", "n_windows": 3, "n_clusters": 2, "too_few_clusters": False,
        "procedural": True, "horizons_s": [1.0, 2.0, 3.0], "threshold": 0.4,
        "scores": dict.fromkeys(methods, scores), "intervals": dict.fromkeys(methods, bands),
        "reliability": {
            "predicted": [0.1, None, 0.9], "observed": [0.2, None, 0.8], "cells": [100, 0, 1],
        },
    }  # fmt: skip


def test_charts_survive_scores_that_do_not_exist():
    assert draw_curves(sheet()).std() > 0
    assert draw_curves({**sheet(), "too_few_clusters": True}).std() > 0
    assert draw_reliability(sheet()).std() > 0


def test_charts_show_the_strongest_baseline_of_each_track():
    plain = colours_of({})
    assert colours_of({"baseline": {"predicted": "memory_baseline"}}) == plain
    chosen = {"predicted": "planes_analogs", "plan": "true_pose_planes"}
    found = colours_of({"baseline": chosen})
    assert set(found) - set(plain) == set(chosen.values())
    assert len(set(found.values())) == len(found)
    other = {**sheet(), "baseline": chosen}
    other["scores"] = {**other["scores"], "planes_analogs": other["scores"]["model"]}
    other["intervals"] = {**other["intervals"], "planes_analogs": other["intervals"]["model"]}
    drawn, without = draw_curves(other), draw_curves(sheet())
    colour = np.array(found["planes_analogs"])
    assert (drawn == colour).all(-1).sum() > 20 and not (without == colour).all(-1).any()


def test_fixed_view_places_a_frame_by_its_ego_frame():
    cells = one_tower(12, 8)  # 4.5 m ahead
    still = view_above(cells, np.zeros(4), GRID, 20.0, SCALE)
    moved = view_above(cells, np.array([3.0, 0.0, 0.0, 0.0]), GRID, 20.0, SCALE)
    turned = view_above(cells, np.array([0.0, 0.0, 0.0, np.pi / 2]), GRID, 20.0, SCALE)

    def place(picture):
        rows, columns = np.nonzero((picture == SCALE.colours(np.array(5.5))).all(-1))
        return rows.mean(), columns.mean()

    pixels_per_m = still.shape[0] / 40.0
    up, left = np.subtract(place(still), place(moved)), np.subtract(place(still), place(turned))
    assert up == pytest.approx([3.0 * pixels_per_m, 0.0], abs=1.5)
    assert left[1] > 3.9 * pixels_per_m  # a quarter turn to the left puts ahead to the left


def make_clip() -> Clip:
    frames = window_frames()
    ego = np.zeros((10, 4))
    ego[:, 0] = np.arange(10)
    times = np.concatenate([frames.past_s, frames.horizons_s])
    both = (frames.forecast, frames.forecast)
    return Clip(frames.past, frames.truth, *both, ego, times, "model", "planes_analogs", "w")


def test_true_outlines_lie_over_forecasts_and_over_nothing_else():
    pictures = [image for image, _ in draw_clip(make_clip(), GRID)]
    for step, image in enumerate(pictures):
        panels = np.array_split(image[100:480], 4, axis=1)  # between the words above and below
        drawn = [bool((panel == np.array(canvas.FALSE)).all(-1).any()) for panel in panels]
        assert drawn == [False, False, step > 3, step > 3], step


def test_video_holds_every_picture(tmp_path):
    path = tmp_path / "out.mp4"
    count = write_video(path, [make_clip()], GRID)
    assert count == sum(repeats for _, repeats in draw_clip(make_clip(), GRID))
    film = cv2.VideoCapture(str(path))
    assert int(film.get(cv2.CAP_PROP_FRAME_COUNT)) == count
    film.release()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4"]
