"""A planned session keeps the margin that the splits promise: no cell is seen by two of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vlwm.core.city.procedural import procedural_city
from vlwm.core.config.load import load_config
from vlwm.core.data.generation.prepare import claim_of
from vlwm.core.data.generation.session_plans import PreparePlan, plan_session, regions_of
from vlwm.core.errors import ConfigError
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


def test_more_of_a_city_is_held_out_where_the_plan_says_so():
    """Fault: a plan whose share never reaches the regions."""
    city = procedural_city(1600.0, seed=3)
    plan = PreparePlan(frames=12, sessions=8, agents=("drone",), seed=5)
    plans = (plan, dataclasses.replace(plan, held_out=0.5))
    (usual,), (less,) = (regions_of(city, GRID, one)[0]["train"] for one in plans)
    assert less.sides[0] * less.sides[1] < 0.85 * usual.sides[0] * usual.sides[1]


def test_a_folder_remembers_the_share_only_where_it_is_another_one():
    """Folders that were prepared before this option are those of its default."""
    city = procedural_city(800.0, seed=3)
    plan = PreparePlan(frames=12, sessions=8, agents=("drone",), seed=5)
    assert "held_out" not in claim_of(city, GRID, plan)
    assert claim_of(city, GRID, dataclasses.replace(plan, held_out=0.5))["held_out"] == 0.5


@pytest.mark.parametrize("share", [0.0, 0.7])
def test_a_share_that_leaves_too_little_is_refused(share: float):
    with pytest.raises(ConfigError, match=r"a share from 0\.1 to 0\.6"):
        load_config("tokyo_small", [f"prepare.held_out={share}"])
