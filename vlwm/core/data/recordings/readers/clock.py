"""Recognise units of time by magnitude."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_SCALES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_EPOCHS = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (1e8, "s"))
"""a count since 1970 above this is in that unit"""


def seconds_of(values: ArrayLike) -> tuple[Floats, str]:
    """Return times (N,) in seconds and the name of the unit they were in.

    Counts since 1970 tell their unit by magnitude; smaller ones, as simulators write them, by the
    step between them: whole numbers a million apart are not seconds.
    """
    raw = np.asarray(values)
    largest = float(np.abs(raw.astype(np.float64)).max(initial=0.0))
    for limit, unit in _EPOCHS:
        if largest > limit:
            return scaled(raw, unit), unit
    steps = np.diff(np.unique(raw.astype(np.float64)))
    step = float(np.median(steps)) if len(steps) else 0.0
    whole = bool((raw.astype(np.float64) % 1 == 0).all())
    unit = "s"
    if whole and step >= 2e6:
        unit = "ns"
    elif whole and step >= 1e3:
        unit = "us"
    return scaled(raw, unit), unit


def scaled(raw: NDArray[np.generic], unit: str) -> Floats:
    """Return times (N,) of a unit in seconds; integers are split first, so no digit is lost."""
    if raw.dtype.kind in "iu" and unit == "ns":
        whole, rest = np.divmod(raw.astype(np.int64), 1_000_000_000)
        return whole + rest * 1e-9
    return raw.astype(np.float64) * _SCALES[unit]


def point_times(raw: NDArray[np.generic], stamp_s: float) -> Floats | None:
    """Return the times (N,) of the points of one scan, seconds; None where they tell nothing.

    The span of the values gives their unit: a scan takes between a millisecond and two seconds.
    Values near zero count from the time stamp of the scan, others are absolute.
    """
    values = raw.astype(np.float64)
    if not len(values) or not np.isfinite(values).all():
        return None
    span = float(values.max() - values.min())
    if span == 0.0:
        return None
    unit = "s" if span <= 2.0 else "ms" if span <= 2e3 else "us" if span <= 2e6 else "ns"
    # Large absolute counts lose digits in float64 unless the first is subtracted as it is.
    first = raw.min()
    offsets = scaled(raw - first, unit)
    start = float(scaled(np.asarray([first]), unit)[0])
    if start > 1e6 or abs(start - stamp_s) < 1e-3:
        return start + offsets
    return stamp_s + start + offsets
