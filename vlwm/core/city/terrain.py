"""The ground as a height field on a regular grid, two triangles per square.

Heights between nodes are those of the triangles themselves, so `height` and `triangles` are one
surface: a vehicle that stands on `height` stands on what is voxelised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
from scipy.ndimage import gaussian_filter
from scipy.spatial import QhullError, cKDTree

Bounds = tuple[float, float, float, float]
"""x from, y from, x to, y to, metres"""

SPACING_M = 10.0
_NEIGHBOURS = 5
_SMOOTHING_NODES = 1.0


@dataclass(frozen=True, eq=False)
class Terrain:
    """Heights (nx, ny) at (x0 + i·spacing, y0 + j·spacing), metres, float64.

    Squares are cut along the diagonal from (i, j) to (i+1, j+1). Outside the grid the height is
    that of the nearest border.
    """

    x0: float
    y0: float
    spacing_m: float
    heights: NDArray[np.float64]

    @classmethod
    def flat(cls, height_m: float, bounds: Bounds) -> Terrain:
        """Level ground under `bounds`."""
        spacing = max(bounds[2] - bounds[0], bounds[3] - bounds[1], 1.0)
        return cls(bounds[0], bounds[1], spacing, np.full((2, 2), float(height_m)))

    @classmethod
    def from_points(
        cls, points: ArrayLike, bounds: Bounds, spacing_m: float = SPACING_M
    ) -> Terrain:
        """Ground through scattered ground points (N, 3), such as the bases of buildings.

        A point is first replaced by the median of its five nearest neighbours: a garage in a slope
        or a block on a platform must not dent the ground. Between the points the ground is linear,
        beyond them as high as the nearest.
        """
        known = np.asarray(points, dtype=np.float64)
        known = known[np.isfinite(known).all(axis=1)]
        if not len(known):
            return cls.flat(0.0, bounds)
        heights = _median_of_neighbours(known)
        if np.ptp(heights) < 1e-6:
            return cls.flat(float(heights[0]), bounds)
        xs = np.arange(bounds[0], bounds[2] + spacing_m, spacing_m)
        ys = np.arange(bounds[1], bounds[3] + spacing_m, spacing_m)
        nodes = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1)
        field = _interpolate(known[:, :2], heights, nodes)
        return cls(bounds[0], bounds[1], spacing_m, gaussian_filter(field, _SMOOTHING_NODES))

    def height(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Ground height (...,) under points (..., 2), metres."""
        at = np.asarray(xy, dtype=np.float64)
        nx, ny = self.heights.shape
        u = np.clip((at[..., 0] - self.x0) / self.spacing_m, 0, nx - 1)
        v = np.clip((at[..., 1] - self.y0) / self.spacing_m, 0, ny - 1)
        i = np.minimum(u.astype(np.int64), nx - 2)
        j = np.minimum(v.astype(np.int64), ny - 2)
        s, t = u - i, v - j
        h = self.heights
        h00, h10, h01, h11 = h[i, j], h[i + 1, j], h[i, j + 1], h[i + 1, j + 1]
        below = h00 + s * (h10 - h00) + t * (h11 - h10)
        above = h00 + t * (h01 - h00) + s * (h11 - h01)
        return np.where(s >= t, below, above)

    def triangles(self, bounds: Bounds) -> NDArray[np.float64]:
        """Triangles (T, 3, 3) of the squares that meet `bounds`, metres, looking up.

        The border squares are stretched to cover `bounds` where it reaches beyond the grid.
        """
        xs = self._lines(self.x0, self.heights.shape[0], bounds[0], bounds[2])
        ys = self._lines(self.y0, self.heights.shape[1], bounds[1], bounds[3])
        grid = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1)
        nodes = np.concatenate([grid, self.height(grid)[..., None]], axis=-1)
        a, b, c, d = nodes[:-1, :-1], nodes[1:, :-1], nodes[1:, 1:], nodes[:-1, 1:]
        lower = np.stack([a, b, c], axis=-2).reshape(-1, 3, 3)
        upper = np.stack([a, c, d], axis=-2).reshape(-1, 3, 3)
        return np.concatenate([lower, upper])

    def _lines(self, start: float, count: int, low: float, high: float) -> NDArray[np.float64]:
        last = start + (count - 1) * self.spacing_m
        first_index = int(np.clip(np.floor((low - start) / self.spacing_m), 0, count - 1))
        last_index = int(np.clip(np.ceil((high - start) / self.spacing_m), 0, count - 1))
        inner = start + np.arange(first_index, last_index + 1) * self.spacing_m
        before = [low] if low < start else []
        after = [high] if high > last else []
        return np.array([*before, *inner, *after])


def _median_of_neighbours(points: NDArray[np.float64]) -> NDArray[np.float64]:
    count = min(_NEIGHBOURS, len(points))
    _, near = cKDTree(points[:, :2]).query(points[:, :2], k=count)
    return np.median(points[:, 2][np.atleast_2d(near.reshape(len(points), count))], axis=1)


def _interpolate(
    xy: NDArray[np.float64], z: NDArray[np.float64], nodes: NDArray[np.float64]
) -> NDArray[np.float64]:
    nearest = NearestNDInterpolator(xy, z)(nodes)
    try:
        linear = LinearNDInterpolator(xy, z)(nodes)
    except QhullError:  # all points on one line
        return np.asarray(nearest)
    return np.where(np.isfinite(linear), linear, nearest)
