"""Decode the messages of ROS bags that hold points and poses."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.formats.clock import point_times
from vlwm.core.data.recordings.formats.points import Points, from_columns
from vlwm.core.data.recordings.recording import Scan

Floats = NDArray[np.float64]

POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
LIVOX = ("livox_ros_driver/msg/CustomMsg", "livox_ros_driver2/msg/CustomMsg")
_KINDS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
_LIVOX_FIELDS = ("offset_time", "x", "y", "z", "intensity", "tag", "line")
_LIVOX_TYPES = ("<u4", "<f4", "<f4", "<f4", "u1", "u1", "u1")
_LIVOX_OFFSETS = (0, 4, 8, 12, 16, 17, 18)


def point_cloud(message: Any) -> Points:
    """Return the points of a PointCloud2 by its own fields, offsets, steps and byte order.

    Raises:
        ValueError: the message contradicts itself.
    """
    order = ">" if message.is_bigendian else "<"
    names, formats, offsets = [], [], []
    for field in message.fields:
        if field.name and field.datatype in _KINDS and field.name not in names:
            names.append(field.name)
            formats.append(order + _KINDS[field.datatype])  # of a field with a count, the first
            offsets.append(int(field.offset))
    missing = {"x", "y", "z"} - set(names)
    if missing:
        raise ValueError(f"a cloud without the field {min(missing)}")
    width, height, step = int(message.width), int(message.height), int(message.point_step)
    row_step = int(message.row_step) if height > 1 else width * step
    data = np.frombuffer(bytes(message.data), dtype=np.uint8)
    if width * step > row_step or len(data) < (height - 1) * row_step + width * step:
        raise ValueError(f"{len(data)} bytes for {height} rows of {width} points of {step} bytes")
    layout = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": step})
    rows = [
        np.frombuffer(data[r * row_step : r * row_step + width * step].tobytes(), layout)
        for r in range(height)
    ]
    cloud = np.concatenate(rows) if rows else np.empty(0, layout)
    return from_columns({name: cloud[name] for name in names})


def livox_points(raw: bytes, ros2: bool) -> tuple[float, str, Points]:
    """Return time stamp, frame and points of a serialised Livox CustomMsg.

    The points are an array of structures of 19 bytes, in CDR aligned to 4: read at once instead of
    one by one.

    Raises:
        ValueError: the message is cut off.
    """
    try:
        at = 4  # behind CDR's encapsulation, or the sequence number of ROS 1
        sec, nsec, length = struct.unpack_from("<3I", raw, at)
        frame = raw[at + 12 : at + 12 + length].rstrip(b"\0").decode("utf-8", "replace")
        at += 12 + length
        if ros2:  # 8-byte alignment counts from behind the encapsulation
            at = 4 + -(-(at - 4) // 8) * 8
        # timebase u64, point_num u32, lidar_id u8, reserved 3 u8, then the length of the array
        (size,) = struct.unpack_from("<I", raw, at + 16)
        step = 20 if ros2 else 19
        start = at + 20
        if size > (1 << 24) or start + size * step - (step - 19) > len(raw):
            raise ValueError(f"{size} points do not fit into the message")
    except struct.error as error:
        raise ValueError("the message is cut off") from error
    layout = np.dtype(
        {
            "names": _LIVOX_FIELDS,
            "formats": _LIVOX_TYPES,
            "offsets": _LIVOX_OFFSETS,
            "itemsize": step,
        }
    )
    body = raw[start : start + size * step].ljust(size * step, b"\0")
    cloud = np.frombuffer(body, layout, size)
    return sec + nsec * 1e-9, frame, from_columns({name: cloud[name] for name in _LIVOX_FIELDS})


def scan_of(points: Points, stamp_s: float) -> Scan:
    """Return the scan of points with their own times, where they have some."""
    times = None if points.times is None else point_times(points.times, stamp_s)
    return Scan(stamp_s, points.xyz, "LIDAR", points.intensity, times)


def header_time(header: Any) -> float:
    """Return the time stamp of a header in seconds; 0 where it has none."""
    return float(header.stamp.sec + header.stamp.nanosec * 1e-9)


def stamp_of(header: Any, log_ns: int) -> float:
    """Return the time stamp of a header in seconds; that of the log where the header has none."""
    seconds = header_time(header)
    return seconds if seconds > 0 else log_ns * 1e-9


def frame_of(name: str) -> str:
    """Return a frame name without the leading slash of old ROS."""
    return str(name).lstrip("/")


def pose_row(message: Any, kind: str, log_ns: int) -> tuple[str, list[float]]:
    """Return the child frame ('' if unnamed) and time, position, quaternion of a pose message."""
    child, pose = "", message
    if kind == "nav_msgs/msg/Odometry":
        child, pose = frame_of(message.child_frame_id), message.pose.pose
    elif kind == "geometry_msgs/msg/PoseWithCovarianceStamped":
        pose = message.pose.pose
    elif kind == "geometry_msgs/msg/PoseStamped":
        pose = message.pose
    elif kind == "geometry_msgs/msg/TransformStamped":
        child = frame_of(message.child_frame_id)
        move, turn = message.transform.translation, message.transform.rotation
        values = [move.x, move.y, move.z, turn.x, turn.y, turn.z, turn.w]
        return child, [stamp_of(message.header, log_ns), *map(float, values)]
    place, turn = pose.position, pose.orientation
    values = [place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w]
    return child, [stamp_of(message.header, log_ns), *map(float, values)]
