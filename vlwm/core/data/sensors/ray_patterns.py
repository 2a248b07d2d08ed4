"""Ray patterns of the sensors that can observe a city: spinning lidars, a rosette, a depth camera.

A pattern gives the rays of one frame in the sensor frame (x forward, y left, z up), the range
within which a surface returns, the noise of a range, and the share of returns that are lost.
Rosette and depth camera follow the data sheets of the Livox Mid-360 (field of view, range, range
noise, 200,000 points a second) and the Intel RealSense D455 (field of view, range, depth noise that
grows with the square of the distance). The order of a Livox's points is not published, so the
rosette is a likeness: new directions in each frame, evenly over the field of view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.sensors.rig import LIDARS, LidarPattern

_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0  # turns between two points: no direction repeats
_PLASTIC = 0.7548776662466927  # its partner for a second axis (Roberts 2018, R2 sequence)


class RayPattern(Protocol):
    """Directions and range of a sensor's rays, as observing needs them."""

    @property
    def model(self) -> str:
        """Name of the real sensor."""

    @property
    def beams(self) -> int:
        """Rays of one frame."""

    @property
    def range_m(self) -> tuple[float, float]:
        """Nearest and farthest return, metres."""

    @property
    def dropout(self) -> float:
        """Share of returns that are lost."""

    def rays(self, number: int) -> NDArray[np.float64]:
        """Return unit vectors (beams, 3) of frame `number` in the sensor frame."""

    def range_sigma(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the standard deviation (N,) of the range noise at distances (N,), metres."""

    def describe(self) -> dict[str, Any]:
        """Return the values for `session.json: sensors`."""


@dataclass(frozen=True)
class Spinning:
    """A spinning lidar: the same rays in every frame."""

    lidar: LidarPattern
    dropout: float = 0.02

    @property
    def model(self) -> str:
        return self.lidar.model

    @property
    def beams(self) -> int:
        return self.lidar.beams

    @property
    def range_m(self) -> tuple[float, float]:
        return self.lidar.range_m

    def rays(self, number: int) -> NDArray[np.float64]:
        return self.lidar.directions()

    def range_sigma(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.full(len(distances), self.lidar.range_sigma_m)

    def describe(self) -> dict[str, Any]:
        return {**self.lidar.describe(), "dropout": self.dropout}


@dataclass(frozen=True)
class Rosette:
    """A lidar that never repeats its directions.

    Attributes:
        model: name of the real sensor.
        beams: points of one frame.
        elevation_deg: lowest and highest.
        range_m: nearest and farthest return.
        range_sigma_m: standard deviation of the range noise.
        dropout: share of returns that are lost.
    """

    model: str
    beams: int
    elevation_deg: tuple[float, float]
    range_m: tuple[float, float]
    range_sigma_m: float
    dropout: float = 0.02

    def rays(self, number: int) -> NDArray[np.float64]:
        k = np.arange(self.beams) + float(number) * self.beams  # (N,) points since the start
        azimuth = 2 * np.pi * np.mod(k * _GOLDEN, 1.0)
        low, high = np.sin(np.radians(self.elevation_deg))
        z = low + (high - low) * np.mod(k * _PLASTIC, 1.0)  # even in z is even on the sphere
        flat = np.sqrt(1.0 - z**2)
        return np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), z], axis=-1)

    def range_sigma(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.full(len(distances), self.range_sigma_m)

    def describe(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "points": self.beams,
            "elevation_deg": list(self.elevation_deg),
            "range_m": list(self.range_m),
            "range_sigma_m": self.range_sigma_m,
            "dropout": self.dropout,
        }


@dataclass(frozen=True)
class DepthImage:
    """A depth camera that looks along x: one ray through the middle of each pixel.

    Attributes:
        model: name of the real sensor.
        pixels: width and height.
        view_deg: full angles of view, across and up.
        range_m: nearest and farthest depth along the ray.
        sigma_at_4_m: standard deviation of the range noise at 4 m; it grows with the square.
        dropout: share of pixels without depth.
    """

    model: str
    pixels: tuple[int, int]
    view_deg: tuple[float, float]
    range_m: tuple[float, float]
    sigma_at_4_m: float
    dropout: float = 0.05

    @property
    def beams(self) -> int:
        return self.pixels[0] * self.pixels[1]

    def rays(self, number: int) -> NDArray[np.float64]:
        width, height = np.tan(np.radians(self.view_deg) / 2)
        left = width * (1.0 - 2.0 * (np.arange(self.pixels[0]) + 0.5) / self.pixels[0])
        up = height * (1.0 - 2.0 * (np.arange(self.pixels[1]) + 0.5) / self.pixels[1])
        z, y = np.meshgrid(up, left, indexing="ij")  # row by row, from the upper left
        rays = np.stack([np.ones_like(y), y, z], axis=-1).reshape(-1, 3)
        return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True))

    def range_sigma(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.sigma_at_4_m * (distances / 4.0) ** 2

    def describe(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "pixels": list(self.pixels),
            "view_deg": list(self.view_deg),
            "range_m": list(self.range_m),
            "range_sigma_at_4_m": self.sigma_at_4_m,
            "dropout": self.dropout,
        }


RAY_PATTERNS: Mapping[str, RayPattern] = {
    **{name: Spinning(lidar) for name, lidar in LIDARS.items()},
    # Mounted upside down, as drones carry it: the wide side of its view looks at the ground.
    "Livox": Rosette("Livox Mid-360, upside down", 40_000, (-52.0, 7.0), (0.1, 70.0), 0.02),
    "depth": DepthImage("Intel RealSense D455", (212, 120), (87.0, 58.0), (0.6, 20.0), 0.08),
}
"""sensors that `prepare.observe` can name"""
