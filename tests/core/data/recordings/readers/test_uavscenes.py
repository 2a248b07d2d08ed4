"""UAVScenes: a known city comes back, every published calibration is checked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
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
from vlwm.core.data.recordings.readers.uavscenes import camera_from_lidar, read_uavscenes
from vlwm.core.data.recordings.recording import Recording, Scan
from vlwm.core.errors import VlwmError

CAMERA = np.array([[0, -1, 0, 0.01], [0, 0, -1, 0.06], [1, 0, 0, -0.05], [0, 0, 0, 1.0]])
"""lidar to camera, about as published"""
DOWN = np.array([[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1.0]])
"""camera that looks down to a body: the top of the picture is ahead"""


def write(root: Path, recording: Recording, name: str = "AMtown02") -> Path:
    run = root / f"interval5_CAM_LIDAR/interval5_CAM_LIDAR/interval5_{name}"
    (run / "interval5_LIDAR").mkdir(parents=True)
    (run / "interval5_CAM").mkdir()
    table = {"used_by": {"AMtown01-03": "A", "other": "B"},
             "calibrations": {"A": {"camera_ext_R": CAMERA[:3, :3].ravel().tolist(),
                                    "camera_ext_t": CAMERA[:3, 3].tolist()}}}  # fmt: skip
    (root / "calibration.json").write_text(json.dumps(table))
    infos = []
    track = recording.poses
    for t, p, q in zip(track.times_s, track.positions, track.quaternions, strict=True):
        camera = matrix_of(p, q) @ DOWN
        infos.append({"OriginalImageName": f"{t:.6f}.jpg", "T4x4": camera.tolist()})
    (run / "sampleinfos_interpolated.json").write_text(json.dumps(infos))
    lidar = np.linalg.inv(DOWN @ CAMERA)  # body to the lidar's own frame
    for scan in recording.scans():
        body = scan.points @ recording.extrinsics["LIDAR"][:3, :3].T
        body = body + recording.extrinsics["LIDAR"][:3, 3]
        rows = body @ lidar[:3, :3].T + lidar[:3, 3]
        name = f"image{scan.time_s:.6f}_lidar{scan.time_s + 0.02:.6f}.txt"
        np.savetxt(run / "interval5_LIDAR" / name, rows, fmt="%.4f")
        (run / f"interval5_CAM/{scan.time_s:.6f}.jpg").write_bytes(b"")
    return root


def seen_from_the_lidar_of_the_files(recording: Recording) -> Recording:
    """Return the same points, with rays that start where the lidar of the files is."""
    before, lidar = recording.extrinsics["LIDAR"], DOWN @ CAMERA  # sensors to body
    moved = np.linalg.inv(lidar) @ before

    def scans() -> Iterator[Scan]:
        for scan in recording.scans():
            yield replace(scan, points=scan.points @ moved[:3, :3].T + moved[:3, 3])

    return replace(recording, scans=scans, extrinsics={"LIDAR": lidar})


def test_a_known_city_comes_back(tmp_path: Path) -> None:
    (found,) = read_uavscenes(write(tmp_path / "in", STILL.recording))
    assert found.name == "AMtown02" and len(found.images) == len(CITY.scan_times)
    one, _ = session_of(found, tmp_path / "one")
    other, _ = session_of(seen_from_the_lidar_of_the_files(STILL.recording), tmp_path / "other")
    assert share_of_equal_cells(one, other) > 0.999
    assert_equals_the_generic_door(one, found, tmp_path / "plain")
    assert_same_motion(one, other)


def test_published_calibrations_are_rotations_but_one(shared_data: Path) -> None:
    table = json.loads((shared_data / "uavscenes_calibration/calibration.json").read_text())
    for run in ("AMtown01", "AMvalley03", "HKairport02", "HKisland01", "HKairport_GNSS03",
                "HKairport_GNSS_Evening", "Featureless_GNSS02"):  # fmt: skip
        matrix = camera_from_lidar(run, table)
        np.testing.assert_allclose(matrix[:3, :3], CAMERA[:3, :3], atol=0.06)
    table["used_by"] = {"HKairport01-03": "HKairport"}
    with pytest.raises(VlwmError, match=r"its matrix differs from a rotation by 0\.05"):
        camera_from_lidar("HKairport02", table)
    with pytest.raises(VlwmError, match="the table of calibrations has no run AMtown01"):
        camera_from_lidar("AMtown01", table)


def test_faults_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(VlwmError, match="no UAVScenes run here"):
        read_uavscenes(tmp_path)
    root = write(tmp_path / "in", STILL.recording)
    (run,) = root.rglob("interval5_AMtown02")
    scan = sorted((run / "interval5_LIDAR").iterdir())[0]
    scan.write_text("1 2\n")
    (recording,) = read_uavscenes(root)
    assert len(list(recording.scans())) == len(CITY.scan_times) - 1 and len(recording.damaged) == 1
    (run / "sampleinfos_interpolated.json").write_text('[{"T4x4": 1}]')
    with pytest.raises(VlwmError, match="the list of camera poses is damaged"):
        read_uavscenes(root)
    (root / "calibration.json").unlink()
    with pytest.raises(VlwmError, match=r"no calibration\.json of UAVScenes here"):
        read_uavscenes(root)
