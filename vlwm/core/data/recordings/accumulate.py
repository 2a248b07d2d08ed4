"""Accumulate placed scans into cells: occupied, free, and the rest unknown.

A cell in which a return ends is occupied. Free space is carved along each ray from the place where
the sensor was when it fired. A single ray proves only its own line: a wall may fill the other half
of a cell that it crosses. So each cell is divided into parts, and it is free only if rays crossed
every part. A cell that no ray met is unknown, and so is a cell that was crossed in part, unless the
plane of the returns around it runs through it: then it is occupied too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.placing import PlacedScan
from vlwm.core.data.recordings.surfaces import complete_surfaces
from vlwm.core.geometry.carve import carve_cells, to_cells
from vlwm.core.geometry.frames import to_ego
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.jit import compiled

Floats = NDArray[np.float64]
Cells = NDArray[np.uint8]


PARTS = (2, 2, 6)
"""how often a cell is divided along x, y, z before rays are carved; coarser, more than 0.5 % of the
occupied cells are called free, finer, little is known (docs/decisions.md)"""


@dataclass(frozen=True, eq=False)
class SeenCells:
    """Cells of one frame, each uint8 (X, Y, Z) of 0 and 1.

    Attributes:
        occupied: a return ended in the cell, or returns around it lie on a plane through it.
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
    parts: tuple[int, int, int] = PARTS,
) -> SeenCells:
    """Return the cells that scans saw, in the ego frame (4,).

    Args:
        moving: for each scan bool (N,), points on what moves: their rays are free space, their
            ends are not occupied.
        parts: how often a cell is divided along x, y, z before rays are carved.
    """
    occupied = np.zeros(grid.shape, dtype=np.uint8)
    free = np.zeros(grid.shape, dtype=np.uint8)
    if not scans:
        return SeenCells(occupied, free)
    starts = np.concatenate([np.broadcast_to(s.origins, s.points.shape) for s in scans])
    ends = np.concatenate([s.points for s in scans])  # (N, 3), world
    still = ~np.concatenate(moving)
    box = _reached(grid, to_ego(starts, ego), to_ego(ends, ego))
    if box is None:
        return SeenCells(occupied, free)
    first, shape = box
    fine = _divided(grid, first, shape, parts)
    hits = np.zeros(fine.shape, dtype=np.uint8)
    crossed = np.zeros(fine.shape, dtype=np.uint8)
    # One call for all scans: each call walks over the whole grid once.
    stops = to_cells(fine, ego, ends)  # (N, 3), in parts of cells
    carve_cells(to_cells(fine, ego, starts), stops, still, hits, crossed)
    part = tuple(slice(f, f + n) for f, n in zip(first, shape, strict=True))
    partly = np.zeros(shape, dtype=np.uint8)
    _fold(hits, crossed, np.array(parts), occupied[part], free[part], partly)
    occupied[part] |= complete_surfaces(stops[still] / parts, np.array(grid.cell_m), partly)
    return SeenCells(occupied, free)


def _reached(
    grid: VoxelGrid, starts: Floats, ends: Floats
) -> tuple[tuple[int, int, int], tuple[int, int, int]] | None:
    """Return first cell and shape of the box of the grid that rays (N, 3) reach, or None."""
    low = np.minimum(starts.min(axis=0), ends.min(axis=0))
    high = np.maximum(starts.max(axis=0), ends.max(axis=0))
    first = np.clip(grid.index_of(low) - 1, 0, grid.shape)
    last = np.clip(grid.index_of(high) + 2, 0, grid.shape)
    shape = last - first
    if (shape <= 0).any():
        return None
    x, y, z = (int(v) for v in first)
    nx, ny, nz = (int(v) for v in shape)
    return (x, y, z), (nx, ny, nz)


def _divided(
    grid: VoxelGrid,
    first: tuple[int, int, int],
    shape: tuple[int, int, int],
    parts: tuple[int, int, int],
) -> VoxelGrid:
    """Return the grid of the parts of the cells from `first` on."""
    lower = [lo + f * c for lo, f, c in zip(grid.lower_m, first, grid.cell_m, strict=True)]
    cell = [c / p for c, p in zip(grid.cell_m, parts, strict=True)]
    count = [n * p for n, p in zip(shape, parts, strict=True)]
    return VoxelGrid(
        (lower[0], lower[1], lower[2]), (cell[0], cell[1], cell[2]), (count[0], count[1], count[2])
    )


@compiled
def _fold(
    hits: Cells,
    crossed: Cells,
    parts: NDArray[np.int64],
    occupied: Cells,
    free: Cells,
    partly: Cells,
) -> None:
    """Mark cells with a hit in any part as occupied, and those crossed in every part as free.

    Those crossed in some parts, without a hit, are marked in `partly`.
    """
    px, py, pz = parts
    for x in range(occupied.shape[0]):
        for y in range(occupied.shape[1]):
            for z in range(occupied.shape[2]):
                hit = 0
                whole = 1
                some = 0
                for i in range(x * px, (x + 1) * px):
                    for j in range(y * py, (y + 1) * py):
                        for k in range(z * pz, (z + 1) * pz):
                            hit |= hits[i, j, k]
                            whole &= crossed[i, j, k]
                            some |= crossed[i, j, k]
                occupied[x, y, z] = hit
                free[x, y, z] = whole & (1 - hit)
                partly[x, y, z] = some & (1 - whole) & (1 - hit)
