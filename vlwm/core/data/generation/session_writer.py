"""The files of one session: poses, occupancy, and what its sensors record.

What is there is kept, what is missing is made, and `session.json` is written last, so a session can
be stopped anywhere and resumes to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.generation.frame_jobs import Job, Scene, make_frames
from vlwm.core.data.generation.session_plans import PlannedSession, PreparePlan
from vlwm.core.data.npz import read_occupancy
from vlwm.core.data.sensors.camera import read_picture
from vlwm.core.data.sensors.lidar import read_lidar
from vlwm.core.data.sensors.observe import (
    POSE_NOISE,
    Track,
    believed_track,
    describe_observer,
)
from vlwm.core.data.sensors.recorder import Recorder
from vlwm.core.data.sensors.rig import describe_sensors
from vlwm.core.data.session import write_meta, write_pose
from vlwm.core.errors import DataError
from vlwm.core.files import make_folder, remove_temporaries
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.parallel import each

OnFrames = Callable[[str, int, int], None]
"""called with (session, frames done, frames in all)"""


_SHORT = 32
"""frames a worker, up to which a session is too short to share out"""


def make_sessions(
    output: Path,
    sessions: list[PlannedSession],
    scene: Scene,
    plan: PreparePlan,
    on_frames: OnFrames,
) -> int:
    """Make what is missing of some sessions in `output`; the number of frames that were made.

    Of long sessions the frames are shared out to the workers, of short ones the sessions: a pool
    of many workers takes longer to begin than they take for a few frames.
    """
    short = plan.frames <= _SHORT * plan.workers and not _records(plan)
    if plan.workers <= 1 or len(sessions) < plan.workers or not short:
        return sum(make_session(output / p.name, p, scene, plan, on_frames) for p in sessions)
    alone, made = replace(plan, workers=1), 0

    def make(planned: PlannedSession) -> int:
        return make_session(output / planned.name, planned, scene, alone, _quiet)

    scene.frame(sessions[0].ego()[0])  # compiles before forking
    for planned, frames in zip(sessions, each(make, sessions, plan.workers), strict=True):
        on_frames(planned.name, plan.frames, plan.frames)
        made += frames
    return made


def _quiet(session: str, done: int, frames: int) -> None:
    """Ignore the report: nobody reads a worker's progress."""


def make_session(
    folder: Path, planned: PlannedSession, scene: Scene, plan: PreparePlan, on_frames: OnFrames
) -> int:
    """Make what is missing of a session; the number of frames that were made.

    In a finished session, files that are there are whole, or else the packed store finds out.
    """
    finished = (folder / "session.json").exists()
    for name in ("", "poses", "occupancy", *_extras(plan)):
        remove_temporaries(make_folder(folder / name))
    path, track = planned.trajectory, _believed(planned, plan)
    for i in range(plan.frames):
        pose = folder / "poses" / f"{i:06d}.json"
        if not (finished and pose.exists()):
            other = None if track is None else (track.poses[i], float(track.ground_z[i]))
            write_pose(pose, path.poses[i], float(path.ground_z[i]), float(path.times_s[i]), other)
    ego = planned.ego()
    jobs = [_job(folder, i, ego[i], plan, scene.grid, not finished) for i in range(plan.frames)]
    missing = [job for job in jobs if job.occupancy or job.lidar or job.image]
    on_frames(planned.name, plan.frames - len(missing), plan.frames)
    recorder = _recorder(planned, scene, plan) if _records(plan) and missing else None
    for done, _ in enumerate(make_frames(scene, missing, plan.workers, recorder), 1):
        on_frames(planned.name, plan.frames - len(missing) + done, plan.frames)
    scene.buildings.let_go()
    if not finished:
        agent = planned.meta.agent
        sensors = describe_sensors(agent, plan.lidar, plan.camera)
        sensors |= describe_observer(agent, plan.observe, plan.pose_noise)
        write_meta(folder, replace(planned.meta, sensors=sensors))
    return len(missing)


def _extras(plan: PreparePlan) -> list[str]:
    """Return folders of the sensors that the plan asks for."""
    return [n for n, asked in (("lidar", plan.lidar is not None), ("images", plan.camera)) if asked]


def _records(plan: PreparePlan) -> bool:
    """Return True if the plan asks for anything that a sensor sees."""
    return bool(_extras(plan)) or plan.observe is not None


def _believed(planned: PlannedSession, plan: PreparePlan) -> Track | None:
    """Return the session's path as its vehicle believes it; None where that is the true one."""
    noise = POSE_NOISE[plan.pose_noise]
    if noise is None:
        return None
    path = planned.trajectory
    return believed_track(Track(path.poses, path.ground_z), noise, planned.meta.seed or 0)


def _recorder(planned: PlannedSession, scene: Scene, plan: PreparePlan) -> Recorder:
    return Recorder(
        scene.buildings,
        scene.city,
        planned.trajectory,
        planned.offset,
        planned.meta.seed or 0,
        plan.lidar,
        plan.camera,
        observe=plan.observe,
        grid=scene.grid,
        believed=_believed(planned, plan),
    )


def _job(
    folder: Path, i: int, ego: NDArray[np.float64], plan: PreparePlan, grid: VoxelGrid, read: bool
) -> Job:
    """Return the files of frame `i` that are missing or, with `read`, damaged."""
    frame = _frame_path(folder, i)
    lidar, image = folder / f"lidar/{i:06d}_LIDAR.npy", folder / f"images/{i:06d}_CAM_FRONT.jpg"
    return Job(
        number=i,
        ego=ego,
        occupancy=None if _is_there(frame, grid, read=read) else frame,
        lidar=lidar if plan.lidar and not _opens(lidar, read_lidar, read) else None,
        image=image if plan.camera and not _opens(image, read_picture, read) else None,
    )


def _opens(path: Path, reader: Callable[[Path], object], read: bool) -> bool:
    """Return True if a sensor's file exists and, with `read`, is whole."""
    if not path.exists():
        return False
    try:
        return not read or reader(path) is not None
    except DataError:
        return False


def _frame_path(folder: Path, number: int) -> Path:
    return folder / "occupancy" / f"{number:06d}_occupancy.npz"


def _is_there(path: Path, grid: VoxelGrid, *, read: bool) -> bool:
    """Return True if a frame exists and, with `read`, is whole."""
    if not path.exists():
        return False
    try:
        return not read or read_occupancy(path).shape == grid.shape
    except DataError:
        return False
