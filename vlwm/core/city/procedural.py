"""Generate a procedural city for tests and first steps: streets, blocks, Tokyo-like heights.

It is labelled procedural wherever it is shown, and proves nothing about a real place. Buildings are
closed prisms (floor, walls, roof; faces look outward) on a rectangular street grid of uneven
blocks; heights are log-normal, taller towards the middle, with a few towers; the ground rolls.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.city import City, Origin, ReadReport
from vlwm.core.city.terrain import Terrain
from vlwm.core.errors import UsageError
from vlwm.core.geometry.triangulate import triangulate_ring

ATTRIBUTION = "procedural city, not real data"
_STREETS_M = (8.0, 12.0, 20.0)
_BLOCK_M = (28.0, 70.0)
_PLOT_M = 22.0
_MARGIN_M = 150.0


def procedural_city(size_m: float = 800.0, seed: int = 42) -> City:
    """Return a square city of `size_m` metres about (0, 0); the same seed gives the same city.

    Raises:
        UsageError: smaller than 200 m, where no street fits.
    """
    if size_m < 200.0:
        raise UsageError(
            f"a procedural city of {size_m:g} m is too small", remedy="use 200 m or more"
        )
    rng = np.random.default_rng([seed, 0xC17])
    half = size_m / 2
    reach = half + _MARGIN_M
    terrain = _rolling_ground(rng, (-reach, -reach, reach, reach))
    prisms: list[NDArray[np.float64]] = []
    owners: list[NDArray[np.int32]] = []
    ids: list[str] = []
    for x0, x1 in _blocks(rng, half):
        for y0, y1 in _blocks(rng, half):
            for ring in _plots(rng, x0, y0, x1, y1):
                base = float(terrain.height(ring).min())
                prism = _prism(ring, base, base + _height(rng, ring.mean(axis=0), half))
                owners.append(np.full(len(prism), len(ids), dtype=np.int32))
                ids.append(f"procedural-{len(ids)}")
                prisms.append(prism)
    triangles = np.concatenate(prisms)
    return City(
        name=f"procedural-{seed}",
        origin=Origin("procedural", 0.0, 0.0, 0.0),
        triangles=triangles,
        feature_ids=ids,
        feature_of_face=np.concatenate(owners),
        terrain=terrain,
        procedural=True,
        attribution=ATTRIBUTION,
        report=ReadReport(
            features=len(ids), buildings=len(ids), lod1=len(ids), triangles=len(triangles)
        ),
    )


def _rolling_ground(rng: np.random.Generator, bounds: tuple[float, ...]) -> Terrain:
    xs = np.arange(bounds[0], bounds[2] + 10.0, 10.0)
    ys = np.arange(bounds[1], bounds[3] + 10.0, 10.0)
    x, y = np.meshgrid(xs, ys, indexing="ij")
    heights = np.zeros_like(x)
    for wave in (700.0, 430.0):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        along = x * np.cos(angle) + y * np.sin(angle)
        heights += 1.5 * np.sin(2 * np.pi * along / wave + phase)
    return Terrain(bounds[0], bounds[1], 10.0, heights)


def _blocks(rng: np.random.Generator, half: float) -> list[tuple[float, float]]:
    """Return the intervals between streets along one axis, metres."""
    found: list[tuple[float, float]] = []
    at = -half
    while True:
        at += rng.choice(_STREETS_M)
        end = at + rng.uniform(*_BLOCK_M)
        if end > half:
            return found
        found.append((at, end))
        at = end


def _plots(
    rng: np.random.Generator, x0: float, y0: float, x1: float, y1: float
) -> list[NDArray[np.float64]]:
    """Return footprints (N, 2) of a block's buildings, counter-clockwise; some plots stay empty."""
    rings = []
    nx, ny = max(1, round((x1 - x0) / _PLOT_M)), max(1, round((y1 - y0) / _PLOT_M))
    xs, ys = np.linspace(x0, x1, nx + 1), np.linspace(y0, y1, ny + 1)
    for i in range(nx):
        for j in range(ny):
            if rng.random() < 0.12:
                continue
            gap = rng.uniform(0.5, 2.0, 4)
            low = np.array([xs[i] + gap[0], ys[j] + gap[1]])
            high = np.array([xs[i + 1] - gap[2], ys[j + 1] - gap[3]])
            rings.append(_footprint(rng, low, high))
    return rings


def _footprint(
    rng: np.random.Generator, low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    (x0, y0), (x1, y1) = low, high
    if rng.random() < 0.7:
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    xm, ym = low + (high - low) * rng.uniform(0.4, 0.7, 2)
    return np.array([[x0, y0], [x1, y0], [x1, ym], [xm, ym], [xm, y1], [x0, y1]])


def _height(rng: np.random.Generator, at: NDArray[np.float64], half: float) -> float:
    """Return a height in storeys of 3.2 m: log-normal, taller in the middle, with a few towers."""
    centre = np.exp(-((np.linalg.norm(at) / (0.6 * half)) ** 2))
    height = rng.lognormal(np.log(9.0 + 16.0 * centre), 0.5)
    if rng.random() < 0.025:
        height = rng.uniform(60.0, 60.0 + 90.0 * centre)
    return float(np.clip(np.round(height / 3.2), 1, 46) * 3.2)


def _prism(ring: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Return closed prism (T, 3, 3) over a counter-clockwise ring (N, 2); faces look outward."""
    floor = np.column_stack([ring, np.full(len(ring), low)])
    roof = np.column_stack([ring, np.full(len(ring), high)])
    cap = triangulate_ring([roof])
    following = np.roll(np.arange(len(ring)), -1)
    first = np.stack([floor, floor[following], roof[following]], axis=1)
    second = np.stack([floor, roof[following], roof], axis=1)
    return np.concatenate([roof[cap], floor[cap[:, ::-1]], first, second])
