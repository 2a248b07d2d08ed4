"""Observe a city as a vehicle's sensor would: cells seen occupied, seen free, and unknown.

Each frame casts the rays of a named pattern into the mesh, adds range noise, loses some returns,
and carves the grid along the rays that returned (`geometry.carve`). A ray without a return makes
nothing known: to a sensor, an open sky and a lost return look the same.

A vehicle with pose noise places its scan by the pose that it believes, in the grid of that pose.
Position, terrain height and orientation are off by independent normal errors in each frame; the
believed velocity is the true one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.npz import SEEN_FREE, SEEN_OCCUPIED
from vlwm.core.data.sensors.ray_patterns import RAY_PATTERNS, RayPattern
from vlwm.core.data.sensors.rig import LIDAR, MOUNTS, Mount
from vlwm.core.geometry.carve import carve
from vlwm.core.geometry.frames import ORIENTATION, POSITION, ego_of, multiply_quaternions
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.rays import RayCaster

_NOISE_STREAM = 0x11DA2  # the stream of `lidar.LidarScanner`: a scan file has the same range noise
_DROPOUT_STREAM = 0xD209  # streams are independent: one draw less changes no other
_POSE_STREAM = 0x905E

Layers = dict[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class PoseNoise:
    """Errors of the believed pose in one frame.

    Attributes:
        position_m: standard deviation along each axis.
        angle_deg: standard deviation about each axis.
    """

    position_m: float
    angle_deg: float


POSE_NOISE: Mapping[str, PoseNoise | None] = {
    "none": None,
    "5cm": PoseNoise(0.05, 0.1),
    "15cm": PoseNoise(0.15, 0.3),
}
"""levels that `prepare.pose_noise` can name"""


@dataclass(frozen=True, eq=False)
class Track:
    """Poses of a session, as they are or as the vehicle believes them.

    Attributes:
        poses: float64 (N, 13), world frame.
        ground_z: float64 (N,), terrain under the vehicle, metres.
    """

    poses: NDArray[np.float64]
    ground_z: NDArray[np.float64]


def believed_track(track: Track, noise: PoseNoise | None, seed: int) -> Track:
    """Return a track with the errors of a vehicle's own localisation, the same for a seed.

    Height and terrain height share their error: a vehicle measures its height above ground much
    better than its altitude.
    """
    if noise is None:
        return track
    rng = np.random.default_rng([seed, _POSE_STREAM])
    count = len(track.poses)
    shift = rng.normal(0.0, noise.position_m, (count, 3))
    # A small rotation vector v is the quaternion (v / 2, 1) but for its length.
    turn = np.ones((count, 4))
    turn[:, :3] = rng.normal(0.0, np.radians(noise.angle_deg), (count, 3)) / 2
    turn /= np.linalg.norm(turn, axis=1, keepdims=True)
    poses = track.poses.copy()
    poses[:, POSITION] += shift
    poses[:, ORIENTATION] = multiply_quaternions(turn, poses[:, ORIENTATION])
    return Track(poses, track.ground_z + shift[:, 2])


def describe_observer(agent: str, observe: str | None, pose_noise: str) -> dict[str, Any]:
    """Return the entry of the observing sensor for `session.json: sensors`; empty without one."""
    noise = POSE_NOISE[pose_noise]
    believed = {} if noise is None else {"pose_noise": asdict(noise)}
    if observe is None:
        return {"BELIEVED_POSES": believed} if believed else {}
    pattern = RAY_PATTERNS[observe].describe()
    return {"OBSERVER": {**pattern, **MOUNTS[agent][LIDAR].describe(), **believed}}


class Observer:
    """A sensor on a vehicle that turns each frame of a session into layers.

    Args:
        caster: the surfaces, in the world frame of the poses.
        grid: the grid of the frames.
        true: poses at which the rays are cast.
        believed: poses by which the vehicle places them; `true` without pose noise.
        seed: of the session.
    """

    def __init__(
        self,
        caster: RayCaster,
        pattern: RayPattern,
        mount: Mount,
        grid: VoxelGrid,
        true: Track,
        believed: Track,
        seed: int,
    ) -> None:
        self.caster, self.pattern, self.mount, self.grid = caster, pattern, mount, grid
        self.true, self.believed, self.seed = true, believed, seed

    def observe(self, number: int) -> Layers:
        """Return `seen_occupied` and `seen_free` of a frame, each uint8 (X, Y, Z)."""
        rays = self.pattern.rays(number)  # (N, 3), sensor frame
        nearest, farthest = self.pattern.range_m
        place, axes = self.mount.pose(self.true.poses[number])
        hits = self.caster.first_hits(place, rays @ axes, farthest)
        lost = self._random(number, _DROPOUT_STREAM).random(len(rays))
        errors = self._random(number, _NOISE_STREAM).normal(0.0, 1.0, len(rays))
        back = (hits.faces >= 0) & (hits.distances >= nearest) & (lost >= self.pattern.dropout)
        distances = hits.distances[back]  # (R,) of the rays that returned
        ranges = distances + errors[back] * self.pattern.range_sigma(distances)
        # The vehicle knows its pose and tilt only as it believes them, and places the scan there.
        origin, believed_axes = self.mount.pose(self.believed.poses[number])
        ends = origin + ranges[:, None] * (rays[back] @ believed_axes)
        ego = ego_of(self.believed.poses[number], self.believed.ground_z[number])
        occupied, free = carve(self.grid, ego, origin, ends, np.ones(len(ends), dtype=bool))
        return {SEEN_OCCUPIED: occupied, SEEN_FREE: free}

    def _random(self, number: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, number, stream])
