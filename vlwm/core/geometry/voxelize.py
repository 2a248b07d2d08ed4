"""Surface voxelisation: a cell is occupied if a triangle meets it, exactly.

Exact means the result of a separating-axis test in float64 of the triangle and the half-open cell
[lower, upper); triangles without area still mark the cells they pass. The algorithm is in
`voxelize_kernels`. A closed mesh gives a closed shell: no 6-connected path of empty cells joins
inside and outside. Coordinates must be finite.

`TriangleTiles` finds the triangles of a whole city by place, so that a frame touches only what is
near its vehicle; it is plain arrays, in memory or in files, and forked workers share it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from vlwm.core.geometry.frames import from_ego
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.mapped_arrays import PIECE_ROWS, Scratch, let_go
from vlwm.core.geometry.voxelize_kernels import count_tiles, fill_tiles, mark_tiles, mark_triangles

DEFAULT_TILE_M = 32.0
_MOST_TILES = 1 << 22  # tiles grow beyond what was asked where a city would need more
_LARGE = 64  # a triangle over more tiles than this is kept apart and tested in every frame


def voxelize(
    triangles: ArrayLike, grid: VoxelGrid, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Return occupancy (X, Y, Z) of 0/1: the surface of triangles (T, 3, 3), metres, in a grid.

    Args:
        out: C-contiguous uint8 (X, Y, Z) to overwrite and return instead of a new array.

    Raises:
        ValueError: `triangles` or `out` of another shape or kind.
    """
    corners = _as_triangles(triangles)
    occupancy = _writable(grid, out, False)
    mark_triangles(corners, np.array(grid.lower_m), np.array(grid.cell_m), occupancy)
    return occupancy


def fill_solid(occupancy: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a copy with every enclosed empty cell set to 1.

    Enclosed: no 6-connected path of empty cells leads to the grid's top or sides. The bottom does
    not count as a way out, so a building whose cellar is below the grid is filled; one that a side
    of the grid cuts open is not.
    """
    # components of empty cells, (X, Y, Z); those that touch the top or a side are outside
    labels, count = ndimage.label(occupancy == 0)
    outside = np.zeros(count + 1, dtype=bool)
    for face in (labels[0], labels[-1], labels[:, 0], labels[:, -1], labels[:, :, -1]):
        outside[face.reshape(-1)] = True
    outside[0] = False  # label 0 is what was occupied before
    return np.where(outside[labels], 0, 1).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class TriangleTiles:
    """Triangles of a city, found by place. Made by `TriangleTiles.build`.

    Attributes:
        triangles: float64 (T, 3, 3), outer frame, metres.
        tile_m: side of a square tile, metres.
        origin_m: (x, y) of the lower corner of tile (0, 0).
        shape: tiles along x and y.
        starts, items: tile t = tx * shape[1] + ty holds items[starts[t]:starts[t + 1]].
        first_tile: int32 (T, 2), lowest tile of each triangle.
        large: int32, the triangles that are in no tile because they span too many.
    """

    triangles: NDArray[np.float64]
    tile_m: float
    origin_m: tuple[float, float]
    shape: tuple[int, int]
    starts: NDArray[np.int64]
    items: NDArray[np.int32]
    first_tile: NDArray[np.int32]
    large: NDArray[np.int32]

    @classmethod
    def build(
        cls, triangles: ArrayLike, tile_m: float = DEFAULT_TILE_M, scratch: Scratch | None = None
    ) -> TriangleTiles:
        """Sort triangles (T, 3, 3), metres, into tiles of at least `tile_m` metres.

        Args:
            scratch: where what grows with the triangles is put; memory if None.

        Raises:
            ValueError: another shape, or coordinates that are not finite.
        """
        corners = _as_triangles(triangles)
        parts = [slice(k, k + PIECE_ROWS) for k in range(0, len(corners), PIECE_ROWS)]
        boxes = _Boxes(corners)
        large, origin, end = _large_and_extent(boxes, parts, tile_m)
        if len(large) == len(corners):
            return cls._all_large(corners, tile_m)
        # larger tiles where the city would need more than `_MOST_TILES`
        tile_m = max(tile_m, math.sqrt(float(np.prod(end - origin)) / _MOST_TILES))
        size = np.floor((end - origin) / tile_m).astype(int) + 1
        shape = (int(size[0]), int(size[1]))
        zeros = np.zeros if scratch is None else scratch.zeros
        # first pass: tiles of each triangle, and how many triangles each tile has
        first, last = (zeros((len(corners), 2), np.int32) for _ in range(2))
        starts = zeros(shape[0] * shape[1] + 1, np.int64)
        for part in parts:
            first[part], last[part] = (
                np.floor((corner - origin) / tile_m) for corner in boxes.of(part)
            )
            if len(large):
                apart = large[slice(*np.searchsorted(large, (part.start, part.stop)))]
                # last < first: a large triangle is counted in no tile
                first[apart], last[apart] = 0, -1
            count_tiles(first[part], last[part], shape[1], starts[1:])
            let_go(first, last)
        # counts become the begin of each tile's run; second pass: fill the runs
        np.cumsum(starts, out=starts)
        items, free = zeros(int(starts[-1]), np.int32), starts.copy()
        for part in parts:
            fill_tiles(first[part], last[part], shape[1], part.start, free, items)
            let_go(first, last, items)
        return cls(
            triangles=corners,
            tile_m=tile_m,
            origin_m=(float(origin[0]), float(origin[1])),
            shape=shape,
            starts=starts,
            items=items,
            first_tile=first,
            large=large.astype(np.int32),
        )

    @classmethod
    def _all_large(cls, corners: NDArray[np.float64], tile_m: float) -> TriangleTiles:
        """Return one empty tile, with every triangle kept apart from it."""
        return cls(
            triangles=corners,
            tile_m=tile_m,
            origin_m=(0.0, 0.0),
            shape=(1, 1),
            starts=np.zeros(2, dtype=np.int64),
            items=np.zeros(0, dtype=np.int32),
            first_tile=np.zeros((len(corners), 2), dtype=np.int32),
            large=np.arange(len(corners), dtype=np.int32),
        )

    def let_go(self) -> None:
        """Release the pages of mapped files from memory until they are read again."""
        let_go(self.triangles, self.starts, self.items, self.first_tile)

    def near(self, center_xy: ArrayLike, radius_m: float) -> NDArray[np.int64]:
        """Return ascending numbers of triangles whose plan box is within `radius_m` of a point."""
        center = np.asarray(center_xy, dtype=np.float64)
        tx0, tx1, ty0, ty1 = self._window(center - radius_m, center + radius_m)
        runs = [
            self.items[self.starts[row + ty0] : self.starts[row + ty1 + 1]]
            for row in range(tx0 * self.shape[1], (tx1 + 1) * self.shape[1], self.shape[1])
            if ty0 <= ty1
        ]
        # a triangle of several tiles is found several times
        candidates = np.unique(np.concatenate([self.large, *runs])).astype(np.int64)
        plan = self.triangles[candidates][:, :, :2]
        # nearest point of each plan box to the centre, (K, 2)
        nearest = np.clip(center, plan.min(axis=1), plan.max(axis=1))
        return candidates[np.linalg.norm(nearest - center, axis=1) <= radius_m]

    def voxelize_ego(
        self,
        ego: ArrayLike,
        grid: VoxelGrid,
        out: NDArray[np.uint8] | None = None,
        *,
        keep: bool = False,
    ) -> NDArray[np.uint8]:
        """Return occupancy (X, Y, Z) of 0/1 around an ego frame (4,): x, y, ground_z, yaw.

        Args:
            out: C-contiguous uint8 (X, Y, Z) to overwrite and return instead of a new array.
            keep: leave what `out` holds and mark in addition.

        Raises:
            ValueError: an ego frame that is not four finite numbers, or `out` of another shape.
        """
        frame = np.ascontiguousarray(ego, dtype=np.float64)
        if frame.shape != (4,) or not np.isfinite(frame).all():
            raise ValueError(f"an ego frame is four finite numbers, not {frame.tolist()}")
        # tiles under the turned grid's bounding box
        corners = from_ego(_plan_corners(grid), frame)[:, :2]
        window = self._window(corners.min(axis=0), corners.max(axis=0))
        occupancy = _writable(grid, out, keep)
        mark_tiles(
            self.triangles,
            self.starts,
            self.items,
            self.first_tile,
            self.large,
            np.array(window, dtype=np.int64),
            self.shape[1],
            frame,
            np.array(grid.lower_m),
            np.array(grid.cell_m),
            occupancy,
        )
        return occupancy

    def _window(
        self, lowest: NDArray[np.float64], highest: NDArray[np.float64]
    ) -> tuple[int, int, int, int]:
        """Return tiles tx0, tx1, ty0, ty1 (inclusive) over a plan box; the last < first if none."""
        shape = np.array(self.shape)
        first = np.floor((lowest - self.origin_m) / self.tile_m)
        last = np.floor((highest - self.origin_m) / self.tile_m)
        first = np.clip(first, 0, shape).astype(int)
        last = np.clip(last, -1, shape - 1).astype(int)
        return int(first[0]), int(last[0]), int(first[1]), int(last[1])


class _Boxes:
    """Plan boxes of triangles; those of the last part asked for are kept."""

    def __init__(self, corners: NDArray[np.float64]) -> None:
        self._corners = corners
        self._part: slice | None = None

    def of(self, part: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the lowest and highest corner (N, 2) of each box.

        Raises:
            ValueError: coordinates that are not finite.
        """
        if part != self._part:
            some = self._corners[part]
            if not np.isfinite(some).all():
                raise ValueError("triangles must have finite coordinates")
            plan = some[:, :, :2]
            self._part, self._found = part, (plan.min(axis=1), plan.max(axis=1))
            let_go(self._corners)
        return self._found


def _large_and_extent(
    boxes: _Boxes, parts: list[slice], tile_m: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return numbers of the triangles that span too many tiles, and the extent of the others."""
    numbers = [np.zeros(0, dtype=np.int64)]
    origin, end = np.full(2, np.inf), np.full(2, -np.inf)
    for part in parts:
        lowest, highest = boxes.of(part)
        # about the number of tiles under each box
        large = np.prod((highest - lowest) / tile_m + 1, axis=1) > _LARGE
        numbers.append(np.flatnonzero(large) + part.start)
        origin = np.minimum(origin, lowest[~large].min(axis=0, initial=np.inf))
        end = np.maximum(end, highest[~large].max(axis=0, initial=-np.inf))
    return np.concatenate(numbers), origin, end


def _plan_corners(grid: VoxelGrid) -> NDArray[np.float64]:
    (x0, y0, _), (x1, y1, _) = grid.lower_m, grid.upper_m
    return np.array([[x0, y0, 0.0], [x1, y0, 0.0], [x0, y1, 0.0], [x1, y1, 0.0]])


def _as_triangles(triangles: ArrayLike) -> NDArray[np.float64]:
    corners = np.ascontiguousarray(triangles, dtype=np.float64)
    if corners.ndim != 3 or corners.shape[1:] != (3, 3):
        raise ValueError(f"triangles must have shape (T, 3, 3), not {corners.shape}")
    return corners


def _writable(grid: VoxelGrid, out: NDArray[np.uint8] | None, keep: bool) -> NDArray[np.uint8]:
    if out is None:
        return np.zeros(grid.shape, dtype=np.uint8)
    if out.shape != grid.shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(
            f"out must be C-contiguous uint8 {grid.shape}, not {out.dtype} {out.shape}"
        )
    if not keep:
        out.fill(0)
    return out
