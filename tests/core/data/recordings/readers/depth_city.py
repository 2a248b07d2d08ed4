"""Depth pictures of the known city, cast through the pixels that a reader uses."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from tests.core.data.recordings.known_city import KnownCity
from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.data.recordings.recording import Recording, Scan

FRD = np.diag([1.0, -1.0, -1.0])
NED = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
SKY = 10_000.0


class DepthCity:
    """A drone with a depth camera that looks along body x, `ahead_m` in front of the body."""

    def __init__(
        self, city: KnownCity, shape: tuple[int, int], focal: float, centre: tuple[float, float],
        first: float, step: int, ahead_m: float = 0.0,
    ) -> None:  # fmt: skip
        self.city, self.shape, self.ahead_m = city, shape, ahead_m
        self.pictures: dict[float, np.ndarray] = {}
        self.rows = np.arange(step // 2, shape[0], step)
        self.columns = np.arange(step // 2, shape[1], step)
        down, right = np.meshgrid(
            (self.rows + first - centre[1]) / focal,
            (self.columns + first - centre[0]) / focal,
            indexing="ij",
        )
        self.rays = np.stack([np.ones_like(right), right, down], axis=-1)  # forward, right, down

    def depth(self, time_s: float) -> np.ndarray:
        """The depth picture, sky where nothing was cast or met; cast once for each time."""
        if time_s not in self.pictures:
            self.pictures[time_s] = self._cast(time_s)
        return self.pictures[time_s]

    def _cast(self, time_s: float) -> np.ndarray:
        place, turn = self.city.poses(np.array([time_s]))
        world = Rotation.from_quat(turn[0])
        start = place[0] + world.apply([self.ahead_m, 0.0, 0.0])
        length = np.linalg.norm(self.rays, axis=-1)
        along = world.apply((self.rays / length[..., None]).reshape(-1, 3) @ FRD)
        hits = self.city.caster.first_hits(start, along, 90.0)
        picture = np.full(self.shape, SKY)
        found = hits.distances.reshape(length.shape) / length
        picture[np.ix_(self.rows, self.columns)] = np.where(np.isfinite(found), found, SKY)
        return picture

    def recording(
        self, times: np.ndarray, seen: slice = slice(None), agent: str = "drone"
    ) -> Recording:
        """The same without any file: points in a forward-left-up sensor at `times[seen]`."""
        zero = float(times[0])
        scans = []
        for t in times[seen]:
            depth = self.depth(float(t))[np.ix_(self.rows, self.columns)]
            points = (self.rays * depth[..., None])[depth < 100.0] @ FRD
            scans.append(Scan(float(t) - zero, points.astype(np.float32)))
        places, turns = self.city.poses(times)
        mount = np.eye(4)
        mount[0, 3] = self.ahead_m
        track = PoseTrack.of(times - zero, places, turns)
        return Recording("direct", agent, lambda: iter(scans), track, {"LIDAR": mount})


def ned_poses(places: np.ndarray, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions and quaternions x, y, z, w in north-east-down of a forward-right-down body."""
    turned = NED @ Rotation.from_quat(turns).as_matrix() @ FRD
    return places @ NED.T, Rotation.from_matrix(turned).as_quat()
