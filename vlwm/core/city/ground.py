"""The ground under a city: the relief (dem) where there is one, else the bases of buildings.

Relief is sampled at the nodes of a 5 m grid, PLATEAU's own spacing; nodes that no triangle covers
are filled from the bases and from the relief's rim, so that the two meet without a step.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from vlwm.core.city.raster import PlanGrid, nodes_under
from vlwm.core.city.terrain import Bounds, Terrain, interpolate, on_the_ground

RELIEF_SPACING_M = 5.0
MARGIN_M = 150.0
"""how far the ground reaches beyond the buildings"""
_TOLD_M = 1.0


class Relief:
    """Heights of the relief's triangles at the nodes of a grid; NaN where none lies."""

    def __init__(self, bounds: Bounds, spacing_m: float = RELIEF_SPACING_M) -> None:
        self.grid = PlanGrid.over(bounds, spacing_m)
        self.heights = np.full(self.grid.shape, np.nan)

    def add(self, triangles: NDArray[np.float64]) -> None:
        """Lay triangles (T, 3, 3), metres; those beside the grid are ignored."""
        for hits in nodes_under(triangles, self.grid):
            self.heights[hits.i, hits.j] = hits.z

    def move(self, x_m: float, y_m: float) -> None:
        """Shift the frame that it is expressed in."""
        self.grid = replace(self.grid, x0=self.grid.x0 + x_m, y0=self.grid.y0 + y_m)

    @property
    def covered(self) -> float:
        """Share of the nodes with a height."""
        return float(np.isfinite(self.heights).mean())


def lay_ground(bases: NDArray[np.float64], bounds: Bounds, relief: Relief | None) -> Terrain:
    """Terrain over `bounds` through relief and bases (N, 3) of buildings."""
    if relief is None or relief.covered == 0.0:
        return Terrain.from_points(bases, bounds)
    grid, heights = relief.grid, relief.heights
    known = np.isfinite(heights)
    if not known.all():
        heights = _fill(heights, known, grid, bases)
    return Terrain(grid.x0, grid.y0, grid.spacing_m, heights)


def _fill(
    heights: NDArray[np.float64],
    known: NDArray[np.bool_],
    grid: PlanGrid,
    bases: NDArray[np.float64],
) -> NDArray[np.float64]:
    nodes = grid.nodes()
    rim = known & ~binary_erosion(known, border_value=1)
    points = np.column_stack([nodes[rim], heights[rim]])
    bases = on_the_ground(bases)
    at = np.round((bases[:, :2] - (grid.x0, grid.y0)) / grid.spacing_m).astype(np.int64)
    at = np.clip(at, 0, np.array(grid.shape) - 1)
    beyond = ~binary_dilation(known, iterations=2)[at[:, 0], at[:, 1]]
    points = np.concatenate([points, bases[beyond]])
    return np.where(known, heights, interpolate(points, grid))


def stand_note(bases: NDArray[np.float64], terrain: Terrain) -> str | None:
    """A sentence where buildings do not stand on the relief: two height systems, or none."""
    known = bases[np.isfinite(bases).all(axis=1)]
    if not len(known):
        return None
    off = float(np.median(known[:, 2] - terrain.height(known[:, :2])))
    if abs(off) < _TOLD_M:
        return None
    side = "above" if off > 0 else "below"
    return f"buildings stand {abs(off):.1f} m {side} the relief (median): their heights differ"
