"""Turn a recording into a session folder: frames at an even rate, occupied, free and unknown.

Scans are read once, in order, and kept for the few seconds that the next frames need, so memory
depends on the window and not on the recording. Frames that are there and whole are kept: a killed
conversion resumes and ends with the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.npz import (
    CLASSES,
    KNOWN,
    OCCUPANCY,
    SEEN_FREE,
    SEEN_OCCUPIED,
    read_layers,
    write_layers,
)
from vlwm.core.data.recordings.accumulate import accumulate
from vlwm.core.data.recordings.ground import filled, ground_under
from vlwm.core.data.recordings.options import RECORDING, ConvertOptions, ConvertReport
from vlwm.core.data.recordings.placing import PlacedScan
from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.data.recordings.recording import (
    MAX_SPEED_M_S,
    MAX_TURN_RAD_S,
    Recording,
)
from vlwm.core.data.recordings.scan_window import ScanWindow
from vlwm.core.data.recordings.session_files import ProgressFile, write_images, write_poses
from vlwm.core.data.session import SessionMeta, write_meta
from vlwm.core.errors import DataError
from vlwm.core.files import make_folder, read_json, remove_temporaries, write_json
from vlwm.core.geometry.frames import heading_of
from vlwm.core.geometry.grid import VoxelGrid

Floats = NDArray[np.float64]
OnFrames = Callable[[str, int, int], None]
"""called with (session, frames done, frames in all)"""


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
    plan = _plan(recording, grid, options)
    if _is_done(folder, plan):
        return _read_report(folder)
    _begin(folder, plan)
    frames = ScanWindow(recording, poses, options, report)
    work = _Frames(folder, grid, len(times))
    first = work.resume(frames)
    for number, scans, moving in frames.around(times, first):
        if not valid[number] or not scans:
            continue
        level = ground_under(scans, places[number])
        x, y, z = (float(v) for v in places[number])
        ego = np.array([x, y, work.ground_at(number, level, z), heading_of(turns[number])])
        if not work.has(number):
            layers = _layers(scans, moving, times[number], ego, grid, 1.0 / options.rate_hz)
            work.write(number, _labelled(layers, recording, number))
        if number + 1 < len(times):  # the end of the scans is read again by the next start
            work.note(number, frames)
        on_frames(name, number + 1, len(times))
    if not work.cells:
        raise _nothing(recording, poses, frames)
    numbers = np.array(sorted(work.cells))
    report.frames, report.without_pose = len(numbers), int(len(times) - len(numbers))
    total = len(numbers) * grid.num_cells
    report.occupied_share, report.known_share = work.occupied / total, work.known / total
    report.notes = [*report.notes, *frames.remarks(), *_unseen(work.levels[numbers])]
    report.faults, report.cannot_tell = frames.fit.sentences()
    motion = _velocities(poses, times[numbers], limit, report)
    write_poses(folder, numbers, times, places, turns, motion, work.ground[numbers])
    if options.camera:
        report.notes += write_images(folder, recording, numbers, times)
    _finish(folder, recording, grid, options, report)
    work.progress.remove()
    return report


class _Frames:
    """The frames of a session that are whole, and the terrain under each.

    Args:
        folder: of the session.
        count: number of frames in all.
    """

    def __init__(self, folder: Path, grid: VoxelGrid, count: int) -> None:
        self.folder, self.grid = folder, grid
        self.levels, self.ground = np.full(count, np.nan), np.zeros(count)
        self.cells: dict[int, None] = {}
        self.occupied = self.known = 0
        self.progress = ProgressFile(folder)

    def resume(self, frames: ScanWindow) -> int:
        """Return the number of the first frame that an earlier start has not finished."""
        found = self.progress.read()
        if found is None or len(found["levels"]) >= len(self.levels):
            return 0
        counts = [_counts(self._file(n), self.grid) for n in found["cells"]]
        whole = [c for c in counts if c is not None]
        if len(whole) < len(counts):  # a frame was lost: make it again, with all that comes after
            return 0
        first = len(found["levels"])
        self.levels[:first] = [np.nan if v is None else v for v in found["levels"]]
        self.ground[:first] = found["ground"]
        self.cells = dict.fromkeys(found["cells"])
        self.occupied, self.known = sum(c[0] for c in whole), sum(c[1] for c in whole)
        frames.resume(found["scans"])
        return first

    def ground_at(self, number: int, level: float, vehicle_m: float) -> float:
        """Return the height of the terrain under a frame; z counts from the vehicle if unseen."""
        self.levels[number] = level
        self.ground[number] = filled(self.levels[: number + 1], vehicle_m)
        return float(self.ground[number])

    def has(self, number: int) -> bool:
        """Count the cells of a frame that an earlier start wrote; False where it is not whole."""
        counts = _counts(self._file(number), self.grid)
        if counts is not None:
            self._count(number, counts)
        return counts is not None

    def write(self, number: int, layers: dict[str, NDArray[np.uint8]]) -> None:
        """Write a frame and count its cells."""
        write_layers(self._file(number), layers)
        self._count(number, _sums(layers))

    def _count(self, number: int, counts: tuple[int, int]) -> None:
        self.occupied, self.known = self.occupied + counts[0], self.known + counts[1]
        self.cells[number] = None

    def note(self, number: int, frames: ScanWindow) -> None:
        """Note that all frames up to `number` are done."""
        levels = self.levels[: number + 1].tolist()
        self.progress.note(
            lambda: {
                "levels": [None if v != v else v for v in levels],
                "ground": self.ground[: number + 1].tolist(),
                "cells": list(self.cells),
                "scans": frames.counts(),
            }
        )

    def _file(self, number: int) -> Path:
        return self.folder / "occupancy" / f"{number:06d}_occupancy.npz"


def _unseen(levels: Floats) -> list[str]:
    """Return a sentence where the first frames saw no terrain; levels (F,) are NaN there."""
    count = int(np.argmin(np.isnan(levels))) if np.isfinite(levels).any() else len(levels)
    if not count:
        return []
    return [f"no return below the vehicle in the first {count} frames: there z counts from it"]


def _plan(recording: Recording, grid: VoxelGrid, options: ConvertOptions) -> dict[str, Any]:
    plan = {"source": recording.source, "options": asdict(options), "grid": asdict(grid)}
    return dict(json.loads(json.dumps(plan)))


def _is_done(folder: Path, plan: dict[str, Any]) -> bool:
    """Return True where the session is whole and was made with the same options."""
    files = folder / "session.json", folder / RECORDING
    return all(f.exists() for f in files) and read_json(files[1])["plan"] == plan


def _read_report(folder: Path) -> ConvertReport:
    return ConvertReport(**read_json(folder / RECORDING)["report"])


def _begin(folder: Path, plan: dict[str, Any]) -> None:
    """Make the folders; frames of other options are removed.

    Raises:
        DataError: the folder is the session of another recording.
    """
    started = folder / RECORDING
    before = read_json(started)["plan"] if started.exists() else None
    if before is not None and before["source"] != plan["source"]:
        raise DataError(
            f"this session is already made from {before['source']}",
            where=folder,
            remedy="give another --output, or rename one of the recordings",
        )
    for part in ("", "poses", "occupancy"):
        remove_temporaries(make_folder(folder / part))
    (folder / "session.json").unlink(missing_ok=True)
    if before == plan:
        return
    ProgressFile(folder).remove()
    for part in ("poses", "occupancy", "images", "lidar"):
        for file in (folder / part).glob("*"):
            file.unlink()
    write_json(started, {"plan": plan})


def _counts(file: Path, grid: VoxelGrid) -> tuple[int, int] | None:
    """Return the occupied and known cells of a frame that an earlier start wrote, or None."""
    if not file.exists():
        return None
    try:
        layers = read_layers(file)
    except DataError:
        return None  # damaged: it is written again
    return _sums(layers) if layers[OCCUPANCY].shape == grid.shape else None


def _sums(layers: dict[str, NDArray[np.uint8]]) -> tuple[int, int]:
    """Return the numbers of occupied and of known cells."""
    occupied = layers[OCCUPANCY]
    known = int(layers[KNOWN].sum()) if KNOWN in layers else occupied.size
    return int(occupied.sum()), known


def _frame_times(recording: Recording, poses: PoseTrack, rate_hz: float) -> Floats:
    """Return the times of the frames: the source's own, or an even raster over the poses."""
    if recording.frame_times_s is not None:
        return recording.frame_times_s
    span = poses.times_s[-1] - poses.times_s[0]
    return poses.times_s[0] + np.arange(int(span * rate_hz + 1e-6) + 1) / rate_hz


def _nothing(recording: Recording, poses: PoseTrack, frames: ScanWindow) -> DataError:
    if np.isnan(frames.first_s):
        return DataError(
            "the recording holds no scan that could be read",
            where=recording.source,
            remedy="check the files; the first of them are named above",
        )
    if frames.out_of_range and np.isnan(frames.distance_m):
        return DataError(
            "the scans of the recording are empty",
            where=recording.source,
            remedy="check the files, and --topic-points of a bag",
        )
    if frames.out_of_range:
        low, high = frames.options.range_m
        return DataError(
            f"no return is between {low:g} and {high:g} m from its sensor; they are "
            f"{frames.distance_m:.6g} m away",
            where=recording.source,
            remedy="give points in metres and in the sensor's frame: not in millimetres, and not "
            "in the coordinates of a map",
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


def _labelled(
    layers: dict[str, NDArray[np.uint8]], recording: Recording, number: int
) -> dict[str, NDArray[np.uint8]]:
    """Return the layers with the classes of a frame, whose labels then are its truth.

    Labels of another grid than the session's are left out and counted.
    """
    if recording.labels is None:
        return layers
    try:
        classes = recording.labels.read(number)
    except DataError as error:
        recording.damaged.append((error.where or recording.source, error.what))
        return layers
    if classes is None:
        return layers
    if classes.shape != layers[OCCUPANCY].shape:
        shape = "x".join(map(str, classes.shape))
        recording.damaged.append((f"frame {number}", f"labels of {shape} cells, another grid"))
        return layers
    occupied = (classes != recording.labels.free).astype(np.uint8)
    seen = {name: layers[name] for name in (SEEN_OCCUPIED, SEEN_FREE)}
    return {OCCUPANCY: occupied, **seen, CLASSES: classes}  # labels are complete: all is known


def _layers(
    scans: list[PlacedScan],
    moving: list[NDArray[np.bool_]],
    now_s: float,
    ego: Floats,
    grid: VoxelGrid,
    step_s: float,
) -> dict[str, NDArray[np.uint8]]:
    """Return the layers of a frame: the accumulated truth, and what was seen since the last frame.

    The truth may use scans after the frame. What the sensor saw must not: a forecast reads it.
    """
    truth = accumulate(scans, moving, ego, grid)
    rows = [k for k, s in enumerate(scans) if now_s - step_s < s.time_s <= now_s]
    everything = [np.zeros(len(scans[k].points), dtype=bool) for k in rows]
    seen = accumulate([scans[k] for k in rows], everything, ego, grid)
    return {
        OCCUPANCY: truth.occupied,
        KNOWN: truth.known,
        SEEN_OCCUPIED: seen.occupied,
        SEEN_FREE: seen.free,
    }


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
    write_json(
        folder / RECORDING, {"plan": _plan(recording, grid, options), "report": asdict(report)}
    )
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
        split=recording.split,
        attribution=", ".join(filter(None, (recording.attribution, recording.licence))),
        sensors=sensors,
        sources=[{"recording": recording.source, "licence": recording.licence}],
    )
    write_meta(folder, meta)
