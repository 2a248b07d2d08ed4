"""Turn a recording into a session folder: frames at an even rate, occupied, free and unknown.

Scans are read once, in order, and kept for the few seconds that the next frames need, so memory
depends on the window and not on the recording. Frames that are there and whole are kept: a killed
conversion resumes and ends with the same bytes.
"""

from __future__ import annotations

import io
import json
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.accumulate import SeenCells, accumulate
from vlwm.core.data.recordings.ground import filled, ground_under
from vlwm.core.data.recordings.movers import LATER_S, moving_points
from vlwm.core.data.recordings.placing import PlacedScan, place_scan
from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.data.recordings.recording import (
    MAX_SPEED_M_S,
    MAX_TURN_RAD_S,
    Recording,
    Scan,
)
from vlwm.core.data.session import SessionMeta, write_meta, write_pose
from vlwm.core.errors import DataError
from vlwm.core.files import atomic_path, make_folder, read_json, remove_temporaries, write_json
from vlwm.core.geometry.frames import heading_of
from vlwm.core.geometry.grid import VoxelGrid

Floats = NDArray[np.float64]
OnFrames = Callable[[str, int, int], None]
"""called with (session, frames done, frames in all)"""

_REPORT = "recording.json"
_IMAGE_NEAR_S = 0.15  # a picture farther in time from a frame is not its picture


@dataclass(frozen=True)
class ConvertOptions:
    """How a recording is turned into frames.

    Attributes:
        rate_hz: frames a second of the session.
        window_s: scans this long before and after a frame are accumulated.
        range_m: nearest and farthest return that counts.
        deskew: use the time of each point where there is one.
        remove_moving: leave points out that later scans look through.
        lidar: write the scan next to each frame.
        camera: write the picture next to each frame.
        lidar_delay_s: added to the times of the scans.
    """

    rate_hz: float = 2.0
    window_s: float = 1.5
    range_m: tuple[float, float] = (0.8, 120.0)
    deskew: bool = True
    remove_moving: bool = True
    lidar: bool = False
    camera: bool = False
    lidar_delay_s: float = 0.0


@dataclass
class ConvertReport:
    """Counts of one conversion, for the operator and for `recording.json`."""

    session: str
    frames: int = 0
    without_pose: int = 0
    scans: int = 0
    points: int = 0
    moving_points: int = 0
    deskewed: bool = False
    position_spikes: int = 0
    jumps: int = 0
    clamped_velocities: int = 0
    occupied_share: float = 0.0
    known_share: float = 0.0
    notes: list[str] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)


def session_name(recording: Recording) -> str:
    """Return the folder name of a recording's session."""
    clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in recording.name)
    return f"{recording.agent}_{clean}"


def convert(
    recording: Recording,
    output: Path,
    grid: VoxelGrid,
    options: ConvertOptions,
    on_frames: OnFrames = lambda name, done, total: None,
) -> ConvertReport:
    """Write the session of a recording into `output` and return what was counted.

    Raises:
        DataError: poses and scans do not overlap in time, or no frame has points.
    """
    name = session_name(recording)
    folder = output / name
    report = ConvertReport(name, notes=recording.notes, damaged=recording.damaged)
    limit = MAX_SPEED_M_S[recording.agent]
    poses, report.position_spikes, report.jumps = recording.poses.cleaned(limit)
    times = _frame_times(recording, poses, options.rate_hz)
    places, turns, valid = poses.at(times)
    if _is_done(folder, grid, options):
        return _read_report(folder)
    _begin(folder, grid, options)
    frames = _Frames(recording, poses, options, report)
    heads = heading_of(turns)
    levels = np.full(len(times), np.nan)
    cells: dict[int, None] = {}
    occupied = known = written = 0
    for number, scans, moving in frames.around(times):
        if not valid[number] or not scans:
            continue
        level = ground_under(scans, places[number], recording.agent)
        if np.isnan(level):
            level = _last(levels, number)
        levels[number] = level
        smooth = filled(levels[: number + 1])[-1]
        ego = np.array([*places[number, :2], smooth, heads[number]])
        file = folder / "occupancy" / f"{number:06d}_occupancy.npz"
        counts = _counts(file, grid)
        if counts is None:
            seen = accumulate(scans, moving, ego, grid)
            _write_frame(file, seen, _classes(recording, number, grid))
            counts = int(seen.occupied.sum()), int(seen.known.sum())
            written += 1
        occupied, known = occupied + counts[0], known + counts[1]
        cells[number] = None
        on_frames(name, number + 1, len(times))
    if not cells:
        raise _nothing(recording, poses, frames)
    numbers = np.array(sorted(cells))
    report.frames, report.without_pose = len(numbers), int(len(times) - len(numbers))
    total = len(numbers) * grid.num_cells
    report.occupied_share, report.known_share = occupied / total, known / total
    ground = _smooth_levels(levels, numbers)
    motion = _velocities(poses, times[numbers], limit, report)
    _write_poses(folder, numbers, times, places, turns, motion, ground)
    if options.camera:
        _write_images(folder, recording, numbers, times)
    _finish(folder, recording, grid, options, report)
    return report


def _plan(grid: VoxelGrid, options: ConvertOptions) -> dict[str, Any]:
    return json.loads(json.dumps({"options": asdict(options), "grid": asdict(grid)}))


def _is_done(folder: Path, grid: VoxelGrid, options: ConvertOptions) -> bool:
    """Return True where the session is whole and was made with the same options."""
    files = folder / "session.json", folder / _REPORT
    return all(f.exists() for f in files) and read_json(files[1])["plan"] == _plan(grid, options)


def _read_report(folder: Path) -> ConvertReport:
    return ConvertReport(**read_json(folder / _REPORT)["report"])


def _begin(folder: Path, grid: VoxelGrid, options: ConvertOptions) -> None:
    """Make the folders; frames of other options are removed."""
    for part in ("", "poses", "occupancy"):
        remove_temporaries(make_folder(folder / part))
    (folder / "session.json").unlink(missing_ok=True)
    started = folder / _REPORT
    if started.exists() and read_json(started)["plan"] == _plan(grid, options):
        return
    for part in ("poses", "occupancy", "images", "lidar"):
        for file in (folder / part).glob("*"):
            file.unlink()
    write_json(started, {"plan": _plan(grid, options)})


def _counts(file: Path, grid: VoxelGrid) -> tuple[int, int] | None:
    """Return the occupied and known cells of a frame that an earlier start wrote, or None."""
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as layers:
            occupied, known = layers["occupancy"], layers["known"]
    except (OSError, ValueError, KeyError, EOFError, zlib.error, BadZipFile):
        return None  # damaged: it is written again
    return (int(occupied.sum()), int(known.sum())) if occupied.shape == grid.shape else None


def _last(levels: Floats, number: int) -> float:
    """Return the last height before frame `number`; 0 before the first."""
    seen = levels[:number][~np.isnan(levels[:number])]
    return float(seen[-1]) if len(seen) else 0.0


def _smooth_levels(levels: Floats, numbers: NDArray[np.int64]) -> Floats:
    """Return the terrain heights (F,) of the frames, each as its grid was placed."""
    return np.array([filled(levels[: n + 1])[-1] for n in numbers])


def _frame_times(recording: Recording, poses: PoseTrack, rate_hz: float) -> Floats:
    """Return the times of the frames: the source's own, or an even raster over the poses."""
    if recording.frame_times_s is not None:
        return recording.frame_times_s
    span = poses.times_s[-1] - poses.times_s[0]
    return poses.times_s[0] + np.arange(int(span * rate_hz + 1e-6) + 1) / rate_hz


class _Frames:
    """Scans of a recording, read once and handed out frame by frame.

    Attributes:
        first_s, last_s: times of the first and the last scan that was read; NaN before.
    """

    def __init__(
        self,
        recording: Recording,
        poses: PoseTrack,
        options: ConvertOptions,
        report: ConvertReport,
    ) -> None:
        self.recording, self.poses = recording, poses
        self.options, self.report = options, report
        self.first_s = self.last_s = float("nan")
        self._placed: deque[PlacedScan] = deque()
        self._moving: deque[NDArray[np.bool_] | None] = deque()

    def around(
        self, times_s: Floats
    ) -> Iterator[tuple[int, list[PlacedScan], list[NDArray[np.bool_]]]]:
        """Yield (frame number, scans within the window of its time, moving points of each)."""
        source, ended = self.recording.scans(), False
        window = self.options.window_s
        later = LATER_S[1] if self.options.remove_moving else 0.0
        for number, now in enumerate(times_s):
            while not ended and not self._reaches(now + window + later):
                scan = next(source, None)
                ended = scan is None
                if scan is not None:
                    self._take(scan, now - window)
            while self._placed and self._placed[0].time_s < now - window:
                self._placed.popleft()
                self._moving.popleft()
            count = sum(1 for s in self._placed if s.time_s <= now + window)
            self._find_moving(count)
            chosen = list(self._placed)[:count]
            yield number, chosen, [m for m in list(self._moving)[:count] if m is not None]
            if ended and not self._placed:
                return

    def _reaches(self, time_s: float) -> bool:
        return bool(self.last_s > time_s)

    def _take(self, scan: Scan, oldest_s: float) -> None:
        """Place a scan and keep it, unless no frame will ask for it."""
        delay = self.options.lidar_delay_s
        if np.isnan(self.first_s):
            self.first_s = scan.time_s + delay
        self.last_s = scan.time_s + delay
        if self.last_s < oldest_s:
            return
        late = scan.times_s is not None and self.options.deskew
        self.report.deskewed |= late
        moved = scan if not delay else _delayed(scan, delay)
        placed = place_scan(
            moved,
            self.poses,
            self.recording.extrinsics,
            range_m=self.options.range_m,
            deskew=self.options.deskew,
        )
        if placed is not None:
            self.report.scans += 1
            self.report.points += len(placed.points)
            self._placed.append(placed)
            self._moving.append(None)

    def _find_moving(self, count: int) -> None:
        """Mark the moving points of the first `count` scans that have no mark yet."""
        scans = list(self._placed)
        for index in range(count):
            if self._moving[index] is not None:
                continue
            scan = scans[index]
            moving = np.zeros(len(scan.points), dtype=bool)
            if self.options.remove_moving:
                later = [
                    s
                    for s in scans[index + 1 :]
                    if LATER_S[0] <= s.time_s - scan.time_s <= LATER_S[1]
                ]
                if later:
                    moving = moving_points(scan, later)
            self.report.moving_points += int(moving.sum())
            self._moving[index] = moving


def _delayed(scan: Scan, seconds: float) -> Scan:
    times = None if scan.times_s is None else scan.times_s + seconds
    return Scan(
        scan.time_s + seconds, scan.points, scan.sensor, scan.intensity, times, scan.origins
    )


def _nothing(recording: Recording, poses: PoseTrack, frames: _Frames) -> DataError:
    if np.isnan(frames.first_s):
        return DataError(
            "the recording holds no scan that could be read",
            where=recording.source,
            remedy="check the files; the first of them are named above",
        )
    return DataError(
        f"scans from {frames.first_s:.3f} to {frames.last_s:.3f} s and poses from "
        f"{poses.times_s[0]:.3f} to {poses.times_s[-1]:.3f} s have no time in common",
        where=recording.source,
        remedy="check the clocks and units of both, or shift the scans with --lidar-delay SECONDS",
    )


def _velocities(poses: PoseTrack, times_s: Floats, limit: float, report: ConvertReport) -> Floats:
    """Return linear and angular velocity (F, 6), clamped to what the vehicle can do."""
    linear, angular = poses.velocities(times_s)
    for values, most in ((linear, limit), (angular, MAX_TURN_RAD_S)):
        size = np.linalg.norm(values, axis=1)
        fast = size > most
        values[fast] *= (most / size[fast])[:, None]
        report.clamped_velocities += int(fast.sum())
    return np.concatenate([linear, angular], axis=1)


def _classes(recording: Recording, number: int, grid: VoxelGrid) -> NDArray[np.uint8] | None:
    if recording.classes is None:
        return None
    found = recording.classes(number)
    return found if found is not None and found.shape == grid.shape else None


def _write_frame(path: Path, seen: SeenCells, classes: NDArray[np.uint8] | None) -> None:
    """Write the layers of one frame by rename."""
    layers: dict[str, Any] = {"occupancy": seen.occupied, "known": seen.known}
    if classes is not None:
        layers["classes"] = classes
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **layers)
    with atomic_path(path, flush=False) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def _write_poses(
    folder: Path,
    numbers: NDArray[np.int64],
    times: Floats,
    places: Floats,
    turns: Floats,
    motion: Floats,
    ground: Floats,
) -> None:
    """Write the pose files; world z = 0 is the terrain under the first frame."""
    base = np.array([0.0, 0.0, ground[0]])
    for row, number in enumerate(numbers):
        pose = np.concatenate([places[number] - base, turns[number], motion[row]])
        file = folder / "poses" / f"{number:06d}.json"
        write_pose(file, pose, float(ground[row] - base[2]), float(times[number]))


def _write_images(
    folder: Path, recording: Recording, numbers: NDArray[np.int64], times: Floats
) -> None:
    """Write the picture next in time to each frame as JPEG."""
    if not recording.images:
        recording.notes.append("--camera has no effect: the recording has no pictures")
        return
    make_folder(folder / "images")
    stamps = np.array([image.time_s for image in recording.images])
    for number in numbers:
        row = int(np.abs(stamps - times[number]).argmin())
        if abs(stamps[row] - times[number]) > _IMAGE_NEAR_S:
            continue
        pixels = cv2.imread(str(recording.images[row].path))
        if pixels is None:
            recording.damaged.append((str(recording.images[row].path), "not a readable picture"))
            continue
        encoded = cv2.imencode(".jpg", pixels)[1]
        file = folder / "images" / f"{number:06d}_CAM_FRONT.jpg"
        with atomic_path(file, flush=False) as temporary:
            temporary.write_bytes(encoded.tobytes())


def _finish(
    folder: Path,
    recording: Recording,
    grid: VoxelGrid,
    options: ConvertOptions,
    report: ConvertReport,
) -> None:
    """Write `recording.json`, and `session.json` as the last file."""
    sensors = {
        name: {"parent": "body", "matrix": matrix.tolist()}
        for name, matrix in recording.extrinsics.items()
    }
    write_json(folder / _REPORT, {"plan": _plan(grid, options), "report": asdict(report)})
    meta = SessionMeta(
        agent=recording.agent,
        dt_s=1.0 / options.rate_hz,
        grid={
            "range": [*grid.lower_m, *grid.upper_m],
            "voxel_size": list(grid.cell_m),
            "shape": list(grid.shape),
        },
        frames=report.frames,
        velocity_frame="world",
        attribution=recording.attribution,
        sensors=sensors,
        sources=[{"recording": recording.source, "licence": recording.licence}],
    )
    write_meta(folder, meta)
