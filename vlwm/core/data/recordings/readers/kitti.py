"""Read KITTI odometry (Geiger et al. 2012): Velodyne scans, poses of camera 0, calibration.

`poses/SS.txt` holds 3×4 matrices of camera 0 (x right, y down, z forward), `Tr` of `calib.txt`
leads from the Velodyne to camera 0: world ← velodyne is P_i · Tr. The scans are compensated for the
motion of the car already. The body is the Velodyne: x forward, y left, z up.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.formats.axes import AXES
from vlwm.core.data.recordings.formats.extrinsic import checked
from vlwm.core.data.recordings.formats.points import read_points
from vlwm.core.data.recordings.pose_track import PoseTrack, quaternion_of_matrix
from vlwm.core.data.recordings.recording import Image, Recording, Scan
from vlwm.core.errors import DataError
from vlwm.core.text import plain_reason
from vlwm.core.vocabulary import Agent

Floats = NDArray[np.float64]

ATTRIBUTION = "KITTI odometry (Geiger, Lenz, Urtasun 2012)"
LICENCE = "CC BY-NC-SA 3.0"
CAR = ((-1.7, 2.8), (-1.6, 1.6))
"""x and y of the car in the Velodyne's frame, metres; the nearest ground is seen 4 m away"""
_LAYOUT = "give --input the folder that holds sequences/SS/velodyne and poses/SS.txt"


def read_kitti(root: Path) -> list[Recording]:
    """Return one recording for each sequence that has scans and poses.

    Raises:
        DataError: the layout is another, or calibration, times and poses contradict each other.
    """
    folders = sorted(p for p in (root / "sequences").glob("*") if (p / "velodyne").is_dir())
    found = [_sequence(root, f) for f in folders if (root / f"poses/{f.name}.txt").is_file()]
    if not found:
        raise DataError("no KITTI sequence with poses here", where=root, remedy=_LAYOUT)
    return found


def _sequence(root: Path, folder: Path) -> Recording:
    mount = _velodyne_to_camera(folder / "calib.txt")
    times = _table(folder / "times.txt", 1)[:, 0]
    file = root / f"poses/{folder.name}.txt"
    rows = _table(file, 12).reshape(-1, 3, 4)
    if len(rows) > len(times):
        raise DataError(
            f"{len(rows)} poses and {len(times)} times", where=file, remedy="copy both again"
        )
    matrices = np.tile(np.eye(4), (len(rows), 1, 1))
    matrices[:, :3] = rows
    world = np.eye(4)
    world[:3, :3] = AXES["camera"].world
    poses = world @ matrices @ mount  # (N, 4, 4), velodyne → world with z up
    track = PoseTrack.of(
        times[: len(rows)], poses[:, :3, 3], quaternion_of_matrix(poses[:, :3, :3])
    )
    damaged: list[tuple[str, str]] = []
    names = sorted((folder / "velodyne").glob("*.bin"))
    return Recording(
        name=f"kitti_{folder.name}",
        agent=Agent.ROVER,
        scans=lambda: _scans(names, times, damaged),
        poses=track,
        extrinsics={"LIDAR": np.eye(4)},
        images=[
            Image(float(times[int(p.stem)]), p)
            for p in sorted((folder / "image_2").glob("*.png"))
            if int(p.stem) < len(times)
        ],
        attribution=ATTRIBUTION,
        licence=LICENCE,
        notes=["scans are compensated by the source: no deskewing"],
        damaged=damaged,
        source=str(folder),
    )


def _scans(names: list[Path], times: Floats, damaged: list[tuple[str, str]]) -> Iterator[Scan]:
    damaged.clear()
    for path in names:
        try:
            number = int(path.stem)
            points = read_points(path)
            away = off_the_car(points.xyz)
            shine = None if points.intensity is None else points.intensity[away]
            yield Scan(float(times[number]), points.xyz[away], "LIDAR", shine)
        except DataError as error:
            damaged.append((str(path), error.what))
        except (ValueError, IndexError):
            damaged.append((str(path), "its name is not the number of a frame in times.txt"))


def off_the_car(points: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which points (N, 3) are not returns of the car itself, (N,)."""
    own = np.ones(len(points), dtype=bool)
    for axis, (low, high) in enumerate(CAR):
        own &= (points[:, axis] >= low) & (points[:, axis] <= high)
    return ~own


def _velodyne_to_camera(path: Path) -> Floats:
    """Return the 4×4 matrix `Tr` of a calibration file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        row = next(line.split()[1:] for line in lines if line.split(":")[0].strip() == "Tr")
        matrix = np.eye(4)
        matrix[:3] = np.array([float(v) for v in row]).reshape(3, 4)
    except (OSError, UnicodeDecodeError, StopIteration, ValueError) as error:
        raise DataError(
            "calib.txt has no matrix Tr of 12 numbers", where=path, remedy=_LAYOUT
        ) from error
    return checked(matrix, path)


def _table(path: Path, columns: int) -> Floats:
    try:
        rows = np.loadtxt(path, dtype=np.float64, ndmin=2)
        return rows.reshape(-1, columns)
    except (OSError, ValueError) as error:
        reason = plain_reason(error)
        raise DataError(
            f"not a table of {columns} numbers a line: {reason}", where=path, remedy=_LAYOUT
        ) from error
