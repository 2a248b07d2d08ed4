"""Complete surfaces between returns: cells that rays crossed in part and a plane runs through.

A lidar's beams are farther apart than small cells, and a surface fills only a corner of some cells.
Where the returns in and around the cell next to such a cell are flat, and their plane runs through
it, the surface is known there too. Only cells that some ray met are completed: without a ray a cell
stays unknown.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlwm.core.geometry.jit import compiled

Floats = NDArray[np.float64]
Cells = NDArray[np.uint8]

_FEWEST = 5  # returns in the 27 cells that a plane is fitted to
_FLAT = 0.125  # greatest standard deviation from the plane, as a share of the smallest cell side
_WIDE = 3.0  # least width of the returns along the plane, in deviations from it ...
_WIDE_M = 0.05  # ... and in metres: a line has no plane


def complete_surfaces(points: Floats, cell_m: Floats, partly: Cells) -> Cells:
    """Return the cells uint8 (X, Y, Z) that a plane of the returns next to them runs through.

    Args:
        points: returns (N, 3), in cells from the lower corner; those outside are left out.
        cell_m: (3,), sides of a cell.
        partly: uint8 (X, Y, Z), cells that rays crossed in part and in which none ended.
    """
    completed = np.zeros_like(partly)
    rows = np.full(partly.shape, -1, dtype=np.int32)
    count = _number(points, rows)
    moments, places = np.zeros((count, 10)), np.zeros((count, 3), dtype=np.int64)
    _sum(points, cell_m, rows, moments, places)
    sums = np.zeros((count, 10))
    _around(rows, moments, cell_m, places, sums)
    enough = sums[:, 0] >= _FEWEST
    places, sums = places[enough], sums[enough]
    mean = sums[:, 1:4] / sums[:, :1]  # (C, 3), m from the cell's centre
    # second moments xx, xy, xz, yy, yz, zz to covariances (C, 3, 3)
    square = (sums[:, 4:] / sums[:, :1])[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    spread, axes = np.linalg.eigh(square - mean[:, :, None] * mean[:, None, :])
    deviation = np.sqrt(np.maximum(spread, 0.0))  # (C, 3), smallest first
    flat = deviation[:, 0] < _FLAT * cell_m.min()
    flat &= deviation[:, 1] > np.maximum(_WIDE * deviation[:, 0], _WIDE_M)
    normals = np.ascontiguousarray(axes[flat, :, 0])
    _mark(places[flat], mean[flat], normals, cell_m, partly, completed)
    return completed


@compiled
def _number(points: Floats, rows: NDArray[np.int32]) -> int:
    """Number the cells that hold returns in `rows` (X, Y, Z), -1 elsewhere; return how many."""
    count = 0
    for k in range(len(points)):
        x = int(np.floor(points[k, 0]))
        y = int(np.floor(points[k, 1]))
        z = int(np.floor(points[k, 2]))
        inside = 0 <= x < rows.shape[0] and 0 <= y < rows.shape[1] and 0 <= z < rows.shape[2]
        if inside and rows[x, y, z] < 0:
            rows[x, y, z] = count
            count += 1
    return count


@compiled
def _sum(
    points: Floats,
    cell_m: Floats,
    rows: NDArray[np.int32],
    moments: Floats,
    places: NDArray[np.int64],
) -> None:
    """Add number, sums and products (K, 10) of the returns of each cell, metres from its centre.

    The cells themselves are written to `places` (K, 3).
    """
    for k in range(len(points)):
        x, y, z = np.floor(points[k, 0]), np.floor(points[k, 1]), np.floor(points[k, 2])
        inside = 0 <= x < rows.shape[0] and 0 <= y < rows.shape[1] and 0 <= z < rows.shape[2]
        if not inside:
            continue
        row = rows[int(x), int(y), int(z)]
        places[row, 0], places[row, 1], places[row, 2] = int(x), int(y), int(z)
        dx = (points[k, 0] - x - 0.5) * cell_m[0]
        dy = (points[k, 1] - y - 0.5) * cell_m[1]
        dz = (points[k, 2] - z - 0.5) * cell_m[2]
        _add(moments[row], 1.0, dx, dy, dz)


@compiled
def _add(out: Floats, n: float, x: float, y: float, z: float) -> None:
    """Add n returns at x, y, z to the moments (10,)."""
    out[0] += n
    out[1] += n * x
    out[2] += n * y
    out[3] += n * z
    out[4] += n * x * x
    out[5] += n * x * y
    out[6] += n * x * z
    out[7] += n * y * y
    out[8] += n * y * z
    out[9] += n * z * z


@compiled
def _around(
    rows: NDArray[np.int32],
    moments: Floats,
    cell_m: Floats,
    places: NDArray[np.int64],
    sums: Floats,
) -> None:
    """Write the moments (K, 10) of the 27 cells around each cell, about its centre, to `sums`."""
    for k in range(len(places)):
        _gather(rows, moments, cell_m, places[k, 0], places[k, 1], places[k, 2], sums[k])


@compiled
def _mark(
    places: NDArray[np.int64],
    means: Floats,
    normals: Floats,
    cell_m: Floats,
    partly: Cells,
    completed: Cells,
) -> None:
    """Mark the cells of `partly` next to each cell (C, 3) that its plane runs through."""
    for c in range(len(places)):
        x, y, z = places[c, 0], places[c, 1], places[c, 2]
        n0, n1, n2 = normals[c, 0], normals[c, 1], normals[c, 2]
        # The plane meets a cell where its distance to the centre is less than the cell's reach.
        reach = (abs(n0) * cell_m[0] + abs(n1) * cell_m[1] + abs(n2) * cell_m[2]) / 2
        for i in range(max(0, x - 1), min(partly.shape[0], x + 2)):
            for j in range(max(0, y - 1), min(partly.shape[1], y + 2)):
                for k in range(max(0, z - 1), min(partly.shape[2], z + 2)):
                    if not partly[i, j, k]:
                        continue
                    dx = (i - x) * cell_m[0] - means[c, 0]
                    dy = (j - y) * cell_m[1] - means[c, 1]
                    dz = (k - z) * cell_m[2] - means[c, 2]
                    if abs(dx * n0 + dy * n1 + dz * n2) < reach:
                        completed[i, j, k] = 1


@compiled
def _gather(
    rows: NDArray[np.int32], moments: Floats, cell_m: Floats, x: int, y: int, z: int, out: Floats
) -> None:
    """Add the moments of the 27 cells around x, y, z, moved to its centre, to `out` (10,)."""
    for i in range(max(0, x - 1), min(rows.shape[0], x + 2)):
        for j in range(max(0, y - 1), min(rows.shape[1], y + 2)):
            for k in range(max(0, z - 1), min(rows.shape[2], z + 2)):
                if rows[i, j, k] < 0:
                    continue
                one = moments[rows[i, j, k]]
                dx, dy, dz = (i - x) * cell_m[0], (j - y) * cell_m[1], (k - z) * cell_m[2]
                # about another centre: sum (p + d)(p + d)' = pp' + pd' + dp' + n dd'
                _add(out, one[0], dx, dy, dz)
                for m in range(1, 10):
                    out[m] += one[m]
                out[4] += 2 * one[1] * dx
                out[5] += one[1] * dy + one[2] * dx
                out[6] += one[1] * dz + one[3] * dx
                out[7] += 2 * one[2] * dy
                out[8] += one[2] * dz + one[3] * dy
                out[9] += 2 * one[3] * dz
