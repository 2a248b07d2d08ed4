"""Count the world columns that the frames of a split see, to prove that no two splits share one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlwm.core.geometry.grid import VoxelGrid


def seen_cells(
    xy: NDArray[np.float64], yaw: NDArray[np.float64], grid: VoxelGrid, cell_m: float = 1.0
) -> set[tuple[int, int]]:
    """Return the world columns of `cell_m` metres whose centre is in any of the frames' grids.

    Args:
        xy: (N, 2) places in the common coordinates, metres.
        yaw: (N,) headings.
        grid: the VoxelGrid.
    """
    reach = int(np.ceil(grid.horizontal_half_diagonal_m / cell_m)) + 1
    steps = np.arange(-reach, reach + 1)
    found: set[tuple[int, int]] = set()
    for (x, y), angle in zip(xy, yaw, strict=True):
        ix = np.floor(x / cell_m).astype(int) + steps
        iy = np.floor(y / cell_m).astype(int) + steps
        cx, cy = np.meshgrid((ix + 0.5) * cell_m - x, (iy + 0.5) * cell_m - y, indexing="ij")
        ahead = np.cos(angle) * cx + np.sin(angle) * cy
        left = -np.sin(angle) * cx + np.cos(angle) * cy
        inside = (ahead >= grid.lower_m[0]) & (ahead < grid.upper_m[0])
        inside &= (left >= grid.lower_m[1]) & (left < grid.upper_m[1])
        gx, gy = np.meshgrid(ix, iy, indexing="ij")
        found |= set(zip(gx[inside].tolist(), gy[inside].tolist(), strict=True))
    return found
