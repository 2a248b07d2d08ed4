"""The part of `vlwm prepare` that turns recordings into session folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from vlwm.core.vocabulary import Agent

if TYPE_CHECKING:
    from vlwm.core.config.schema import Config
    from vlwm.core.data.recordings.options import ConvertReport
    from vlwm.core.data.recordings.readers.bags import BagSource
    from vlwm.core.data.recordings.recording import Recording


def check_sessions(root: Path, config: Config, *, strict: bool, json: bool) -> None:
    """Check every session of a folder and print a sentence about what is wrong with each.

    Raises:
        DataError: there is no session, or, with `strict`, one has a fault.
    """
    from dataclasses import asdict

    from vlwm.commands.shared.output import emit_json, mark
    from vlwm.core.data.recordings.checking.session_check import check_session
    from vlwm.core.data.session import Session, list_sessions
    from vlwm.core.errors import DataError
    from vlwm.core.geometry.grid import VoxelGrid

    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    folders = [root] if (root / "occupancy").is_dir() else list_sessions(root)
    found = [check_session(Session(folder), grid) for folder in folders]
    faulty = [c for c in found if c.faults]
    if json:
        emit_json({"sessions": [asdict(c) for c in found]})
    else:
        for check in found:
            facts = ", ".join(f"{name} {value:g}" for name, value in check.facts.items())
            print(f"{check.session}: {check.frames} frames, {facts}")
            for sentence in check.faults:
                print(f"  {mark('warn')} {sentence}")
            for sentence in check.cannot_tell:
                print(f"  cannot tell: {sentence}")
        print(f"{len(found)} sessions checked, {len(faulty)} with faults")
    if strict and faulty:
        raise DataError(
            f"{len(faulty)} of {len(found)} sessions have faults: {faulty[0].faults[0]}",
            where=faulty[0].session,
            remedy="correct the recording and prepare it again",
        )


@dataclass(frozen=True)
class RecordingRequest:
    """The operator's request; the fields are the options of the same names."""

    points: Path | None
    poses: Path | None
    extrinsic: Path | None
    poses_of: str
    axes: str | None
    dataset: str | None
    inputs: list[Path]
    agent: str | None
    rate_hz: float
    window_s: float
    lidar_delay_s: float
    keep_moving: bool
    topic_points: str | None
    topic_pose: str | None
    body_frame: str | None
    lidar: bool
    camera: bool
    strict: bool
    json: bool
    workers: int = 1
    dry_run: bool = False
    config: str = "finetune_6dof"
    sets: tuple[str, ...] = ()

    @property
    def asked(self) -> bool:
        """Return True where a recording, not a city model, is to be read."""
        return self.points is not None or self.dataset is not None

    @property
    def bag_parts(self) -> list[str]:
        """Return the options given that describe parts of a bag alone."""
        values = {"--topic-points": self.topic_points, "--topic-pose": self.topic_pose,
                  "--body-frame": self.body_frame}  # fmt: skip
        return [name for name, value in values.items() if value is not None]

    @property
    def parts(self) -> list[str]:
        """Return the options given that describe parts of any recording."""
        values = {"--poses": self.poses, "--extrinsic": self.extrinsic, "--axes": self.axes}
        found = [name for name, value in values.items() if value is not None]
        return [*found, *([] if self.poses_of == "body" else ["--poses-of"]), *self.bag_parts]


def refuse_strays(request: RecordingRequest) -> None:
    """Raise UsageError where an option would have no effect."""
    from vlwm.core.data.recordings.readers.bags import is_bag
    from vlwm.core.errors import UsageError

    if not request.asked and request.parts:
        raise UsageError(
            f"{request.parts[0]} needs the points of a recording",
            remedy="give --points DIR|CSV|BAG, or --dataset rosbag --input DIR",
        )
    if request.points is not None and request.dataset is not None:
        raise UsageError(
            "--points and --dataset exclude each other",
            remedy="give --dataset NAME --input DIR, or --points with --poses",
        )
    if request.dataset not in (None, "rosbag") and request.parts:
        raise UsageError(
            f"{request.parts[0]} does not go with --dataset {request.dataset}, which has its own",
            remedy="leave it out, or read the parts with --points and --poses",
        )
    if request.points is not None and not is_bag(request.points) and request.bag_parts:
        raise UsageError(
            f"{request.bag_parts[0]} belongs to a ROS bag, and --points names none",
            remedy="leave it out",
        )


def convert_recordings(request: RecordingRequest, config: Config, target: Path) -> None:
    """Write the sessions of the recordings into `target` and report each."""
    from vlwm.commands.shared.output import emit_json, warn
    from vlwm.commands.shared.prepare_output import train_command
    from vlwm.core.data.recordings.convert import convert
    from vlwm.core.data.recordings.options import ConvertOptions
    from vlwm.core.geometry.grid import VoxelGrid
    from vlwm.core.parallel import each

    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    options = ConvertOptions(
        rate_hz=request.rate_hz,
        window_s=request.window_s,
        lidar_delay_s=request.lidar_delay_s,
        remove_moving=not request.keep_moving,
        lidar=request.lidar,
        camera=request.camera,
    )
    if request.lidar:
        warn("--lidar has no effect: the scans stay in the recording")
    reports, recordings = [], open_recordings(request)
    if request.dry_run:
        _show_plan(recordings, request, target)
        return
    before = [len(recording.notes) for recording in recordings]

    def converted(number: int) -> ConvertReport:
        return convert(recordings[number], target, grid, options, _Progress())

    done = each(converted, range(len(recordings)), request.workers)
    for recording, known, report in zip(recordings, before, done, strict=True):
        _tell(recording, known, report, strict=request.strict)
        reports.append(report)
        if not request.json:
            _show(report, target)
    if request.json:
        from dataclasses import asdict

        emit_json({"output": str(target), "sessions": [asdict(r) for r in reports]})
    else:
        print(f"next: {train_command(target, request.config, request.sets)}")


def _tell(recording: Recording, known: int, report: ConvertReport, *, strict: bool) -> None:
    """Print the notes of a recording, `known` of them from before it was converted, and its faults.

    Raises:
        DataError: with `strict`, files could not be read, or the scans contradict their mount.
    """
    from vlwm.commands.shared.output import note, warn
    from vlwm.core.errors import DataError

    for line in recording.notes[:known]:
        note(f"{recording.name}: {line}")
    for line in report.notes[known:]:
        warn(f"{recording.name}: {line}")
    for line in report.faults:
        warn(f"{recording.name}: {line}")
    for line in report.cannot_tell:
        note(f"{recording.name}: cannot tell: {line}")
    for file, reason in report.damaged[:5]:
        warn(f"left out: {file}: {reason}")
    if report.damaged and strict:
        raise DataError(
            f"{len(report.damaged)} files could not be read",
            where=report.damaged[0][0],
            remedy="copy them again; without --strict they are left out and counted",
        )
    if report.faults and strict:
        raise DataError(
            f"the scans contradict their mount or their times: {report.faults[0]}",
            where=recording.name,
            remedy="correct the extrinsic, or give --lidar-delay SECONDS, and prepare again",
        )


def _show_plan(recordings: list[Recording], request: RecordingRequest, target: Path) -> None:
    """Print what would be made of recordings; no scan is read and nothing is written."""
    from vlwm.commands.shared.output import emit_json, note

    plan = []
    for recording in recordings:
        for line in recording.notes:
            note(f"{recording.name}: {line}")
        times = recording.poses.times_s
        seconds = float(times[-1] - times[0]) if len(times) else 0.0
        frames = int(seconds * request.rate_hz) + bool(len(times))
        plan.append({"name": recording.name, "agent": str(recording.agent), "seconds": seconds,
                     "poses": len(times), "frames_at_most": frames})  # fmt: skip
    if request.json:
        emit_json({"output": str(target), "dry_run": True, "recordings": plan})
        return
    print(f"Plan (nothing is written): {target}")
    for row in plan:
        print(
            f"  {row['name']}: {row['agent']}, {row['seconds']:.1f} s, {row['poses']} poses, at "
            f"most {row['frames_at_most']} frames at {request.rate_hz:g} Hz"
        )


def open_recordings(request: RecordingRequest) -> list[Recording]:
    """Return the recordings that a request names.

    Raises:
        UsageError: an option is missing or contradicts another.
        DataError: a source is missing or damaged.
    """
    from vlwm.core.data.recordings.readers.bags import is_bag, read_bag
    from vlwm.core.data.recordings.readers.folder import FolderSource, read_folder
    from vlwm.core.errors import UsageError

    if request.dataset is not None:
        return _dataset(request, request.dataset)
    if request.points is not None and is_bag(request.points):
        return [read_bag(_bag(request, request.points))]
    if request.points is None or request.poses is None:
        raise UsageError(
            "--points needs the poses of the vehicle",
            remedy="give --poses FILE (TUM, KITTI, CSV or PX4 .ulg)",
        )
    source = FolderSource(
        points=request.points,
        poses=request.poses,
        extrinsic=request.extrinsic,
        poses_of=request.poses_of,
        axes=request.axes,
        agent=_agent(request.agent) or Agent.DRONE,
    )
    return [read_folder(source)]


def _bag(request: RecordingRequest, path: Path) -> BagSource:
    """Return what a request takes from a bag."""
    from vlwm.core.data.recordings.readers.bags import BagSource

    return BagSource(
        path=path,
        topic_points=request.topic_points,
        topic_pose=request.topic_pose,
        body_frame=request.body_frame,
        poses=request.poses,
        extrinsic=request.extrinsic,
        axes=request.axes,
        agent=_agent(request.agent) or Agent.DRONE,
        poses_of=request.poses_of,
    )


def _dataset(request: RecordingRequest, name: str) -> list[Recording]:
    """Return the recordings of all --input folders of a named data set."""
    from dataclasses import replace

    from vlwm.core.data.recordings.readers.bags import read_bags
    from vlwm.core.data.recordings.readers.registry import read_dataset
    from vlwm.core.errors import UsageError

    if not request.inputs:
        raise UsageError(f"--dataset {name} needs its folder", remedy="give --input DIR")
    if name == "rosbag" and request.parts:
        return [r for root in request.inputs for r in read_bags(root, _bag(request, root))]
    found = [r for root in request.inputs for r in read_dataset(name, root)]
    agent = _agent(request.agent)
    return found if agent is None else [replace(r, agent=agent) for r in found]


def _agent(text: str | None) -> str | None:
    from vlwm.core.errors import UsageError

    if text is None or text in tuple(Agent):
        return text
    raise UsageError(
        f"a recording is made by one vehicle, not by {text}", remedy="use --agents drone or rover"
    )


class _Progress:
    """Report a session's progress every ten seconds."""

    def __init__(self) -> None:
        self.last = monotonic()

    def __call__(self, session: str, done: int, total: int) -> None:
        from vlwm.commands.shared.output import note

        if monotonic() - self.last >= 10.0:
            self.last = monotonic()
            note(f"{session}: {done} of {total} frames")


def _show(report: ConvertReport, target: Path) -> None:
    from vlwm.commands.shared.output import print_table

    share = 100 * report.moving_points / max(1, report.points)
    rows = [
        ["frames", str(report.frames)],
        ["frames without pose or points", str(report.without_pose)],
        ["scans, points", f"{report.scans}, {report.points}"],
        ["deskewed", "by the time of each point" if report.deskewed else "no times of points"],
        ["moving points left out", f"{report.moving_points} ({share:.2f} %)"],
        ["position spikes removed, jumps", f"{report.position_spikes}, {report.jumps}"],
        ["velocities clamped", str(report.clamped_velocities)],
        ["occupied, known", f"{100 * report.occupied_share:.2f} %, "
                            f"{100 * report.known_share:.1f} % of all cells"],
        ["files left out", str(len(report.damaged))],
    ]  # fmt: skip
    print_table(f"{report.session} in {target}", ["what", "value"], rows)
