"""Carve free space along sensor rays: which cells a scan saw occupied, and which it saw free.

A ray runs from the sensor to the point it returned from, or to its range where nothing returned.
It meets a half-open cell if some point of the closed segment is in that cell; the walk visits these
cells and no others, a cell met in a single point included. Every cell that a ray meets is free,
except those in which some ray of the scan ends on a surface: they are occupied, and never free.
What no ray meets is neither: unknown.

The walk follows Amanatides and Woo, "A Fast Voxel Traversal Algorithm for Ray Tracing",
Eurographics 1987, with three changes: each crossing is divided out of its plane instead of summed
up, so errors do not grow along a ray; planes crossed at the same instant are crossed together; and
the end of a ray is found by counting planes, not by comparing lengths.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.jit import compiled

Floats = NDArray[np.float64]
Cells = NDArray[np.uint8]
Point = tuple[float, float, float]  # cells
Index = tuple[int, int, int]

_FAR = 1e9  # cells; farther coordinates would leave int64 and the exact integers of float64
_TIE = 1e-13  # of a ray's length: crossings nearer than this are ordered by exact quotients
_ENTRY_SLACK = 1e-6  # of a ray's length: how far before the grid a walk begins


def carve(
    grid: VoxelGrid,
    ego: ArrayLike | None,
    origins: ArrayLike,
    ends: ArrayLike,
    hit: ArrayLike,
) -> tuple[Cells, Cells]:
    """Return the cells that a scan saw occupied and free, each uint8 (X, Y, Z) of 0 and 1.

    Rays may begin and end outside the grid. An occupied cell is never free; a cell that no ray
    meets is neither.

    Args:
        grid: the cells, in the frame `ego`.
        ego: (4,) x, y, ground_z, yaw of the grid's frame in the frame of the rays, metres and
            radians; None where the rays are in the grid's frame.
        origins: (N, 3) or (3,), where the rays start, metres.
        ends: (N, 3), where they end: on a surface if they hit, else at their range, metres.
        hit: bool (N,), True for a ray that ends on a surface.

    Raises:
        ValueError: another shape, or numbers that are not finite or over 1e9 cells away.
    """
    stop = np.ascontiguousarray(ends, dtype=np.float64)
    if stop.ndim != 2 or stop.shape[1] != 3:
        raise ValueError(f"ends must have shape (N, 3), not {stop.shape}")
    start = np.asarray(origins, dtype=np.float64)
    if start.shape not in ((3,), stop.shape):
        raise ValueError(f"origins must have shape (3,) or {stop.shape}, not {start.shape}")
    surface = np.ascontiguousarray(hit, dtype=np.bool_)
    if surface.shape != (len(stop),):
        raise ValueError(f"hit must have shape ({len(stop)},), not {surface.shape}")
    first = to_cells(grid, ego, np.ascontiguousarray(np.atleast_2d(start)))  # (1 or N, 3)
    last = to_cells(grid, ego, stop)  # (N, 3)
    free = np.zeros(grid.shape, dtype=np.uint8)
    occupied = np.zeros(grid.shape, dtype=np.uint8)
    carve_cells(first, last, surface, occupied, free)
    return occupied, free


def to_cells(grid: VoxelGrid, ego: ArrayLike | None, points: Floats) -> Floats:
    """Return points (N, 3), metres, in cells from the grid's lower corner.

    Args:
        ego: as in `carve`.

    Raises:
        ValueError: numbers that are not finite, or points over 1e9 cells away.
    """
    # rays in the grid's own frame: an ego frame of zeros moves nothing
    frame = np.zeros(4) if ego is None else np.ascontiguousarray(ego, dtype=np.float64)
    if frame.shape != (4,) or not np.isfinite(frame).all():
        raise ValueError(f"an ego frame is four finite numbers, not {frame.tolist()}")
    moved = np.empty_like(points)
    _to_cells(points, frame, np.array(grid.lower_m), np.array(grid.cell_m), moved)
    if not (np.abs(moved) < _FAR).all():  # a NaN compares false
        raise ValueError("rays must have finite coordinates within 1e9 cells of the grid")
    return moved


@compiled
def _to_cells(points: Floats, ego: Floats, lower: Floats, cell: Floats, out: Floats) -> None:
    """Write points (N, 3) of the outer frame to `out`, in cells of the grid at `ego`."""
    # the inverse of the ego frame's turn: by −yaw
    cosine, sine = math.cos(ego[3]), math.sin(ego[3])
    for k in range(len(points)):
        x, y = points[k, 0] - ego[0], points[k, 1] - ego[1]
        out[k, 0] = (cosine * x + sine * y - lower[0]) / cell[0]
        out[k, 1] = (cosine * y - sine * x - lower[1]) / cell[1]
        out[k, 2] = (points[k, 2] - ego[2] - lower[2]) / cell[2]


@compiled
def carve_cells(
    origins: Floats, ends: Floats, hit: NDArray[np.bool_], occupied: Cells, free: Cells
) -> None:
    """Mark in `occupied` and `free` (X, Y, Z) what rays saw; coordinates in cells.

    What the two hold already is kept, so that scans can be added up; a cell in which a ray hits
    stays or becomes occupied and loses its mark in `free`.

    Args:
        origins: (N, 3), or (1, 3) for rays that share their start.
        ends: (N, 3).
        hit: (N,).
    """
    one = len(origins) == 1
    flat = free.reshape(-1)  # a view: one index for a cell saves two products a step
    for k in range(len(ends)):
        _walk(origins[0 if one else k], ends[k], free.shape, flat)
    # Hits are marked after all walks: another beam may pass through a cell in which one ends.
    for k in range(len(ends)):
        if hit[k]:
            x, y, z = math.floor(ends[k, 0]), math.floor(ends[k, 1]), math.floor(ends[k, 2])
            if 0 <= x < free.shape[0] and 0 <= y < free.shape[1] and 0 <= z < free.shape[2]:
                occupied[x, y, z] = 1
    # without a branch: a cell keeps its free mark unless it is occupied
    solid = occupied.reshape(-1)
    for i in range(len(flat)):
        flat[i] &= 1 - solid[i]


@compiled
def _walk(start: Floats, end: Floats, shape: Index, free: Cells) -> None:
    """Set every cell of `free` (X * Y * Z,) that the segment from `start` to `end` meets."""
    enter = _entry(start, end, shape)
    if enter > 1.0:
        return  # the segment passes the grid by
    o = (start[0], start[1], start[2])
    d = (end[0] - o[0], end[1] - o[1], end[2] - o[2])
    # Cells at the entry and at the end: a walk between them crosses a known number of planes.
    first = (_cell_at(o[0], d[0], enter), _cell_at(o[1], d[1], enter), _cell_at(o[2], d[2], enter))
    last = (math.floor(end[0]), math.floor(end[1]), math.floor(end[2]))
    _step(o, d, first, last, shape, free)


@compiled
def _step(o: Point, d: Point, first: Index, last: Index, shape: Index, free: Cells) -> None:
    """Set the cells of `free` on the line o + t * d, from cell `first` to cell `last`."""
    ox, oy, oz = o
    dx, dy, dz = d
    ix, iy, iz = first
    nx, ny, nz = shape
    sx, sy, sz = (1 if dx > 0 else -1), (1 if dy > 0 else -1), (1 if dz > 0 else -1)
    # Steps left to the last cell of each axis; an axis without any is never the next to step.
    left_x, left_y, left_z = sx * (last[0] - ix), sy * (last[1] - iy), sz * (last[2] - iz)
    # times of the next plane of each axis, as parts of the segment
    fx, fy, fz = _inverse(dx), _inverse(dy), _inverse(dz)
    tx = _ahead(ix, sx, ox) * fx if left_x > 0 else math.inf
    ty = _ahead(iy, sy, oy) * fy if left_y > 0 else math.inf
    tz = _ahead(iz, sz, oz) * fz if left_z > 0 else math.inf
    # index of the cell in the flat array, and its change for a step in x and in y
    at = (ix * ny + iy) * nz + iz
    jx, jy = sx * ny * nz, sy * nz
    inside = 0 <= ix < nx and 0 <= iy < ny and 0 <= iz < nz
    if inside:
        free[at] = 1
    while True:
        # One axis is clearly first: step it alone.
        if inside and tx < ty - _TIE and tx < tz - _TIE:
            ix, left_x, tx = _stepped(True, ix, left_x, tx, sx, ox, fx)
            if ix < 0 or ix >= nx:
                return
            at += jx
            free[at] = 1
            continue
        if inside and ty < tx - _TIE and ty < tz - _TIE:
            iy, left_y, ty = _stepped(True, iy, left_y, ty, sy, oy, fy)
            if iy < 0 or iy >= ny:
                return
            at += jy
            free[at] = 1
            continue
        # Too near for products to order, or not in the grid yet: divide, which rounds equal times
        # to equal numbers.
        ux = _ahead(ix, sx, ox) / dx if left_x > 0 else math.inf
        uy = _ahead(iy, sy, oy) / dy if left_y > 0 else math.inf
        uz = _ahead(iz, sz, oz) / dz if left_z > 0 else math.inf
        if min(ux, uy, uz) == math.inf:
            return
        goes_x, goes_y, goes_z = _first_of(ux, uy, uz, sx > 0, sy > 0, sz > 0)
        ix, left_x, tx = _stepped(goes_x, ix, left_x, tx, sx, ox, fx)
        iy, left_y, ty = _stepped(goes_y, iy, left_y, ty, sy, oy, fy)
        iz, left_z, tz = _stepped(goes_z, iz, left_z, tz, sz, oz, fz)
        at = (ix * ny + iy) * nz + iz
        was_inside = inside
        inside = 0 <= ix < nx and 0 <= iy < ny and 0 <= iz < nz
        if inside:
            free[at] = 1
        elif was_inside:
            return  # a straight line does not come back into a box


@compiled
def _ahead(i: int, sign: int, o: float) -> float:
    """Return the distance from `o` to the plane ahead of cell i: i + 1 going up, i going down."""
    return i + (1 if sign > 0 else 0) - o


@compiled
def _stepped(
    goes: bool, i: int, left: int, t: float, sign: int, o: float, inverse: float
) -> tuple[int, int, float]:
    """Return an axis after its step, where it goes: cell, steps left, time of its next plane."""
    if not goes:
        return i, left, t
    i += sign
    left -= 1
    return i, left, _ahead(i, sign, o) * inverse if left > 0 else math.inf


@compiled
def _inverse(d: float) -> float:
    return 1.0 / d if d != 0.0 else 0.0


@compiled
def _first_of(
    tx: float, ty: float, tz: float, up_x: bool, up_y: bool, up_z: bool
) -> tuple[bool, bool, bool]:
    """Return which axes step next, given the times of their next planes."""
    t = min(tx, ty, tz)
    x, y, z = tx == t, ty == t, tz == t
    # Going up, the plane itself is in the next cell; going down, in the one before. So at one
    # instant the axes that go up step first, and the cell between is met in a point.
    if (x and up_x) or (y and up_y) or (z and up_z):
        x, y, z = x and up_x, y and up_y, z and up_z
    return x, y, z


@compiled
def _entry(start: Floats, end: Floats, shape: Index) -> float:
    """Return the part of the segment, 0…1, that is surely outside the grid; 2 if all of it is."""
    enter, leave = 0.0, 1.0
    for axis in range(3):
        o, d, n = start[axis], end[axis] - start[axis], float(shape[axis])
        if d == 0.0:
            if o < 0.0 or o >= n:
                return 2.0
            continue
        # times at which the line passes the two planes that bound this axis
        t0, t1 = -o / d, (n - o) / d
        enter, leave = max(enter, min(t0, t1)), min(leave, max(t0, t1))
    if enter > leave + _ENTRY_SLACK:
        return 2.0
    return max(0.0, enter - _ENTRY_SLACK)


@compiled
def _cell_at(o: float, d: float, t: float) -> int:
    """Return the index of the cell at o + t * d: the planes crossed by then, counted by time."""
    i = math.floor(o + t * d)
    if t == 0.0 or d == 0.0:
        return i
    # Rounding may put the sum on the wrong side of a plane; crossing times decide.
    if d > 0:
        while (i - o) / d > t:
            i -= 1
        while (i + 1 - o) / d <= t:
            i += 1
    else:
        while (i - o) / d < t:
            i -= 1
        while (i + 1 - o) / d >= t:
            i += 1
    return i
