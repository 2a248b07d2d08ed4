"""Read pose files: TUM, KITTI, CSV with named columns, PX4 ULog."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.formats.clock import scaled, seconds_of, unit_in_name
from vlwm.core.data.recordings.formats.ulog import read_ulog
from vlwm.core.data.recordings.pose_track import PoseTrack, quaternion_of_matrix
from vlwm.core.errors import DataError
from vlwm.core.text import plain_reason

Floats = NDArray[np.float64]

_FORMS = (
    "give TUM lines (t x y z qx qy qz qw), KITTI lines (3x4), a CSV file with the columns "
    "time, x, y, z, qx, qy, qz, qw, or a PX4 .ulg"
)
_NAMES = {
    "time": ("header_stamp", "time", "t", "timestamp", "stamp"),
    **{axis: (axis, f"t{axis}", f"p{axis}", f"pos_{axis}", f"p_{axis}", f"position_{axis}",
              f"p_rs_r_{axis}", f"pose_position_{axis}", f"pose_pose_position_{axis}")
       for axis in "xyz"},
    **{f"q{axis}": (f"q{axis}", f"q_{axis}", f"orientation_{axis}", f"rot_{axis}", f"q_rs_{axis}",
                    f"pose_orientation_{axis}", f"pose_pose_orientation_{axis}")
       for axis in "xyzw"},
}  # fmt: skip
"""names of the columns that are understood, without their units; the longer ones are those of the
EuRoC data set and of ROS messages written as CSV"""
_UNITS = re.compile(r"[_ ]?[\[(].*?[\])]|_(?:ns|us|ms|s|m|sec|nsec)$")


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
        lines = _text_of(path).splitlines()
    except FileNotFoundError as error:
        raise DataError("no such file", where=path, remedy="check the path") from error
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise DataError(f"not a readable pose file: {error}", where=path, remedy=_FORMS) from error
    rows = [line for line in lines if line.strip()]
    names = _column_names(rows)
    if names:
        return _read_named(path, names, [r for r in rows[1:] if not r.lstrip().startswith("#")])
    rows = [r for r in rows if not r.lstrip().startswith("#")]
    table = [re.sub(r"[,;]", " ", r).split() for r in rows]
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
        raise _unreadable(path, plain_reason(error)) from error
    turns = quaternion_of_matrix(values[:, :, :3])
    track = _track(path, np.arange(len(values), dtype=np.float64), values[:, :, 3], turns)
    return PoseFile(track, False, [f"{len(track)} KITTI poses without times, one a point file"])


def _text_of(path: Path) -> str:
    """Return the text of a file, compressed by gzip or not, without a byte order mark."""
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    return raw.decode("utf-8-sig")


def _cells(row: str) -> list[str]:
    """Return the cells of a line; a comma, a semicolon, a tab or spaces separate them."""
    for mark in ";,\t":
        if mark in row:
            try:
                cells = next(csv.reader([row], delimiter=mark))
            except csv.Error:  # a cell of more than 131,072 characters
                cells = row.split(mark)
            return [cell.strip() for cell in cells]
    return row.split()


def _column_names(rows: list[str]) -> list[str]:
    """Return the names of the columns where the first line has some, also behind a #; else []."""
    if not rows:
        return []
    words = _cells(rows[0].lstrip().lstrip("#").strip())
    numbers = sum(_is_number(word) for word in words)
    clean = [_plain(word) for word in words]
    # a comment is a sentence: it counts as names only where the orientation is among them
    named = {"qx", "qw"} <= {n for n, choices in _NAMES.items() if set(choices) & set(clean)}
    if rows[0].lstrip().startswith("#"):
        return words if named else []
    return words if not numbers else []


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _plain(name: str) -> str:
    """Return a column's name in small letters, with _ for dots and without its unit."""
    bare = _UNITS.sub("", name.strip().lower().replace(".", "_"))
    return re.sub(r"[^a-z0-9_]", "", bare).removeprefix("field_")  # of rostopic echo -p


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


def _read_named(path: Path, header: list[str], rows: list[str]) -> PoseFile:
    """Return poses of rows with named columns, in any order."""
    names = [_plain(name) for name in header]
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
        body = [_cells(row) for row in rows]
        values = [[float(r[places[n]]) for n in list(_NAMES)[1:]] for r in body]
        if split:
            sec, nsec = names.index("sec"), names.index("nsec")
            stamps = whole_or_float([str(int(r[sec]) * 10**9 + int(r[nsec])) for r in body])
            times, unit = scaled(stamps, "ns"), "ns"
        else:
            stamps = whole_or_float([r[places["time"]] for r in body])
            named = unit_in_name(header[places["time"]])
            times, unit = (scaled(stamps, named), named) if named else seconds_of(stamps)
    except (ValueError, IndexError) as error:
        raise _unreadable(path, plain_reason(error)) from error
    table = np.array(values).reshape(-1, 7)
    track = _track(path, times, table[:, :3], table[:, 3:])
    # columns named in TUM's own order are TUM poses with a header
    form = "TUM poses" if list(places.values()) == list(range(8)) else f"poses of {path.name}"
    return PoseFile(track, True, [f"{len(track)} {form}, times in {unit}"])


def _track(path: Path, times: Floats, places: Floats, turns: Floats) -> PoseTrack:
    whole = np.isfinite(np.concatenate([times[:, None], places, turns], axis=1)).all(axis=1)
    whole &= np.linalg.norm(turns, axis=1) > 1e-6
    if not whole.any():
        raise _unreadable(path, "no row of it is a finite pose")
    return PoseTrack.of(times[whole], places[whole], turns[whole])
