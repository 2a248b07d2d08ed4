"""A planned session keeps the margin that the splits promise: no cell is seen by two of them."""

from __future__ import annotations

import numpy as np

from vlwm.core.city.procedural import procedural_city
from vlwm.core.data.generation.session_plans import PreparePlan, plan_session, regions_of
from vlwm.core.geometry.grid import VoxelGrid

GRID = VoxelGrid.from_range((-40, -40, -2, 40, 40, 60), (2.0, 2.0, 5.0))


def test_every_pose_is_half_a_diagonal_inside_its_region():
    """Fault: sessions planned at half of that, whose grids reach into the next region."""
    city = procedural_city(800.0, seed=3)
    plan = PreparePlan(frames=12, sessions=8, agents=("drone",), seed=5, patterns=("random",))
    margin = float(np.hypot(40.0, 40.0))
    insides, splits = regions_of(city, GRID, plan)
    east, north = city.origin.easting, city.origin.northing
    for region in splits.regions:
        (own,) = insides[region.split]
        borders = np.array(
            [region.x0 - east, region.y0 - north, region.x1 - east, region.y1 - north]
        )
        inside = np.array([own.x0, own.y0, own.x1, own.y1])
        assert np.allclose(inside - borders, margin * np.array([1, 1, -1, -1]))
    for index in range(4):
        session = plan_session(city, plan, index, GRID)
        own = next(r for r in splits.regions if r.split == session.meta.split)
        x, y = session.ego()[:, 0] + east, session.ego()[:, 1] + north
        assert min((x - own.x0).min(), (own.x1 - x).min()) >= margin - 1e-6
        assert min((y - own.y0).min(), (own.y1 - y).min()) >= margin - 1e-6
