"""Marks every cell that a triangle meets: the compiled inner loops of `voxelize`.

Coordinates are in cells from the grid's lower corner, so that cell i holds [i, i + 1). A triangle
is cut into slabs along x; the outline of each piece is walked along y, and each stretch of it adds
its z to the interval of the rows it passes. A convex piece is bounded by its outline, so a column
(ix, iy) then holds the exact interval of z in which the triangle passes through it, and meets
every cell of that interval: the test is exact and writes contiguous runs. Vertical, degenerate and
kilometre-sized triangles take the same way; only those within one layer of cells take a shorter.

Half-open cells: a triangle that reaches x = i + 1 or y = j + 1 only in the limit does not meet
what begins there. So an upper end that lies on such an *open* side counts as just below its value
(`_OPEN`), and a row or cell above it is left out unless another point reaches it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vlwm.core.geometry.compiled import compiled

Floats = NDArray[np.float64]
Cells = NDArray[np.uint8]

_OPEN = 1e-10  # of a cell: how far below its value an end that is not reached counts


@compiled
def mark_triangles(triangles: Floats, lower: Floats, cell: Floats, out: Cells) -> None:
    """Set the cells of `out` (X, Y, Z) met by triangles (T, 3, 3) in the grid's frame, metres."""
    low = np.full(out.shape[1], np.inf)
    high = np.full(out.shape[1], -np.inf)
    for index in range(triangles.shape[0]):
        _mark_moved(triangles[index], 0.0, 0.0, 0.0, 1.0, 0.0, lower, cell, out, low, high)


@compiled
def mark_tiles(
    triangles: Floats,
    starts: NDArray[np.int64],
    items: NDArray[np.int32],
    first_tile: NDArray[np.int32],
    large: NDArray[np.int32],
    window: NDArray[np.int64],
    tiles_y: int,
    ego: Floats,
    lower: Floats,
    cell: Floats,
    out: Cells,
) -> None:
    """Set the cells met by the triangles of some tiles, moved into an ego frame.

    Args:
        triangles: (T, 3, 3) in the outer frame, metres.
        starts, items: tile t = tx * tiles_y + ty holds items[starts[t]:starts[t + 1]].
        first_tile: (T, 2) lowest tile (tx, ty) of each triangle.
        large: triangles kept in no tile.
        window: tx0, tx1, ty0, ty1, both ends included.
        ego: (4,) x, y, z, yaw. lower, cell: (3,) of the grid, metres.
    """
    low = np.full(out.shape[1], np.inf)
    high = np.full(out.shape[1], -np.inf)
    x, y, z = ego[0], ego[1], ego[2]
    cos, sin = math.cos(ego[3]), math.sin(ego[3])
    for tx in range(window[0], window[1] + 1):
        for ty in range(window[2], window[3] + 1):
            tile = tx * tiles_y + ty
            for place in range(starts[tile], starts[tile + 1]):
                index = items[place]
                # A triangle of several tiles is taken at the first of them inside the window.
                if tx != max(first_tile[index, 0], window[0]):
                    continue
                if ty != max(first_tile[index, 1], window[2]):
                    continue
                _mark_moved(triangles[index], x, y, z, cos, sin, lower, cell, out, low, high)
    for index in large:
        _mark_moved(triangles[index], x, y, z, cos, sin, lower, cell, out, low, high)


@compiled
def count_tiles(first: NDArray[np.int32], last: NDArray[np.int32], shape: tuple) -> NDArray:
    """Triangles per tile (shape[0] * shape[1],), of those with first <= last, each (T, 2)."""
    counts = np.zeros(shape[0] * shape[1], np.int64)
    for index in range(first.shape[0]):
        for tx in range(first[index, 0], last[index, 0] + 1):
            for ty in range(first[index, 1], last[index, 1] + 1):
                counts[tx * shape[1] + ty] += 1
    return counts


@compiled
def fill_tiles(
    first: NDArray[np.int32], last: NDArray[np.int32], tiles_y: int, starts: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Triangle numbers ordered by tile, ascending within each; `starts` as in `mark_tiles`."""
    items = np.empty(starts[-1], np.int32)
    free = starts[:-1].copy()
    for index in range(first.shape[0]):
        for tx in range(first[index, 0], last[index, 0] + 1):
            for ty in range(first[index, 1], last[index, 1] + 1):
                tile = tx * tiles_y + ty
                items[free[tile]] = index
                free[tile] += 1
    return items


@compiled
def _mark_moved(
    corners: Floats,
    x: float,
    y: float,
    z: float,
    cos: float,
    sin: float,
    lower: Floats,
    cell: Floats,
    out: Cells,
    low: Floats,
    high: Floats,
) -> None:
    """One triangle (3, 3), moved to the ego frame at x, y, z, measured in cells, and marked."""
    ax, ay = corners[0, 0] - x, corners[0, 1] - y
    bx, by = corners[1, 0] - x, corners[1, 1] - y
    cx, cy = corners[2, 0] - x, corners[2, 1] - y
    _mark_triangle(
        (cos * ax + sin * ay - lower[0]) / cell[0],
        (cos * ay - sin * ax - lower[1]) / cell[1],
        (corners[0, 2] - z - lower[2]) / cell[2],
        (cos * bx + sin * by - lower[0]) / cell[0],
        (cos * by - sin * bx - lower[1]) / cell[1],
        (corners[1, 2] - z - lower[2]) / cell[2],
        (cos * cx + sin * cy - lower[0]) / cell[0],
        (cos * cy - sin * cx - lower[1]) / cell[1],
        (corners[2, 2] - z - lower[2]) / cell[2],
        out,
        low,
        high,
    )


@compiled
def _mark_triangle(
    ax: float,
    ay: float,
    az: float,
    bx: float,
    by: float,
    bz: float,
    cx: float,
    cy: float,
    cz: float,
    out: Cells,
    low: Floats,
    high: Floats,
) -> None:
    """One triangle in cells. `low`, `high` (Y,) are scratch: +inf and -inf before and after."""
    nx, ny, nz = out.shape
    z_min, z_max = min(az, bz, cz), max(az, bz, cz)
    if z_max < 0.0 or z_min >= nz or max(ay, by, cy) < 0.0 or min(ay, by, cy) >= ny:
        return
    if bx < ax:
        ax, ay, az, bx, by, bz = bx, by, bz, ax, ay, az
    if cx < bx:
        bx, by, bz, cx, cy, cz = cx, cy, cz, bx, by, bz
    if bx < ax:
        ax, ay, az, bx, by, bz = bx, by, bz, ax, ay, az
    if cx < 0.0 or ax >= nx:
        return
    layer = math.floor(z_min)
    one_layer = layer == math.floor(z_max)
    first = int(max(ax, 0.0))
    last = int(min(cx, nx - 1.0))
    # Where the long side A-C and the chain A-B-C enter the slab: the corner A, or a cut.
    cut_left = ax < first
    if cut_left:
        long_y, long_z = _at(first, ax, ay, az, cx, cy, cz)
        chain_y, chain_z = _at_chain(first, ax, ay, az, bx, by, bz, cx, cy, cz)
    else:
        long_y, long_z, chain_y, chain_z = ay, az, ay, az
    for ix in range(first, last + 1):
        cut_right = ix + 1 <= cx
        if cut_right:
            long_y1, long_z1 = _at(ix + 1, ax, ay, az, cx, cy, cz)
            chain_y1, chain_z1 = _at_chain(ix + 1, ax, ay, az, bx, by, bz, cx, cy, cz)
        else:
            long_y1, long_z1, chain_y1, chain_z1 = cy, cz, cy, cz
        bend = ix <= bx and bx < ix + 1
        y_min = min(long_y, chain_y, long_y1, chain_y1)
        y_max = max(long_y, chain_y)
        y_end = max(long_y1, chain_y1)
        if bend:
            y_min, y_max = min(y_min, by), max(y_max, by)
        if not cut_right:
            y_max = max(y_max, y_end)
        top = float(math.floor(y_max))
        if cut_right:
            top = max(top, math.ceil(y_end) - 1.0)
        if y_min < ny and top >= 0.0:
            row0, row1 = int(max(y_min, 0.0)), int(min(top, ny - 1.0))
            if one_layer:
                for iy in range(row0, row1 + 1):
                    out[ix, iy, int(layer)] = 1
            else:
                _walk(long_y, long_z, long_y1, long_z1, cut_right, row0, row1, low, high)
                if bend:
                    _walk(chain_y, chain_z, by, bz, False, row0, row1, low, high)
                    _walk(by, bz, chain_y1, chain_z1, cut_right, row0, row1, low, high)
                else:
                    _walk(chain_y, chain_z, chain_y1, chain_z1, cut_right, row0, row1, low, high)
                if cut_left:
                    _walk(long_y, long_z, chain_y, chain_z, False, row0, row1, low, high)
                if cut_right:
                    _walk_open(long_y1, long_z1, chain_y1, chain_z1, row0, row1, low, high)
                _write_rows(ix, row0, row1, low, high, out)
        cut_left = True
        long_y, long_z, chain_y, chain_z = long_y1, long_z1, chain_y1, chain_z1


@compiled
def _at(
    x: float, x0: float, y0: float, z0: float, x1: float, y1: float, z1: float
) -> tuple[float, float]:
    """y and z of the side (x0, y0, z0)-(x1, y1, z1) at x0 <= x <= x1, exact at its ends."""
    if x >= x1:
        return y1, z1
    if x <= x0:
        return y0, z0
    # By slopes, not by a share of the length: exact on lattices where the slopes are.
    return y0 + (x - x0) * ((y1 - y0) / (x1 - x0)), z0 + (x - x0) * ((z1 - z0) / (x1 - x0))


@compiled
def _at_chain(
    x: float,
    ax: float,
    ay: float,
    az: float,
    bx: float,
    by: float,
    bz: float,
    cx: float,
    cy: float,
    cz: float,
) -> tuple[float, float]:
    """The same on the chain of sides A-B-C."""
    if x <= bx:
        return _at(x, ax, ay, az, bx, by, bz)
    return _at(x, bx, by, bz, cx, cy, cz)


@compiled
def _walk(
    y0: float,
    z0: float,
    y1: float,
    z1: float,
    open_end: bool,
    row0: int,
    row1: int,
    low: Floats,
    high: Floats,
) -> None:
    """Add one stretch of outline to the z intervals of rows row0…row1.

    `open_end`: the second end lies on the open side of the slab, and is not reached.
    """
    open0, open1 = 0.0, _OPEN if open_end else 0.0
    if y1 < y0:
        y0, z0, y1, z1 = y1, z1, y0, z0
        open0, open1 = open1, open0
    if y1 < row0 or y0 >= row1 + 1:
        return
    first = int(max(y0, float(row0)))
    last = int(min(y1, float(row1)))
    slope = (z1 - z0) / (y1 - y0) if y1 > y0 else 0.0
    z, open_z = z0, open0
    if first > y0:
        z, open_z = z0 + (first - y0) * slope, 0.0
    for row in range(first, last + 1):
        z_next, open_next = z1, open1
        if row + 1 <= y1:  # goes on into the next row, where its point on the border belongs
            z_next, open_next = z0 + (row + 1 - y0) * slope, _OPEN
        elif row == y1 and row > y0:  # ends on the border to this row: one point lies in it
            low[row] = min(low[row], z1)
            high[row] = max(high[row], z1 - open1)
            break
        if z_next > z:
            low[row] = min(low[row], z)
            high[row] = max(high[row], z_next - open_next)
        elif z_next < z:
            low[row] = min(low[row], z_next)
            high[row] = max(high[row], z - open_z)
        else:
            low[row] = min(low[row], z)
            high[row] = max(high[row], z)
        z, open_z = z_next, 0.0


@compiled
def _walk_open(
    y0: float, z0: float, y1: float, z1: float, row0: int, row1: int, low: Floats, high: Floats
) -> None:
    """The same for the cut at the open side itself, none of which is reached."""
    if y1 < y0:
        y0, z0, y1, z1 = y1, z1, y0, z0
    if y1 < row0 or y0 >= row1 + 1:
        return
    first = int(max(y0, float(row0)))
    last = int(min(y1, float(row1)))
    slope = (z1 - z0) / (y1 - y0) if y1 > y0 else 0.0
    z = z0 + (first - y0) * slope if first > y0 else z0
    for row in range(first, last + 1):
        z_next = z0 + (row + 1 - y0) * slope if row + 1 <= y1 else z1
        low[row] = min(low[row], min(z, z_next))
        high[row] = max(high[row], max(z, z_next) - _OPEN)
        z = z_next


@compiled
def _write_rows(ix: int, row0: int, row1: int, low: Floats, high: Floats, out: Cells) -> None:
    """Set the cells of each row's z interval, and empty the intervals."""
    nz = out.shape[2]
    for iy in range(row0, row1 + 1):
        bottom = low[iy]
        top = max(high[iy], bottom)
        if bottom < nz and top >= 0.0:
            for iz in range(int(max(bottom, 0.0)), int(min(top, nz - 1.0)) + 1):
                out[ix, iy, iz] = 1
        low[iy] = np.inf
        high[iy] = -np.inf
