"""A recording of a known city, made by casting rays: the truth against which readers are tested."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from vlwm.core.city.city import City
from vlwm.core.city.procedural import procedural_city
from vlwm.core.data.generation.frame_jobs import Scene
from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.data.recordings.recording import Recording, Scan
from vlwm.core.data.sensors.rig import LIDARS, LidarPattern
from vlwm.core.geometry.frames import quaternion_from_rpy, rotate
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.rays import RayCaster
from vlwm.core.geometry.voxelize import TriangleTiles

GRID = VoxelGrid.from_range((-24.0, -24.0, -2.0, 24.0, 24.0, 28.0), (0.8, 0.8, 2.5))
MOUNT = np.array([[0.0, -1.0, 0.0, 0.1], [1.0, 0.0, 0.0, 0.2], [0.0, 0.0, 1.0, -0.3], [0, 0, 0, 1]])
"""sensor to body: a quarter turn to the left and a short way off, so that no inverse fits"""
SMALL = replace(LIDARS["VLP-16"], azimuths=360)


@lru_cache(maxsize=4)
def _city(seed: int) -> City:
    return procedural_city(260.0, seed)


@lru_cache(maxsize=4)
def _scene(seed: int) -> Scene:
    city = _city(seed)
    return Scene(TriangleTiles.build(city.triangles), city, GRID, "surface")


@lru_cache(maxsize=4)
def _caster(seed: int) -> RayCaster:
    city = _city(seed)
    ground = city.terrain.triangles((-250.0, -250.0, 250.0, 250.0))
    return RayCaster(np.concatenate([city.triangles, ground]))


@dataclass(frozen=True)
class KnownCity:
    """A drone turning through a procedural city with a spinning lidar.

    Args:
        seconds: length of the recording.
        scan_hz: scans a second; a scan takes the whole time to the next.
        blocks: parts of a scan that are fired at one instant.
    """

    seconds: float = 6.0
    scan_hz: float = 5.0
    pattern: LidarPattern = SMALL
    seed: int = 3
    blocks: int = 36
    start_s: float = 1000.0
    height_m: float = 9.0
    speed_m_s: float = 5.0
    turn_rad_s: float = 0.5
    weave_rad: float = 0.0

    @property
    def city(self) -> City:
        return _city(self.seed)

    @property
    def scene(self) -> Scene:
        return _scene(self.seed)

    @property
    def caster(self) -> RayCaster:
        return _caster(self.seed)

    def poses(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions (N, 3) and quaternions (N, 4) of the body: an arc that sways and tilts."""
        t = np.asarray(times, float) - self.start_s
        yaw = 0.3 + self.turn_rad_s * t
        swing = self.weave_rad * np.sin(1.3 * t)
        radius = self.speed_m_s / self.turn_rad_s
        x, y = radius * np.sin(yaw), -radius * np.cos(yaw)
        z = self.height_m + 0.5 * np.sin(0.8 * t)
        level = self.ground(np.stack([x, y], -1))
        place = np.stack([x, y, z + level], axis=-1)
        return place, quaternion_from_rpy(0.1 * np.sin(t), 0.08 * np.cos(1.3 * t), yaw + swing)

    def ground(self, xy: np.ndarray) -> np.ndarray:
        return self.city.terrain.height(xy)

    @cached_property
    def track(self) -> PoseTrack:
        times = self.start_s + np.arange(-0.2, self.seconds + 0.4, 0.02)
        return PoseTrack.of(times, *self.poses(times))

    @property
    def scan_times(self) -> np.ndarray:
        return self.start_s + np.arange(int(self.seconds * self.scan_hz)) / self.scan_hz

    def scan(self, time_s: float, pattern: LidarPattern | None = None) -> Scan:
        """The scan that begins at `time_s`: each block of rays from the body's pose at its time."""
        pattern = pattern or self.pattern
        blocks = np.array_split(pattern.directions(), self.blocks)
        times = time_s + np.arange(self.blocks) / self.blocks / self.scan_hz
        places, turns = self.poses(times)
        points, stamps = [], []
        for rays, now, place, turn in zip(blocks, times, places, turns, strict=True):
            body = rays @ MOUNT[:3, :3].T
            start = place + rotate(turn, MOUNT[:3, 3])
            hits = self.caster.first_hits(start, rotate(turn, body), pattern.range_m[1])
            good = np.isfinite(hits.distances) & (hits.distances >= pattern.range_m[0])
            points.append(rays[good] * hits.distances[good, None])
            stamps.append(np.full(int(good.sum()), now))
        cloud = np.concatenate(points).astype(np.float32)
        ramp = np.linspace(1, 99, len(cloud), dtype=np.float32)
        return Scan(float(time_s), cloud, intensity=ramp, times_s=np.concatenate(stamps))

    @cached_property
    def scans(self) -> list[Scan]:
        return [self.scan(float(t)) for t in self.scan_times]

    @cached_property
    def recording(self) -> Recording:
        return Recording("known", "drone", lambda: iter(self.scans), self.track, {"LIDAR": MOUNT})
