"""Make the ground under a city from the relief (dem), or from the bases of buildings.

Relief is sampled at the nodes of a 5 m grid, PLATEAU's own spacing; nodes that no triangle covers
are filled from the bases and from the relief's rim, so that the two meet without a step.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from vlwm.core.city.grid_blocks import Block, blocks_of, windows_of
from vlwm.core.city.terrain import Bounds, Terrain, interpolate, on_the_ground
from vlwm.core.geometry.mapped_arrays import Scratch, let_go, pieces
from vlwm.core.geometry.plan_grid import PlanGrid, nodes_under

RELIEF_SPACING_M = 5.0
"""between nodes of a field made from a relief"""
MARGIN_M = 150.0
"""how far the ground reaches beyond the buildings"""
_NOTED_M = 1.0
"""metres between buildings and relief: less is not worth a note"""
_COLUMNS = 64  # of the grid, looked at together


class Relief:
    """Heights of the relief's triangles at the nodes of a grid; NaN where there is none."""

    def __init__(
        self,
        bounds: Bounds,
        spacing_m: float = RELIEF_SPACING_M,
        scratch: Scratch | None = None,
    ) -> None:
        self.grid = PlanGrid.over(bounds, spacing_m)
        zeros = np.zeros if scratch is None else scratch.zeros
        self.heights: NDArray[np.float64] = zeros(self.grid.shape)
        for _, some in pieces(self.heights, _COLUMNS):
            some[:] = np.nan

    def add(self, triangles: NDArray[np.float64]) -> None:
        """Rasterise triangles (T, 3, 3), metres; those outside the grid are ignored."""
        for hits in nodes_under(triangles, self.grid):
            self.heights[hits.i, hits.j] = hits.z
        let_go(self.heights)

    def move(self, x_m: float, y_m: float) -> None:
        """Shift the frame that it is expressed in."""
        self.grid = replace(self.grid, x0=self.grid.x0 + x_m, y0=self.grid.y0 + y_m)

    @property
    def covered(self) -> float:
        """Return the share of the nodes that have a height."""
        known = sum(int(np.isfinite(some).sum()) for _, some in pieces(self.heights, _COLUMNS))
        return known / self.heights.size

    def share_of(self, bounds: Bounds) -> float:
        """Return the share of the nodes within `bounds`, or next to them, that have a height."""
        grid, last = self.grid, np.array(self.heights.shape) - 1
        place = np.reshape(bounds, (2, 2)) - (grid.x0, grid.y0)  # lower and upper corner, metres
        at = np.clip(np.round(place / grid.spacing_m), 0, last).astype(np.int64)
        within = self.heights[at[0, 0] : at[1, 0] + 1, at[0, 1] : at[1, 1] + 1]
        known = sum(int(np.isfinite(some).sum()) for _, some in pieces(within, _COLUMNS))
        return known / within.size


def lay_ground(
    bases: NDArray[np.float64],
    bounds: Bounds,
    relief: Relief | None,
    scratch: Scratch | None = None,
) -> Terrain:
    """Return terrain over `bounds` through relief and bases (N, 3) of buildings."""
    covered = relief.covered if relief is not None else 0.0
    if relief is None or covered == 0.0:
        return Terrain.from_points(bases, bounds, scratch=scratch)
    grid = relief.grid
    heights = relief.heights if covered == 1.0 else _fill(relief, bases, scratch)
    return Terrain(grid.x0, grid.y0, grid.spacing_m, heights)


def _fill(
    relief: Relief, bases: NDArray[np.float64], scratch: Scratch | None
) -> NDArray[np.float64]:
    heights, grid = relief.heights, relief.grid
    filled = (np.zeros if scratch is None else scratch.zeros)(grid.shape)
    for block in blocks_of(grid):
        if not np.isfinite(heights[block.where]).all():
            points = _around_holes(relief, block, bases)
            block.add(interpolate(points, block.grid, block.rim), filled)
            let_go(heights, filled)
    for part, _, _ in windows_of(grid.shape, 0):
        known = np.isfinite(heights[part])
        filled[part] = np.where(known, heights[part], filled[part])
        let_go(heights, filled)
    return filled


def _around_holes(relief: Relief, block: Block, bases: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the relief's nodes (N, 3) next to those without a height, and bases well beyond it."""
    heights = relief.heights[block.sight]
    grid = block.rim
    known = np.isfinite(heights)
    rim = known & ~binary_erosion(known, border_value=1)
    points = np.column_stack([grid.nodes()[rim], heights[rim]])
    ground = on_the_ground(block.points(bases))
    at = np.round((ground[:, :2] - (grid.x0, grid.y0)) / grid.spacing_m).astype(np.int64)
    at = np.clip(at, 0, np.array(grid.shape) - 1)
    beyond = ~binary_dilation(known, iterations=2)[at[:, 0], at[:, 1]]
    return np.concatenate([points, ground[beyond]])


def stand_note(
    bases: NDArray[np.float64], terrain: Terrain, scratch: Scratch | None = None
) -> str | None:
    """Return a sentence if buildings are not based on the relief (two height systems), or None."""
    offs = (np.zeros if scratch is None else scratch.zeros)(len(bases))
    count = 0
    for _, some in pieces(bases):
        known = some[np.isfinite(some).all(axis=1)]
        offs[count : count + len(known)] = known[:, 2] - terrain.height(known[:, :2])
        count += len(known)
    if not count:
        return None
    off = float(np.median(offs[:count], overwrite_input=True))
    if abs(off) < _NOTED_M:
        return None
    side = "above" if off > 0 else "below"
    return f"buildings begin {abs(off):.1f} m {side} the relief (median): their heights differ"
