"""Measure cities, meshes and grids for comparisons; the package itself needs none of these."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlwm.core.city.city import City
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.mesh import TriangleMesh


def center_of(grid: VoxelGrid, index: ArrayLike) -> NDArray[np.float64]:
    """Return the centres (..., 3), metres, of the cells with index (..., 3)."""
    cells = np.asarray(index, dtype=np.float64) + 0.5
    return np.asarray(grid.lower_m) + cells * np.asarray(grid.cell_m)


def signed_volume(mesh: TriangleMesh) -> float:
    """Return enclosed volume, m³: positive for a closed mesh whose faces look outward.

    By the divergence theorem, about the mean vertex to keep digits; without meaning for an open
    mesh.
    """
    if not len(mesh.faces):
        return 0.0
    corners = mesh.triangles() - mesh.vertices.mean(axis=0)
    products = np.cross(corners[:, 0], corners[:, 1]) * corners[:, 2]
    return float(products.sum() / 6.0)


def feature_bases(
    mesh: TriangleMesh, feature_of_face: NDArray[np.int32], features: int
) -> NDArray[np.float64]:
    """Return the middle of each feature's plan and its lowest z, (G, 3) metres; NaN if empty."""
    corners = mesh.triangles().reshape(-1, 3)
    owner = np.repeat(feature_of_face, 3)
    low = np.full((features, 3), np.inf)
    high = np.full((features, 3), -np.inf)
    np.minimum.at(low, owner, corners)
    np.maximum.at(high, owner, corners)
    with np.errstate(invalid="ignore"):
        middle = (low[:, :2] + high[:, :2]) / 2
    bases = np.column_stack([middle, low[:, 2]])
    bases[~np.isfinite(low[:, 2])] = np.nan
    return bases


def base_heights(city: City) -> NDArray[np.float64]:
    """Return the lowest z of every feature, (G,) metres."""
    return feature_bases(city.mesh, city.feature_of_face, len(city.feature_ids))[:, 2]


def area_m2(triangles: NDArray[np.float64]) -> float:
    """Return the sum of the areas of triangles (T, 3, 2), m²; overlapping ones count twice."""
    u, v = (triangles[:, k] - triangles[:, 0] for k in (1, 2))
    return float(np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).sum() / 2)
