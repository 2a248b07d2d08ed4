"""Planar polygons with holes to triangles, by ear clipping in the polygon's own plane."""

from __future__ import annotations

from collections.abc import Sequence

import mapbox_earcut
import numpy as np
from numpy.typing import NDArray


def newell_normal(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normal (3,) of a ring (N, 3), twice its area long (Newell's method)."""
    following = np.roll(ring, -1, axis=0)
    return np.cross(ring - ring[0], following - ring[0]).sum(axis=0)


def triangulate_ring(rings: Sequence[NDArray[np.float64]]) -> NDArray[np.int64]:
    """Triangles (T, 3) of a polygon as indices into its rings laid end to end.

    Args:
        rings: the outer ring (N, 3) and then its holes, without repeated last points.

    The triangles wind as the outer ring does. A polygon without area yields a fan, so that its
    edges are not lost.
    """
    normal = newell_normal(rings[0])
    count = sum(len(r) for r in rings)
    axis = int(np.argmax(np.abs(normal)))
    if count == 3:
        return np.array([[0, 1, 2]])
    if abs(normal[axis]) < 1e-12:
        return _fan(len(rings[0]))
    plane = [(axis + 1) % 3, (axis + 2) % 3]
    flat = np.ascontiguousarray(np.concatenate(rings)[:, plane] - rings[0][0, plane])
    ends = np.cumsum([len(r) for r in rings], dtype=np.uint32)
    found = mapbox_earcut.triangulate_float64(flat, ends).astype(np.int64).reshape(-1, 3)
    if not len(found):
        return _fan(len(rings[0]))
    return found if _same_turn(flat, found, float(normal[axis])) else found[:, ::-1]


def _same_turn(flat: NDArray[np.float64], triangles: NDArray[np.int64], turn: float) -> bool:
    a, b, c = (flat[triangles[:, k]] for k in range(3))
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).sum()
    return bool(area * turn >= 0)


def _fan(count: int) -> NDArray[np.int64]:
    return np.array([[0, k, k + 1] for k in range(1, count - 1)], dtype=np.int64).reshape(-1, 3)
