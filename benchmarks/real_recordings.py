"""Cross-check the readers on real files: one line for each source.

    python benchmarks/real_recordings.py [--data ../shared/data] [--json FILE]

    KITTI odometry   IoU of scan 1 (and 5) with scan 0 at 0.4 m within 40 m, moved by the poses and
                     not moved
    Newer College    distance to the authors' deskewed points, before and after our deskewing. The
                     poses at the start and the end of a scan are fitted to the points of the first
                     and last 5 ms; all points between are placed by constant twist
    nuScenes         points in each annotated box, against the number that the annotation names
    Argoverse 2      flow labels of the points that the filter of moving points takes out
    Occ3D            classes of a label frame after a way through a session and the packed store

Sources that are absent are left out by name.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vlwm.core.data.recordings.movers import moving_points
from vlwm.core.data.recordings.placing import place_scan
from vlwm.core.data.recordings.pose_track import PoseTrack, matrix_of, quaternion_of_matrix
from vlwm.core.data.recordings.readers.argoverse2 import read_argoverse2
from vlwm.core.data.recordings.readers.kitti import read_kitti
from vlwm.core.data.recordings.readers.nuscenes import FREE, read_lidar_file, read_occ3d
from vlwm.core.data.recordings.recording import Scan

CELL_M, REACH_M = 0.4, 40.0
_ENDS_S = 0.005
Facts = dict[str, Any]


def kitti(root: Path) -> Facts:
    """Return the IoU of later scans with scan 0."""
    (recording,) = read_kitti(root / "kitti_odometry")
    scans = list(recording.scans())
    places, turns, _ = recording.poses.at([s.time_s for s in scans])
    first = np.linalg.inv(matrix_of(places[0], turns[0]))
    found = {}
    for k in (1, 5):
        matrix = first @ matrix_of(places[k], turns[k])
        moved = scans[k].points @ matrix[:3, :3].T + matrix[:3, 3]
        for name, points in (("warped", moved), ("unwarped", scans[k].points)):
            found[f"scan {k} {name}"] = round(_iou(scans[0].points, points), 3)
    return found


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of the cells of two clouds (N, 3)."""
    near = [p[(np.abs(p[:, :2]) < REACH_M).all(axis=1)] for p in (one, other)]
    cells = [{*map(tuple, np.floor(p / CELL_M).astype(int).tolist())} for p in near]
    return len(cells[0] & cells[1]) / len(cells[0] | cells[1])


def newer_college_scan(root: Path, number: int) -> tuple[Scan, PoseTrack]:
    """Return a raw scan with its times, and the fitted track of the sensor during it."""
    folder = root / "newer_college"
    raw = np.fromfile(folder / f"raw_{number:02d}.bin", "<f4").reshape(-1, 3).astype(float)
    theirs = _deskewed(root, number)
    times = np.fromfile(folder / f"times_{number:02d}.bin", "<f4").astype(float)
    ends = [times < times.min() + _ENDS_S, times > times.max() - _ENDS_S]
    # The fitted poses are those of the middle of each end: extended to the whole scan.
    poses = [_rigid(raw[rows], theirs[rows]) for rows in ends]
    stamps = np.array([times[rows].mean() for rows in ends])
    track = _extended(stamps, poses, float(times.min()), float(times.max()))
    return Scan(float(times.min()), raw.astype(np.float32), times_s=times), track


def _deskewed(root: Path, number: int) -> np.ndarray:
    file = root / "newer_college" / f"deskewed_{number:02d}.bin"
    return np.fromfile(file, "<f4").reshape(-1, 3).astype(float)


def newer_college(root: Path) -> Facts:
    """Return the mean distance to the authors' deskewed points, before and after ours."""
    found = {}
    for k in range(3):
        (scan, track), theirs = newer_college_scan(root, k), _deskewed(root, k)
        for name, deskew in (("before", False), ("after", True)):
            placed = place_scan(scan, track, {"LIDAR": np.eye(4)}, deskew=deskew)
            assert placed is not None
            away = np.linalg.norm(placed.points - theirs[placed.kept], axis=1)
            found[f"scan {k} {name} (m)"] = round(float(away.mean()), 3)
    return found


def _rigid(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the rigid motion (4, 4) that brings points (N, 3) nearest to others (Kabsch)."""
    middle = source.mean(axis=0), target.mean(axis=0)
    left, _, right = np.linalg.svd((source - middle[0]).T @ (target - middle[1]))
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(right.T @ left.T))])
    matrix = np.eye(4)
    matrix[:3, :3] = right.T @ sign @ left.T
    matrix[:3, 3] = middle[1] - matrix[:3, :3] @ middle[0]
    return matrix


def _extended(
    stamps: np.ndarray, poses: list[np.ndarray], first_s: float, last_s: float
) -> PoseTrack:
    """Return the track through two poses, continued with the same twist to both ends."""
    from scipy.spatial.transform import Rotation

    inner = poses[0][:3, :3].T @ poses[1][:3, :3]
    twist = Rotation.from_matrix(inner).as_rotvec() / (stamps[1] - stamps[0])
    speed = (poses[1][:3, 3] - poses[0][:3, 3]) / (stamps[1] - stamps[0])
    times = np.array([first_s - 1e-6, *stamps, last_s + 1e-6])
    places = np.array([poses[0][:3, 3] + speed * (t - stamps[0]) for t in times])
    turns = [
        poses[0][:3, :3] @ Rotation.from_rotvec(twist * (t - stamps[0])).as_matrix() for t in times
    ]
    return PoseTrack.of(times, places, np.array([quaternion_of_matrix(turn) for turn in turns]))


def nuscenes(root: Path) -> Facts:
    """Return in how many boxes of a key frame our points are as many as the annotation names."""
    folder = root / "nuscenes_keyframe"
    (table,) = folder.glob("*.json")
    frame = json.loads(table.read_text())["data_list"][0]
    (file,) = folder.glob("*.pcd.bin")
    cloud = read_lidar_file(file)
    ours, named = [], []
    for box in frame["instances"]:
        x, y, z, length, width, height, yaw = box["bbox_3d"]
        away = cloud[:, :3] - [x, y, z]
        cos, sin = np.cos(yaw), np.sin(yaw)
        along = np.abs(cos * away[:, 0] + sin * away[:, 1]) <= length / 2
        across = np.abs(cos * away[:, 1] - sin * away[:, 0]) <= width / 2
        ours.append(int((along & across & (np.abs(away[:, 2]) <= height / 2)).sum()))
        named.append(box["num_lidar_pts"])
    close = [abs(n - m) <= max(2, 0.1 * m) for n, m in zip(ours, named, strict=True)]
    return {
        "boxes": len(ours),
        "points in boxes": sum(ours),
        "points the annotation names": sum(named),
        "boxes that agree": round(float(np.mean(close)), 3),
    }


def argoverse2(root: Path) -> Facts:
    """Return what the flow labels say of the points that the filter takes out."""
    import pyarrow.feather as feather

    (recording,) = read_argoverse2(root / "argoverse2")
    placed = [place_scan(s, recording.poses, recording.extrinsics) for s in recording.scans()]
    first, second = placed
    assert first is not None and second is not None
    flow = feather.read_table(next((root / "argoverse2").rglob("flow_labels.feather")))
    dynamic = flow.column("dynamic").to_numpy(zero_copy_only=False)[first.kept]
    moving = moving_points(first, [second], votes=1)
    return {
        "points": len(moving),
        "labelled as moving": int(dynamic.sum()),
        "taken out": int(moving.sum()),
        "of these labelled as moving": int(dynamic[moving].sum()),
        "share of resting points lost": round(float(moving[~dynamic].mean()), 5),
    }


def occ3d(root: Path) -> Facts:
    """Return whether a label frame comes out of a session and of the packed store as it went in."""
    from vlwm.core.data.npz import write_layers
    from vlwm.core.data.packed_store import PackedStore
    from vlwm.core.data.session import Session, write_pose
    from vlwm.core.geometry.grid import VoxelGrid

    (file,) = (root / "occ3d").rglob("labels.npz")
    classes = read_occ3d(file)
    assert classes is not None
    occupied = (classes != FREE).astype(np.uint8)
    grid = VoxelGrid.from_range((-40, -40, -1, 40, 40, 5.4), (0.4, 0.4, 0.4))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "rover_scene"
        for name in ("occupancy", "poses"):
            (folder / name).mkdir(parents=True)
        layers = {"occupancy": occupied, "classes": classes}
        write_layers(folder / "occupancy/000000_occupancy.npz", layers)
        write_pose(folder / "poses/000000.json", np.eye(13)[6], 0.0, 0.0)
        back = Session(folder).read_layers(0)["classes"]
        packed = PackedStore.open(Path(place), grid).read_layer("classes", np.array([0]))[0]
    return {
        "cells": int(classes.size),
        "occupied": int(occupied.sum()),
        "classes present": len(np.unique(classes)) - 1,
        "equal after a way through a session": bool((back == classes).all()),
        "equal after a way through the packed store": bool((packed == classes).all()),
    }


SOURCES: dict[str, tuple[str, Callable[[Path], Facts]]] = {
    "KITTI odometry": ("kitti_odometry", kitti),
    "Newer College": ("newer_college", newer_college),
    "nuScenes key frame": ("nuscenes_keyframe", nuscenes),
    "Argoverse 2": ("argoverse2", argoverse2),
    "Occ3D": ("occ3d", occ3d),
}
"""name → its folder, and its check"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = {}
    for name, (folder, check) in SOURCES.items():
        if not (given.data / folder).is_dir():
            print(f"{name}: absent, left out")
            continue
        found[name] = check(given.data)
        print(f"{name}: " + ", ".join(f"{k} {v}" for k, v in found[name].items()), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
