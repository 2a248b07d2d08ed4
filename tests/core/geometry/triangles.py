"""Slow, plain geometry in float64 that rays and pictures are held against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def first_hits(triangles: Array, origins: Array, directions: Array) -> tuple[Array, Array]:
    """Nearest distance (N,) along each ray, inf for none, and how near an edge it passes (N,)."""
    a, ab, ac = (
        triangles[:, 0],
        triangles[:, 1] - triangles[:, 0],
        triangles[:, 2] - triangles[:, 0],
    )
    best, edge = np.full(len(directions), np.inf), np.full(len(directions), np.inf)
    for k, (start, along) in enumerate(zip(origins, directions, strict=True)):
        matrix = np.stack([np.broadcast_to(-along, ab.shape), ab, ac], axis=-1)
        good = np.abs(np.linalg.det(matrix)) > 1e-12
        t, u, v = np.linalg.solve(matrix[good], (start - a[good])[..., None])[..., 0].T
        rim = np.abs(np.stack([u, v, 1 - u - v])).min(axis=0)
        inside = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
        best[k] = t[inside].min(initial=np.inf)
        edge[k] = rim[t > 0].min(initial=np.inf)
    return best, edge


def distance_to_triangles(points: Array, triangles: Array, within_m: float = 1.0) -> Array:
    """Distance (N,) from points (N, 3) to the nearest of triangles (T, 3, 3); inf if farther."""
    low, high = triangles.min(axis=1) - within_m, triangles.max(axis=1) + within_m
    found = np.full(len(points), np.inf)
    for k, point in enumerate(points):
        near = ((low <= point) & (point <= high)).all(axis=1)
        found[k] = _distance(point, triangles[near]).min(initial=np.inf)
    return found


def _distance(point: Array, triangles: Array) -> Array:
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    sides = [_to_segment(point, p, q) for p, q in ((a, b), (b, c), (c, a))]
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
    above = ((point - a) * normal).sum(axis=1)
    foot = point - above[:, None] * normal
    turns = [(np.cross(q - p, foot - p) * normal).sum(axis=1) for p, q in ((a, b), (b, c), (c, a))]
    inside = np.all([t >= 0 for t in turns], axis=0)
    return np.where(inside, np.abs(above), np.min(sides, axis=0))


def _to_segment(point: Array, a: Array, b: Array) -> Array:
    along = b - a
    length = np.maximum((along**2).sum(axis=1), 1e-300)
    share = np.clip(((point - a) * along).sum(axis=1) / length, 0.0, 1.0)
    return np.linalg.norm(point - a - share[:, None] * along, axis=1)
