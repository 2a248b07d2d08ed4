"""Scenes of a city: the whole of one in memory, or windows of one in a store.

A session touches what its reach touches: 56.6 m of voxels, 100 m of lidar, 800 m of camera about
the part of its region. A window holds that and is bit-equal in it, so both ways make the same
sessions.
"""

from __future__ import annotations

from collections import OrderedDict

from vlwm.core.city.city import City
from vlwm.core.city.tiling.tiled_city import TiledCity
from vlwm.core.data.generation.frame_jobs import Scene
from vlwm.core.data.sensors.camera import REACH_M
from vlwm.core.data.sensors.ray_patterns import RAY_PATTERNS
from vlwm.core.data.sensors.rig import LIDARS
from vlwm.core.data.splits import Region
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.voxelize import TriangleTiles

_LOOK_M = 150.0
"""planners look ahead of the region: 5 s at 13.5 m/s, and the noise of a believed pose"""
_ARM_M = 10.0
_KEPT = 2

AnyCity = City | TiledCity
"""a city in memory, or its tiles in a store"""


class Scenes:
    """Scenes of a city about any place.

    Args:
        city: in memory, or as tiles.
        grid: of the frames.
        fill: surface or solid.
    """

    def __init__(self, city: AnyCity, grid: VoxelGrid, fill: str) -> None:
        self.city, self.grid, self._fill = city, grid, fill
        self._whole: Scene | None = None
        self._windows: OrderedDict[Region, Scene] = OrderedDict()
        if isinstance(city, City):
            tiles = TriangleTiles.build(city.triangles, scratch=city.scratch)
            self._whole = Scene(tiles, city, grid, fill)

    @property
    def whole(self) -> Scene:
        """Return the scene of a whole city in memory."""
        assert self._whole is not None, "a city of tiles has windows only"
        return self._whole

    def around(self, region: Region, reach_m: float) -> Scene:
        """Return the scene that holds everything within `reach_m` of a region of the plan."""
        if self._whole is not None:
            return self._whole
        assert isinstance(self.city, TiledCity)
        wide = region.shrunk(-reach_m)
        if wide not in self._windows:
            part = self.city.window((wide.x0, wide.y0, wide.x1, wide.y1))
            tiles = TriangleTiles.build(part.triangles)
            self._windows[wide] = Scene(tiles, part, self.grid, self._fill)
            if len(self._windows) > _KEPT:
                self._windows.popitem(last=False)
        self._windows.move_to_end(wide)
        return self._windows[wide]


def reach_of(
    grid: VoxelGrid, lidar: str | None = None, observe: str | None = None, *, camera: bool = False
) -> float:
    """Return metres about a session's region within which surfaces can change its frames.

    Args:
        lidar: of `rig.LIDARS`.
        observe: of `ray_patterns.RAY_PATTERNS`.
    """
    reach = max(grid.horizontal_half_diagonal_m, _LOOK_M)
    if lidar is not None:
        reach = max(reach, LIDARS[lidar].range_m[1])
    if observe is not None:
        reach = max(reach, RAY_PATTERNS[observe].range_m[1])
    return (max(reach, REACH_M) if camera else reach) + _ARM_M
