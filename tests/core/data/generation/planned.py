"""Plan one session without its frames."""

from __future__ import annotations

from vlwm.core.city.city import City
from vlwm.core.data.generation.frame_jobs import Scene
from vlwm.core.data.generation.session_plans import (
    Planned,
    PreparePlan,
    SessionPlanner,
    regions_of,
)
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.voxelize import TriangleTiles


def plan_session(city: City, grid: VoxelGrid, plan: PreparePlan, index: int) -> Planned:
    """Return one session of a plan before its frames are made.

    A pure function: every machine that holds the city plans the same session.
    """
    scene = Scene(TriangleTiles.build(city.triangles, scratch=city.scratch), city, grid, plan.fill)
    regions, _ = regions_of(city, grid, plan)
    return SessionPlanner(scene, regions, plan).plan(index)
