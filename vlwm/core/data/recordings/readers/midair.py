"""Read Mid-Air (Fonder and Van Droogenbroeck 2019): depth pictures and the poses of a drone.

`<climate>/sensor_records.hdf5` holds, for each trajectory, ground truth at 100 Hz: position and
attitude (w, x, y, z), north-east-down. Pictures are at 25 Hz, picture i belongs to row 4·i. Depth
is uint16 that is a float16 in metres, 1024 × 1024, field of view 90°; the camera is half a metre
ahead of the body. No real file was at hand: the layout is that of the documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.formats.axes import AXES, mount_to_standard, to_standard
from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.data.recordings.readers.depth_camera import DepthCamera, numbered
from vlwm.core.data.recordings.recording import Recording, Scan
from vlwm.core.errors import DataError
from vlwm.core.text import plain_reason
from vlwm.core.vocabulary import Agent

ATTRIBUTION = "Mid-Air (Fonder and Van Droogenbroeck 2019)"
LICENCE = "CC BY-NC-SA 4.0, non-commercial"
POSE_STEP_S = 0.01
IMAGE_STEP_S = 0.04
CAMERA_AHEAD_M = 0.5
_CAMERA = DepthCamera((1024, 1024), 512.0, (512.0, 512.0), first_px=0.5, step=5)
_LAYOUT = "give --input the folder that holds <climate>/sensor_records.hdf5 and <climate>/depth"


def read_midair(root: Path) -> list[Recording]:
    """Return one recording for each trajectory that has depth pictures.

    Raises:
        DataError: there is none, or the records cannot be read.
    """
    found = [r for path in sorted(root.rglob("sensor_records.hdf5")) for r in _climate(path)]
    if not found:
        raise DataError("no Mid-Air trajectory with depth here", where=root, remedy=_LAYOUT)
    return found


def _climate(path: Path) -> list[Recording]:
    found = []
    try:
        with h5py.File(path, "r") as records:
            for name in sorted(records):
                depth = path.parent / "depth" / name
                if depth.is_dir():
                    truth = records[name]["groundtruth"]
                    place, turn = np.array(truth["position"]), np.array(truth["attitude"])
                    found.append(_trajectory(path, depth, place, turn))
    except (OSError, KeyError, ValueError, IndexError, RuntimeError) as error:
        raise DataError(
            f"the records cannot be read: {plain_reason(error)}", where=path, remedy=_LAYOUT
        ) from error
    return found


def _trajectory(
    path: Path, depth: Path, place: NDArray[np.float64], turn: NDArray[np.float64]
) -> Recording:
    times = np.arange(len(place)) * POSE_STEP_S
    axes = AXES["ned"]
    track = to_standard(PoseTrack.of(times, place, turn[:, [1, 2, 3, 0]]), axes)
    mount = np.eye(4)
    mount[0, 3] = CAMERA_AHEAD_M
    files, left_out = numbered(depth.glob("*.[pP][nN][gG]"))
    damaged: list[tuple[str, str]] = []
    return Recording(
        name=f"midair_{path.parent.name}_{depth.name}",
        agent=Agent.DRONE,
        scans=lambda: _scans(files, left_out, damaged),
        poses=track,
        extrinsics={"LIDAR": mount_to_standard(mount, axes)},
        attribution=ATTRIBUTION,
        licence=LICENCE,
        notes=["depth taken along the axis of the camera; the source does not specify it"],
        damaged=damaged,
        source=str(path.parent),
    )


def _scans(
    files: list[tuple[int, Path]],
    left_out: list[tuple[str, str]],
    damaged: list[tuple[str, str]],
) -> Iterator[Scan]:
    damaged[:] = left_out
    for number, path in files:
        try:
            pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 2:
                raise ValueError("not a picture of one 16-bit channel")
            points = _CAMERA.points(pixels.view(np.float16).astype(np.float32))
        except ValueError as error:
            damaged.append((str(path), plain_reason(error)))
            continue
        yield Scan(number * IMAGE_STEP_S, points)
