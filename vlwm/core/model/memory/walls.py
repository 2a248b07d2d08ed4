"""Walls as planes: fitted through the cells of all past frames, to be voxelised again, exactly.

Averaging frames blurs a wall that is one cell thick, since each frame marks it on another raster.
But a straight vertical wall passes through every cell that it marks, so the cells of four frames
together fix its line to a centimetre (`wall_lines`). The walls found are voxelised in the target
ego frame by the same exact code that makes the data (`plane_voxels`). NumPy and SciPy alone:
exported models use it without torch.

1. Columns with at least three occupied cells on top of each other are points in the plane.
2. Points whose neighbours are on one line are joined to those with the same line; each component is
   refitted to all columns that it crosses, and placed where the columns of all frames allow it.
3. Points on none of these walls are looked at again with closer neighbours: walls that are short,
   or near to another.
4. Ends that are close to the intersection of two walls are moved onto it: corners are sharp.
5. Along each wall, pieces of half a cell hold the height runs that most frames agree on.

Axes: P past frames, N points, W walls, B pieces along a wall, X, Y, Z cells, T triangles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from vlwm.core.geometry.frames import to_ego
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.voxelize import voxelize
from vlwm.core.model.memory.wall_lines import TallMaps, Wall

Array = NDArray[np.float64]

_TALL = 3  # cells on top of each other that make a column a part of a wall
_NEAR = (3.0, 1.5)  # cells: neighbours that a local line is fitted to, in turn
_THIN = 0.45  # cells: largest deviation of neighbours from their local line
_SAME_ANGLE = np.radians(10.0)
_SAME_LINE = 0.7  # cells between the local lines of two points on one wall
_FEWEST = 8  # points of a wall
_SHORTEST = 3.0  # cells
_SLACK = 0.1  # cells beyond the exact band of columns that a line crosses
_EXPLAINED = 0.5  # cells beyond its ends where a wall explains a column
_SNAP = 1.6  # cells between an end and a corner that it is moved to
_PIECE = 0.5  # cells: length of a piece of a wall


@dataclass(frozen=True)
class Columns:
    """Columns of the past frames that are tall enough to be parts of walls.

    Attributes:
        place: (N, 2), centres in the outer frame, metres.
        frame: int (N,), the past frame.
        cells: bool (N, Z), what is occupied, in the layers of the last frame.
    """

    place: Array
    frame: NDArray[np.int64]
    cells: NDArray[np.bool_]

    def part(self, rows: NDArray[np.bool_]) -> Columns:
        """Return those of some rows (N,)."""
        return Columns(self.place[rows], self.frame[rows], self.cells[rows])


def tall_maps(
    occupancy: NDArray[np.uint8],
    ego: Array,
    grid: VoxelGrid,
    known: NDArray[np.uint8] | None = None,
) -> TallMaps:
    """Return which columns of frames (P, X, Y, Z) have `_TALL` occupied cells in a vertical run.

    Args:
        known: of the same shape, cells that are known; None: all of them. A column that is known by
            less than half does not count when it is not tall.
    """
    # (P, X, Y, Z - 2): a run of `_TALL` occupied cells begins here
    run = occupancy[..., : 1 - _TALL] > 0
    for k in range(1, _TALL):
        run = run & (occupancy[..., k : occupancy.shape[-1] + 1 - _TALL + k] > 0)
    tall: NDArray[np.bool_] = np.any(run, axis=-1)
    certain = None if known is None else 2 * (known > 0).sum(axis=-1) >= known.shape[-1]
    return TallMaps(tall, ego, grid, certain)


def tall_columns(occupancy: NDArray[np.uint8], maps: TallMaps) -> Columns:
    """Return the tall columns of frames (P, X, Y, Z)."""
    frame, i, j = np.nonzero(maps.tall)
    cells = occupancy[frame, i, j] > 0
    # layers of the last frame: terrain heights differ by a fraction of a cell or more
    lifts = (maps.ego[:, 2] - maps.ego[-1, 2]) / maps.grid.cell_m[2]
    for p, shift in enumerate(np.floor(0.5 + lifts).astype(int)):
        cells[frame == p] = _lifted(cells[frame == p], int(shift))
    return Columns(maps.centres(frame, i, j), frame, cells)


def _lifted(cells: NDArray[np.bool_], shift: int) -> NDArray[np.bool_]:
    """Return cells (N, Z) moved up by `shift` layers."""
    moved = np.zeros_like(cells)
    z = cells.shape[1]
    if abs(shift) < z:
        moved[:, max(0, shift) : z + min(0, shift)] = cells[:, max(0, -shift) : z - max(0, shift)]
    return moved


def find_walls(columns: Columns, maps: TallMaps) -> list[Wall]:
    """Return the walls through columns of all frames.

    Args:
        maps: from which the columns are, with those that are not tall.
    """
    cell_m = maps.grid.cell_m[0]
    walls: list[Wall] = []
    for near in _NEAR:
        left = columns.part(~_explained(_with_corners(walls, cell_m), columns, maps))
        for rows in _groups(left.place, near * cell_m, cell_m):
            wall = _fitted(left, rows, maps.ego, cell_m)
            if wall is not None:
                walls += maps.placed(wall)
    return _with_corners([maps.ended(wall) for wall in walls], cell_m)


def _explained(walls: list[Wall], columns: Columns, maps: TallMaps) -> NDArray[np.bool_]:
    """Return bool (N,): columns that one of the walls crosses."""
    cell = maps.grid.cell_m[0]
    crossed = np.zeros(len(columns.place), bool)
    for wall in walls:
        s, across = wall.coordinates(columns.place)
        near = np.abs(across) <= wall.half_width(maps.ego[columns.frame, 3]) * cell
        more = _EXPLAINED * cell
        crossed |= near & (s >= wall.start - more) & (s <= wall.end + more)
    return crossed


def _groups(place: Array, near_m: float, cell_m: float) -> list[NDArray[np.int64]]:
    """Return rows of points (N, 2) that are neighbours, up to `near_m` away, on one line."""
    count = len(place)
    if count < _FEWEST:
        return []
    pairs = cKDTree(place).query_pairs(near_m, output_type="ndarray")
    if len(pairs) == 0:
        return []
    a, b = np.concatenate([pairs, pairs[:, ::-1]]).T
    # moments of each point's neighbours, itself included
    off = place[b] - place[a]
    number = 1.0 + np.bincount(a, minlength=count)
    mean = np.stack([np.bincount(a, off[:, k], count) for k in range(2)], 1) / number[:, None]
    # second moments (N,) about that mean: the spread along and across the local line
    xx, xy, yy = (
        np.bincount(a, off[:, k] * off[:, m], count) / number - mean[:, k] * mean[:, m]
        for k, m in ((0, 0), (0, 1), (1, 1))
    )
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)  # of the larger principal axis
    smaller = 0.5 * (xx + yy) - np.hypot(0.5 * (xx - yy), xy)
    # a point is on a line if its neighbours are spread along one axis alone
    thin = (np.sqrt(np.maximum(smaller, 0.0)) < _THIN * cell_m) & (number >= 5)
    normal = np.stack([-np.sin(angle), np.cos(angle)], axis=1)
    # lines have no direction: angles are compared modulo half a turn
    turned = np.abs((angle[a] - angle[b] + np.pi / 2) % np.pi - np.pi / 2)
    # b's local centre must be on a's local line
    across = ((off + mean[b] - mean[a]) * normal[a]).sum(axis=1)
    joined = thin[a] & thin[b] & (turned < _SAME_ANGLE) & (np.abs(across) < _SAME_LINE * cell_m)
    # walls are the connected components of points that share a line
    graph = coo_array((np.ones(joined.sum(), bool), (a[joined], b[joined])), (count, count))
    _, label = connected_components(graph, directed=False)
    order = np.argsort(label, kind="stable")
    cuts = np.flatnonzero(np.diff(label[order])) + 1
    return [rows for rows in np.split(order, cuts) if len(rows) >= _FEWEST]


def _fitted(columns: Columns, rows: NDArray[np.int64], ego: Array, cell_m: float) -> Wall | None:
    """Return the wall through a component, refitted to every column that it crosses; None if the
    component is not a straight line."""
    own = columns.place[rows]
    # the component is one piece of the line: three rounds collect what the line crosses elsewhere
    for _ in range(3):
        centre = own.mean(axis=0)
        _, _, axes = np.linalg.svd(own - centre, full_matrices=False)
        along = axes[0]
        line = Wall(centre, along, 0.0, 0.0)
        s, across = line.coordinates(columns.place)
        band = line.half_width(ego[columns.frame, 3]) + _SLACK
        low, high = ((own - centre) @ along).min(), ((own - centre) @ along).max()
        crossed = (np.abs(across) <= band * cell_m) & (s >= low - cell_m) & (s <= high + cell_m)
        if crossed.sum() < _FEWEST:
            return None
        own = columns.place[crossed]
    s = s[crossed]
    if s.max() - s.min() < _SHORTEST * cell_m:
        return None
    # a frame sees only a part: the outermost ends count, averaged over the frames that agree
    frames = columns.frame[crossed]
    ends = np.array([[s[frames == p].min(), s[frames == p].max()] for p in np.unique(frames)])
    start = ends[ends[:, 0] < ends[:, 0].min() + cell_m, 0].mean()
    end = ends[ends[:, 1] > ends[:, 1].max() - cell_m, 1].mean()
    return Wall(centre, along, float(start), float(end))


def _with_corners(walls: list[Wall], cell_m: float) -> list[Wall]:
    """Return the walls with ends moved onto intersections with other walls that are close."""
    if len(walls) < 2:
        return walls
    centre = np.stack([w.centre for w in walls])
    along = np.stack([w.along for w in walls])
    start, end = (np.array([getattr(w, k) for w in walls]) for k in ("start", "end"))
    # s of wall i where it meets the line of wall j
    cross = along[:, None, 0] * along[None, :, 1] - along[:, None, 1] * along[None, :, 0]
    off = centre[None] - centre[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        s = (off[..., 0] * along[None, :, 1] - off[..., 1] * along[None, :, 0]) / cross
    # lines that are nearly parallel meet far away, at no corner
    s = np.where(np.abs(cross) > 0.3, s, np.inf)
    reach = _SNAP * cell_m
    other = s.T  # of wall j where it meets wall i, as [i, j]
    meets = (other >= start[None] - reach) & (other <= end[None] + reach) & np.isfinite(s)
    moved = []
    for i, wall in enumerate(walls):
        ends = []
        for value in (wall.start, wall.end):
            near = np.where(meets[i], np.abs(s[i] - value), np.inf)
            j = int(near.argmin())
            ends.append(float(s[i, j]) if near[j] <= reach else value)
        # both ends on one corner would leave no wall
        ok = ends[1] > ends[0]
        moved.append(Wall(wall.centre, wall.along, *ends) if ok else wall)
    return moved


def wall_triangles(wall: Wall, columns: Columns, ego: Array, grid: VoxelGrid) -> Array:
    """Return triangles (T, 3, 3) of the pieces of a wall that most frames agree on.

    Heights are those of the outer frame; a piece ends in the middle of its lowest and highest cell,
    so that it marks the same layers in ego frames up to half a cell higher or lower.
    """
    cell = grid.cell_m[0]
    pieces = max(1, round((wall.end - wall.start) / (_PIECE * cell)))
    edges = np.linspace(wall.start, wall.end, pieces + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])  # (B,)
    s, across = wall.coordinates(columns.place)
    band = wall.half_width(ego[columns.frame, 3]) + _SLACK
    # a column votes for the pieces that it may be a part of
    half = (edges[1] - edges[0]) / 2 + 0.5 * cell
    crossed = (np.abs(across) <= band * cell) & (s >= wall.start - half) & (s <= wall.end + half)
    rows = np.flatnonzero(crossed)
    covers = np.abs(s[rows, None] - middle) <= half  # (N, B)
    share = np.zeros((pieces, columns.cells.shape[1]))
    frames = np.zeros((pieces, 1))
    # frames whose grid contains a piece: only they can vote for it
    points = np.concatenate([wall.at(middle), np.zeros((pieces, 1))], axis=1)
    for p, own in enumerate(ego):
        mine = covers[columns.frame[rows] == p].T.astype(float)  # (B, N of the frame)
        number = mine.sum(axis=1, keepdims=True)
        votes = mine @ columns.cells[rows[columns.frame[rows] == p]]
        share += votes / np.maximum(number, 1.0)
        inside = grid.contains(to_ego(points, own) * [1, 1, 0])
        frames += inside[:, None]
    # half of those frames are enough
    present = share >= np.maximum(0.5 * frames, 0.5)
    return _rectangles(wall, edges, present, ego[-1, 2], grid)


def _rectangles(
    wall: Wall, edges: Array, present: NDArray[np.bool_], base_m: float, grid: VoxelGrid
) -> Array:
    """Return two triangles for each run of layers in each piece, (T, 3, 3)."""
    # runs of layers begin where the change is 1 and end where it is -1
    padded = np.pad(present, ((0, 0), (1, 1))).astype(np.int8)
    change = np.diff(padded, axis=1)
    piece, first = np.nonzero(change == 1)
    _, after = np.nonzero(change == -1)
    low, size = base_m + grid.lower_m[2], grid.cell_m[2]
    z0, z1 = low + (first + 0.5) * size, low + (after - 0.5) * size
    # rectangles as two triangles each, corners in order round the rectangle
    a, b = wall.at(edges[piece]), wall.at(edges[piece + 1])
    corners = [np.column_stack(c) for c in ((a, z0), (b, z0), (b, z1), (a, z1))]
    lower = np.stack([corners[0], corners[1], corners[2]], axis=1)
    upper = np.stack([corners[0], corners[2], corners[3]], axis=1)
    return np.concatenate([lower, upper])


def fit_planes(
    occupancy: NDArray[np.uint8],
    ego: Array,
    grid: VoxelGrid,
    known: NDArray[np.uint8] | None = None,
) -> Array:
    """Return the walls of some frames as triangles (T, 3, 3), in the outer frame of `ego`.

    Args:
        occupancy: (P, X, Y, Z) of 0 and 1.
        ego: float64 (P, 4), ego frames of the frames.
        grid: of all frames.
        known: (P, X, Y, Z), cells that are known; None: all of them.
    """
    maps = tall_maps(occupancy, ego, grid, known)
    columns = tall_columns(occupancy, maps)
    walls = find_walls(columns, maps)
    parts = [wall_triangles(wall, columns, ego, grid) for wall in walls]
    return np.concatenate([*parts, np.zeros((0, 3, 3))])


def plane_voxels(triangles: Array, ego: Array, grid: VoxelGrid) -> NDArray[np.uint8]:
    """Return uint8 (X, Y, Z): walls of `fit_planes` in an ego frame (4,)."""
    return voxelize(to_ego(triangles, ego), grid)
