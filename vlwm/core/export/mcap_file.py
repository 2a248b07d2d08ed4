"""Write windows as MCAP for Foxglove and other viewers of robots.

Topics, in the frame "world": /past, /truth, /forecast, /probability and /difference as
`foxglove.VoxelGrid` of one byte a cell, /track and /plan as `foxglove.PosesInFrame`, /attribution
as `foxglove.Log`. Frames are dense and their chunks compressed by zstd, which leaves little of an
occupancy grid. Times count from the start of the file. Extra: vlwm[mcap].

Axes: P past and H future frames, X, Y, Z cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlwm.core.errors import MachineError
from vlwm.core.files import atomic_path
from vlwm.core.geometry.frames import from_ego, quaternion_from_heading
from vlwm.core.geometry.grid import VoxelGrid

if TYPE_CHECKING:
    from foxglove_schemas_protobuf.Pose_pb2 import Pose
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

AGREED, MISSED, FALSE = 1, 2, 3
"""values of /difference; 0 is empty in both"""
_GAP_S = 1.0  # between two windows of a file
_NS = 1_000_000_000


@dataclass(frozen=True)
class McapWindow:
    """Content of one window in the file.

    Attributes:
        grid: the cells of a frame.
        times_s: (P + H,) seconds, 0 at the last past frame.
        ego: (P + H, 4) ego frames in the world frame.
        past: uint8 (P, X, Y, Z); P may be 0.
        truth: uint8 (H, X, Y, Z); None where it is not known.
        forecast: bool or uint8 (H, X, Y, Z).
        probability: float32 (H, X, Y, Z); None where only `forecast` is known.
        plan: (H, 3) positions or (H, 13) poses to be flown; None without a plan.
        attribution: sources of the data.
    """

    grid: VoxelGrid
    times_s: NDArray[np.float64]
    ego: NDArray[np.float64]
    past: NDArray[np.uint8]
    truth: NDArray[np.uint8] | None
    forecast: NDArray[np.bool_ | np.uint8]
    probability: NDArray[np.float32] | None = None
    plan: NDArray[np.float64] | None = None
    attribution: str = ""


def write_mcap(path: str | PathLike[str], windows: Iterable[McapWindow]) -> int:
    """Write windows one after the other; returns the number of messages.

    Raises:
        MachineError: the extra is not installed, or the disk is full.
    """
    try:
        from mcap.writer import CompressionType
        from mcap_protobuf.writer import Writer
    except ImportError as error:
        raise MachineError(
            "writing MCAP needs packages that are not installed",
            where=error.name,
            remedy="pip install 'vlwm[mcap]'",
        ) from error
    count, start_s = 0, 0.0
    with (
        atomic_path(fspath(path)) as temporary,
        open(temporary, "wb") as handle,
        Writer(handle, compression=CompressionType.ZSTD) as writer,
    ):
        for window in windows:
            start_s -= float(window.times_s[0])
            for topic, after_s, message in _messages(window, start_s):
                at = round((start_s + after_s) * _NS)
                writer.write_message(topic, message, log_time=at, publish_time=at)
                count += 1
            start_s += float(window.times_s[-1]) + _GAP_S
    return count


def _messages(window: McapWindow, start_s: float) -> Iterator[tuple[str, float, Message]]:
    """Yield (topic, seconds after the last past frame, message) in the order of time."""
    from foxglove_schemas_protobuf.Log_pb2 import Log

    past = len(window.past)
    first = float(window.times_s[0])
    if window.attribution:
        note = Log(level=Log.INFO, message=window.attribution, name="attribution")
        _stamp(note.timestamp, start_s + first)
        yield "/attribution", first, note
    yield "/track", first, _path(window.ego[:, :3], window.ego[:, 3], start_s + first)
    if window.plan is not None:
        places = np.asarray(window.plan)[:, :3]
        yield "/plan", first, _path(places, window.ego[past:, 3], start_s + first)
    for number, seconds in enumerate(window.times_s):
        at = float(seconds)
        for topic, cells in _layers(window, number):
            yield topic, at, _voxels(window, number, cells, start_s + at)


def _layers(window: McapWindow, number: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield the topics of one frame with its cells (X, Y, Z)."""
    past = len(window.past)
    if number < past:
        yield "/past", window.past[number]
        return
    h = number - past
    forecast = np.asarray(window.forecast[h]).astype(np.uint8)
    yield "/forecast", forecast
    if window.probability is not None:
        yield "/probability", np.round(255 * window.probability[h]).astype(np.uint8)
    if window.truth is not None:
        truth = window.truth[h].astype(np.uint8)
        yield "/truth", truth
        yield "/difference", np.where(truth, np.where(forecast, AGREED, MISSED),
                                      FALSE * forecast).astype(np.uint8)  # fmt: skip


def _voxels(window: McapWindow, number: int, cells: NDArray[np.uint8], at_s: float) -> Message:
    """Return a frame as foxglove.VoxelGrid: slices along z, rows along y, columns along x."""
    from foxglove_schemas_protobuf.PackedElementField_pb2 import PackedElementField
    from foxglove_schemas_protobuf.VoxelGrid_pb2 import VoxelGrid as Message

    grid, ego = window.grid, window.ego[number]
    columns, rows, _ = cells.shape
    message = Message(
        frame_id="world", row_count=rows, column_count=columns, slice_stride=rows * columns,
        row_stride=columns, cell_stride=1,
        data=np.ascontiguousarray(cells.transpose(2, 1, 0)).tobytes(),
    )  # fmt: skip
    message.fields.add(name="value", offset=0, type=PackedElementField.UINT8)
    message.cell_size.x, message.cell_size.y, message.cell_size.z = grid.cell_m
    _place(message.pose, from_ego(grid.lower_m, ego), float(ego[3]))
    _stamp(message.timestamp, at_s)
    return message


def _path(places: NDArray[np.float64], headings: NDArray[np.float64], at_s: float) -> Message:
    from foxglove_schemas_protobuf.PosesInFrame_pb2 import PosesInFrame

    message = PosesInFrame(frame_id="world")
    for place, heading in zip(places, headings, strict=True):
        _place(message.poses.add(), place, float(heading))
    _stamp(message.timestamp, at_s)
    return message


def _place(pose: Pose, place: NDArray[np.float64], heading: float) -> None:
    pose.position.x, pose.position.y, pose.position.z = (float(v) for v in place)
    turn = quaternion_from_heading(heading)
    pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w = map(
        float, turn
    )


def _stamp(timestamp: Timestamp, seconds: float) -> None:
    nanoseconds = round(seconds * _NS)
    timestamp.seconds, timestamp.nanos = divmod(nanoseconds, _NS)
