"""Shells: faces that hang together by their corners. They are features where a file names none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

SAME_CORNER_M = 0.005
_MOST_CELLS = 4e15


def shells_of(triangles: NDArray[np.float64]) -> tuple[NDArray[np.int64], int]:
    """Return the shell (T,) of each triangle (T, 3, 3), in order of first use, and their number."""
    faces = np.arange(3 * len(triangles)).reshape(-1, 3)
    return shells_of_faces(triangles.reshape(-1, 3), faces)


def shells_of_faces(
    vertices: NDArray[np.float64], faces: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    """Return the shell (F,) of each face (F, 3), in order of first use, and their number.

    Corners within 5 mm of each other are one corner.
    """
    if not len(faces):
        return np.zeros(0, dtype=np.int64), 0
    # vertices in one cell of 5 mm are one corner; clipped, since int64 must hold the number
    cells = np.round(vertices / SAME_CORNER_M)
    keys = np.clip(cells, -_MOST_CELLS, _MOST_CELLS).astype(np.int64)  # (V, 3)
    _, corner = np.unique(keys, axis=0, return_inverse=True)
    corners = corner.reshape(-1)[faces]  # (F, 3)
    # two links for a face join its three corners
    links = (np.repeat(corners[:, 0], 2), corners[:, 1:].reshape(-1))
    size = int(corners.max()) + 1
    graph = coo_matrix((np.ones(len(links[0]), dtype=bool), links), shape=(size, size))
    _, label = connected_components(graph, directed=False)
    # number the shells in the order in which the faces use them first
    _, first, owner = np.unique(label[corners[:, 0]], return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[owner.reshape(-1)], len(first)


def scattered(bounds: NDArray[np.float64], gap_m: float = 1.0) -> int:
    """Return how many groups of shells there are whose plans (G, 2, 2) stay `gap_m` apart.

    Args:
        bounds: lowest and highest (x, y) of each shell, metres.
    """
    # sweep along x, then along y within each part: an upper bound that is exact for rows of houses
    order = np.argsort(bounds[:, 0, 0], kind="stable")
    parts = _parts(bounds[order][:, :, 0], gap_m)
    count = 0
    for part in np.split(order, np.flatnonzero(np.diff(parts)) + 1):
        y_order = part[np.argsort(bounds[part, 0, 1], kind="stable")]
        count += int(_parts(bounds[y_order][:, :, 1], gap_m)[-1]) + 1
    return count


def _parts(spans: NDArray[np.float64], gap_m: float) -> NDArray[np.int64]:
    """Return the part (N,) of each span (N, 2), sorted by its begin: a gap begins the next part."""
    reach = np.maximum.accumulate(spans[:, 1])
    new = np.zeros(len(spans), dtype=np.int64)
    new[1:] = spans[1:, 0] > reach[:-1] + gap_m
    return np.cumsum(new)
