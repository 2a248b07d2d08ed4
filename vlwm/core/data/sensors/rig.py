"""The sensors that vehicles carry: named real models, and where they hang on the body.

Sensor frames. LIDAR: x forward, y left, z up. CAM_FRONT: x right, y down, z forward. The
extrinsics in `session.json: sensors` lead from the sensor to the body. A drone's sensors look down
a little: its lidar still sees straight ahead, and ground from 60 m, which level it would not. A
scan is taken at one instant: it is what a driver gives after removing the motion of the vehicle.

Data sheets: Velodyne HDL-32E (63-9113) and VLP-16 (63-9243) user's manuals; the camera has picture
size and focal length of nuScenes' CAM_FRONT (Caesar et al., 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.geometry.frames import (
    ORIENTATION,
    POSITION,
    multiply_quaternions,
    quaternion_from_rpy,
    rotate,
)
from vlwm.core.geometry.render import Pinhole
from vlwm.core.vocabulary import Agent

LIDAR, CAMERA = "LIDAR", "CAM_FRONT"
Quaternion = tuple[float, float, float, float]


@dataclass(frozen=True)
class LidarPattern:
    """A spinning lidar.

    Attributes:
        model: name of the real sensor.
        elevations_deg: of the channels, lowest first.
        azimuths: firings of one turn, evenly spaced, clockwise seen from above, the first ahead.
        range_m: nearest and farthest return.
        range_sigma_m: standard deviation of the range noise.
    """

    model: str
    elevations_deg: tuple[float, ...]
    azimuths: int
    range_m: tuple[float, float]
    range_sigma_m: float

    @property
    def beams(self) -> int:
        """Rays of one turn."""
        return self.azimuths * len(self.elevations_deg)

    def directions(self) -> NDArray[np.float64]:
        """Return unit vectors (beams, 3) in the sensor frame, in the order of firing."""
        azimuth = -2 * np.pi * np.arange(self.azimuths) / self.azimuths
        a, e = np.meshgrid(azimuth, np.radians(self.elevations_deg), indexing="ij")
        rays = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], axis=-1)
        return rays.reshape(-1, 3)

    def describe(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "channels": len(self.elevations_deg),
            "elevations_deg": list(self.elevations_deg),
            "azimuths": self.azimuths,
            "range_m": list(self.range_m),
            "range_sigma_m": self.range_sigma_m,
            "intensity": "100 times the cosine of the incidence",
        }


def _fan(lowest_deg: float, step_deg: float, beams: int) -> tuple[float, ...]:
    return tuple(round(lowest_deg + step_deg * k, 2) for k in range(beams))


LIDARS: Mapping[str, LidarPattern] = {
    "HDL-32E": LidarPattern("Velodyne HDL-32E", _fan(-92 / 3, 4 / 3, 32), 2170, (1.0, 100.0), 0.02),
    "VLP-16": LidarPattern("Velodyne VLP-16", _fan(-15.0, 2.0, 16), 1800, (1.0, 100.0), 0.03),
}
"""10 turns a second; the step in azimuth is that of the firing cycle (46.08 µs, 55.30 µs)"""


@dataclass(frozen=True)
class Mount:
    """Mounting of a sensor: sensor frame to body frame.

    Attributes:
        translation_m: of the sensor in the body frame.
        rotation: unit quaternion x, y, z, w.
    """

    translation_m: tuple[float, float, float]
    rotation: Quaternion

    def pose(self, body: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Place (3,) and axes (3, 3), rows x, y, z, of the sensor on a body's pose (13,)."""
        turn = body[ORIENTATION] / np.linalg.norm(body[ORIENTATION])
        place = body[POSITION] + rotate(turn, self.translation_m)
        return place, rotate(multiply_quaternions(turn, self.rotation), np.eye(3))

    def describe(self) -> dict[str, Any]:
        return {
            "parent": "body",
            "translation": list(self.translation_m),
            "rotation": [round(v, 12) for v in self.rotation],
        }


def _looking(down_deg: float, base: Quaternion) -> Quaternion:
    turned = multiply_quaternions(quaternion_from_rpy(0.0, np.radians(down_deg), 0.0), base)
    x, y, z, w = (float(v) for v in turned)
    return x, y, z, w


_LEVEL: Quaternion = (0.0, 0.0, 0.0, 1.0)
_OPTICAL: Quaternion = (-0.5, 0.5, -0.5, 0.5)  # x right, y down, z forward

MOUNTS: Mapping[str, Mapping[str, Mount]] = {
    Agent.DRONE: {
        LIDAR: Mount((0.0, 0.0, -0.2), _looking(10.0, _LEVEL)),
        CAMERA: Mount((0.2, 0.0, -0.1), _looking(8.0, _OPTICAL)),
    },
    Agent.ROVER: {
        LIDAR: Mount((0.0, 0.0, 1.3), _looking(0.0, _LEVEL)),
        CAMERA: Mount((0.3, 0.0, 1.0), _looking(0.0, _OPTICAL)),
    },
}
"""a rover's pose rides 0.5 m above the terrain"""

FRONT = Pinhole(1600, 900, 1266.0, 1266.0, 799.5, 449.5)


def describe_sensors(agent: str, pattern: str | None, camera: bool) -> dict[str, Any]:
    """Return the `sensors` of `session.json`; `pattern` None: no lidar."""
    found: dict[str, Any] = {}
    if pattern is not None:
        found[LIDAR] = {**LIDARS[pattern].describe(), **MOUNTS[agent][LIDAR].describe()}
    if camera:
        lens = {"width": FRONT.width, "height": FRONT.height, "intrinsics": FRONT.matrix}
        found[CAMERA] = {**lens, **MOUNTS[agent][CAMERA].describe()}
    return found
