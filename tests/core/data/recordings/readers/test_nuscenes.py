"""nuScenes and Occ3D: a known city by its tables, the real key frame, the real label frame."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.core.data.recordings.known_city import GRID, MOUNT
from tests.core.data.recordings.sessions import (
    OPTIONS,
    STILL,
    assert_equals_the_generic_door,
    assert_same_motion,
    session_of,
    share_of_equal_cells,
)
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.recordings.convert import convert
from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.data.recordings.readers.nuscenes import (
    FREE,
    read_lidar_file,
    read_nuscenes,
    read_occ3d,
    split_of,
)
from vlwm.core.data.recordings.recording import Labels, Recording
from vlwm.core.data.session import Session
from vlwm.core.errors import VlwmError
from vlwm.core.geometry.grid import VoxelGrid


def wxyz(matrix: np.ndarray) -> list[float]:
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat()
    return [w, x, y, z]


def write(root: Path, recording: Recording, name: str = "scene-0916") -> Path:
    """A scene whose every fifth half-second scan is a key frame."""
    (root / "samples/LIDAR_TOP").mkdir(parents=True)
    (root / "v1.0-mini").mkdir()
    tables: dict[str, list[dict]] = {
        "scene": [{"token": "s", "name": name}],
        "sensor": [{"token": "l", "channel": "LIDAR_TOP"}, {"token": "c", "channel": "CAM_FRONT"}],
        "calibrated_sensor": [
            {"token": "cl", "sensor_token": "l", "translation": MOUNT[:3, 3].tolist(),
             "rotation": wxyz(MOUNT)},
            {"token": "cc", "sensor_token": "c", "translation": [0, 0, 0],
             "rotation": [1, 0, 0, 0]},
        ],
        "sample": [], "sample_data": [], "ego_pose": [],
    }  # fmt: skip
    for k, scan in enumerate(recording.scans()):
        stamp = round(scan.time_s * 1e6)
        places, turns, _ = recording.poses.at([scan.time_s])
        x, y, z, w = turns[0].tolist()
        pose = {"token": f"p{k}", "timestamp": stamp, "rotation": [w, x, y, z],
                "translation": places[0].tolist()}  # fmt: skip
        tables["ego_pose"].append(pose)
        name = f"samples/LIDAR_TOP/{k}.pcd.bin"
        rows = np.column_stack([scan.points, scan.intensity, np.zeros(len(scan.points))])
        (root / name).write_bytes(rows.astype("<f4").tobytes())
        sample = f"k{k // 5}"
        if k % 5 == 0:
            tables["sample"].append({"token": sample, "scene_token": "s", "timestamp": stamp})
        tables["sample_data"].append(
            {"token": f"d{k}", "sample_token": sample, "ego_pose_token": f"p{k}", "filename": name,
             "calibrated_sensor_token": "cl", "timestamp": stamp, "is_key_frame": k % 5 == 0}
        )  # fmt: skip
    picture = {**tables["sample_data"][0], "token": "pic", "calibrated_sensor_token": "cc"}
    tables["sample_data"].append({**picture, "filename": "samples/CAM_FRONT/0.jpg"})
    for name, rows in tables.items():
        (root / f"v1.0-mini/{name}.json").write_text(json.dumps(rows))
    return root


def test_a_known_city_comes_back(tmp_path: Path) -> None:
    city = replace(STILL, scan_hz=10.0)
    (found,) = read_nuscenes(write(tmp_path / "in", city.recording))
    assert found.split == "test" and len(found.images) == 1 and len(found.frame_times_s) == 5
    track = PoseTrack.of(city.scan_times, *city.poses(city.scan_times))
    direct = replace(city.recording, agent="rover", poses=track, frame_times_s=found.frame_times_s)
    one, _ = session_of(found, tmp_path / "one")
    other, _ = session_of(direct, tmp_path / "other")
    assert share_of_equal_cells(one, other) == 1.0
    assert_equals_the_generic_door(one, found, tmp_path / "plain")
    assert_same_motion(one, other)
    assert one.meta.split == "test"


def test_absent_files_of_a_part_of_the_download_are_counted(tmp_path: Path) -> None:
    root = write(tmp_path / "in", STILL.recording)
    (whole,) = read_nuscenes(root)
    assert not any("absent" in note for note in whole.notes)
    files = sorted((root / "samples/LIDAR_TOP").iterdir())
    for file in files[:3]:
        file.unlink()
    (part,) = read_nuscenes(root)
    sentence = f"3 of {len(files)} lidar files of the tables are absent"
    assert any(sentence in note for note in part.notes)


def test_a_real_key_frame_fills_its_boxes(shared_data: Path) -> None:
    """The lidar of a real key frame, placed as the reader places it, meets the annotated boxes."""
    folder = shared_data / "nuscenes_keyframe"
    (table,) = folder.glob("*.json")
    frame = json.loads(table.read_text())["data_list"][0]
    (file,) = folder.glob("*.pcd.bin")
    cloud = read_lidar_file(file)
    assert cloud.shape == (34688, 5)
    counts = []
    for box in frame["instances"]:
        x, y, z, length, width, height, yaw = box["bbox_3d"]
        away = cloud[:, :3] - [x, y, z]
        cos, sin = np.cos(yaw), np.sin(yaw)
        along = np.abs(cos * away[:, 0] + sin * away[:, 1]) <= length / 2
        across = np.abs(cos * away[:, 1] - sin * away[:, 0]) <= width / 2
        inside = along & across & (np.abs(away[:, 2]) <= height / 2)
        counts.append((int(inside.sum()), box["num_lidar_pts"]))
    close = [abs(n - m) <= max(2, 0.1 * m) for n, m in counts]
    assert len(counts) > 30 and np.mean(close) > 0.95


def test_the_real_occ3d_frame_goes_through_session_and_store_exactly(
    shared_data: Path, tmp_path: Path
) -> None:
    (file,) = (shared_data / "occ3d").rglob("labels.npz")
    classes = read_occ3d(file)
    assert classes is not None
    grid = VoxelGrid.from_range((-40, -40, -1, 40, 40, 5.4), (0.4, 0.4, 0.4))
    recording = replace(STILL.recording, labels=Labels(lambda _: classes, FREE))
    report = convert(recording, tmp_path, grid, replace(OPTIONS, rate_hz=0.5))
    layers = Session(tmp_path / report.session).read_layers(0)
    np.testing.assert_array_equal(layers["classes"], classes)
    np.testing.assert_array_equal(layers["occupancy"], classes != FREE)
    assert "known" not in layers and report.known_share == 1.0
    store = PackedStore.open(tmp_path, grid)
    rows = np.arange(len(store))
    assert not store.has_unknown and len(store) == report.frames
    for packed, bits in zip(store.read_layer("classes", rows), store.read_bits(rows), strict=True):
        np.testing.assert_array_equal(packed, classes)
        np.testing.assert_array_equal(grid.unpack(bits), classes != FREE)
    other = convert(recording, tmp_path / "other", GRID, replace(OPTIONS, rate_hz=0.5))
    assert "another grid" in other.damaged[0][1]


def test_official_validation_scenes_test() -> None:
    names = [f"scene-{n:04d}" for n in range(1, 1111)]
    held = [n for n in names if split_of("v1.0-trainval", n) == "test"]
    assert len(held) == 150 and {"scene-0003", "scene-1073", "scene-0802"} <= set(held)
    assert split_of("v1.0-mini", "scene-0103") == "test"
    assert split_of("v1.0-mini", "scene-0553") == "train"
    assert split_of("v1.0-trainval", "scene-0120") == "val"


def test_faults_are_one_sentence(tmp_path: Path, shared_data: Path) -> None:
    with pytest.raises(VlwmError, match="no nuScenes tables here"):
        read_nuscenes(tmp_path)
    root = write(tmp_path / "in", STILL.recording)
    files = sorted((root / "samples/LIDAR_TOP").iterdir())
    files[0].write_bytes(b"\0" * 7)
    (recording,) = read_nuscenes(root)
    assert len(list(recording.scans())) == len(files) - 1 and len(recording.damaged) == 1
    for file in files:
        file.unlink()
    with pytest.raises(VlwmError, match="no lidar file of the tables is present"):
        read_nuscenes(root)
    (root / "v1.0-mini/sensor.json").write_text("[]")
    with pytest.raises(VlwmError, match="the tables contradict each other at"):
        read_nuscenes(root)
    (root / "v1.0-mini/sensor.json").write_text("{}")
    with pytest.raises(VlwmError, match="a table is not a list of rows with tokens"):
        read_nuscenes(root)
    np.savez(tmp_path / "labels.npz", semantics=np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(VlwmError, match="are not those of Occ3D-nuScenes"):
        read_occ3d(tmp_path / "labels.npz")
    (tmp_path / "labels.npz").write_bytes(b"x")
    with pytest.raises(VlwmError, match="not an Occ3D frame"):
        read_occ3d(tmp_path / "labels.npz")
