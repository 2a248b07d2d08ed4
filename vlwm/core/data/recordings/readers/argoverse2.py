"""Read Argoverse 2 sensor logs (Wilson et al. 2021) with pyarrow.

Sweeps hold the points of two lidars in the ego frame at the time of the sweep, compensated, as
float16 (steps of 6 cm beyond 64 m). Quaternion columns are qw, qx, qy, qz, times nanoseconds. Rays
start at the lidar that fired: numbers below 32 are the upper one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.data.recordings.recording import Recording, Scan
from vlwm.core.errors import DataError, MachineError
from vlwm.core.text import plain_reason
from vlwm.core.vocabulary import Agent

ATTRIBUTION = "Argoverse 2 (Argo AI, Wilson et al. 2021)"
LICENCE = "CC BY-NC-SA 4.0, non-commercial"
_LAYOUT = "give --input a log with sensors/lidar and city_SE3_egovehicle.feather, or a folder above"
_UPPER = 32  # numbers of the beams below this belong to up_lidar


def read_argoverse2(root: Path) -> list[Recording]:
    """Return one recording for each log below a folder.

    Raises:
        DataError: there is none, or a table is damaged.
        MachineError: pyarrow is missing.
    """
    logs = sorted(p.parent for p in root.rglob("city_SE3_egovehicle.feather"))
    found = [_log(log) for log in logs if (log / "sensors/lidar").is_dir()]
    if not found:
        raise DataError("no Argoverse 2 log here", where=root, remedy=_LAYOUT)
    return found


def _log(folder: Path) -> Recording:
    poses = _columns(folder / "city_SE3_egovehicle.feather")
    mounts = _columns(folder / "calibration/egovehicle_SE3_sensor.feather")
    try:
        times = _whole(poses["timestamp_ns"])
        base = int(times.min())  # whole nanoseconds: float64 seconds lose the last digits
        turns = np.stack([poses[n] for n in ("qx", "qy", "qz", "qw")], axis=-1)
        places = np.stack([poses[n] for n in ("tx_m", "ty_m", "tz_m")], axis=-1)
        names = list(mounts["sensor_name"])
        starts = np.stack([mounts[n] for n in ("tx_m", "ty_m", "tz_m")], axis=-1)
        lidars = np.stack([starts[names.index(n)] for n in ("up_lidar", "down_lidar")])
    except (KeyError, ValueError) as error:
        raise DataError(
            f"a table of the log lacks a column or a row: {plain_reason(error)}",
            where=folder,
            remedy=_LAYOUT,
        ) from error
    track = PoseTrack.of(base * 1e-9 + (times - base) * 1e-9, places, turns)
    damaged: list[tuple[str, str]] = []
    visible = (folder / "sensors/lidar").glob("[!.]*.feather")
    # names of other lengths are not in the order of their numbers
    files = sorted(visible, key=lambda p: (len(p.stem), p.stem))
    return Recording(
        name=f"av2_{folder.name}",
        agent=Agent.ROVER,
        scans=lambda: _scans(files, lidars, base, damaged),
        poses=track,
        extrinsics={"LIDAR": np.eye(4)},
        attribution=ATTRIBUTION,
        licence=LICENCE,
        notes=[f"{len(files)} sweeps, compensated by the source: no deskewing"],
        damaged=damaged,
        source=str(folder),
    )


def _whole(times: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return time stamps (N,) as integers.

    Raises:
        ValueError: some are missing.
    """
    empty = int(np.sum([t is None or t != t for t in times]))
    if empty:
        raise ValueError(f"timestamp_ns is empty in {empty} of {len(times)} rows")
    return times.astype(np.int64)


def _columns(path: Path) -> dict[str, NDArray[Any]]:
    """Return the columns of a feather file.

    Raises:
        DataError: the file is missing or damaged.
        MachineError: pyarrow is missing.
    """
    try:
        import pyarrow
        from pyarrow import feather
    except ImportError as error:
        raise MachineError(
            "reading Argoverse 2 needs pyarrow", where=path, remedy="pip install 'vlwm[argoverse2]'"
        ) from error
    try:
        table = feather.read_table(path, memory_map=False)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = plain_reason(error)
        raise DataError(
            f"a damaged feather file: {reason}", where=path, remedy="download it again"
        ) from error
    return {n: table.column(n).to_numpy() for n in table.column_names}


def _scans(
    files: list[Path], lidars: NDArray[np.float64], base: int, damaged: list[tuple[str, str]]
) -> Iterator[Scan]:
    damaged.clear()
    for path in files:
        try:
            if not path.stem.isdecimal():
                raise ValueError("its name is not a time in nanoseconds")
            stamp = int(path.stem)
            cloud = _columns(path)
            points = np.stack([cloud[a].astype(np.float32) for a in "xyz"], axis=-1)
            beams, shine = cloud["laser_number"], cloud["intensity"].astype(np.float32)
        except (DataError, KeyError, ValueError) as error:
            damaged.append((str(path), plain_reason(error)))
            continue
        kept = np.isfinite(points).all(axis=1)
        # two lidars in one file, by the number of the beam: (N, 3) origins, m
        origins = lidars[(beams[kept] >= _UPPER).astype(np.int64)].astype(np.float32)
        time_s = base * 1e-9 + (stamp - base) * 1e-9
        yield Scan(time_s, points[kept], "LIDAR", shine[kept], None, origins)
