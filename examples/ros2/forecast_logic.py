"""Turn lidar scans and odometry into forecasts; no ROS in here, so it runs and is tested anywhere.

Scans are placed by the interpolated pose of their time and kept for some seconds. A forecast reads
the frames of a model, 0.5 s apart up to now: each frame is what the scans before its time saw.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlwm.core.geometry.carve import carve
from vlwm.core.geometry.frames import ego_of, from_ego, rotate

FIELDS = ("x", "y", "z", "probability", "horizon")
"""float32 fields of an answer's points: metres in the world frame, 0 to 1, seconds ahead"""
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}  # PointField


@dataclass
class ForecastLogic:
    """Collects scans and poses, and forecasts.

    Attributes:
        model: of `vlwm.load`.
        lidar_to_body: (4, 4), from the sensor's frame to the body's (`base_link`).
        ground_z: height of the terrain in the world frame (`odom`), metres.
        window_s: a frame holds the scans of this many seconds before it.
        threshold: cells below this probability are not part of an answer.
        complete: take what no ray met as free. True for a model that was trained on complete
            frames: its forecast behind walls is then a guess.
    """

    model: Any
    lidar_to_body: np.ndarray = field(default_factory=lambda: np.eye(4))
    ground_z: float = 0.0
    window_s: float = 1.5
    threshold: float = 0.2
    complete: bool = False
    _poses: deque[tuple[float, np.ndarray]] = field(default_factory=deque)
    _scans: deque[tuple[float, np.ndarray, np.ndarray]] = field(default_factory=deque)

    @property
    def past_s(self) -> np.ndarray:
        """Return the times (P,) of the frames of a forecast, 0 now."""
        step = float(self.model.horizons_s[0])
        return step * np.arange(1 - self.model.history, 1)

    def add_odometry(self, time_s: float, pose: np.ndarray) -> None:
        """Take a pose (13,) as nav_msgs/Odometry has it: its twist is in the body's own axes."""
        pose = np.asarray(pose, dtype=np.float64).copy()
        pose[7:10], pose[10:13] = rotate(pose[3:7], pose[7:10]), rotate(pose[3:7], pose[10:13])
        self._poses.append((time_s, pose))
        oldest = time_s + self.past_s[0] - self.window_s - 1.0
        while self._poses[0][0] < oldest:
            self._poses.popleft()
        while self._scans and self._scans[0][0] < oldest:
            self._scans.popleft()

    def add_points(self, time_s: float, points: np.ndarray) -> bool:
        """Take the points (N, 3) of a scan, sensor frame; False where no pose covers its time."""
        pose = self.pose_at(time_s)
        if pose is None:
            return False
        points = points[np.isfinite(points).all(axis=1)]
        turn, shift = self.lidar_to_body[:3, :3], self.lidar_to_body[:3, 3]
        world = rotate(pose[3:7], points @ turn.T + shift) + pose[:3]
        self._scans.append((time_s, rotate(pose[3:7], shift) + pose[:3], world))
        return True

    def pose_at(self, time_s: float) -> np.ndarray | None:
        """Return the pose (13,) at a time between two odometry messages; None outside of them."""
        times = np.array([t for t, _ in self._poses])
        if len(times) < 2 or not times[0] <= time_s <= times[-1]:
            return None
        after = max(1, int(np.searchsorted(times, time_s)))
        (t0, a), (t1, b) = self._poses[after - 1], self._poses[after]
        b = b.copy()
        b[3:7] *= np.sign(a[3:7] @ b[3:7]) or 1.0  # the nearer of the two equal quaternions
        pose = a + (b - a) * (time_s - t0) / (t1 - t0)
        pose[3:7] /= np.linalg.norm(pose[3:7])
        return pose

    def frames(self, now_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Return occupancy and known cells (P, X, Y, Z) and poses (P, 13), or None too early."""
        occupied, known, poses = [], [], []
        for time_s in now_s + self.past_s:
            pose = self.pose_at(time_s)
            scans = [s for s in self._scans if time_s - self.window_s <= s[0] <= time_s]
            if pose is None or not scans:
                return None
            ends = np.concatenate([points for _, _, points in scans])
            origins = np.concatenate([np.broadcast_to(o, p.shape) for _, o, p in scans])
            hit = np.ones(len(ends), dtype=bool)
            cells, free = carve(self.model.grid, ego_of(pose, self.ground_z), origins, ends, hit)
            occupied.append(cells)
            known.append(cells | free)
            poses.append(pose)
        return np.stack(occupied), np.stack(known), np.stack(poses)

    def forecast(self, now_s: float) -> np.ndarray | None:
        """Return float32 (M, 5), cells that are probably occupied, as `FIELDS`; None too early."""
        found = self.frames(now_s)
        if found is None:
            return None
        occupied, known, poses = found
        answer = self.model.forecast(
            occupied,
            poses,
            known=None if self.complete else known,
            ground_z=self.ground_z,
            quaternion="xyzw",
            velocity_frame="world",
        )
        rows = []
        grid = self.model.grid
        for h, seconds in enumerate(answer.horizons_s):
            index = np.argwhere(answer.probability[h] >= self.threshold)
            centres = grid.lower_m + (index + 0.5) * grid.cell_m  # (M, 3), metres, ego frame
            places = from_ego(centres, answer.ego[h])
            probability = answer.probability[h][tuple(index.T)]
            rows.append(np.column_stack([places, probability, np.full(len(index), seconds)]))
        return np.concatenate(rows).astype(np.float32)


def xyz_of(
    data: bytes, fields: list[tuple[str, int, int]], step: int, big_endian: bool = False
) -> np.ndarray:
    """Return points float64 (N, 3) of the bytes of a PointCloud2.

    Args:
        fields: (name, offset, datatype) of each PointField.
        step: bytes of a point.
    """
    order = ">" if big_endian else "<"
    chosen = [f for f in fields if f[0] in ("x", "y", "z")]
    kind = np.dtype(
        {
            "names": [name for name, _, _ in chosen],
            "formats": [order + _TYPES[datatype] for _, _, datatype in chosen],
            "offsets": [offset for _, offset, _ in chosen],
            "itemsize": step,
        }
    )
    points = np.frombuffer(data, dtype=kind)
    return np.stack([points[name].astype(np.float64) for name in ("x", "y", "z")], axis=-1)
