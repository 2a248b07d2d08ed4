"""Find the nodes of a plan grid that are under triangles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.geometry.mapped_arrays import pieces

_NODES_AT_ONCE = 200_000
_MOST_NODES = 40_000_000
_EDGE = 1e-9


@dataclass(frozen=True)
class PlanGrid:
    """Nodes at (x0 + i·spacing, y0 + j·spacing), metres, i < nx and j < ny."""

    x0: float
    y0: float
    spacing_m: float
    shape: tuple[int, int]

    @classmethod
    def over(cls, bounds: tuple[float, float, float, float], spacing_m: float) -> PlanGrid:
        """Return the smallest grid that covers x from, y from, x to, y to.

        The spacing doubles until the grid has at most 40 million nodes, so that a wide place
        does not fill the memory.
        """
        while (bounds[2] - bounds[0]) * (bounds[3] - bounds[1]) > _MOST_NODES * spacing_m**2:
            spacing_m *= 2
        nx = int(np.ceil((bounds[2] - bounds[0]) / spacing_m)) + 1
        ny = int(np.ceil((bounds[3] - bounds[1]) / spacing_m)) + 1
        return cls(bounds[0], bounds[1], spacing_m, (max(nx, 2), max(ny, 2)))

    def nodes(self) -> NDArray[np.float64]:
        """Return the (nx, ny, 2) plan coordinates of the nodes, metres."""
        xs = self.x0 + np.arange(self.shape[0]) * self.spacing_m
        ys = self.y0 + np.arange(self.shape[1]) * self.spacing_m
        return np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1)


@dataclass(frozen=True, eq=False)
class Hits:
    """Nodes (K,) under triangles: number of the triangle, node, and the triangle's height there."""

    triangle: NDArray[np.int64]
    i: NDArray[np.int64]
    j: NDArray[np.int64]
    z: NDArray[np.float64]


def nodes_under(triangles: NDArray[np.float64], grid: PlanGrid) -> Iterator[Hits]:
    """Yield nodes inside or on the edge of triangles (T, 3, 3) seen from above, in pieces.

    Vertical triangles cover nothing.
    """
    for start, some in pieces(triangles):
        for hits in _under(some, grid):
            yield Hits(hits.triangle + start, hits.i, hits.j, hits.z)


def _under(triangles: NDArray[np.float64], grid: PlanGrid) -> Iterator[Hits]:
    size = np.array(grid.shape)
    # (T, 3, 2) corners in plan, in nodes
    scaled = (triangles[:, :, :2] - (grid.x0, grid.y0)) / grid.spacing_m
    # lowest and highest node (T, 2) of each box; last < first where it holds none
    first = np.clip(np.ceil(scaled.min(axis=1) - _EDGE), 0, size).astype(np.int64)
    last = np.clip(np.floor(scaled.max(axis=1) + _EDGE), -1, size - 1).astype(np.int64)
    wide = np.maximum(last - first + 1, 0)
    # (T,) nodes in each box
    counts = wide[:, 0] * wide[:, 1]
    ends = np.cumsum(counts)
    start = 0
    while start < len(triangles):
        before = int(ends[start - 1]) if start else 0
        # as many triangles as have `_NODES_AT_ONCE` nodes together, and one at least
        stop = int(np.searchsorted(ends, before + _NODES_AT_ONCE, side="right"))
        stop = max(stop, start + 1)
        chosen = slice(start, stop)
        yield _test(
            scaled[chosen], triangles[chosen, :, 2], first[chosen], wide[chosen, 1],
            counts[chosen], start,
        )  # fmt: skip
        start = stop


def _test(
    corners: NDArray[np.float64],
    heights: NDArray[np.float64],
    first: NDArray[np.int64],
    high: NDArray[np.int64],
    counts: NDArray[np.int64],
    offset: int,
) -> Hits:
    # (K,) triangle of each candidate, and its number within the box of that triangle
    owner = np.repeat(np.arange(len(counts)), counts)
    at = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    i = first[owner, 0] + at // np.maximum(high[owner], 1)
    j = first[owner, 1] + at % np.maximum(high[owner], 1)
    # corner a and the two sides from it; their cross product is twice the area
    a, b, c = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0]
    flat = np.abs(area) < _EDGE
    # NaN makes every test of a flat triangle false
    inverse = np.where(flat, np.nan, 1.0 / np.where(flat, 1.0, area))
    x, y = i - a[owner, 0], j - a[owner, 1]
    # barycentric coordinates of the node: a + s · b + t · c
    s = (x * c[owner, 1] - y * c[owner, 0]) * inverse[owner]
    t = (y * b[owner, 0] - x * b[owner, 1]) * inverse[owner]
    inside = (s >= -_EDGE) & (t >= -_EDGE) & (s + t <= 1 + _EDGE)
    owner, i, j, s, t = owner[inside], i[inside], j[inside], s[inside], t[inside]
    # (K, 3) heights of the corners, weighted as the node is
    h = heights[owner]
    z = h[:, 0] + s * (h[:, 1] - h[:, 0]) + t * (h[:, 2] - h[:, 0])
    return Hits(owner + offset, i, j, z)
