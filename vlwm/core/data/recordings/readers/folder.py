"""Read the generic recording: a folder of point files, a pose file and an extrinsic."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.formats.axes import AXES, check_frame, mount_to_standard, to_standard
from vlwm.core.data.recordings.formats.clock import point_times, seconds_of
from vlwm.core.data.recordings.formats.extrinsic import inverse, read_extrinsic
from vlwm.core.data.recordings.formats.points import READERS, read_points
from vlwm.core.data.recordings.formats.pose_files import PoseFile, read_poses, whole_or_float
from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.data.recordings.recording import Recording, Scan
from vlwm.core.errors import DataError
from vlwm.core.text import plain_reason
from vlwm.core.vocabulary import Agent

Floats = NDArray[np.float64]

_STAMP = re.compile(r"(\d+)(?:[._](\d+))?(?!.*\d)")
_PARTS = ("points", "lidar", "scans", "velodyne", "clouds", "pcd", "depth", "list", "files")
_LISTED = "name the files by their time, or give --points FILE.csv with the columns time,file"


@dataclass(frozen=True)
class FolderSource:
    """Locations of the parts of a generic recording.

    Attributes:
        points: folder of point files, or a CSV file with the columns time,file.
        poses: pose file.
        extrinsic: file of the mount, sensor → body; None: the sensor frame is the body frame.
        poses_of: 'body' or 'sensor'.
        axes: 'enu', 'ned' or 'camera': the axes of the poses; None: those of the pose format.
        agent: 'drone' or 'rover'.
        name: of the session; None: of the folder.
    """

    points: Path
    poses: Path
    extrinsic: Path | None = None
    poses_of: str = "body"
    axes: str | None = None
    agent: str = Agent.DRONE
    name: str | None = None


def read_folder(source: FolderSource) -> Recording:
    """Return the recording of a folder.

    Raises:
        DataError: a part is missing or unreadable, or the files cannot be ordered in time.
        UsageError: `poses_of` or `axes` is unknown.
    """
    check_frame(source.poses_of, source.axes)
    files, stamps, note = point_files(source.points)
    found = read_poses(source.poses)
    mount = np.eye(4) if source.extrinsic is None else read_extrinsic(source.extrinsic)
    times, pose_times = _times_of(source, files, stamps, found)
    notes = [*found.notes, *([note] if note else [])]
    if source.extrinsic is None:
        notes.append("no --extrinsic: the sensor frame is taken as the body frame")
    track = found.track
    if not found.timed:
        track = _one_a_time(track, pose_times, source, notes)
    name = source.axes or found.axes or "enu"
    track, mount = _standard(track, mount, name, source.poses_of)
    damaged: list[tuple[str, str]] = []
    return Recording(
        name=source.name or _name_of(source.points),
        agent=source.agent,
        scans=lambda: _scans(files, times, damaged),
        poses=track,
        extrinsics={"LIDAR": mount},
        notes=notes,
        damaged=damaged,
        source=f"{source.points}, {source.poses}",
    )


def _one_a_time(
    track: PoseTrack, times: Floats, source: FolderSource, notes: list[str]
) -> PoseTrack:
    """Return poses without times, the first of them at the first time.

    Raises:
        DataError: there are more poses than times.
    """
    if len(track) > len(times):
        raise DataError(
            f"{len(track)} poses without times and {len(times)} point files: which belongs to "
            "which cannot be told",
            where=source.poses,
            remedy="give times.txt next to the poses, or poses with times (TUM)",
        )
    if len(track) < len(times):
        notes.append(
            f"the last {len(times) - len(track)} of {len(times)} times have no pose, if the first "
            "pose belongs to the first of them"
        )
    return PoseTrack.of(times[: len(track)], track.positions, track.quaternions)


def _name_of(points: Path) -> str:
    """Return the name of a recording: of its folder, or of the one above where that is a part."""
    path = points.resolve()
    return path.parent.name if path.stem.lower() in _PARTS else path.stem


def _standard(
    track: PoseTrack, mount: Floats, name: str, poses_of: str
) -> tuple[PoseTrack, Floats]:
    """Return the track of the body and the mount in the toolkit's axes."""
    # Poses of the sensor become poses of the body first: world ← sensor ← body.
    body = track.moved_by(inverse(mount)) if poses_of == "sensor" else track
    return to_standard(body, AXES[name]), mount_to_standard(mount, AXES[name])


def point_files(points: Path) -> tuple[list[Path], NDArray[np.generic] | None, str]:
    """Return point files in order, their time stamps (N,) or None, and a sentence about them.

    Raises:
        DataError: no such folder or list, or no point file in it.
    """
    if points.suffix.lower() == ".csv":
        return _listed(points)
    if not points.is_dir():
        raise DataError("no such folder of point files", where=points, remedy="check --points")
    files = sorted(p for p in points.iterdir() if p.suffix.lower() in READERS)
    if not files:
        kinds = sorted({p.suffix or p.name for p in points.iterdir()})[:6]
        raise DataError(
            f"no point file in this folder, only {', '.join(kinds) or 'nothing'}",
            where=points,
            remedy=f"give a folder of {', '.join(READERS)} files",
        )
    stamps = [_stamp(p.stem) for p in files]
    if any(s is None for s in stamps):
        return files, None, ""
    words = [s for s in stamps if s is not None]
    values = whole_or_float(words)
    order = np.argsort(values, kind="stable")
    return [files[i] for i in order], values[order], ""


def _stamp(stem: str) -> str | None:
    """Return the last number of a file name: 12.5, 1583836591.18, seconds_nanoseconds as ns."""
    match = _STAMP.search(stem)
    if match is None:
        return None
    whole, part = match.groups()
    if part is None:
        return whole
    if len(part) == 9 and "_" in match.group(0):
        return str(int(whole) * 10**9 + int(part))
    return f"{whole}.{part}"


def _listed(path: Path) -> tuple[list[Path], NDArray[np.generic], str]:
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"not a readable list: {plain_reason(error)}", where=path, remedy=_LISTED
        ) from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if not {"time", "file"} <= set(header) or len(rows) < 2:
        raise DataError(
            "the list of point files has no rows of time and file", where=path, remedy=_LISTED
        )
    time, file = header.index("time"), header.index("file")
    try:
        pairs = [(r[time].strip(), path.parent / r[file].strip()) for r in rows[1:] if r]
        values = whole_or_float([word for word, _ in pairs])
    except (ValueError, IndexError) as error:
        raise DataError(
            f"not a readable list: {plain_reason(error)}", where=path, remedy=_LISTED
        ) from error
    order = np.argsort(values, kind="stable")
    return [pairs[i][1] for i in order], values[order], f"{len(pairs)} point files of a list"


def _times_of(
    source: FolderSource,
    files: list[Path],
    stamps: NDArray[np.generic] | None,
    poses: PoseFile,
) -> tuple[Floats, Floats]:
    """Return the times of the point files, and of poses without times, seconds."""
    neighbour = source.poses.parent / "times.txt"
    if not poses.timed and neighbour.is_file():
        table = _table_of_times(neighbour)
        if len(table) >= len(poses.track):
            return _numbered(source, files, stamps, table), table
    if stamps is None:
        raise DataError(
            "the point files have no time in their names", where=source.points, remedy=_LISTED
        )
    times, unit = seconds_of(stamps)
    if _are_numbers(times):
        raise DataError(
            f"the point files are numbered from {int(times[0])} on and have no times",
            where=source.points,
            remedy=_LISTED,
        )
    poses.notes.append(f"{len(files)} point files, times in {unit}")
    return times, times


def _table_of_times(path: Path) -> Floats:
    try:
        return np.loadtxt(path, dtype=np.float64, ndmin=1)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"not a list of times, one a line: {reason}", where=path, remedy=_LISTED
        ) from error


def _numbered(
    source: FolderSource,
    files: list[Path],
    stamps: NDArray[np.generic] | None,
    table: Floats,
) -> Floats:
    """Return the times of point files: by the number in their names, else in their order.

    With numbers, files that are missing in between shift none of the others.
    """
    if stamps is not None and stamps.dtype.kind == "i":
        numbers = stamps.astype(np.int64)
        if len(np.unique(numbers)) == len(files) and int(numbers.max()) < len(table):
            return np.asarray(table[numbers])
    if len(table) < len(files):
        _too_few(source, table)
    return table[: len(files)]


def _are_numbers(times: Floats) -> bool:
    """Return True for file names that count 0, 1, 2 … instead of telling a time."""
    steps = np.diff(times)
    return bool(len(times) > 1 and times[0] < 1e6 and (steps == 1.0).all() and times[0] % 1 == 0)


def _too_few(source: FolderSource, times: Floats) -> None:
    raise DataError(
        f"times.txt has {len(times)} times, fewer than there are point files",
        where=source.poses.parent,
        remedy=_LISTED,
    )


def _scans(files: list[Path], times: Floats, damaged: list[tuple[str, str]]) -> Iterator[Scan]:
    damaged.clear()
    for path, time_s in zip(files, times, strict=True):
        try:
            points = read_points(path)
        except DataError as error:
            damaged.append((str(path), error.what))
            continue
        stamps = None if points.times is None else point_times(points.times, float(time_s))
        yield Scan(float(time_s), points.xyz, "LIDAR", points.intensity, stamps)
