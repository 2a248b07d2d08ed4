"""KITTI odometry: the real scans agree with the real poses, and a known city comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.core.data.recordings.sessions import (
    CITY,
    STILL,
    assert_equals_the_generic_door,
    assert_same_motion,
    session_of,
    share_of_equal_cells,
)
from vlwm.core.data.recordings.pose_track import matrix_of
from vlwm.core.data.recordings.readers.kitti import read_kitti
from vlwm.core.data.recordings.recording import Recording, Scan
from vlwm.core.errors import VlwmError

TR = np.array([[0, -1, 0, 0.01], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1.0]])
"""Velodyne to camera 0: axes of a camera, and a short way"""


def write(root: Path, recording: Recording, name: str = "07") -> Path:
    """A sequence whose camera world is the first camera, as KITTI has it."""
    folder = root / f"sequences/{name}"
    (folder / "velodyne").mkdir(parents=True)
    (root / "poses").mkdir(exist_ok=True)
    scans = list(recording.scans())
    places, turns, _ = recording.poses.at([s.time_s for s in scans])
    body = [
        matrix_of(p, q) @ recording.extrinsics["LIDAR"] for p, q in zip(places, turns, strict=True)
    ]
    level = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    start = matrix_of(places[0], [0, 0, 0, 1.0])  # z up, as on a level road
    camera = [level @ np.linalg.inv(start) @ m @ np.linalg.inv(TR) for m in body]
    np.savetxt(root / f"poses/{name}.txt", [m[:3].ravel() for m in camera])
    np.savetxt(folder / "times.txt", [s.time_s - scans[0].time_s for s in scans])
    rows = " ".join(f"{v:.12e}" for v in TR[:3].ravel())
    (folder / "calib.txt").write_text(f"P0: {rows}\nTr: {rows}\n")
    for k, scan in enumerate(scans):
        cloud = np.column_stack([scan.points, scan.intensity]).astype("<f4")
        (folder / f"velodyne/{k:06d}.bin").write_bytes(cloud.tobytes())
    return root


def test_a_known_city_comes_back(tmp_path: Path) -> None:
    recording = STILL.recording
    write(tmp_path / "kitti", recording)
    (found,) = read_kitti(tmp_path / "kitti")
    scans = [
        Scan(s.time_s - CITY.start_s, s.points, "LIDAR", s.intensity) for s in recording.scans()
    ]
    times = CITY.scan_times
    places, turns, _ = recording.poses.at(times)
    from dataclasses import replace

    from vlwm.core.data.recordings.pose_track import PoseTrack

    track = PoseTrack.of(times - CITY.start_s, places, turns)
    lidar = track.moved_by(recording.extrinsics["LIDAR"])
    direct = replace(recording, name="direct", agent="rover", scans=lambda: iter(scans),
                     poses=lidar, extrinsics={"LIDAR": np.eye(4)})  # fmt: skip
    one, _ = session_of(found, tmp_path / "one")
    other, _ = session_of(direct, tmp_path / "other")
    assert share_of_equal_cells(one, other) == 1.0
    assert_equals_the_generic_door(one, found, tmp_path / "plain")
    assert_same_motion(one, other)


def test_real_poses_lay_a_real_scan_on_the_one_before(shared_data: Path) -> None:
    (recording,) = read_kitti(shared_data / "kitti_odometry")
    scans = list(recording.scans())[:2]
    assert len(scans[0].points) == 124668 - 34  # returns of the car itself
    assert len(recording.poses) == 4541
    places, turns, _ = recording.poses.at([s.time_s for s in scans])
    cells = []
    for scan, place, turn in zip(scans, places, turns, strict=True):
        matrix = np.linalg.inv(matrix_of(places[0], turns[0])) @ matrix_of(place, turn)
        moved = scan.points @ matrix[:3, :3].T + matrix[:3, 3]
        cells.append({tuple(c) for c in np.floor(moved[::3] / 0.4).astype(int)})
    raw = {tuple(c) for c in np.floor(scans[1].points[::3] / 0.4).astype(int)}
    iou = [len(cells[0] & c) / len(cells[0] | c) for c in (cells[1], raw)]
    assert iou[0] > iou[1] + 0.1


def test_faults_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(VlwmError, match="no KITTI sequence with poses here"):
        read_kitti(tmp_path)
    write(tmp_path / "k", STILL.recording)
    folder = tmp_path / "k/sequences/07"
    whole = (folder / "calib.txt").read_text()
    (folder / "calib.txt").write_text("Tr: 1 2 3\n")
    with pytest.raises(VlwmError, match=r"calib\.txt has no matrix Tr of 12 numbers"):
        read_kitti(tmp_path / "k")
    (folder / "calib.txt").write_text(whole)
    (folder / "velodyne/000002.bin").write_bytes(b"\0" * 10)
    (folder / "velodyne/x.bin").write_bytes(b"\0" * 16)
    (recording,) = read_kitti(tmp_path / "k")
    assert len(list(recording.scans())) == len(CITY.scan_times) - 1
    assert len(recording.damaged) == 2
    (folder / "times.txt").write_text("0.0\n")
    with pytest.raises(VlwmError, match="poses and 1 times"):
        read_kitti(tmp_path / "k")
    (folder / "times.txt").write_text("a b\n")
    with pytest.raises(VlwmError, match="not a table of 1 numbers a line"):
        read_kitti(tmp_path / "k")
