"""Roads of a city in plan, on the terrain: the surfaces that a rover drives on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.geometry.mapped_arrays import pieces
from vlwm.core.geometry.plan_grid import PlanGrid, nodes_under


@dataclass(frozen=True, eq=False)
class Roads:
    """Road surfaces.

    Attributes:
        names: of the roads, R of them.
        triangles: (T, 3, 2) plan coordinates in the city's frame, metres.
        road_of_triangle: int32 (T,).
    """

    names: Sequence[str]
    triangles: NDArray[np.float64]
    road_of_triangle: NDArray[np.int32]

    @classmethod
    def none(cls) -> Roads:
        """Return a city without roads."""
        return cls([], np.zeros((0, 3, 2)), np.zeros(0, dtype=np.int32))

    def __len__(self) -> int:
        return len(self.names)

    def mask(self, grid: PlanGrid) -> NDArray[np.bool_]:
        """Return which nodes (nx, ny) of a plan grid are on a road."""
        found = np.zeros(grid.shape, dtype=bool)
        for _, some in pieces(self.triangles):
            flat = np.concatenate([some, np.zeros((len(some), 3, 1))], axis=2)
            for hits in nodes_under(flat, grid):
                found[hits.i, hits.j] = True
        return found
