"""Triangulate planar polygons with holes, many at once.

Triangles stay as they are, quads are cut along the diagonal that is inside, everything else is
ear-clipped in the polygon's own plane (mapbox-earcut, on the two axes in which it is largest).
Walls are quads, so most of a city takes a few array operations.

Letters: P points, R rings, N polygons, T triangles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mapbox_earcut
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_FLAT_M2 = 1e-12  # twice an area below this: the polygon has no plane


@dataclass(frozen=True, eq=False)
class Polygons:
    """Polygons of rings of points, laid end to end.

    Attributes:
        points: (P, 3) metres, rings without a repeated last point.
        ring_sizes: (R,) points of each ring.
        polygon_rings: (N,) rings of each polygon, the outer one first.
    """

    points: Floats
    ring_sizes: Indices
    polygon_rings: Indices

    @property
    def ring_starts(self) -> Indices:
        """Return the first point (R,) of each ring."""
        return np.cumsum(self.ring_sizes) - self.ring_sizes

    @property
    def first_rings(self) -> Indices:
        """Return the outer ring (N,) of each polygon."""
        return np.cumsum(self.polygon_rings) - self.polygon_rings

    def normals(self) -> Floats:
        """Return the normal (R, 3) of each ring, twice its area long (Newell's method)."""
        if not len(self.ring_sizes):
            return np.zeros((0, 3))
        starts = self.ring_starts
        # from each ring's first point: coordinates of 10⁵ m would lose the area's digits
        arms = self.points - np.repeat(self.points[starts], self.ring_sizes, axis=0)
        following = np.arange(1, len(arms) + 1)
        # the last point of a ring is followed by its first
        following[starts + self.ring_sizes - 1] = starts
        turns: Floats = np.cross(arms, arms[following])
        return np.add.reduceat(turns, starts, axis=0)

    def areas(self) -> Floats:
        """Return the area (N,), m²: the outer ring's less its holes'."""
        signed = np.linalg.norm(self.normals(), axis=1) / 2
        # holes count negative
        signed[np.setdiff1d(np.arange(len(signed)), self.first_rings)] *= -1
        owner = np.repeat(np.arange(len(self.polygon_rings)), self.polygon_rings)
        return np.bincount(owner, signed, len(self.polygon_rings)).astype(np.float64)


def triangulate(polygons: Polygons) -> tuple[Indices, Indices]:
    """Return triangles (T, 3) as indices into the points, and the polygon (T,) of each, in order.

    Triangles wind as the outer ring does. A polygon without area yields a fan, so that its edges
    are not lost.
    """
    normals = polygons.normals()[polygons.first_rings]
    sizes = polygons.ring_sizes[polygons.first_rings]
    starts = polygons.ring_starts[polygons.first_rings]
    # by shape: triangles and quads without holes in array operations, the rest one by one
    whole = polygons.polygon_rings == 1
    three = np.flatnonzero(whole & (sizes == 3))
    four = np.flatnonzero(whole & (sizes == 4))
    quads, cut = _cut_quads(polygons.points, starts[four], normals[four])
    rest = np.setdiff1d(np.arange(len(sizes)), np.concatenate([three, four[cut]]))
    first = polygons.first_rings
    clipped = [
        _clip(
            polygons.points,
            int(starts[i]),
            polygons.ring_sizes[first[i] : first[i] + polygons.polygon_rings[i]],
            normals[i],
        )
        for i in rest
    ]
    triangles = [
        starts[three, None] + np.arange(3),
        quads[cut].reshape(-1, 3),
        *clipped,
    ]
    owners = [three, np.repeat(four[cut], 2), np.repeat(rest, [len(c) for c in clipped])]
    owner = np.concatenate(owners).astype(np.int64)
    # back into the order of the polygons
    order = np.argsort(owner, kind="stable")
    return np.concatenate(triangles).astype(np.int64)[order], owner[order]


def triangulate_ring(rings: Sequence[Floats]) -> Indices:
    """Return triangles (T, 3) of one polygon as indices into its concatenated rings (N, 3)."""
    sizes = np.array([len(r) for r in rings], dtype=np.int64)
    return triangulate(Polygons(np.concatenate(rings), sizes, np.array([len(rings)])))[0]


def _cut_quads(
    points: Floats, starts: Indices, normals: Floats
) -> tuple[Indices, NDArray[np.bool_]]:
    """Return two triangles (Q, 2, 3) of each quad, and True where a diagonal is inside."""
    # (Q, 4, 3), and the two ways to cut a quad: (2, 2, 3) corner numbers
    corners = points[starts[:, None] + np.arange(4)]
    ways = np.array([[[0, 1, 2], [0, 2, 3]], [[1, 2, 3], [1, 3, 0]]])
    inside = []
    for way in ways:
        a, b, c = (corners[:, way[:, k]] for k in range(3))
        # a diagonal is inside if both triangles wind as the quad does
        turns = np.einsum("qtk,qk->qt", np.cross(b - a, c - a), normals)
        inside.append((turns >= 0).all(axis=1))
    choice = np.where(inside[0], 0, 1)
    return starts[:, None, None] + ways[choice], inside[0] | inside[1]


def _clip(points: Floats, start: int, sizes: Indices, normal: Floats) -> Indices:
    """Return triangles (T, 3) of the polygon whose rings begin at `start`, by ear clipping."""
    axis = int(np.argmax(np.abs(normal)))
    if abs(normal[axis]) < _FLAT_M2:
        return _fan(start, int(sizes[0]))
    # drop the axis along which the polygon is thinnest, keeping the order of the other two
    plane = [(axis + 1) % 3, (axis + 2) % 3]
    corners = points[start : start + int(sizes.sum())]
    flat = np.ascontiguousarray((corners - corners[0])[:, plane])
    found = mapbox_earcut.triangulate_float64(flat, np.cumsum(sizes, dtype=np.uint32))
    triangles = found.astype(np.int64).reshape(-1, 3)
    if not len(triangles):
        return _fan(start, int(sizes[0]))
    # earcut chooses the winding itself: turn it to that of the outer ring
    turned = _twice_area(flat, triangles) * normal[axis] < 0
    return start + (triangles[:, ::-1] if turned else triangles)


def _twice_area(flat: Floats, triangles: Indices) -> float:
    a, b, c = flat[triangles[:, 0]], flat[triangles[:, 1]], flat[triangles[:, 2]]
    u, v = b - a, c - a
    return float((u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).sum())


def _fan(start: int, count: int) -> Indices:
    middle = np.arange(1, count - 1)
    return start + np.stack([np.zeros_like(middle), middle, middle + 1], axis=1)
