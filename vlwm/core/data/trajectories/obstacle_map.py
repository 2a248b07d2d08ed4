"""Map the obstacles: the highest surface in each square of the plan, widened by a margin.

Conservative on purpose: under a bridge or an overhang counts as inside. Made for a window of the
city, so its memory does not grow with the city. It also knows where the city ends: beyond
`BUILT_M` from every surface there is nothing to see, and no vehicle is sent there.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vlwm.core.geometry.mapped_arrays import Kind, Scratch, let_go
from vlwm.core.geometry.voxelize import TriangleTiles

CELL_M = 1.0
"""side of a square of the map"""
BUILT_M = 25.0
"""farther from everything built, nothing is worth a visit"""
SLACK_M = 1.5
"""more than the margin, that plans keep: rounding a path must not lead into it"""
NOTHING = np.float32(-1e9)
_SHIFT = 4  # fractional bits of the polygon filler's coordinates


@dataclass(frozen=True, eq=False)
class Obstacles:
    """Obstacles of a window of the plan, in squares from (x0, y0).

    Attributes:
        tops: float32 (nx, ny), metres, widened by the margin; `NOTHING` where the square is free.
        wide: the same, widened by `SLACK_M` more: what plans keep clear of, so that a path that
            is rounded off afterwards still keeps clear of `tops`.
        built: bool (nx, ny), whether a surface is near enough to be worth a visit.
        streets: bool (nx, ny), the largest connected piece of the ground that plans keep to: what
            is left of a city without its courtyards.
        scratch: storage of the maps, and others of the same place; memory if None.
    """

    x0: float
    y0: float
    cell_m: float
    tops: NDArray[np.float32]
    wide: NDArray[np.float32]
    built: NDArray[np.bool_]
    streets: NDArray[np.bool_]
    scratch: Scratch | None = None

    def zeros(self, dtype: type[Kind]) -> NDArray[Kind]:
        """Return a map (nx, ny) of zeros of the place."""
        shape = self.tops.shape
        return np.zeros(shape, dtype) if self.scratch is None else self.scratch.zeros(shape, dtype)

    def top(self, xy: NDArray[np.float64], *, planning: bool = False) -> NDArray[np.float32]:
        """Return the highest surface within the margin of points (..., 2), metres.

        +inf outside the window and, while planning, where nothing is near enough for a visit.
        """
        i, j, inside = self.squares(xy)
        tops = self.wide[i, j] if planning else self.tops[i, j]
        allowed = inside & self.built[i, j] if planning else inside
        return np.where(allowed, tops, np.float32(np.inf))

    def on_streets(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return True for points (..., 2) on `streets`."""
        i, j, inside = self.squares(xy)
        return np.asarray(inside & self.streets[i, j])

    def let_go(self) -> None:
        """Take its pages out of memory until they are read again."""
        let_go(self.tops, self.wide, self.built, self.streets)

    def squares(
        self, xy: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return squares of points, clamped to the border, and which points are inside."""
        i = np.floor((xy[..., 0] - self.x0) / self.cell_m).astype(np.int64)
        j = np.floor((xy[..., 1] - self.y0) / self.cell_m).astype(np.int64)
        nx, ny = self.tops.shape
        inside = (i >= 0) & (i < nx) & (j >= 0) & (j < ny)
        return np.clip(i, 0, nx - 1), np.clip(j, 0, ny - 1), inside


def obstacles_in(
    buildings: TriangleTiles,
    window: tuple[float, float, float, float],
    margin_m: float,
    cell_m: float = CELL_M,
    scratch: Scratch | None = None,
) -> Obstacles:
    """Return tops over a window (x from, y from, x to, y to), every surface widened by `margin_m`.

    A square is charged with every triangle whose plan touches it or comes within the margin, and
    a square more, which covers the filler's rounding.

    Args:
        scratch: where the maps are put; memory if None.
    """
    x0, y0, x1, y1 = window
    shape = (int(np.ceil((x1 - x0) / cell_m)) + 1, int(np.ceil((y1 - y0) / cell_m)) + 1)

    def zeros(dtype: type[Kind]) -> NDArray[Kind]:
        return np.zeros(shape, dtype) if scratch is None else scratch.zeros(shape, dtype)

    tops = zeros(np.float32)
    tops.fill(NOTHING)
    _paint(tops, buildings, window, margin_m, cell_m)
    empty = zeros(np.bool_)
    np.equal(tops, NOTHING, out=empty)
    # a square is worth a visit within BUILT_M of something built
    built = zeros(np.bool_)
    if not empty.all():
        away = cv2.distanceTransform(empty.view(np.uint8), cv2.DIST_L2, 3, dst=zeros(np.float32))
        np.less_equal(np.multiply(away, cell_m, out=away), BUILT_M, out=built)
        let_go(away)
    slight, wide = (
        _widened(tops, margin, cell_m, zeros(np.float32))
        for margin in (margin_m, margin_m + SLACK_M)
    )
    let_go(tops, slight)
    # streets: free of everything widened, near something built, and connected
    np.equal(wide, NOTHING, out=empty)
    np.logical_and(empty, built, out=empty)
    let_go(wide, built)
    streets = _largest_piece(empty, zeros(np.int32), zeros(np.bool_))
    let_go(streets)
    return Obstacles(x0, y0, cell_m, slight, wide, built, streets, scratch)


def _paint(
    tops: NDArray[np.float32],
    buildings: TriangleTiles,
    window: tuple[float, float, float, float],
    margin_m: float,
    cell_m: float,
) -> None:
    """Write the highest surface over each square of a window."""
    x0, y0, x1, y1 = window
    centre = ((x0 + x1) / 2, (y0 + y1) / 2)
    reach = margin_m + SLACK_M + 2 * cell_m
    near = buildings.near(centre, float(np.hypot(x1 - x0, y1 - y0) / 2 + reach))
    triangles = buildings.triangles[near]
    heights = triangles[:, :, 2].max(axis=1)
    plan = ((triangles[:, :, :2] - (x0, y0)) / cell_m - 0.5) * (1 << _SHIFT)
    points = np.round(plan[:, :, ::-1]).astype(np.int32)  # the filler's x is our second axis
    for k in np.argsort(heights, kind="stable"):  # low first: what is higher paints over it
        cv2.fillConvexPoly(tops, points[k], float(heights[k]), lineType=8, shift=_SHIFT)


def _largest_piece(
    mask: NDArray[np.bool_], labels: NDArray[np.int32], out: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return the largest 4-connected piece of a mask, in `out`; empty where the mask is."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), labels=labels, connectivity=4
    )
    areas = stats[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # label 0 is what the mask leaves out
    np.equal(labels, areas.argmax(), out=out)
    return np.logical_and(mask, out, out=out)


def _widened(
    tops: NDArray[np.float32], margin_m: float, cell_m: float, out: NDArray[np.float32]
) -> NDArray[np.float32]:
    radius = int(np.ceil(margin_m / cell_m)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return np.asarray(cv2.dilate(tops, disc, dst=out))
