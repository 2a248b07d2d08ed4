"""Read ROS 1 and ROS 2 bags (sqlite3 and mcap) with `rosbags`: points, poses, transforms.

Bags from before ROS 2 Iron hold no message definitions; their types come from a type store, and
Livox's `CustomMsg` is decoded here. Time stamps are those of the headers, simulated time included.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from vlwm.core.data.recordings.formats.axes import (
    AXES,
    Axes,
    check_frame,
    mount_to_standard,
    to_standard,
)
from vlwm.core.data.recordings.formats.extrinsic import inverse, read_extrinsic
from vlwm.core.data.recordings.formats.pose_files import read_poses
from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.data.recordings.readers.ros_messages import (
    LIVOX,
    POINT_CLOUD,
    frame_of,
    header_time,
    livox_points,
    point_cloud,
    pose_row,
    scan_of,
)
from vlwm.core.data.recordings.readers.tf_tree import TransformTree
from vlwm.core.data.recordings.recording import Recording, Scan
from vlwm.core.errors import DataError, MachineError
from vlwm.core.vocabulary import Agent

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection

Floats = NDArray[np.float64]

_POSES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "geometry_msgs/msg/TransformStamped",
)
"""pose messages in the order in which they are taken"""
_TRANSFORMS = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
_DISTROS = ("ROS2_HUMBLE", "ROS2_FOXY")
SUFFIXES = (".bag", ".mcap", ".db3")
_DAMAGE = (
    OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, AssertionError,
    OverflowError, MemoryError, RuntimeError, RecursionError, SyntaxError, struct.error,
    sqlite3.Error, zstandard.ZstdError,
)  # fmt: skip
"""what a cut or flipped file raises in rosbags and in the decompressors behind it"""


@dataclass(frozen=True)
class BagSource:
    """A bag and what to take from it.

    Attributes:
        path: a .bag or .mcap file, or the folder of a ROS 2 bag.
        topic_points, topic_pose: topics; None: the only or the busiest that will do.
        body_frame: of the vehicle in the transforms; None: the frame whose poses the bag has.
        poses: pose file; None: the poses of the bag.
        extrinsic: file of the mount; None: the transforms of the bag.
        axes: of the poses, by name; None: those of the pose file's format, else 'enu', as ROS
            prescribes.
        poses_of: 'body' or 'sensor', of a pose file.
    """

    path: Path
    topic_points: str | None = None
    topic_pose: str | None = None
    body_frame: str | None = None
    poses: Path | None = None
    extrinsic: Path | None = None
    axes: str | None = None
    agent: str = Agent.DRONE
    poses_of: str = "body"


def is_bag(path: Path) -> bool:
    """Return True for the name of a bag file or the folder of a ROS 2 bag."""
    return path.suffix.lower() in SUFFIXES or (path / "metadata.yaml").is_file()


def read_bags(root: Path, wanted: BagSource | None = None) -> list[Recording]:
    """Return the recordings of a bag, or of all bags in a folder.

    Args:
        wanted: what to take from each bag.

    Raises:
        DataError: there is none, or one of them lacks points or poses.
    """
    paths = [root] if is_bag(root) else sorted(p for p in root.glob("*") if is_bag(p))
    if not paths:
        raise DataError(
            "no ROS bag here", where=root, remedy=f"give a folder of {', '.join(SUFFIXES)} files"
        )
    return [read_bag(replace(wanted or BagSource(path), path=path)) for path in paths]


def read_bag(source: BagSource) -> Recording:
    """Return the recording of a bag.

    Raises:
        DataError: the bag is damaged, or has no points, poses or mount; topics and frames seen are
            named.
        MachineError: rosbags is missing.
        UsageError: an option names what does not exist.
    """
    check_frame(source.poses_of, source.axes)
    with _opened(source.path) as bag:
        points = _choose(source, bag, (POINT_CLOUD, *LIVOX), source.topic_points, "points")
        tree = _transforms(bag)
        frame = _frame_of_points(bag, points, source.path)
        stamped = _is_stamped(bag, points)
        track, body, axes, notes = _poses(source, bag, tree)
    mount = _mount(source, tree, frame, body)
    if source.body_frame not in (None, body) and source.poses is None:
        track = track.moved_by(_between(tree, source.body_frame or body, body, source.path))
        mount = _between(tree, body, source.body_frame or body, source.path) @ mount
    # The transforms of a bag have the body of ROS, whatever the axes of poses from a file.
    own_body = source.poses is not None and source.extrinsic is None
    mount = mount_to_standard(mount, AXES["enu"] if own_body else axes)
    if source.poses is not None and source.poses_of == "sensor":
        # World ← sensor needs the world's axes alone; body ← sensor is the mount.
        track = to_standard(track, Axes(axes.world, np.eye(3))).moved_by(inverse(mount))
    else:
        track = to_standard(track, axes)
    notes = [f"points of {points[0].topic}, frame {frame}", *notes]
    damaged: list[tuple[str, str]] = []
    topics = [c.topic for c in points]
    return Recording(
        name=source.path.stem,
        agent=source.agent,
        scans=lambda: _scans(source.path, topics, damaged, stamped),
        poses=track,
        extrinsics={"LIDAR": mount},
        notes=notes,
        damaged=damaged,
        source=str(source.path),
    )


@contextmanager
def _opened(path: Path) -> Iterator[AnyReader]:
    """Open a bag; without definitions of its own, with the types of a ROS distribution.

    Raises:
        DataError: the bag is missing or damaged.
        MachineError: rosbags is missing.
    """
    try:
        from rosbags.highlevel import AnyReader, AnyReaderError
        from rosbags.rosbag1 import ReaderError as Ros1Error
        from rosbags.rosbag2 import ReaderError as Ros2Error
        from rosbags.typesys import Stores, get_typestore
        from rosbags.typesys.base import TypesysError
    except ImportError as error:
        raise MachineError(
            "reading ROS bags needs rosbags", where=path, remedy="pip install 'vlwm[bags]'"
        ) from error
    place = path.parent if path.suffix == ".db3" and _has_index(path.parent) else path
    refused: tuple[type[Exception], ...] = (
        AnyReaderError,
        Ros1Error,
        Ros2Error,
        TypesysError,
        *_DAMAGE,
        *_of_sqlite(),
    )
    try:
        store = get_typestore(Stores[_DISTROS[0]])
        with AnyReader([place], default_typestore=store) as reader:
            yield reader
    except FileNotFoundError as error:
        raise DataError("no such bag", where=path, remedy="check --points") from error
    except refused as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"the bag cannot be read: {reason}",
            where=path,
            remedy="copy it again, or restore its index with rosbag reindex or ros2 bag reindex",
        ) from error


def _of_sqlite() -> tuple[type[Exception], ...]:
    """Return the errors of the SQLite library that newer versions of rosbags bring."""
    try:
        import apsw
    except ImportError:
        return ()
    return (apsw.Error,)


def _has_index(folder: Path) -> bool:
    return (folder / "metadata.yaml").is_file()


def _choose(
    source: BagSource, bag: AnyReader, kinds: tuple[str, ...], topic: str | None, what: str
) -> list[Connection]:
    """Return the connections of the topic that was asked for, or of the busiest of some types."""
    named = [c for c in bag.connections if topic in (None, c.topic) and c.msgtype in kinds]
    busy = [c for c in named if c.msgcount]
    if not busy:
        seen = ", ".join(sorted({f"{c.topic} ({c.msgtype})" for c in bag.connections})[:8])
        wanted = f" on {topic}" if topic else ""
        raise DataError(
            f"the bag has no {what}{wanted}; its topics are {seen or 'none'}",
            where=source.path,
            remedy="record PointCloud2 or Livox CustomMsg with Odometry, PoseStamped or TF, "
            "and name them with --topic-points and --topic-pose",
        )
    best = max(busy, key=lambda c: (-kinds.index(c.msgtype), c.msgcount))
    return [c for c in busy if c.topic == best.topic]


def _decoded(bag: AnyReader, connection: Connection, raw: bytes) -> Any:
    """Return a message, whose fields its definition in the bag names."""
    return bag.deserialize(raw, connection.msgtype)


def _transforms(bag: AnyReader) -> TransformTree:
    tree = TransformTree()
    topics = [c for c in bag.connections if c.msgtype in _TRANSFORMS]
    for connection, stamp, raw in bag.messages(topics) if topics else ():
        static = "static" in connection.topic
        for edge in _decoded(bag, connection, raw).transforms:
            child, row = pose_row(edge, _POSES[3], stamp)
            tree.add(frame_of(edge.header.frame_id), child, row, static)
    tree.close()
    return tree


def _frame_of_points(bag: AnyReader, points: list[Connection], path: Path) -> str:
    for connection, _, raw in bag.messages(points):
        if connection.msgtype in LIVOX:
            return livox_points(raw, bag.is2)[1].lstrip("/")
        return frame_of(_decoded(bag, connection, raw).header.frame_id)
    raise DataError("the topic of points is empty", where=path, remedy="name another one")


def _is_stamped(bag: AnyReader, connections: list[Connection]) -> bool:
    """Return True if one of the first messages has a time stamp in its header.

    Simulated time begins at 0, so a stamp of 0 alone does not mean that there is none.
    """
    for count, (connection, _, raw) in enumerate(bag.messages(connections)):
        if connection.msgtype in LIVOX:
            stamp = livox_points(raw, bag.is2)[0]
        else:
            stamp = header_time(_decoded(bag, connection, raw).header)
        if stamp > 0:
            return True
        if count >= 2:
            break
    return False


def _poses(
    source: BagSource, bag: AnyReader, tree: TransformTree
) -> tuple[PoseTrack, str, Axes, list[str]]:
    """Return the poses, the frame that they are of, their axes, and sentences about them."""
    if source.poses is not None:
        return _poses_of_file(source, source.poses)
    track, body, notes = _poses_of_bag(source, bag, tree)
    return track, body, AXES[source.axes or "enu"], notes


def _poses_of_file(source: BagSource, path: Path) -> tuple[PoseTrack, str, Axes, list[str]]:
    """Return the poses of a file: those of PX4 are north-east-down.

    Raises:
        DataError: the file has no times, and so cannot be matched with a bag.
    """
    found = read_poses(path)
    if not found.timed:
        raise DataError(
            "the pose file has no times, and a bag does not number its scans",
            where=path,
            remedy="give the poses with their times, as TUM lines t x y z qx qy qz qw",
        )
    name = source.axes or found.axes or "enu"
    notes = [*found.notes, f"axes of the poses: {name}"]
    return found.track, source.body_frame or "base_link", AXES[name], notes


def _poses_of_bag(
    source: BagSource, bag: AnyReader, tree: TransformTree
) -> tuple[PoseTrack, str, list[str]]:
    """Return the poses of a bag, the frame that they are of, and sentences about them."""
    wanted = source.body_frame or "base_link"
    have = any(c.msgtype in _POSES and c.msgcount for c in bag.connections)
    world = tree.world_of(wanted)
    if source.topic_pose is None and not have and world is not None:
        track = tree.track(wanted, world)
        return track, wanted, [f"{len(track)} poses of {wanted} in {world}, from the transforms"]
    if source.topic_pose in ("/tf", "tf") and world is not None:
        return tree.track(wanted, world), wanted, [f"poses of {wanted} in {world}, from /tf"]
    topics = _choose(source, bag, _POSES, source.topic_pose, "poses")
    rows, child = [], ""
    stamped = _is_stamped(bag, topics)
    for connection, stamp, raw in bag.messages(topics):
        message = _decoded(bag, connection, raw)
        child, row = pose_row(message, connection.msgtype, 0 if stamped else stamp)
        rows.append(row)
    table = np.array(rows)
    table = table[np.isfinite(table).all(axis=1) & (np.linalg.norm(table[:, 4:], axis=1) > 1e-6)]
    if not len(table):
        raise DataError(
            f"no pose on {topics[0].topic} is finite", where=source.path, remedy="name another one"
        )
    track = PoseTrack.of(table[:, 0], table[:, 1:4], table[:, 4:8])
    return track, child or wanted, [f"{len(track)} poses of {child or wanted} on {topics[0].topic}"]


def _mount(source: BagSource, tree: TransformTree, frame: str, body: str) -> Floats:
    """Return the matrix sensor → frame of the poses."""
    if source.extrinsic is not None:
        return read_extrinsic(source.extrinsic)
    return _between(tree, frame, body, source.path)


def _between(tree: TransformTree, source: str, target: str, path: Path) -> Floats:
    found = np.eye(4) if source == target else tree.between(source, target)
    if found is None:
        seen = ", ".join(tree.frames[:10]) or "none"
        raise DataError(
            f"no fixed transform leads from {source} to {target}; the frames are {seen}",
            where=path,
            remedy="give the mount with --extrinsic FILE, or another --body-frame",
        )
    return found


def _scans(
    path: Path, topics: list[str], damaged: list[tuple[str, str]], stamped: bool
) -> Iterator[Scan]:
    """Yield the scans of a bag; where it breaks off, what was read before counts."""
    damaged.clear()
    try:
        yield from _readable_scans(path, topics, damaged, stamped)
    except DataError as error:
        damaged.append((str(path), f"the rest of the bag: {error.what}"))


def _readable_scans(
    path: Path, topics: list[str], damaged: list[tuple[str, str]], stamped: bool
) -> Iterator[Scan]:
    with _opened(path) as bag:
        points = [c for c in bag.connections if c.topic in topics]
        for number, (connection, stamp, raw) in enumerate(bag.messages(points)):
            try:
                if connection.msgtype in LIVOX:
                    stamp_s, _, cloud = livox_points(raw, bag.is2)
                else:
                    message = _decoded(bag, connection, raw)
                    stamp_s, cloud = header_time(message.header), point_cloud(message)
            except ValueError as error:
                damaged.append((f"{path}: message {number} of {connection.topic}", str(error)))
                continue
            yield scan_of(cloud, stamp_s if stamped else stamp * 1e-9)
