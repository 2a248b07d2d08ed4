"""Mark every cell that a triangle meets: the compiled inner loops of `voxelize`.

Coordinates are in cells from the grid's lower corner, so that cell i holds [i, i + 1). A triangle
is cut into slabs along x; the outline of each piece is walked along y, and each stretch of it adds
its z to the interval of the rows it passes. A convex piece is bounded by its outline, so a column
(ix, iy) then holds the exact interval of z in which the triangle passes through it, and meets
every cell of that interval: the test is exact and writes contiguous runs. Vertical, degenerate and
kilometre-sized triangles take the same way; only those within one layer of cells take a shorter.

Half-open cells: a triangle that reaches x = i + 1 or y = j + 1 only in the limit does not meet
what begins there. So an upper end that is on such an *open* side counts as just below its value
(`_OPEN`), and a row or cell above it is left out unless another point reaches it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vlwm.core.geometry.jit import compiled

Floats = NDArray[np.float64]
Cells = NDArray[np.uint8]

Point = tuple[float, float, float]  # x, y, z in cells
Section = tuple[float, float, float, float]  # y0, z0, y1, z1: both ends of a cut at one x

_OPEN = 1e-10  # of a cell: how far below its value an end that is not reached counts


@compiled
def mark_triangles(triangles: Floats, lower: Floats, cell: Floats, out: Cells) -> None:
    """Set the cells of `out` (X, Y, Z) met by triangles (T, 3, 3) in the grid's frame, metres."""
    # z interval of each row (Y,), shared scratch of all triangles: empty is +inf, −inf
    low = np.full(out.shape[1], np.inf)
    high = np.full(out.shape[1], -np.inf)
    for index in range(triangles.shape[0]):
        _mark_moved(triangles[index], (0.0, 0.0, 0.0), 1.0, 0.0, lower, cell, out, low, high)


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
    origin = (ego[0], ego[1], ego[2])
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
                _mark_moved(triangles[index], origin, cos, sin, lower, cell, out, low, high)
    for index in large:
        _mark_moved(triangles[index], origin, cos, sin, lower, cell, out, low, high)


@compiled
def count_tiles(
    first: NDArray[np.int32],
    last: NDArray[np.int32],
    tiles_y: int,
    counts: NDArray[np.int64],
) -> None:
    """Add to `counts` the triangles of each tile, of those with first <= last, each (N, 2)."""
    for index in range(first.shape[0]):
        for tx in range(first[index, 0], last[index, 0] + 1):
            for ty in range(first[index, 1], last[index, 1] + 1):
                counts[tx * tiles_y + ty] += 1


@compiled
def fill_tiles(
    first: NDArray[np.int32],
    last: NDArray[np.int32],
    tiles_y: int,
    row: int,
    free: NDArray[np.int64],
    items: NDArray[np.int32],
) -> None:
    """Enter triangles with first <= last, each (N, 2), whose numbers begin at `row`.

    `free` holds for each tile the place in `items` of its next number.
    """
    for index in range(first.shape[0]):
        for tx in range(first[index, 0], last[index, 0] + 1):
            for ty in range(first[index, 1], last[index, 1] + 1):
                tile = tx * tiles_y + ty
                items[free[tile]] = row + index
                free[tile] += 1


@compiled
def _mark_moved(
    corners: Floats,
    origin: Point,
    cos: float,
    sin: float,
    lower: Floats,
    cell: Floats,
    out: Cells,
    low: Floats,
    high: Floats,
) -> None:
    """Mark one triangle (3, 3), moved to the ego frame at `origin` and scaled to cells."""
    a = _in_cells(corners[0], origin, cos, sin, lower, cell)
    b = _in_cells(corners[1], origin, cos, sin, lower, cell)
    c = _in_cells(corners[2], origin, cos, sin, lower, cell)
    nx, ny, nz = out.shape
    # outside of the grid on some axis: nothing to do
    if max(a[0], b[0], c[0]) < 0.0 or min(a[0], b[0], c[0]) >= nx:
        return
    if max(a[1], b[1], c[1]) < 0.0 or min(a[1], b[1], c[1]) >= ny:
        return
    if max(a[2], b[2], c[2]) < 0.0 or min(a[2], b[2], c[2]) >= nz:
        return
    # sort the corners by x
    if b[0] < a[0]:
        a, b = b, a
    if c[0] < b[0]:
        b, c = c, b
    if b[0] < a[0]:
        a, b = b, a
    _mark_sorted(a, b, c, out, low, high)


@compiled
def _in_cells(
    corner: Floats, origin: Point, cos: float, sin: float, lower: Floats, cell: Floats
) -> Point:
    """Return a corner (3,) in the ego frame, in cells from the grid's lower corner."""
    x, y, z = corner[0] - origin[0], corner[1] - origin[1], corner[2] - origin[2]
    return (
        (cos * x + sin * y - lower[0]) / cell[0],
        (cos * y - sin * x - lower[1]) / cell[1],
        (z - lower[2]) / cell[2],
    )


@compiled
def _mark_sorted(a: Point, b: Point, c: Point, out: Cells, low: Floats, high: Floats) -> None:
    """Mark one triangle with a.x <= b.x <= c.x, slab by slab.

    `low`, `high` (Y,) are scratch: +inf and -inf before and after.
    """
    # within one layer no interval is needed: the outline's rows are enough
    layer = math.floor(min(a[2], b[2], c[2]))
    if layer != math.floor(max(a[2], b[2], c[2])):
        layer = -1
    first = int(max(a[0], 0.0))
    last = int(min(c[0], out.shape[0] - 1.0))
    # where the triangle starts left of the grid, its first slab begins with a cut
    cut_left = a[0] < first
    left = (a[1], a[2], a[1], a[2])
    if cut_left:
        left = _section(float(first), a, b, c)
    for ix in range(first, last + 1):
        cut_right = ix + 1 <= c[0]
        right = (c[1], c[2], c[1], c[2])
        if cut_right:
            right = _section(ix + 1.0, a, b, c)
        _mark_slab(ix, left, cut_left, right, cut_right, b, layer, out, low, high)
        # the right cut of a slab is the left cut of the next
        left, cut_left = right, True


@compiled
def _section(x: float, a: Point, b: Point, c: Point) -> Section:
    """Return the section at a.x <= x <= c.x: on the long side a-c, and on the chain a-b-c."""
    y0, z0 = _at(x, a, c)
    y1, z1 = _at(x, a, b) if x <= b[0] else _at(x, b, c)
    return y0, z0, y1, z1


@compiled
def _at(x: float, p: Point, q: Point) -> tuple[float, float]:
    """Return y and z of the side p-q at p.x <= x <= q.x, exact at its ends."""
    if x >= q[0]:
        return q[1], q[2]
    if x <= p[0]:
        return p[1], p[2]
    # By slopes, not by a share of the length: exact on lattices where the slopes are.
    along, length = x - p[0], q[0] - p[0]
    return p[1] + along * ((q[1] - p[1]) / length), p[2] + along * ((q[2] - p[2]) / length)


@compiled
def _mark_slab(
    ix: int,
    left: Section,
    cut_left: bool,
    right: Section,
    cut_right: bool,
    b: Point,
    layer: int,
    out: Cells,
    low: Floats,
    high: Floats,
) -> None:
    """Mark the part of a triangle in the slab ix <= x < ix + 1.

    `left` and `right` are its first and last section: a cut, or twice the corner a or c.
    `b` is the middle corner; `layer` the only layer of cells the triangle is in, or -1.
    """
    ny = out.shape[1]
    # the chain a-b-c bends inside this slab
    bend = ix <= b[0] and b[0] < ix + 1
    y_min, y_max = min(left[0], left[2], right[0], right[2]), max(left[0], left[2])
    if bend:
        y_min, y_max = min(y_min, b[1]), max(y_max, b[1])
    # rows of the slab: an end on the open right side counts only up to just below its value
    if cut_right:
        top = max(math.floor(y_max), math.ceil(max(right[0], right[2])) - 1.0)
    else:
        top = max(math.floor(y_max), math.floor(right[0]) + 0.0)
    if y_min >= ny or top < 0.0:
        return
    row0, row1 = int(max(y_min, 0.0)), int(min(top, ny - 1.0))
    if layer >= 0:
        for iy in range(row0, row1 + 1):
            out[ix, iy, layer] = 1
        return
    # the outline of the piece: long side, chain (bent or not), and both cuts
    _walk(left[0], left[1], right[0], right[1], cut_right, row0, row1, low, high)
    if bend:
        _walk(left[2], left[3], b[1], b[2], False, row0, row1, low, high)
        _walk(b[1], b[2], right[2], right[3], cut_right, row0, row1, low, high)
    else:
        _walk(left[2], left[3], right[2], right[3], cut_right, row0, row1, low, high)
    if cut_left:
        _walk(left[0], left[1], left[2], left[3], False, row0, row1, low, high)
    if cut_right:
        _walk_open(right[0], right[1], right[2], right[3], row0, row1, low, high)
    _write_rows(ix, row0, row1, low, high, out)


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

    `open_end`: the second end is on the open side of the slab, and is not reached.
    """
    open0, open1 = 0.0, _OPEN if open_end else 0.0
    # walk upwards in y, whichever way the side is given
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
        if row + 1 <= y1:  # continues in the next row, where its point on the border belongs
            z_next, open_next = z0 + (row + 1 - y0) * slope, _OPEN
        elif row == y1 and row > y0:  # ends on the border to this row: one point is in it
            low[row] = min(low[row], z1)
            high[row] = max(high[row], z1 - open1)
            break
        # the open end of the stretch lowers the interval only where it is the upper one
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
    """Add the section at the open side itself, of which no point is reached."""
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
        # an interval that ends at an open side may be empty: it still marks its lowest cell
        bottom = low[iy]
        top = max(high[iy], bottom)
        if bottom < nz and top >= 0.0:
            for iz in range(int(max(bottom, 0.0)), int(min(top, nz - 1.0)) + 1):
                out[ix, iy, iz] = 1
        low[iy] = np.inf
        high[iy] = -np.inf
