"""Fit the mount of the sensor that makes the cells of a session's frames meet best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.checking.frame_pairs import MOST_PAIRS, FramePairs, Pairs
from vlwm.core.data.recordings.mount import PROBE, Mount, best_mount

Floats = NDArray[np.float64]

_EVERY = 3  # of the cells that are moved in the search


def fitted_mount(frames: FramePairs, own: Floats) -> tuple[Mount, Pairs]:
    """Return the mount that fits best on one half of the pairs, and the other half to test it.

    Args:
        own: (N, 4), ego frames by the poses as they are written.
    """
    degrees, metres = PROBE
    probes = [Mount(yaw_deg=degrees), Mount(ahead_m=metres), Mount(left_m=metres)]
    shown = np.concatenate([frames.showing(own, p.applied(own))[:MOST_PAIRS] for p in probes])
    pairs = np.unique(shown, axis=0)
    fitted, held_out = pairs[::2], pairs[1::2]
    if not len(fitted):
        return Mount(), held_out

    def share(mount: Mount) -> float:
        return float(frames.fit(mount.applied(own), fitted, _EVERY).mean())

    return best_mount(share), held_out
