"""A ground plane with three houses, seen from four places, and from a fifth ahead."""

from __future__ import annotations

import numpy as np

from vlwm.core.geometry.frames import to_ego
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.voxelize import voxelize

GRID = VoxelGrid.from_range((-20, -20, -2, 20, 20, 18), (0.8, 0.8, 2.5))
EGO = np.array([[-6.0, 0, 0, 0.3], [-4, 0.3, 0, 0.2], [-2, 0.4, 0, 0.1], [0, 0, 0, 0]])
AHEAD = np.array([3.0, -0.7, 0.0, -0.15])


def box(x: float, y: float, a: float, b: float, yaw: float, top: float) -> np.ndarray:
    """Triangles of the walls and roof of a house of a x b metres."""
    c, s = np.cos(yaw), np.sin(yaw)
    ring = np.array([[-a, -b], [a, -b], [a, b], [-a, b]]) / 2 @ np.array([[c, s], [-s, c]]) + [x, y]
    low, high = (np.column_stack([ring, np.full(4, z)]) for z in (-0.5, top))
    faces = [[high[0], high[1], high[2]], [high[0], high[2], high[3]]]
    for i in range(4):
        j = (i + 1) % 4
        faces += [[low[i], low[j], high[j]], [low[i], high[j], high[i]]]
    return np.array(faces)


GROUND = np.array([[[-99.0, -99, 0], [99, -99, 0], [99, 99, 0]],
                   [[-99, -99, 0], [99, 99, 0], [-99, 99, 0]]])  # fmt: skip
HOUSES = (box(8, 9, 12, 7, 0.4, 14), box(-9, -9, 9, 9, 0.1, 9), box(9, -9, 8, 5, -0.6, 12))
CITY = np.concatenate([GROUND, *HOUSES])
WALLS = np.concatenate([house[2:] for house in HOUSES])
"""the houses without their roofs"""


def seen(ego: np.ndarray, triangles: np.ndarray = CITY) -> np.ndarray:
    """Return uint8 (X, Y, Z): triangles in an ego frame."""
    return voxelize(to_ego(triangles, ego), GRID)


def frames(triangles: np.ndarray = CITY) -> np.ndarray:
    """Return uint8 (4, X, Y, Z): what is seen from `EGO`."""
    return np.stack([seen(e, triangles) for e in EGO])
