"""Place the points of a scan in the world, each by the pose of the body at its own time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.data.recordings.recording import Scan
from vlwm.core.geometry.frames import rotate

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PlacedScan:
    """A scan in the world frame.

    Attributes:
        time_s: of the scan.
        points: float64 (N, 3), metres.
        origins: float64 (N, 3), or (1, 3) where all rays start at one place.
        kept: int64 (N,), which points of the scan these are.
    """

    time_s: float
    points: Floats
    origins: Floats
    kept: NDArray[np.int64]


def place_scan(
    scan: Scan,
    poses: PoseTrack,
    extrinsics: Mapping[str, Floats],
    *,
    range_m: tuple[float, float] = (0.0, np.inf),
    deskew: bool = True,
) -> PlacedScan | None:
    """Return a scan in the world frame, or None where no pose covers any of it.

    Args:
        extrinsics: sensor → body, 4×4 matrices by sensor name.
        range_m: nearest and farthest return that is kept.
        deskew: use the time of each point; False uses the time of the scan for all.
    """
    distance = np.linalg.norm(scan.points, axis=1)  # (N,)
    kept = np.flatnonzero((distance >= range_m[0]) & (distance <= range_m[1]))
    mount = extrinsics[scan.sensor]
    # Sensor frame to body frame: one rigid motion for the whole scan.
    body = scan.points[kept].astype(np.float64) @ mount[:3, :3].T + mount[:3, 3]  # (N, 3)
    start = mount[None, :3, 3]  # (1, 3)
    if scan.origins is not None:
        start = scan.origins[kept].astype(np.float64) @ mount[:3, :3].T + mount[:3, 3]
    if deskew and scan.times_s is not None:
        # Body frame to world: one pose for each instant at which points were measured.
        instants, which = np.unique(scan.times_s[kept], return_inverse=True)
        places, turns, valid = poses.at(instants)
        seen = valid[which]
        kept, which, body = kept[seen], which[seen], body[seen]
        start = start if len(start) == 1 else start[seen]
        place, turn = places[which], turns[which]  # (N, 3), (N, 4)
    else:
        place, turn, valid = poses.at([scan.time_s])
        if not valid[0]:
            return None
    if not len(kept):
        return None
    points = rotate(turn, body) + place
    origins = rotate(turn, start) + place
    return PlacedScan(scan.time_s, points, origins, kept)
