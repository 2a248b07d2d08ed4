"""Read and write pose files: the true pose of a frame and the one that the vehicle believed."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.errors import DataError
from vlwm.core.files import atomic_path, read_json
from vlwm.core.text import plain_reason

POSE, GROUND, TIME, BELIEVED, BELIEVED_GROUND = slice(0, 13), 13, 14, slice(15, 28), 28
"""places in the row that `read_pose` returns"""
REMEDY = "write it as in docs/data_format.md, or remove the frame"
_SHORTEST, _LONGEST = 1e-6, 1e100
"""lengths of a quaternion that has a direction"""
_SPLITTER = 2.0**27 + 1.0
_KEYS = (
    ("position", "xyz"),
    ("orientation", "xyzw"),
    ("velocity.linear", "xyz"),
    ("velocity.angular", "xyz"),
)


def read_pose(path: Path, crc: int | None) -> list[float]:
    """Read a pose file: 13 numbers, ground_z (0 where absent), timestamp (NaN), 14 believed ones.

    Args:
        crc: CRC-32 of the file's bytes; None: not recorded.

    Raises:
        DataError: the file is missing or damaged, or a number is missing or not finite.
    """
    try:
        if crc is not None and path.exists() and zlib.crc32(path.read_bytes()) != crc:
            raise DataError(
                "it differs from its checksum in session.json", where=path, remedy=REMEDY
            )
        value = read_json(path)
    except DataError as error:
        raise DataError(
            f"a frame has no readable pose: {error.what}", where=path, remedy=REMEDY
        ) from error
    try:
        row = _pose_numbers(value, 0.0)
        time_s = float(value.get("timestamp", np.nan))
        believed = value.get("believed")
        # a believed pose without ground_z has the true terrain height
        other = row if believed is None else _pose_numbers(believed, row[GROUND])
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise DataError(
            f"a pose lacks what it should have: {plain_reason(error)}", where=path, remedy=REMEDY
        ) from error
    for numbers in (row, other):
        if not np.isfinite(numbers).all() or not _has_direction(numbers[3:7]):
            raise DataError(
                "a pose holds numbers that are not finite or no orientation",
                where=path,
                remedy=REMEDY,
            )
    return [*_unit(row), time_s, *_unit(other)]


def _pose_numbers(value: Any, ground_z: float) -> list[float]:
    """Return the 13 numbers of a pose object and its ground_z, or `ground_z` where it has none."""
    row = []
    for key, axes in _KEYS:
        part = value
        for name in key.split("."):
            part = part[name]
        row += [float(part[a]) for a in axes]
    return [*row, float(value.get("ground_z", ground_z))]


def _has_direction(quaternion: list[float]) -> bool:
    return max(map(abs, quaternion)) < _LONGEST and _length(quaternion) >= _SHORTEST


def _unit(row: list[float]) -> list[float]:
    """Return the row with its quaternion normalised."""
    length = _length(row[3:7])
    return [*row[:3], *(v / length for v in row[3:7]), *row[7:]]


def _length(quaternion: list[float]) -> float:
    """Return the length of a quaternion, with the same bits on every CPU.

    The squares are added in order, and each product and sum is rounded once. That is what the BLAS
    of NumPy does on a CPU with AVX-512, and on others not: `np.linalg.norm` differs by a bit.
    """
    total = 0.0
    for v in quaternion:
        # Dekker's product: v * v is exactly square + error
        square = v * v
        high = _SPLITTER * v - (_SPLITTER * v - v)
        low = v - high
        error = ((high * high - square) + 2.0 * high * low) + low * low
        total = math.fsum((total, square, error))  # fsum rounds the exact sum once
    return math.sqrt(total)


def write_pose(
    path: Path,
    pose: NDArray[np.float64],
    ground_z: float,
    time_s: float,
    believed: tuple[NDArray[np.float64], float] | None = None,
) -> None:
    """Write one pose file by rename; not flushed, see `write_meta`.

    Args:
        pose: (13,), the true pose.
        ground_z: terrain under the vehicle, world frame, metres.
        time_s: timestamp, seconds.
        believed: pose (13,) and ground_z as the vehicle believed them; None: the true ones.
    """
    values = _pose_object(pose, ground_z, time_s)
    if believed is not None:
        values["believed"] = _pose_object(*believed, time_s)
    with atomic_path(path, flush=False) as temporary:
        temporary.write_text(json.dumps(values) + "\n", encoding="utf-8")


def _pose_object(pose: NDArray[np.float64], ground_z: float, time_s: float) -> dict[str, Any]:
    """Return a pose as the JSON object of a pose file."""
    at = iter(round(float(v), 9) for v in pose)
    return {
        "position": {a: next(at) for a in "xyz"},
        "orientation": {a: next(at) for a in "xyzw"},
        "velocity": {k: {a: next(at) for a in "xyz"} for k in ("linear", "angular")},
        "ground_z": round(float(ground_z), 9),
        "timestamp": round(time_s, 6),
    }
