"""Read UAVScenes (Wang et al. 2025): Livox Avia scans, camera poses, and the source's calibrations.

`interval5_LIDAR/image<camera time>_lidar<lidar time>.txt` holds x y z in the lidar's own frame.
`sampleinfos_interpolated.json` lists camera poses `T4x4`, camera to world, by `OriginalImageName`;
it covers five times as many frames, so poses are matched by name. X_cam = R · X_lidar + t by the
calibration that the source's own table assigns to a run; an R that is not a rotation is refused.
The
body is level with the camera: where it looks down, the top of its picture is ahead. No real scan
was at hand: the layout is that of the documentation, the calibrations are the published ones. The
downloaded .zip is read as it is, member by member.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.formats.archive import AnyPath, ArchivePath
from vlwm.core.data.recordings.formats.clock import scaled, seconds_of
from vlwm.core.data.recordings.formats.extrinsic import checked, inverse
from vlwm.core.data.recordings.formats.pose_files import whole_or_float
from vlwm.core.data.recordings.pose_track import PoseTrack, quaternion_of_matrix
from vlwm.core.data.recordings.recording import Image, Recording, Scan
from vlwm.core.errors import DataError
from vlwm.core.files import read_json
from vlwm.core.text import plain_reason
from vlwm.core.vocabulary import Agent

Floats = NDArray[np.float64]

ATTRIBUTION = "UAVScenes (Wang et al. 2025), MARS-LVIG"
LICENCE = "CC BY-NC-SA 4.0, non-commercial"
_LAYOUT = (
    "give --input the folder that holds interval5_<run>/sampleinfos_interpolated.json and "
    "calibration.json (docs/datasets.md)"
)
_NAME = re.compile(r"^image(\d+\.?\d*)_lidar(\d+\.?\d*)$")
_TOLERANCE = 0.01  # of a camera pose: its rotation and its last row
_DOWN = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
_AHEAD = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""camera axes (right, down, forward) to a body ahead of a camera that looks down, or ahead"""


def read_uavscenes(root: Path) -> list[Recording]:
    """Return one recording for each run below a folder, or in a .zip file.

    Raises:
        DataError: there is none, or a run has no usable calibration or no poses.
    """
    place: AnyPath = ArchivePath.open(root) if root.suffix.lower() == ".zip" else root
    files: list[AnyPath] = sorted(place.rglob("sampleinfos_interpolated.json"))
    found = [_run(path.parent, root) for path in files]
    if not found:
        raise DataError("no UAVScenes run here", where=root, remedy=_LAYOUT)
    return found


def _run(folder: AnyPath, root: Path) -> Recording:
    run = re.sub(r"^interval\d+_", "", folder.name)
    mount = camera_from_lidar(run, _calibrations(root))
    times, unit, matrices = _camera_poses(folder / "sampleinfos_interpolated.json")
    looks_down = float(np.median(matrices[:, 2, 2])) < -0.5  # z of the camera's axis in the world
    level = np.eye(4)
    level[:3, :3] = _DOWN if looks_down else _AHEAD
    poses = matrices @ inverse(level)
    track = PoseTrack.of(times, poses[:, :3, 3], quaternion_of_matrix(poses[:, :3, :3]))
    scans, others = _scan_files(folder, unit)
    damaged: list[tuple[str, str]] = []
    return Recording(
        name=run,
        agent=Agent.DRONE,
        scans=lambda: _scans(scans, damaged),
        poses=track,
        extrinsics={"LIDAR": level @ mount},
        images=_images(folder, unit),
        attribution=ATTRIBUTION,
        licence=LICENCE,
        notes=[
            f"{len(scans)} scans, {len(times)} camera poses, camera looks "
            f"{'down' if looks_down else 'ahead'}",
            "the world of the poses has no stated datum: splits are by whole run",
            *([f"{others} other files among the scans are not read"] if others else []),
        ],
        damaged=damaged,
        source=str(folder),
    )


def _calibrations(root: Path) -> Mapping[str, Any]:
    """Return the table of calibrations in the data folder or next to the runs."""
    for place in (root, *list(root.parents)[:2]):
        for name in ("calibration.json", "uavscenes_calibration.json"):
            if (place / name).is_file():
                values = read_json(place / name)
                if isinstance(values, Mapping) and {"used_by", "calibrations"} <= set(values):
                    return values
    raise DataError("no calibration.json of UAVScenes here", where=root, remedy=_LAYOUT)


def camera_from_lidar(run: str, table: Mapping[str, Any]) -> Floats:
    """Return the 4×4 matrix lidar → camera that the source's table assigns to a run.

    Raises:
        DataError: the run is in no row of the table, or its matrix is not a rotation.
    """
    name = next((c for row, c in table["used_by"].items() if run in _expanded(row)), None)
    if name is None:
        raise DataError(
            f"the table of calibrations has no run {run}",
            where="calibration.json: used_by",
            remedy="add the run with its calibration, as the source of the data assigns it",
        )
    values = table["calibrations"][name]
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(values["camera_ext_R"], dtype=np.float64).reshape(3, 3)
    matrix[:3, 3] = values["camera_ext_t"]
    return checked(matrix, f"calibration {name} of run {run}")


def _expanded(row: str) -> list[str]:
    """Return the runs of a row: AMtown01-03 is AMtown01, AMtown02 and AMtown03."""
    match = re.fullmatch(r"(.*?)(\d+)-(\d+)", row)
    if match is None:
        return [row]
    stem, first, last = match.groups()
    return [f"{stem}{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]


def _camera_poses(path: AnyPath) -> tuple[Floats, str, Floats]:
    """Return times (N,) in s, the unit of the names, and matrices (N, 4, 4) camera → world.

    Raises:
        DataError: the list is damaged, or a matrix is not a pose.
    """
    try:
        rows = list(_json(path))
        stamps = whole_or_float([Path(str(r["OriginalImageName"])).stem for r in rows])
        every = [np.array(r["T4x4"], dtype=np.float64).reshape(4, 4) for r in rows]
        matrices = np.stack(every)  # (N, 4, 4)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(
            f"the list of camera poses is damaged: {plain_reason(error)}",
            where=str(path),
            remedy=_LAYOUT,
        ) from error
    kept = np.isfinite(matrices).all(axis=(1, 2)) & np.isfinite(stamps)
    matrices = matrices[kept]
    turns = matrices[:, :3, :3]
    bent = np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2), initial=0.0)
    last = np.abs(matrices[:, 3] - [0.0, 0.0, 0.0, 1.0]).max(axis=1)
    wrong = (bent > _TOLERANCE) | (last > _TOLERANCE) | (np.linalg.det(turns) < 0)
    if wrong.any():
        raise DataError(
            f"{int(wrong.sum())} of {len(wrong)} matrices T4x4 are not poses: a rotation, a "
            "position, and 0 0 0 1 in the last row",
            where=str(path),
            remedy="download the file again; a transposed or scaled matrix is not read",
        )
    seconds, unit = seconds_of(stamps[kept])
    return seconds, unit, matrices


def _json(path: AnyPath) -> Any:
    return read_json(path) if isinstance(path, Path) else json.loads(path.read_text())


def _scan_files(folder: AnyPath, unit: str) -> tuple[list[tuple[float, AnyPath]], int]:
    """Return the scans by time in s, and the number of other files among them."""
    found: list[tuple[float, AnyPath]] = []
    others = 0
    for path in folder.glob("interval*_LIDAR/*"):
        match = _NAME.match(path.stem) if path.name.lower().endswith(".txt") else None
        if match:
            # The pose is that of the picture: the scan is its partner.
            found.append((_seconds(match.group(1), unit), path))
        elif not path.name.startswith("."):
            others += 1
    return sorted(found), others


def _seconds(number: str, unit: str) -> float:
    return float(scaled(whole_or_float([number]), unit)[0])


def _images(folder: AnyPath, unit: str) -> list[Image]:
    files: list[AnyPath] = sorted(folder.glob("interval*_CAM/*.jpg"))
    named = [(p.stem, p) for p in files if re.fullmatch(r"\d+\.?\d*", p.stem)]
    return [Image(_seconds(stem, unit), path) for stem, path in named]


def _scans(files: list[tuple[float, AnyPath]], damaged: list[tuple[str, str]]) -> Iterator[Scan]:
    damaged.clear()
    for time_s, path in files:
        try:
            text = io.StringIO(path.read_text(encoding="utf-8"))
            points = np.loadtxt(text, dtype=np.float32, ndmin=2)
            if points.shape[1] < 3:
                raise ValueError(f"rows of {points.shape[1]} numbers instead of x y z")
        except (OSError, ValueError) as error:
            damaged.append((str(path), plain_reason(error)))
            continue
        points = points[np.isfinite(points).all(axis=1), :3]
        yield Scan(time_s, points)
