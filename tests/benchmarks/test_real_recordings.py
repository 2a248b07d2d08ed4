"""Readers agree with what the authors of real files say of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import window_pictures
from real_recordings import argoverse2, kitti, newer_college, nuscenes, occ3d


def test_poses_lay_kitti_scans_on_each_other(shared_data: Path) -> None:
    found = kitti(shared_data)
    assert found["scan 1 warped"] > found["scan 1 unwarped"] + 0.15
    assert found["scan 5 warped"] > found["scan 5 unwarped"] + 0.05


def test_deskewing_meets_the_points_of_the_authors(shared_data: Path) -> None:
    found = newer_college(shared_data)
    for k in range(3):
        before, after = (found[f"scan {k} {name} (m)"] for name in ("before", "after"))
        assert after < 0.15 < 0.5 < before, found


def test_boxes_hold_the_points_that_their_annotation_counts(shared_data: Path) -> None:
    found = nuscenes(shared_data)
    assert found["boxes"] == 69 and found["boxes that agree"] > 0.95
    assert found["points in boxes"] == pytest.approx(found["points the annotation names"], rel=0.05)


def test_what_the_filter_takes_out_is_labelled_as_moving(shared_data: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra vlwm[argoverse2]")
    found = argoverse2(shared_data)
    assert found["of these labelled as moving"] > 0.5 * found["taken out"] > 0
    assert found["share of resting points lost"] < 0.001


def test_a_label_frame_passes_through_a_session(shared_data: Path) -> None:
    found = occ3d(shared_data)
    assert found["equal after a way through a session"]
    assert found["equal after a way through the packed store"] and found["classes present"] > 8


def test_a_room_fills_its_grid_and_no_car_sees_itself(shared_data: Path) -> None:
    ((_, room),) = window_pictures.tartanair(shared_data)
    assert room.cells is not None and room.cells.sum() > 1000
    ((_, street),) = window_pictures.nuscenes(shared_data)
    assert street.cells is not None
    ahead = street.cells[100:108, 98:102, 9:]  # up to 3 m ahead, from 0.6 m above the ground
    assert not ahead.any()
