"""ROS bags: written by other people's writers, read back to the session of the recording."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.data.recordings.formats import offsets
from tests.core.data.recordings.known_city import MOUNT, KnownCity
from tests.core.data.recordings.sessions import (
    CITY,
    assert_equals_the_generic_door,
    session_of,
    share_of_equal_cells,
)
from vlwm.core.data.recordings.readers.bags import BagSource, read_bag, read_bags
from vlwm.core.data.recordings.readers.ros_messages import livox_points, point_cloud
from vlwm.core.data.session import Session
from vlwm.core.errors import VlwmError

pytest.importorskip("rosbags", reason="ROS bags need the extra vlwm[bags]")
RECORDING = CITY.recording
RULE = "=" * 80 + "\n"
LOG_AHEAD_NS = 1_700_000_000 * 10**9
"""the clock of the recorder, other than that of the time stamps"""
LIVOX_MSG = (
    "std_msgs/Header header\nuint64 timebase\nuint32 point_num\nuint8 lidar_id\nuint8[3] rsvd\n"
    "livox_ros_driver2/CustomPoint[] points\n"
)
LIVOX_POINT = (
    "uint32 offset_time\n"
    + "".join(f"float32 {a}\n" for a in "xyz")
    + "uint8 reflectivity\nuint8 tag\nuint8 line\n"
)


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return session_of(RECORDING, tmp_path_factory.mktemp("direct"))[0]


def quaternion(matrix: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(matrix[:3, :3]).as_quat()


class Store:
    """Messages of one distribution."""

    def __init__(self, name: str) -> None:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        self.store = get_typestore(Stores[name])
        self.store.register(get_types_from_msg(LIVOX_POINT, "livox_ros_driver2/msg/CustomPoint"))
        self.store.register(get_types_from_msg(LIVOX_MSG, "livox_ros_driver2/msg/CustomMsg"))
        self.ros1 = "ROS1" in name
        if self.ros1:  # not part of the store
            edges = "geometry_msgs/TransformStamped[] transforms\n"
            self.store.register(get_types_from_msg(edges, "tf2_msgs/msg/TFMessage"))

    def make(self, kind: str, *values: Any) -> Any:
        return self.store.types[kind](*values)

    def header(self, time_s: float, frame: str) -> Any:
        stamp = self.make("builtin_interfaces/msg/Time", int(time_s), round(time_s % 1 * 1e9))
        return self.make("std_msgs/msg/Header", *([0] if self.ros1 else []), stamp, frame)

    def transform(self, time_s: float, parent: str, child: str, place: Any, turn: Any) -> Any:
        move = self.make("geometry_msgs/msg/Vector3", *map(float, place))
        spin = self.make("geometry_msgs/msg/Quaternion", *map(float, turn))
        moved = self.make("geometry_msgs/msg/Transform", move, spin)
        edge = self.make(
            "geometry_msgs/msg/TransformStamped", self.header(time_s, parent), child, moved
        )
        return self.make("tf2_msgs/msg/TFMessage", [edge])

    def odometry(self, time_s: float, place: Any, turn: Any) -> Any:
        point = self.make("geometry_msgs/msg/Point", *map(float, place))
        spin = self.make("geometry_msgs/msg/Quaternion", *map(float, turn))
        pose = self.make(
            "geometry_msgs/msg/PoseWithCovariance",
            self.make("geometry_msgs/msg/Pose", point, spin),
            np.zeros(36),
        )
        zero = self.make("geometry_msgs/msg/Vector3", 0.0, 0.0, 0.0)
        twist = self.make(
            "geometry_msgs/msg/TwistWithCovariance",
            self.make("geometry_msgs/msg/Twist", zero, zero),
            np.zeros(36),
        )
        return self.make(
            "nav_msgs/msg/Odometry", self.header(time_s, "odom"), "base_link", pose, twist
        )

    def cloud(self, scan: Any, big: bool = False) -> Any:
        """An organised cloud of two rows with padding, a NaN in each, and time in nanoseconds."""
        half = -(-len(scan.points) // 2)
        order = ">" if big else "<"
        layout = np.dtype(
            {
                "names": ["x", "y", "z", "intensity", "t"],
                "itemsize": 34,
                "formats": [order + f for f in ("f4", "f4", "f4", "f4", "u4")],
                "offsets": [4, 8, 12, 20, 26],
            }
        )
        rows = np.zeros((2, half + 1), layout)
        flat = rows[:, :half].reshape(-1)
        flat["x"][:] = np.nan
        for k, axis in enumerate("xyz"):
            flat[axis][: len(scan.points)] = scan.points[:, k]
        flat["intensity"][: len(scan.points)] = scan.intensity
        flat["t"][: len(scan.points)] = np.round(offsets(scan) * 1e9)
        rows[:, :half] = flat.reshape(2, half)
        rows["x"][:, half] = np.nan
        kinds = {"x": (4, 7), "y": (8, 7), "z": (12, 7), "intensity": (20, 7), "t": (26, 6)}
        fields = [
            self.make("sensor_msgs/msg/PointField", n, *where, 1) for n, where in kinds.items()
        ]
        data = b"".join(row.tobytes() + b"\xaa" * 6 for row in rows)
        width = half + 1
        return self.make(
            "sensor_msgs/msg/PointCloud2",
            self.header(scan.time_s, "lidar"),
            2,
            width,
            fields,
            big,
            34,
            width * 34 + 6,
            np.frombuffer(data, np.uint8),
            False,
        )

    def livox(self, scan: Any) -> Any:
        times = np.round(offsets(scan) * 1e9).astype(int)
        point = self.store.types["livox_ros_driver2/msg/CustomPoint"]
        points = [
            point(int(t), float(p[0]), float(p[1]), float(p[2]), int(i), 0, 0)
            for t, p, i in zip(times, scan.points, scan.intensity, strict=True)
        ]
        head = self.header(scan.time_s, "lidar")
        return self.make(
            "livox_ros_driver2/msg/CustomMsg",
            head,
            7,
            len(points),
            1,
            np.zeros(3, np.uint8),
            points,
        )


Rows = Iterable[tuple[str, str, float, Any]]


def messages(
    store: Store, points: str = "cloud", poses: str = "odom", city: KnownCity = CITY
) -> Rows:
    """Topic, type, time and message of the known city."""
    static = store.transform(city.start_s, "base_link", "lidar", MOUNT[:3, 3], quaternion(MOUNT))
    yield "/tf_static", "tf2_msgs/msg/TFMessage", city.start_s, static
    track = city.recording.poses
    times = np.round(track.times_s, 6) + 0.0
    for t, p, q in zip(times, track.positions, track.quaternions, strict=True):
        if t < 0:  # before a simulation begins
            continue
        if poses == "odom":
            yield "/odom", "nav_msgs/msg/Odometry", t, store.odometry(t, p, q)
        else:
            yield "/tf", "tf2_msgs/msg/TFMessage", t, store.transform(t, "odom", "base_link", p, q)
    for scan in city.scans:
        kind = {"cloud": "sensor_msgs/msg/PointCloud2"}.get(
            points, "livox_ros_driver2/msg/CustomMsg"
        )
        message = store.livox(scan) if points == "livox" else store.cloud(scan)
        yield "/points", kind, scan.time_s, message


def write_rosbags(
    path: Path, distro: str, plugin: str, points: str, poses: str, city: KnownCity = CITY
) -> Path:
    """With the writers of rosbags."""
    from rosbags import rosbag1, rosbag2

    store = Store(distro)
    if store.ros1:
        bag: Any = rosbag1.Writer(path)
    else:
        kind = rosbag2.StoragePlugin[plugin]
        bag = rosbag2.Writer(path, version=9, storage_plugin=kind)
    with bag:
        found: dict[str, Any] = {}
        for topic, kind, time_s, message in messages(store, points, poses, city):
            if topic not in found:
                found[topic] = bag.add_connection(topic, kind, typestore=store.store)
            encode = store.store.serialize_ros1 if store.ros1 else store.store.serialize_cdr
            stamp = round(time_s * 1e9) + LOG_AHEAD_NS
            bag.write(found[topic], stamp, bytes(encode(message, kind)))
    return path


CASES = [
    ("ROS1_NOETIC", "", "cloud", "odom"),
    ("ROS1_NOETIC", "", "livox", "tf"),
    ("ROS2_HUMBLE", "SQLITE3", "cloud", "tf"),
    ("ROS2_JAZZY", "MCAP", "livox", "odom"),
]


@pytest.mark.parametrize(("distro", "plugin", "points", "poses"), CASES)
def test_a_bag_gives_the_session_of_the_recording(
    tmp_path: Path, direct: Session, distro: str, plugin: str, points: str, poses: str
) -> None:
    name = "b.bag" if "ROS1" in distro else "b"
    path = write_rosbags(tmp_path / name, distro, plugin, points, poses)
    (recording,) = read_bags(path)
    session, report = session_of(recording, tmp_path / "out")
    assert share_of_equal_cells(session, direct) == 1.0
    assert_equals_the_generic_door(session, recording, tmp_path / "plain")
    np.testing.assert_allclose(session.poses, direct.poses, atol=2e-3)
    assert report.deskewed and report.points == len(np.concatenate([s.points for s in CITY.scans]))


def test_an_mcap_by_its_own_library(tmp_path: Path, direct: Session) -> None:
    writer = pytest.importorskip("mcap_ros2.writer", reason="needs mcap-ros2-support")
    from types import SimpleNamespace as Bag

    schema = {
        "nav": "std_msgs/Header header\nstring child_frame_id\n"
        f"geometry_msgs/PoseWithCovariance pose\n{RULE}"
        "MSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
        f"{RULE}"
        "MSG: geometry_msgs/PoseWithCovariance\ngeometry_msgs/Pose pose\nfloat64[36] covariance\n"
        f"{RULE}MSG: geometry_msgs/Pose\n"
        "geometry_msgs/Point position\ngeometry_msgs/Quaternion orientation\n"
        f"{RULE}MSG: geometry_msgs/Point\n"
        f"float64 x\nfloat64 y\nfloat64 z\n{RULE}"
        "MSG: geometry_msgs/Quaternion\nfloat64 x\nfloat64 y\nfloat64 z\nfloat64 w\n",
        "cloud": "std_msgs/Header header\nuint32 height\nuint32 width\nsensor_msgs/PointField[] "
        "fields\nbool is_bigendian\nuint32 point_step\nuint32 row_step\n"
        "uint8[] data\nbool is_dense\n"
        f"{RULE}MSG: std_msgs/Header\n"
        "builtin_interfaces/Time stamp\nstring frame_id\n"
        f"{RULE}MSG: sensor_msgs/PointField\n"
        "string name\nuint32 offset\nuint8 datatype\nuint32 count\n",
    }
    store = Store("ROS2_HUMBLE")
    with open(tmp_path / "own.mcap", "wb") as out, writer.Writer(out) as bag:
        odom = bag.register_msgdef("nav_msgs/msg/Odometry", schema["nav"])
        cloud = bag.register_msgdef("sensor_msgs/msg/PointCloud2", schema["cloud"])
        track = RECORDING.poses
        for t, p, q in zip(track.times_s, track.positions, track.quaternions, strict=True):
            whole = store.odometry(t, p, q)
            message = Bag(
                header=whole.header,
                child_frame_id="lidar",
                pose=Bag(pose=whole.pose.pose, covariance=[0.0] * 36),
            )
            bag.write_message("/odom", odom, message, round(t * 1e9), round(t * 1e9))
        for scan in CITY.scans:
            message = store.cloud(scan, big=True)
            message.data = bytes(message.data)
            stamp = round(scan.time_s * 1e9)
            bag.write_message("/points", cloud, message, stamp, stamp)
    with open(tmp_path / "mount.txt", "w") as out:
        np.savetxt(out, MOUNT)
    source = BagSource(tmp_path / "own.mcap", extrinsic=tmp_path / "mount.txt")
    session, _ = session_of(read_bag(source), tmp_path / "out")
    assert share_of_equal_cells(session, direct) == 1.0


def test_real_bags_without_points_name_their_topics(shared_data: Path) -> None:
    bags = {
        "rosbag2/nav2_turtlebot.mcap": "/odom (nav_msgs/msg/Odometry)",
        "rosbag2/rosbag2_test": "/pose (geometry_msgs/msg/PoseStamped)",  # no definitions inside
        "rosbag1/tilt_laser.bag": "/scan (sensor_msgs/msg/LaserScan)",
    }
    for name, topic in bags.items():
        with pytest.raises(VlwmError, match="the bag has no points; its topics are") as caught:
            read_bag(BagSource(shared_data / name))
        assert topic in str(caught.value) and "\n" not in str(caught.value)


def test_transforms_of_a_real_bag_give_poses(shared_data: Path) -> None:
    from vlwm.core.data.recordings.readers.bags import _opened, _transforms

    with _opened(shared_data / "rosbag2/nav2_turtlebot.mcap") as bag:
        tree = _transforms(bag)
        rows = [
            (m.header.stamp.sec + m.header.stamp.nanosec * 1e-9, m.pose.pose.position.x)
            for c, _, raw in bag.messages([c for c in bag.connections if c.topic == "/odom"])
            for m in [bag.deserialize(raw, c.msgtype)]
        ]
    assert tree.world_of("base_link") == "odom"
    track = tree.track("base_link", "odom")
    times, x = np.array(rows).T
    places, _, valid = track.at(times)
    assert valid.mean() > 0.9 and np.abs(places[valid, 0] - x[valid]).max() < 0.02


def test_faults_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rosbags(tmp_path / "b.bag", "ROS1_NOETIC", "", "cloud", "odom")
    whole = path.read_bytes()
    (tmp_path / "cut.bag").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty").mkdir()
    cases = [
        (BagSource(tmp_path / "none.bag"), "no such bag"),
        (BagSource(tmp_path / "cut.bag"), "the bag cannot be read"),
        (BagSource(path, topic_points="/odom"), "the bag has no points on /odom"),
        (BagSource(path, topic_pose="/points"), "the bag has no poses on /points"),
        (BagSource(path, body_frame="imu"), "no fixed transform leads from"),
    ]
    for source, words in cases:
        with pytest.raises(VlwmError) as caught:
            read_bag(source)
        assert words in str(caught.value) and "\n" not in str(caught.value), source
    for place in ("empty", "nowhere"):
        with pytest.raises(VlwmError, match="no ROS bag here"):
            read_bags(tmp_path / place)
    monkeypatch.setitem(__import__("sys").modules, "rosbags.highlevel", None)
    with pytest.raises(VlwmError, match="reading ROS bags needs rosbags"):
        read_bag(BagSource(path))


def test_clouds_that_contradict_themselves_are_refused() -> None:
    store = Store("ROS2_HUMBLE")
    cloud = store.cloud(CITY.scans[0])
    for change in ({"height": 9}, {"point_step": 99}, {"fields": cloud.fields[1:]}):
        with pytest.raises(ValueError, match=r"bytes for|without the field"):
            point_cloud(replace(cloud, **change))
    message = store.livox(CITY.scans[0])
    raw = bytes(store.store.serialize_cdr(message, "livox_ros_driver2/msg/CustomMsg"))
    assert len(livox_points(raw, True)[2].xyz) == len(CITY.scans[0].points)
    for cut in (10, 60, len(raw) // 2):
        with pytest.raises(ValueError, match=r"cut off|do not fit"):
            livox_points(raw[:cut], True)


def test_a_folder_of_bags_gives_one_recording_each(tmp_path: Path) -> None:
    first = write_rosbags(tmp_path / "a.bag", "ROS1_NOETIC", "", "cloud", "odom")
    shutil.copy(first, tmp_path / "b.bag")
    assert [r.name for r in read_bags(tmp_path)] == ["a", "b"]


def test_simulated_time_begins_at_zero(tmp_path: Path) -> None:
    """The first message of a simulation is at 0 s, not at the time of the log."""
    city = replace(CITY, start_s=0.0, seconds=1.0)
    bag = write_rosbags(tmp_path / "sim.bag", "ROS1_NOETIC", "", "cloud", "odom", city)
    (recording,) = read_bags(bag)
    times = [scan.time_s for scan in recording.scans()]
    np.testing.assert_allclose(times, city.scan_times, atol=1e-6)
    assert recording.poses.times_s[0] == 0.0 and recording.poses.times_s[-1] < 2.0
    assert session_of(recording, tmp_path / "out")[1].frames >= 2


def test_another_body_frame_takes_its_poses_and_mounts(tmp_path: Path) -> None:
    """The lidar itself as the body: its mount is the identity, its poses are those of the lidar."""
    path = write_rosbags(tmp_path / "b.bag", "ROS1_NOETIC", "", "cloud", "odom")
    recording = read_bag(BagSource(path, body_frame="lidar"))
    np.testing.assert_allclose(recording.extrinsics["LIDAR"], np.eye(4), atol=1e-9)
    lidar = RECORDING.poses.moved_by(MOUNT)
    places, turns, valid = recording.poses.at(CITY.scan_times)
    true, held, _ = lidar.at(CITY.scan_times)
    assert valid.all()
    np.testing.assert_allclose(places, true, atol=1e-4)
    np.testing.assert_allclose(np.abs((turns * held).sum(axis=1)), 1.0, atol=1e-6)


@pytest.mark.parametrize("axes", ["enu", "ned"])
def test_a_bag_with_the_poses_of_its_sensor_in_a_file(
    tmp_path: Path, direct: Session, axes: str
) -> None:
    """Of a SLAM that tracks the lidar; the mount is that of the bag's transforms."""
    from vlwm.core.data.recordings.formats.axes import AXES, Axes, to_standard

    write_rosbags(tmp_path / "b.bag", "ROS1_NOETIC", "", "cloud", "odom")
    track = RECORDING.poses.moved_by(MOUNT)
    track = to_standard(track, Axes(AXES[axes].world, np.eye(3)))  # each world is its own inverse
    rows = np.column_stack([track.times_s, track.positions, track.quaternions])
    np.savetxt(tmp_path / "slam.txt", rows, fmt="%.9f")
    wanted = BagSource(
        tmp_path, poses=tmp_path / "slam.txt", poses_of="sensor",
        axes=None if axes == "enu" else axes,
    )  # fmt: skip
    (recording,) = read_bags(tmp_path, wanted)
    session, _ = session_of(recording, tmp_path / "out")
    assert share_of_equal_cells(session, direct) == 1.0
    np.testing.assert_allclose(session.poses[:, :3], direct.poses[:, :3], atol=2e-3)
    np.testing.assert_allclose(session.poses[:, 7:], direct.poses[:, 7:], atol=2e-3)
    same = (session.poses[:, 3:7] * direct.poses[:, 3:7]).sum(axis=1)  # q and -q are one turn
    np.testing.assert_allclose(np.abs(same), 1.0, atol=1e-5)


def test_a_bag_with_the_log_of_its_autopilot(
    tmp_path: Path, direct: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Poses of PX4 are north-east-down of a forward-right-down body; the bag's mount is ROS's."""
    from vlwm.core.data.recordings.formats.axes import AXES, to_standard
    from vlwm.core.data.recordings.formats.pose_files import PoseFile
    from vlwm.core.data.recordings.readers import bags

    path = write_rosbags(tmp_path / "b.bag", "ROS1_NOETIC", "", "cloud", "tf")
    down = to_standard(RECORDING.poses, AXES["ned"])  # its own inverse
    found = PoseFile(down, True, ["poses of the log"], axes="ned")
    monkeypatch.setattr(bags, "read_poses", lambda _: found)
    recording = read_bag(BagSource(path, poses=tmp_path / "log.ulg"))
    assert "axes of the poses: ned" in recording.notes
    session, _ = session_of(recording, tmp_path / "out")
    assert share_of_equal_cells(session, direct) == 1.0
    assert_equals_the_generic_door(session, recording, tmp_path / "plain")
    np.testing.assert_allclose(session.poses, direct.poses, atol=2e-3)
    monkeypatch.setattr(bags, "read_poses", lambda _: PoseFile(down, False, []))
    with pytest.raises(VlwmError, match="the pose file has no times"):
        read_bag(BagSource(path, poses=tmp_path / "kitti.txt"))
