"""Recognise units of time by magnitude."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_SCALES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_EPOCH_S = (1e8, 5e9)
"""counts since 1970 are in this range in seconds"""
_LONGEST_S = 5e5
"""simulated time and time since the boot are below six days"""
_STEP_S = (1e-4, 1.5)
"""plausible time between two measurements; poses farther apart are not interpolated anyway"""
_SCAN_S = 2.0
"""longest scan: its points are not farther from its time stamp"""


def seconds_of(values: ArrayLike) -> tuple[Floats, str]:
    """Return times (N,) in seconds and the name of the unit they were in.

    The unit is the coarsest in which both the largest time and the median step are plausible, else
    the one in which the largest time is a date.
    """
    raw = np.asarray(values)
    numbers = raw.astype(np.float64)
    # equal times are one: the median step is between different ones
    largest = float(np.abs(numbers).max(initial=0.0))
    steps = np.diff(np.unique(numbers))
    step = float(np.median(steps)) if len(steps) else None
    for unit, scale in _SCALES.items():
        time_s = largest * scale
        dated = _EPOCH_S[0] <= time_s <= _EPOCH_S[1]
        paced = step is None or _STEP_S[0] <= step * scale <= _STEP_S[1]
        if paced and (dated or time_s <= _LONGEST_S):
            return scaled(raw, unit), unit
    ranges = {unit: largest * scale for unit, scale in _SCALES.items()}
    dates = (u for u, time_s in ranges.items() if _EPOCH_S[0] <= time_s <= _EPOCH_S[1])
    unit = next(dates, "s")
    return scaled(raw, unit), unit


def unit_in_name(name: str) -> str | None:
    """Return the unit that a column's name ends in, such as ns of `timestamp_ns`, or None."""
    ending = re.search(r"[_ \[(](ns|us|ms|s|sec|nsec|usec|msec)[\])]?$", name.strip().lower())
    if ending is None:
        return None
    return {"sec": "s", "nsec": "ns", "usec": "us", "msec": "ms"}.get(ending[1], ending[1])


def scaled(raw: NDArray[np.generic], unit: str) -> Floats:
    """Return times (N,) of a unit in seconds; integers are split first, so no digit is lost."""
    if raw.dtype.kind in "iu" and unit == "ns":
        whole, rest = np.divmod(raw.astype(np.int64), 1_000_000_000)
        return whole + rest * 1e-9
    return raw.astype(np.float64) * _SCALES[unit]


def point_times(raw: NDArray[np.generic], stamp_s: float) -> Floats | None:
    """Return the times (N,) of the points of one scan, seconds; None where they tell nothing.

    The span of the values gives their unit: a scan takes between a millisecond and two seconds.
    Values near zero count from the time stamp of the scan, values near it are absolute. Those of
    another clock (the sensor's own, the GPS week of .las files) count from their first.
    """
    values = raw.astype(np.float64)
    if not len(values) or not np.isfinite(values).all():
        return None
    span = float(values.max() - values.min())
    if span == 0.0:
        return None
    unit = next((u for u, scale in _SCALES.items() if span * scale <= _SCAN_S), "ns")
    # Large absolute counts lose digits in float64 unless the first is subtracted as it is.
    first = raw.min()
    offsets = scaled(raw - first, unit)
    start = float(scaled(np.asarray([first]), unit)[0])
    if abs(start - stamp_s) < 1e-3:
        return start + offsets
    if abs(start) <= _SCAN_S:
        return stamp_s + start + offsets
    return (start if abs(start - stamp_s) <= _SCAN_S else stamp_s) + offsets
