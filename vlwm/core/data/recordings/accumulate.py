"""Accumulate placed scans into cells: occupied, free, and the rest unknown.

A cell in which a return ends is occupied. Free space is carved along each ray from the place where
the sensor was when it fired. A single ray proves only its own line: a wall may fill the other half
of a cell that it crosses. So each cell is divided into parts, and it is free only if rays crossed
every part. A cell that no ray met is unknown, and so is a cell that was crossed in part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.placing import PlacedScan
from vlwm.core.geometry.carve import carve_cells, to_cells
from vlwm.core.geometry.grid import VoxelGrid

Floats = NDArray[np.float64]
Cells = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class SeenCells:
    """Cells of one frame, each uint8 (X, Y, Z) of 0 and 1.

    Attributes:
        occupied: a return ended in the cell.
        free: rays crossed all parts of the cell and none ended in it.
    """

    occupied: Cells
    free: Cells

    @property
    def known(self) -> Cells:
        """Return the cells that are occupied or free."""
        return self.occupied | self.free


def accumulate(
    scans: Sequence[PlacedScan],
    moving: Sequence[NDArray[np.bool_]],
    ego: Floats,
    grid: VoxelGrid,
    parts: tuple[int, int, int] = (2, 2, 3),
) -> SeenCells:
    """Return the cells that scans saw, in the ego frame (4,).

    Args:
        moving: for each scan bool (N,), points on what moves: their rays are free space, their
            ends are not occupied.
        parts: how often a cell is divided along x, y, z before rays are carved.
    """
    fine = VoxelGrid(
        grid.lower_m,
        (grid.cell_m[0] / parts[0], grid.cell_m[1] / parts[1], grid.cell_m[2] / parts[2]),
        (grid.shape[0] * parts[0], grid.shape[1] * parts[1], grid.shape[2] * parts[2]),
    )
    hits = np.zeros(fine.shape, dtype=np.uint8)
    crossed = np.zeros(fine.shape, dtype=np.uint8)
    for scan, away in zip(scans, moving, strict=True):
        starts = to_cells(fine, ego, np.ascontiguousarray(scan.origins))
        ends = to_cells(fine, ego, np.ascontiguousarray(scan.points))
        carve_cells(starts, ends, ~away, hits, crossed)
    # (X, px, Y, py, Z, pz): the parts of a cell are the axes 1, 3 and 5.
    shape = tuple(n for pair in zip(grid.shape, parts, strict=True) for n in pair)
    occupied = hits.reshape(shape).max(axis=(1, 3, 5))
    free = crossed.reshape(shape).min(axis=(1, 3, 5)) & (1 - occupied)
    return SeenCells(occupied, free)
