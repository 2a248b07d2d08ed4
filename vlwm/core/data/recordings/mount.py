"""Describe by how much the mount of a sensor is off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from vlwm.core.geometry.frames import turn_vectors, wrap_angle

Floats = NDArray[np.float64]

_YAWS = (-6.0, -3.0, 0.0, 3.0, 6.0)
_SHIFTS = (-1.0, 0.0, 1.0)
_REFINED = ((1.5, 0.5), (0.75, 0.25), (0.4, 0.12))  # steps in degrees and metres
PROBE = 5.0, 1.0
"""a mount that is off by these degrees and metres has to be found"""


@dataclass(frozen=True)
class Mount:
    """Place the cells in the body's frame: turned by yaw_deg, shifted ahead and to the left."""

    yaw_deg: float = 0.0
    ahead_m: float = 0.0
    left_m: float = 0.0

    def applied(self, ego: Floats) -> Floats:
        """Return the ego frames (N, 4) of the cells, given those of the poses."""
        moved = ego.copy()
        shift = np.array([self.ahead_m, self.left_m, 0.0])
        moved[:, :2] += turn_vectors(shift, ego[:, 3])[:, :2]
        moved[:, 3] = wrap_angle(ego[:, 3] + np.radians(self.yaw_deg))
        return moved

    @property
    def matrix(self) -> Floats:
        """Return the 4×4 matrix from the body's frame as mounted to the body's frame."""
        cosine, sine = np.cos(np.radians(self.yaw_deg)), np.sin(np.radians(self.yaw_deg))
        out = np.eye(4)
        out[:2, :2] = [[cosine, -sine], [sine, cosine]]
        out[:2, 3] = self.ahead_m, self.left_m
        return out

    @property
    def words(self) -> str:
        parts = [
            f"in yaw by {self.yaw_deg:+.0f} degrees" if abs(self.yaw_deg) >= 0.75 else "",
            f"along x by {self.ahead_m:+.1f} m" if abs(self.ahead_m) >= 0.15 else "",
            f"along y by {self.left_m:+.1f} m" if abs(self.left_m) >= 0.15 else "",
        ]
        return f"the mount of the sensor is off {', '.join(filter(None, parts)) or 'a little'}"


def best_mount(share: Callable[[Mount], float]) -> Mount:
    """Return the mount with the greatest share, searched on a grid that is refined."""
    best = max((Mount(*m) for m in product(_YAWS, _SHIFTS, _SHIFTS)), key=share)
    for degrees, metres in _REFINED:
        around = [
            Mount(best.yaw_deg + a * degrees, best.ahead_m + b * metres, best.left_m + c * metres)
            for a, b, c in product((-1, 0, 1), repeat=3)
        ]
        best = max(around, key=share)
    return best
