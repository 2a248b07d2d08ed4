"""The ground as a height field on a regular grid, two triangles per square.

Heights between nodes are those of the triangles themselves, so `height` and `triangles` are one
surface: a vehicle on `height` is on the voxelised ground.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import Delaunay, cKDTree

from vlwm.core.city.grid_blocks import blocks_of, windows_of
from vlwm.core.geometry.mapped_arrays import Scratch, let_go, pieces
from vlwm.core.geometry.plan_grid import PlanGrid, nodes_under

Bounds = tuple[float, float, float, float]
"""x from, y from, x to, y to, metres"""

SPACING_M = 10.0
"""between nodes of the height field"""
_NEIGHBOURS = 5
"""bases whose median is the ground at one of them"""
_NEIGHBOUR_M = 60.0
"""farther bases are not looked at"""
_SMOOTHING_NODES = 1.0
"""sigma of the smoothing of the height field"""
_SMOOTHING_REACH = 4  # nodes: four standard deviations, where scipy ends the curve
_BESIDE = 12
"""neighbours that a base is compared with"""
_RIM_M = 50.0
"""between the points that carry the ground to the rim of the field"""
_NEAREST = 16
"""bases whose mean is the ground at a point of the rim"""
_BESIDE_M = 20.0
"""farther ones are not compared"""
_ABOVE_M = 6.0
"""a base so far above its lowest neighbour is on a roof"""


@dataclass(frozen=True, eq=False)
class Terrain:
    """Heights (nx, ny) at (x0 + i·spacing, y0 + j·spacing), metres, float64.

    Squares are cut along the diagonal from (i, j) to (i+1, j+1). Outside the grid the height is
    that of the nearest border.

    A part of a terrain (`window`) keeps the corner (x0, y0) of the whole, so that its heights are
    those of the whole bit for bit.

    Attributes:
        first: node of the whole grid that is heights[0, 0].
        whole: nodes of the whole grid; None where this is the whole.
    """

    x0: float
    y0: float
    spacing_m: float
    heights: NDArray[np.float64]
    first: tuple[int, int] = (0, 0)
    whole: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Nodes of the whole grid along x and y."""
        nx, ny = self.whole or self.heights.shape
        return int(nx), int(ny)

    def window(self, bounds: Bounds) -> Terrain:
        """Return the part under `bounds`; its heights elsewhere raise IndexError."""
        i, j = nodes_for(bounds, (self.x0, self.y0), self.spacing_m, self.shape)
        part = self.heights[i, j]
        return replace(self, heights=part, first=(i.start, j.start), whole=self.shape)

    @classmethod
    def flat(cls, height_m: float, bounds: Bounds) -> Terrain:
        """Return level ground under `bounds`."""
        spacing = max(bounds[2] - bounds[0], bounds[3] - bounds[1], 1.0)
        return cls(bounds[0], bounds[1], spacing, np.full((2, 2), float(height_m)))

    @classmethod
    def from_points(
        cls,
        points: ArrayLike,
        bounds: Bounds,
        spacing_m: float = SPACING_M,
        scratch: Scratch | None = None,
    ) -> Terrain:
        """Return ground through scattered ground points (N, 3), such as the bases of buildings.

        Points well above their neighbours (roofs, upper decks) are left out. A point is then
        replaced by the median of itself and four neighbours within 60 m: a garage in a slope or a
        block on a platform must not dent the ground. Between the points the ground is linear,
        beyond them as high as the nearest.
        """
        known = np.asarray(points, dtype=np.float64)
        low, high = _span(known)
        if low == high or not np.isfinite(low):
            return cls.flat(low if low == high else 0.0, bounds)
        zeros = np.zeros if scratch is None else scratch.zeros
        grid = PlanGrid.over(bounds, spacing_m)
        rough = zeros(grid.shape)
        for block in blocks_of(grid):
            ground = on_the_ground(block.points(known))
            if block.share is None and np.ptp(ground[:, 2]) < 1e-6:
                return cls.flat(float(ground[0, 2]), bounds)
            block.add(interpolate(ground, block.grid, block.rim), rough)
            let_go(rough)
        field = zeros(grid.shape)
        for inner, outer, within in windows_of(grid.shape, _SMOOTHING_REACH):
            field[inner] = gaussian_filter(rough[outer], _SMOOTHING_NODES)[within]
            let_go(rough, field)
        return cls(grid.x0, grid.y0, grid.spacing_m, field)

    def height(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Return the ground height (...,) under points (..., 2), metres.

        Raises:
            IndexError: this is a window, and a point is outside of it.
        """
        at = np.asarray(xy, dtype=np.float64)
        nx, ny = self.shape
        u = np.clip((at[..., 0] - self.x0) / self.spacing_m, 0, nx - 1)
        v = np.clip((at[..., 1] - self.y0) / self.spacing_m, 0, ny - 1)
        i = np.minimum(u.astype(np.int64), nx - 2)
        j = np.minimum(v.astype(np.int64), ny - 2)
        s, t = u - i, v - j
        h = self.heights
        if self.whole is not None:
            i, j = i - self.first[0], j - self.first[1]
            inside = (i >= 0) & (i < h.shape[0] - 1) & (j >= 0) & (j < h.shape[1] - 1)
            if not np.all(inside):
                raise IndexError("a height outside of the window of a terrain was asked for")
        h00, h10, h01, h11 = h[i, j], h[i + 1, j], h[i, j + 1], h[i + 1, j + 1]
        below = h00 + s * (h10 - h00) + t * (h11 - h10)
        above = h00 + t * (h01 - h00) + s * (h11 - h01)
        return np.where(s >= t, below, above)

    def triangles(self, bounds: Bounds) -> NDArray[np.float64]:
        """Return triangles (T, 3, 3) of the squares that meet `bounds`, metres, looking up.

        The border squares are stretched to cover `bounds` where it reaches beyond the grid.
        """
        xs = self._lines(self.x0, self.shape[0], bounds[0], bounds[2])
        ys = self._lines(self.y0, self.shape[1], bounds[1], bounds[3])
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


def nodes_for(
    bounds: Bounds, corner: tuple[float, float], spacing_m: float, shape: tuple[int, int]
) -> tuple[slice, slice]:
    """Return the nodes of a grid that heights under `bounds` are made of, and one more each way.

    Args:
        corner: place of node (0, 0).
        shape: nodes of the grid along x and y.
    """
    found = []
    for k in (0, 1):
        low, high = ((bounds[k + at] - corner[k]) / spacing_m for at in (0, 2))
        first = int(np.clip(np.floor(low) - 1, 0, shape[k] - 2))
        last = int(np.clip(np.floor(high) + 2, first + 1, shape[k] - 1))
        found.append(slice(first, last + 1))
    return found[0], found[1]


def _span(points: NDArray[np.float64]) -> tuple[float, float]:
    """Return lowest and highest z of the finite points (N, 3); inf and -inf if there are none."""
    low, high = np.inf, -np.inf
    for _, some in pieces(points):
        z = some[np.isfinite(some).all(axis=1), 2]
        low, high = min(low, z.min(initial=np.inf)), max(high, z.max(initial=-np.inf))
    return float(low), float(high)


def on_the_ground(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scattered bases (N, 3) that are ground, their heights smoothed: (M, 3).

    A base more than 6 m above another one within 20 m is not: no town is that steep, but shells on
    a roof and stations on pillars are.
    """
    known = points[np.isfinite(points).all(axis=1)]
    if not len(known):
        return known
    tree = cKDTree(known[:, :2])
    count = min(_BESIDE, len(known))
    _, near = tree.query(known[:, :2], k=count, distance_upper_bound=_BESIDE_M)
    heights = np.append(known[:, 2], np.inf)[near.reshape(len(known), count)]
    known = known[known[:, 2] <= heights.min(axis=1) + _ABOVE_M]
    return np.column_stack([known[:, :2], _median_of_neighbours(known)])


def _median_of_neighbours(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median height (N,) of each point and its nearest neighbours within 60 m."""
    count = min(_NEIGHBOURS, len(points))
    tree = cKDTree(points[:, :2])
    _, near = tree.query(points[:, :2], k=count, distance_upper_bound=_NEIGHBOUR_M)
    heights = np.append(points[:, 2], np.nan)[near.reshape(len(points), count)]
    return np.nanmedian(heights, axis=1)


def interpolate(
    points: NDArray[np.float64], grid: PlanGrid, around: PlanGrid | None = None
) -> NDArray[np.float64]:
    """Return heights (nx, ny) of a grid's nodes through scattered points (N, 3), continuous.

    Linear on the Delaunay triangles of the points and of a rim about the grid, or about a larger
    one (`around`), whose heights are the mean of the nearest points weighted by the inverse square
    of the distance: beyond the last building the ground neither jumps nor runs away.
    """
    rim = _rim(around or grid)
    heights = np.full(grid.shape, np.nan)
    known = np.concatenate([points, np.column_stack([rim, _weighted(points, rim)])])
    triangles = known[Delaunay(known[:, :2]).simplices]
    for hits in nodes_under(triangles, grid):
        heights[hits.i, hits.j] = hits.z
    left = np.isnan(heights)
    heights[left] = _weighted(points, grid.nodes()[left])
    return heights


def _rim(grid: PlanGrid) -> NDArray[np.float64]:
    """Return plan points (M, 2) on a rectangle just outside the grid, about 50 m apart."""
    low = np.array([grid.x0, grid.y0]) - grid.spacing_m
    high = low + (np.array(grid.shape) + 1) * grid.spacing_m
    along = [np.linspace(low[k], high[k], int((high[k] - low[k]) / _RIM_M) + 2) for k in (0, 1)]
    sides = [(x, y) for x in along[0] for y in (low[1], high[1])]
    sides += [(x, y) for y in along[1][1:-1] for x in (low[0], high[0])]
    return np.array(sides)


def _weighted(points: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mean height (M,) of the nearest points (N, 3) about plan points (M, 2)."""
    count = min(_NEAREST, len(points))
    distance, near = cKDTree(points[:, :2]).query(at, k=count)
    weight = 1.0 / np.maximum(distance.reshape(len(at), count), 1e-3) ** 2
    heights = points[:, 2][near.reshape(len(at), count)]
    return (weight * heights).sum(axis=1) / weight.sum(axis=1)
