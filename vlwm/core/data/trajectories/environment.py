"""Answer a planner about places: free or blocked, and the height of what is around."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.roads import Roads
from vlwm.core.city.terrain import Terrain
from vlwm.core.data.splits import Region
from vlwm.core.data.trajectories.obstacle_map import NOTHING, SLACK_M, Obstacles
from vlwm.core.data.trajectories.street_graph import Streets, streets_of
from vlwm.core.data.trajectories.vehicle import Vehicle

_SINK_BELOW_M = 3.0
"""metres below its lowest height that a vehicle may sink"""
_ROOFS_M = 60.0
"""side of the square whose roofs a drone keeps above"""


@dataclass(frozen=True)
class World:
    """A place as one vehicle meets it.

    Attributes:
        obstacles: widened by the vehicle's margin.
        terrain: ground of the city.
        region: rectangle of the city's frame in which every pose stays.
        vehicle: what it can do.
        confined: keeps to free places between the buildings, at any height.
        turns_off: looks ahead along turns that end too, as a vehicle that follows a way needs to.
        roads: of the city, where known.
    """

    obstacles: Obstacles
    terrain: Terrain
    region: Region
    vehicle: Vehicle
    confined: bool = False
    turns_off: bool = False
    roads: Roads | None = None

    def free(self, states: NDArray[np.float64], *, planning: bool = True) -> NDArray[np.bool_]:
        """Return True for states (..., 7) inside the region and clear of every surface.

        Plans keep `SLACK_M` more than what is checked when the path is done.
        """
        slack = SLACK_M if planning else 0.0
        xy, z, vehicle = states[..., :2], states[..., 2], self.vehicle
        inside = self.region.inside(xy, slack)
        top = self.obstacles.top(xy, planning=planning)
        if vehicle.climb_m_s == 0.0:
            return np.asarray(inside & (top <= NOTHING))
        if self.confined:
            inside &= top <= NOTHING
        ground = self.terrain.height(xy)
        low = vehicle.height_m[0] - _SINK_BELOW_M + slack
        return np.asarray(inside & (z > top + vehicle.margin_m + slack) & (z > ground + low))

    @cached_property
    def streets(self) -> Streets:
        """Ways on the ground between the buildings, roads preferred."""
        return streets_of(self.obstacles, self.roads)

    @cached_property
    def _roofs(self) -> NDArray[np.float32]:
        """Return the mean height of obstacles within a square of 60 m, (nx, ny), or `NOTHING`."""
        obstacles, side = self.obstacles, 2 * int(_ROOFS_M / 2 / self.obstacles.cell_m) + 1
        occupied, share, mean = (obstacles.zeros(np.float32) for _ in range(3))
        np.greater(obstacles.tops, NOTHING, out=occupied)
        cv2.blur(occupied, (side, side), dst=share)
        np.copyto(occupied, obstacles.tops, where=occupied > 0)
        cv2.blur(occupied, (side, side), dst=mean)
        empty = share <= 1e-4
        np.divide(mean, np.maximum(share, np.float32(1e-6), out=share), out=mean)
        mean[empty] = NOTHING
        return mean

    def roofs_above_ground(self, xy: NDArray[np.float64]) -> float:
        """Return the mean height of obstacles about a point (2,) above the ground, metres, or 0."""
        i, j, _ = self.obstacles.squares(xy)
        return max(0.0, float(self._roofs[i, j]) - float(self.terrain.height(xy)))
