"""Read the poses of a PX4 flight log (ULog), for a recording whose points are elsewhere.

`vehicle_local_position` is north, east, down in metres; `vehicle_attitude` holds q as w, x, y, z,
body forward-right-down to north-east-down. A change of a reset counter is a jump of the estimator:
nothing is interpolated across it. Times count from the boot; `sensor_gps` or `vehicle_gps_position`
tie them to UTC.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.errors import DataError, MachineError

Floats = NDArray[np.float64]

_TOPICS = ("vehicle_local_position", "vehicle_attitude", "sensor_gps", "vehicle_gps_position")
_REMEDY = "give the log of a flight with a position estimate, or the poses in another form"
_EARLIEST_US = 1e15  # UTC before 2001: the receiver has no time yet


def read_ulog(path: Path) -> tuple[PoseTrack, list[str]]:
    """Return the poses of a log in north-east-down axes, and sentences about its clock and resets.

    Raises:
        DataError: the file is missing, damaged, or holds no position and attitude.
        MachineError: pyulog is missing.
    """
    try:
        from pyulog import ULog
        from pyulog.exceptions import ULogException
    except ImportError as error:
        raise MachineError(
            "reading PX4 logs needs pyulog", where=path, remedy="pip install 'vlwm[px4]'"
        ) from error
    try:
        log = ULog(str(path), list(_TOPICS))
    except FileNotFoundError as error:
        raise DataError("no such file", where=path, remedy="check the path") from error
    except (
        ULogException, OSError, TypeError, ValueError, KeyError, IndexError, struct.error
    ) as error:  # fmt: skip
        raise DataError(f"a damaged PX4 log: {error}", where=path, remedy=_REMEDY) from error
    found = {d.name: d.data for d in reversed(log.data_list)}  # the first instance of a topic
    missing = [t for t in _TOPICS[:2] if t not in found]
    if missing:
        names = ", ".join(sorted({d.name for d in log.data_list})[:8]) or "none of the needed"
        raise DataError(f"the log has no {missing[0]}, only {names}", where=path, remedy=_REMEDY)
    position, attitude = found[_TOPICS[0]], found[_TOPICS[1]]
    good = np.asarray(position.get("xy_valid", np.ones(len(position["x"]))), bool)
    if not good.any():
        raise DataError(
            "no position in the log is valid: the vehicle never had a fix",
            where=path,
            remedy=_REMEDY,
        )
    clock, note = _clock(found)
    track = _track(position, attitude, good, clock)
    notes = [f"{len(track)} poses of the log; {note}"]
    if track.breaks.any():
        notes.append(f"{int(track.breaks.sum())} resets of the estimator; windows end at each")
    return track, notes


def _track(
    position: dict[str, Any], attitude: dict[str, Any], good: NDArray[np.bool_], clock_s: float
) -> PoseTrack:
    # microseconds since boot, of the sample where it is logged, else of the message
    stamps = position.get("timestamp_sample", position["timestamp"])
    times = np.asarray(stamps, np.float64)[good] * 1e-6
    places = np.stack([np.asarray(position[a], np.float64)[good] for a in "xyz"], axis=-1)
    when = np.asarray(attitude.get("timestamp_sample", attitude["timestamp"]), np.float64) * 1e-6
    # PX4 writes w first
    turns = np.stack([np.asarray(attitude[f"q[{k}]"], np.float64) for k in (1, 2, 3, 0)], axis=-1)
    level = PoseTrack.of(when, np.zeros((len(when), 3)), turns)
    _, quaternions, valid = level.at(times)
    # the estimator jumps where a counter changes: no velocity across it
    counters = [
        np.asarray(position[n], np.int64)[good]
        for n in ("xy_reset_counter", "z_reset_counter", "heading_reset_counter")
        if n in position
    ]
    breaks = np.zeros(len(times), bool)
    for counter in counters:
        breaks[1:] |= np.diff(counter) != 0
    kept = valid & np.isfinite(places).all(axis=1)
    return PoseTrack.of(times[kept] + clock_s, places[kept], quaternions[kept], breaks[kept])


def _clock(found: dict[str, Any]) -> tuple[float, str]:
    """Return the seconds from the log's clock to UTC, and a sentence about it."""
    for topic in ("sensor_gps", "vehicle_gps_position"):
        data = found.get(topic)
        if data is None or "time_utc_usec" not in data:
            continue
        utc, boot = (np.asarray(data[n], np.float64) for n in ("time_utc_usec", "timestamp"))
        fixed = utc > _EARLIEST_US
        if fixed.any():
            shift = float(np.median(utc[fixed] - boot[fixed])) * 1e-6
            return shift, "their clock is UTC by the satellite receiver"
    return 0.0, "their clock counts from the boot: shift the scans with --lidar-delay if needed"
