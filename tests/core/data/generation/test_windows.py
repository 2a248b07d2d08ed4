"""Sessions made from windows of a tiled city are those of the whole city, bit for bit."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vlwm.core.city.city import City
from vlwm.core.city.procedural import procedural_city
from vlwm.core.city.roads import Roads
from vlwm.core.city.terrain import Terrain
from vlwm.core.city.tiling import tile_writer, tiled_city
from vlwm.core.city.tiling.tile_writer import write_tiles
from vlwm.core.city.tiling.tiled_city import TiledCity
from vlwm.core.data.generation import session_plans
from vlwm.core.data.generation.scenes import Scenes, reach_of
from vlwm.core.data.generation.session_plans import PreparePlan, plan_session, regions_of
from vlwm.core.data.generation.session_work import SessionMaker
from vlwm.core.data.splits import Region
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.store.object_store import ObjectStore
from vlwm.core.store.objects import open_store

GRID = VoxelGrid.from_range((-20, -20, -2, 20, 20, 30), (2, 2, 4))
PLAN = PreparePlan(
    frames=2, sessions=7, agents=("drone", "rover"), seed=2, observe="HDL-32E", pose_noise="15cm"
)


def hilly(side_m: float) -> City:
    """A made-up city with some relief and a net of roads."""
    city = procedural_city(side_m, 5)
    half = side_m / 2 + 200.0
    nodes = int(2 * half / 10.0) + 1
    at = -half + 10.0 * np.arange(nodes)
    heights = np.sin(at / 77.0)[:, None] + np.cos(at / 91.0)
    rows = np.arange(-half, half, 40.0)
    corners = np.array([[[x, -half], [x + 7.0, -half], [x, half]] for x in rows])
    roads = Roads(
        [f"road {k}" for k in range(len(rows))], corners, np.arange(len(rows), dtype=np.int32)
    )
    kinds = ["vegetation" if k % 5 == 0 else "building" for k in range(len(city.feature_ids))]
    ground = Terrain(-half, -half, 10.0, heights)
    return replace(city, terrain=ground, roads=roads, feature_kinds=kinds)


@pytest.fixture(scope="module")
def city() -> City:
    return hilly(1100.0)


@pytest.fixture(scope="module")
def store(city: City, tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    """Tiles of 100 m and small blocks of ground, so that a window is a part of a small city."""
    opened = open_store(tmp_path_factory.mktemp("tiles").as_uri())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_writer, "TILE_M", 100.0)
        patch.setattr(tile_writer, "GROUND_NODES", 16)
        write_tiles(city, opened)
    return opened


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_plans, "_SESSION_SIDE_M", 200.0)
    monkeypatch.setattr(tiled_city, "GROUND_NODES", 16)


def test_every_session_from_windows_is_that_of_the_whole_city(
    city: City, store: ObjectStore
) -> None:
    def quiet(session: str, done: int, frames: int) -> None:
        pass

    tiled = TiledCity(store)
    whole, windows = SessionMaker(city, GRID, PLAN), SessionMaker(tiled, GRID, PLAN)
    assert whole.splits == windows.splits
    shares = []
    for index in range(PLAN.sessions):
        assert windows.shard(index, quiet) == whole.shard(index, quiet)
        part = windows._planner.scene(index).city
        shares.append(len(part.triangles) / len(city.triangles))
    assert max(shares) < 0.7


def test_a_window_has_what_a_camera_sees(city: City, store: ObjectStore) -> None:
    """Kinds by their number in the whole city, roads, and ground; nothing outside is guessed."""
    tiled = TiledCity(store)
    part = tiled.window((-60.0, -60.0, 60.0, 60.0))
    numbers = np.unique(part.feature_of_face)
    assert [part.feature_kinds[n] for n in numbers] == [city.feature_kinds[n] for n in numbers]
    assert 0 < len(part.roads) < len(city.roads)
    at = np.random.default_rng(1).uniform(-60, 60, (200, 2))
    np.testing.assert_array_equal(part.terrain.height(at), city.terrain.height(at))
    bounds = (-50.0, -50.0, 50.0, 50.0)
    np.testing.assert_array_equal(part.terrain.triangles(bounds), city.terrain.triangles(bounds))
    cut = city.terrain.window((-60.0, -60.0, 60.0, 60.0))
    np.testing.assert_array_equal(cut.heights, part.terrain.heights)
    with pytest.raises(IndexError, match="outside of the window"):
        part.terrain.height([300.0, 0.0])


def test_the_edge_of_a_city_has_windows_too(city: City, store: ObjectStore) -> None:
    edge = city.bounds_xy[2]
    part = TiledCity(store).window((edge - 5.0, -30.0, edge + 400.0, 30.0))
    at = np.array([[edge + 390.0, 0.0], [edge, 29.0]])
    np.testing.assert_array_equal(part.terrain.height(at), city.terrain.height(at))


def test_a_plan_is_a_pure_function(city: City, store: ObjectStore) -> None:
    tiled = TiledCity(store)
    planned = [plan_session(place, PLAN, 4, GRID) for place in (city, tiled, city)]
    for other in planned[1:]:
        assert other.meta == planned[0].meta and other.name == planned[0].name
        np.testing.assert_array_equal(other.trajectory.poses, planned[0].trajectory.poses)
    assert plan_session(procedural_city(600.0, 1), PLAN, 0).meta.grid is not None


def test_the_reach_is_that_of_the_farthest_sensor() -> None:
    plain = reach_of(GRID)
    assert plain < reach_of(GRID, camera=True) and reach_of(GRID, camera=True) > 800.0
    assert reach_of(GRID, lidar="HDL-32E") == reach_of(GRID, observe="HDL-32E") < 200.0


def test_a_session_of_a_larger_city_takes_no_more_memory(tmp_path: Path) -> None:
    """What one window allocates, from a city of one and of nine times the ground."""
    highest = []
    for side_m in (500.0, 1500.0):
        opened = open_store((tmp_path / str(side_m)).as_uri())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tile_writer, "TILE_M", 100.0)
            patch.setattr(tile_writer, "GROUND_NODES", 16)
            write_tiles(hilly(side_m), opened)
        tiled = TiledCity(opened)
        regions_of(tiled, GRID, PLAN)
        tracemalloc.start()
        Scenes(tiled, GRID, "surface").around(Region("train", -90.0, -90.0, 90.0, 90.0), 60.0)
        highest.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert highest[1] < 1.1 * highest[0]
