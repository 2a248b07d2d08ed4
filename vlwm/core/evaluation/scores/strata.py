"""Strata of windows by what the past shows: how hard the vehicle turns and how it accelerates.

Both come from the past poses alone, so that a stratum can be known when a forecast is made; the
true future must not sort the windows that it scores.
"""

from __future__ import annotations

import numpy as np

from vlwm.core.geometry.frames import wrap_angle

YAW_RATE_DEG_S = (5.0, 15.0)
ACCELERATION_M_S2 = (0.5, 1.5)

STRATA = {
    "yaw_rate_deg_s": ("below 5", "5 to 15", "15 and more"),
    "acceleration_m_s2": ("below 0.5", "0.5 to 1.5", "1.5 and more"),
}
"""Stratum -> names of its bins, lower end included."""


def past_yaw_rate_deg_s(ego: np.ndarray, dt_s: float) -> float:
    """Return the absolute yaw rate between the last two past ego frames (F, 4), degrees/s."""
    return float(np.degrees(np.abs(wrap_angle(ego[-1, 3] - ego[-2, 3]))) / dt_s)


def past_acceleration_m_s2(ego: np.ndarray, dt_s: float) -> float | None:
    """Return the horizontal acceleration over the last three past ego frames (F, 4), m/s².

    None with fewer than three frames.
    """
    if len(ego) < 3:
        return None
    second = ego[-1, :2] - 2.0 * ego[-2, :2] + ego[-3, :2]
    return float(np.linalg.norm(second) / dt_s**2)


def strata_of(ego: np.ndarray, dt_s: float) -> list[tuple[str, str]]:
    """Return (stratum, bin) pairs of a window with past ego frames float64 (F, 4)."""
    found = [("yaw_rate_deg_s", past_yaw_rate_deg_s(ego, dt_s), YAW_RATE_DEG_S)]
    acceleration = past_acceleration_m_s2(ego, dt_s)
    if acceleration is not None:
        found.append(("acceleration_m_s2", acceleration, ACCELERATION_M_S2))
    return [
        (name, STRATA[name][int(np.searchsorted(edges, value, side="right"))])
        for name, value, edges in found
    ]
