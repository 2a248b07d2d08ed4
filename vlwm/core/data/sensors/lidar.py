"""Lidar scans of a city, and their files: (N, 4) float32 x, y, z, intensity in the sensor frame.

A beam returns from the first surface it meets within the sensor's range. Range noise is normal with
the sensor's sigma, along the beam, from a generator seeded by session and frame. Intensity is 100
times the cosine of the incidence: what the sensor reports, its range compensated, from an ideal
diffuse surface. What the surfaces are made of is not in the city models and is not invented.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.sensors.rig import LidarPattern, Mount
from vlwm.core.errors import DataError
from vlwm.core.files import atomic_path
from vlwm.core.geometry.jit import compiled
from vlwm.core.geometry.rays import RayCaster

_STREAM = 0x11DA2
"""number of the random stream of the noise: no other draw of the same seed changes it"""
_AGAIN = "run the same vlwm prepare command again; it is written again"


class LidarScanner:
    """A lidar on a vehicle in a city.

    Args:
        caster: the surfaces, in the world frame of the poses.
        seed: of the session.
    """

    def __init__(self, caster: RayCaster, pattern: LidarPattern, mount: Mount, seed: int) -> None:
        self.caster, self.pattern, self.mount, self.seed = caster, pattern, mount, seed
        self._rays = pattern.directions()

    def scan(
        self, body: NDArray[np.float64], number: int, *, noise: bool = True
    ) -> NDArray[np.float32]:
        """Return the scan (N, 4) of frame `number` at a body's pose (13,), in firing order."""
        place, axes = self.mount.pose(body)
        nearest, farthest = self.pattern.range_m
        along = np.empty_like(self._rays)
        _turn(self._rays, np.ascontiguousarray(axes), along)
        hits = self.caster.first_hits(place, along, farthest)
        errors = np.zeros(len(along))
        if noise:
            rng = np.random.default_rng([self.seed, number, _STREAM])
            errors = rng.normal(0.0, self.pattern.range_sigma_m, len(along))
        points = np.empty((len(along), 4), dtype=np.float32)
        count = _collect(self._rays, hits.distances, hits.cosines, nearest, errors, points)
        return points[:count]


@compiled
def _turn(rays: NDArray[np.float64], axes: NDArray[np.float64], along: NDArray[np.float64]) -> None:
    """Turn rays (N, 3) of the sensor frame to the outer frame; the rows of `axes` are its axes."""
    for k in range(len(rays)):
        for axis in range(3):
            along[k, axis] = (
                rays[k, 0] * axes[0, axis] + rays[k, 1] * axes[1, axis] + rays[k, 2] * axes[2, axis]
            )


@compiled
def _collect(
    rays: NDArray[np.float64],
    distances: NDArray[np.float64],
    cosines: NDArray[np.float64],
    nearest: float,
    errors: NDArray[np.float64],
    points: NDArray[np.float32],
) -> int:
    """Fill points (N, 4) with the beams that returned from `nearest` or farther; their number."""
    count = 0
    for k in range(len(rays)):
        distance = distances[k]
        if distance < nearest or distance == np.inf:
            continue
        for axis in range(3):
            points[count, axis] = rays[k, axis] * (distance + errors[k])
        points[count, 3] = 100.0 * cosines[k]
        count += 1
    return count


def write_lidar(path: Path, points: NDArray[np.float32]) -> None:
    """Write one scan by rename; not flushed, see `session.write_meta`."""
    buffer = io.BytesIO()  # NumPy's own writing to a full disk raises an error that has no number
    np.save(buffer, points, allow_pickle=False)
    with atomic_path(path, flush=False) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_lidar(path: Path) -> NDArray[np.float32]:
    """Return the scan (N, 4) of a file.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    try:
        points = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError("no such scan", where=path, remedy=_AGAIN) from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"a damaged scan: {error}", where=path, remedy=_AGAIN) from error
    if points.ndim != 2 or points.shape[1] != 4:
        raise DataError(
            f"a scan of shape {points.shape}, not (N, 4)",
            where=path,
            remedy="write x, y, z, intensity a point, as in docs/data_format.md",
        )
    return np.asarray(points, dtype=np.float32)
