"""Fit the mount of the sensor that makes the cells of a session's frames meet best."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.checking.frame_pairs import MOST_PAIRS, FramePairs, Pairs
from vlwm.core.geometry.frames import turn_vectors, wrap_angle

Floats = NDArray[np.float64]

_YAWS = (-6.0, -3.0, 0.0, 3.0, 6.0)
_SHIFTS = (-1.0, 0.0, 1.0)
_REFINED = ((1.5, 0.5), (0.75, 0.25), (0.4, 0.12))  # steps in degrees and metres
_EVERY = 3  # of the cells that are moved in the search
_PROBE = (5.0, 1.0)  # a mount that is off by this chooses the pairs


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
    def words(self) -> str:
        parts = [
            f"in yaw by {self.yaw_deg:+.0f} degrees" if abs(self.yaw_deg) >= 0.75 else "",
            f"along x by {self.ahead_m:+.1f} m" if abs(self.ahead_m) >= 0.15 else "",
            f"along y by {self.left_m:+.1f} m" if abs(self.left_m) >= 0.15 else "",
        ]
        return f"the mount of the sensor is off {', '.join(filter(None, parts)) or 'a little'}"


def fitted_mount(frames: FramePairs, own: Floats) -> tuple[Mount, Pairs]:
    """Return the mount that fits best on one half of the pairs, and the other half to test it.

    Args:
        own: (N, 4), ego frames by the poses as they are written.
    """
    degrees, metres = _PROBE
    probes = [Mount(yaw_deg=degrees), Mount(ahead_m=metres), Mount(left_m=metres)]
    shown = np.concatenate([frames.showing(own, p.applied(own))[:MOST_PAIRS] for p in probes])
    pairs = np.unique(shown, axis=0)
    fitted, held_out = pairs[::2], pairs[1::2]
    if not len(fitted):
        return Mount(), held_out

    def share(mount: Mount) -> float:
        return float(frames.fit(mount.applied(own), fitted, _EVERY).mean())

    best = max((Mount(*m) for m in product(_YAWS, _SHIFTS, _SHIFTS)), key=share)
    for degrees, metres in _REFINED:
        around = [
            Mount(best.yaw_deg + a * degrees, best.ahead_m + b * metres, best.left_m + c * metres)
            for a, b, c in product((-1, 0, 1), repeat=3)
        ]
        best = max(around, key=share)
    return best, held_out
