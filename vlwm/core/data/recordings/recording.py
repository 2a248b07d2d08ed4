"""Define the one type that every reader of recordings yields.

A `Recording` holds points in the sensor frame with their times, the pose of the body over time and
the mounts of the sensors. Quaternion order, axes and units of a source stay in its reader: here
everything is in metres, seconds and radians, quaternions are x, y, z, w, the world has z up, the
body x forward, y left, z up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.formats.archive import AnyPath
from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.vocabulary import Agent

Floats = NDArray[np.float64]

MAX_SPEED_M_S: Mapping[str, float] = {Agent.DRONE: 20.0, Agent.ROVER: 45.0}
"""fastest plausible speed of each agent; faster positions are outliers of the positioning"""
MAX_TURN_RAD_S = 2 * np.pi


@dataclass(frozen=True, eq=False)
class Scan:
    """Points of one scan.

    Attributes:
        time_s: time stamp of the scan, seconds.
        points: float32 (N, 3), sensor frame, metres, all finite.
        sensor: name of the sensor, a key of `Recording.extrinsics`.
        intensity: float32 (N,), or None.
        times_s: float64 (N,), time of each point, seconds; None: all at `time_s`.
        origins: float32 (N, 3), start of each ray in the sensor frame; None: (0, 0, 0).
    """

    time_s: float
    points: NDArray[np.float32]
    sensor: str = "LIDAR"
    intensity: NDArray[np.float32] | None = None
    times_s: Floats | None = None
    origins: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Image:
    """A picture on disk or in an archive, and its time stamp in seconds."""

    time_s: float
    path: AnyPath


@dataclass(frozen=True)
class Labels:
    """Semantic classes of some frames.

    Attributes:
        read: returns uint8 (X, Y, Z) of frame number i, in its ego frame, or None without labels.
        free: the class of free space.
    """

    read: Callable[[int], NDArray[np.uint8] | None]
    free: int


@dataclass(frozen=True, eq=False)
class Recording:
    """One uninterrupted recording of one vehicle.

    Attributes:
        name: becomes part of the session's name.
        agent: 'drone' or 'rover'.
        scans: returns an iterator over the scans in time order, from the beginning each time.
        poses: of the body.
        extrinsics: sensor name → 4×4 matrix, sensor frame to body frame.
        images: pictures of the front camera in time order.
        frame_times_s: (F,), times of the frames where the source fixes them (key frames), else
            None: an even raster.
        labels: semantic classes of the frames, where the source has them.
        split: 'train', 'val' or 'test' where the source assigns it, else None.
        attribution: what has to be printed with anything made of it.
        licence: of the data, as the source names it.
        notes: sentences about what was assumed or is missing.
        damaged: (file, reason) of what could not be read; grows while scans are read.
        source: files that it came from.
    """

    name: str
    agent: str
    scans: Callable[[], Iterator[Scan]]
    poses: PoseTrack
    extrinsics: Mapping[str, Floats]
    images: Sequence[Image] = ()
    frame_times_s: Floats | None = None
    labels: Labels | None = None
    split: str | None = None
    attribution: str = ""
    licence: str = ""
    notes: list[str] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    source: str = ""
