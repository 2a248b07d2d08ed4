"""Read pose files: TUM, KITTI, CSV with named columns, PX4 ULog."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.formats.clock import seconds_of
from vlwm.core.data.recordings.formats.ulog import read_ulog
from vlwm.core.data.recordings.pose_track import PoseTrack, quaternion_of_matrix
from vlwm.core.errors import DataError

Floats = NDArray[np.float64]

_FORMS = (
    "give TUM lines (t x y z qx qy qz qw), KITTI lines (3x4), a CSV file with the columns "
    "time, x, y, z, qx, qy, qz, qw, or a PX4 .ulg"
)
_NAMES = {
    "time": ("time", "t", "timestamp", "stamp", "time_s", "timestamp_ns", "time_ns", "timestamp_s"),
    "x": ("x", "tx", "px", "pos_x", "p_x", "position_x", "tx_m"),
    "y": ("y", "ty", "py", "pos_y", "p_y", "position_y", "ty_m"),
    "z": ("z", "tz", "pz", "pos_z", "p_z", "position_z", "tz_m"),
    "qx": ("qx", "q_x", "orientation_x", "rot_x"),
    "qy": ("qy", "q_y", "orientation_y", "rot_y"),
    "qz": ("qz", "q_z", "orientation_z", "rot_z"),
    "qw": ("qw", "q_w", "orientation_w", "rot_w"),
}
"""names of the columns that are understood"""


@dataclass(frozen=True, eq=False)
class PoseFile:
    """Poses of a file.

    Attributes:
        track: the poses; of a file without times, row numbers are taken as seconds.
        timed: False where the file has no times.
        notes: sentences about what was recognised.
        axes: name of the axes that the format prescribes, or None.
    """

    track: PoseTrack
    timed: bool
    notes: list[str]
    axes: str | None = None


def read_poses(path: Path) -> PoseFile:
    """Return the poses of a file; its form is recognised by its content.

    Raises:
        DataError: the file is missing, has another form, or no pose.
    """
    if path.suffix.lower() == ".ulg":
        track, notes = read_ulog(path)
        return PoseFile(track, True, notes, axes="ned")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError("no such file", where=path, remedy="check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"not a readable pose file: {error}", where=path, remedy=_FORMS) from error
    rows = [line for line in lines if line.strip()]
    if path.suffix.lower() == ".csv" and rows:
        return _read_csv(path, rows)
    rows = [r for r in rows if not r.lstrip().startswith("#")]
    table = [r.replace(",", " ").split() for r in rows]
    widths = {len(r) for r in table}
    if widths not in ({8}, {12}):
        raise _unreadable(path, f"lines of {_sizes(widths)} numbers")
    try:
        if widths == {8}:
            times, unit = seconds_of(whole_or_float([r[0] for r in table]))
            values = np.array([[float(v) for v in r[1:]] for r in table])
            track = _track(path, times, values[:, :3], values[:, 3:])
            return PoseFile(track, True, [f"{len(track)} TUM poses, times in {unit}"])
        values = np.array(table, dtype=np.float64).reshape(-1, 3, 4)
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    turns = quaternion_of_matrix(values[:, :, :3])
    track = _track(path, np.arange(len(values), dtype=np.float64), values[:, :, 3], turns)
    return PoseFile(track, False, [f"{len(track)} KITTI poses without times, one a point file"])


def _sizes(widths: set[int]) -> str:
    return ", ".join(map(str, sorted(widths)[:5])) or "no"


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(f"not a pose file that is understood: {reason}", where=path, remedy=_FORMS)


def whole_or_float(words: Sequence[str]) -> NDArray[np.generic]:
    """Return numbers as int64 where all are whole, so that nanoseconds keep each digit."""
    try:
        return np.array([int(w) for w in words], dtype=np.int64)
    except (ValueError, OverflowError):
        return np.array([float(w) for w in words])


def _read_csv(path: Path, rows: list[str]) -> PoseFile:
    header, *body = csv.reader(rows)
    names = [re.sub(r"[^a-z0-9_]", "", name.strip().lower()) for name in header]
    places: dict[str, int] = {}
    for wanted, choices in _NAMES.items():
        found = next((names.index(c) for c in choices if c in names), None)
        if found is not None:
            places[wanted] = found
    split = "sec" in names and "nsec" in names
    missing = [n for n in _NAMES if n not in places and not (n == "time" and split)]
    if missing:
        raise _unreadable(path, f"no column {missing[0]} among {', '.join(names[:12])}")
    try:
        values = [[float(r[places[n]]) for n in list(_NAMES)[1:]] for r in body]
        if split:
            sec, nsec = names.index("sec"), names.index("nsec")
            stamps = whole_or_float([str(int(r[sec]) * 10**9 + int(r[nsec])) for r in body])
            times, unit = seconds_of(stamps)
        else:
            times, unit = seconds_of(whole_or_float([r[places["time"]].strip() for r in body]))
    except (ValueError, IndexError) as error:
        raise _unreadable(path, str(error)) from error
    table = np.array(values).reshape(-1, 7)
    track = _track(path, times, table[:, :3], table[:, 3:])
    return PoseFile(track, True, [f"{len(track)} poses of {path.name}, times in {unit}"])


def _track(path: Path, times: Floats, places: Floats, turns: Floats) -> PoseTrack:
    whole = np.isfinite(np.concatenate([times[:, None], places, turns], axis=1)).all(axis=1)
    whole &= np.linalg.norm(turns, axis=1) > 1e-6
    if not whole.any():
        raise _unreadable(path, "no row of it is a finite pose")
    return PoseTrack.of(times[whole], places[whole], turns[whole])
