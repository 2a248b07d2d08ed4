"""Each named pattern does what its name says, keeps off every surface, and varies its motion."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from vlwm.core.city.city import City
from vlwm.core.city.procedural import procedural_city
from vlwm.core.city.read import read_city
from vlwm.core.city.roads import Roads
from vlwm.core.city.terrain import Terrain
from vlwm.core.config.data_schema import PATTERNS
from vlwm.core.config.load import load_config
from vlwm.core.data.generation.prepare import prepare
from vlwm.core.data.generation.session_plans import PreparePlan, deal_patterns
from vlwm.core.data.session import Session
from vlwm.core.data.splits import NAMES, Region
from vlwm.core.data.trajectories.obstacle_map import obstacles_in
from vlwm.core.data.trajectories.patterns import BY_NAME, pattern_of
from vlwm.core.data.trajectories.planner import Trajectory, plan_trajectory
from vlwm.core.data.trajectories.street_graph import streets_of
from vlwm.core.data.trajectories.vehicle import STEP_S, VEHICLES
from vlwm.core.errors import UsageError
from vlwm.core.geometry.plan_grid import PlanGrid
from vlwm.core.geometry.voxelize import TriangleTiles

EVERY = [(name, agent) for name, p in BY_NAME.items() for agent in p.agents]


def densest(city: City, side_m: float = 500.0) -> Region:
    middles = city.mesh.triangles().mean(axis=1)[:, :2]
    squares, counts = np.unique(np.floor(middles / side_m), axis=0, return_counts=True)
    x, y = (float(v) for v in squares[counts.argmax()] * side_m)
    return Region("train", x, y, x + side_m, y + side_m)


def path_of(
    city: City, region: Region, pattern: str, agent: str, frames: int, seed: int = 0,
    dt_s: float = 0.5,
) -> Trajectory:  # fmt: skip
    vehicle, tiles = VEHICLES[agent], TriangleTiles.build(city.mesh.triangles())
    window = (region.x0, region.y0, region.x1, region.y1)
    obstacles = obstacles_in(tiles, window, vehicle.margin_m, vehicle.map_m)
    return plan_trajectory(
        city.terrain, obstacles, region, agent, frames, seed, dt_s,
        pattern=pattern, roads=city.roads,
    )  # fmt: skip


def least_distance(triangles: np.ndarray, points: np.ndarray) -> float:
    """Least distance of points (N, 3) from triangles (T, 3, 3): of their planes where a point lies
    over the inside (Ericson, Real-Time Collision Detection, 2005, 5.1.5), else of their sides."""
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    size = np.linalg.norm(normal, axis=1)
    unit = normal / np.where(size > 1e-12, size, np.inf)[:, None]
    least = np.inf
    for p in points:
        over = (size > 1e-12).copy()
        for k in range(3):
            a, side = triangles[:, k], triangles[:, (k + 1) % 3] - triangles[:, k]
            ap = p - a
            over &= (np.cross(side, ap) * unit).sum(axis=1) >= 0
            length = np.maximum((side * side).sum(axis=1), 1e-12)
            along = np.clip((ap * side).sum(axis=1) / length, 0, 1)
            least = min(least, float(np.linalg.norm(ap - along[:, None] * side, axis=1).min()))
        height = np.abs(((p - triangles[:, 0]) * unit).sum(axis=1))
        least = min(least, float(height[over].min(initial=np.inf)))
    return least


def clearance(city: City, path: Trajectory) -> float:
    """Least distance of any pose from any surface of the buildings within 15 m, metres."""
    triangles, least = city.mesh.triangles(), np.inf
    low, high = triangles.min(axis=1), triangles.max(axis=1)
    for piece in np.array_split(path.poses[:, :3], -(-len(path.poses) // 20)):
        from_, to = piece.min(axis=0) - 15.0, piece.max(axis=0) + 15.0
        near = (high >= from_).all(axis=1) & (low <= to).all(axis=1)
        if near.any():
            least = min(least, least_distance(triangles[near], piece))
    return least


@pytest.fixture(scope="module")
def town() -> tuple[City, Region]:
    return procedural_city(500, 5), Region("train", -200, -200, 200, 200)


@pytest.fixture(scope="module")
def marunouchi(shared_data: Path) -> City:
    return read_city([shared_data / "plateau/tokyo_marunouchi_obj"])


@pytest.mark.parametrize(("pattern", "agent"), EVERY)
def test_every_pattern_varies_and_keeps_its_distance(
    town: tuple[City, Region], pattern: str, agent: str
) -> None:
    city, region = town
    path = path_of(city, region, pattern, agent, 40)
    assert len(path.poses) == 40 and region.inside(path.poses[:, :2], 0.0).all()
    assert clearance(city, path) >= VEHICLES[agent].margin_m
    speed = np.linalg.norm(path.poses[:, 7:9], axis=1)
    low, high = VEHICLES[agent].speed_m_s
    assert low - 0.2 <= speed.min() and speed.max() <= high + 0.2
    assert speed.std() > 0.5 and path.poses[:, 12].std() > 0.05
    if agent == "drone" and pattern != "canyon":
        assert np.ptp(path.poses[:, 2] - path.ground_z) > 4.0


@pytest.mark.endurance
@pytest.mark.parametrize(("pattern", "agent"), EVERY)
def test_500_frames_in_the_densest_tile_keep_their_distance(
    marunouchi: City, pattern: str, agent: str
) -> None:
    """Every state of the path, ten a frame, against the triangles themselves."""
    region = densest(marunouchi)
    path = path_of(marunouchi, region, pattern, agent, 499 * 10 + 1, dt_s=STEP_S)
    assert clearance(marunouchi, path) >= VEHICLES[agent].margin_m
    assert region.inside(path.poses[:, :2], 0.0).all()


def test_a_canyon_is_flown_below_the_roofs(marunouchi: City) -> None:
    """Within 40 m something stands higher than the drone, and never anything below it."""
    path = path_of(marunouchi, densest(marunouchi), "canyon", "drone", 50)
    triangles = marunouchi.mesh.triangles()
    tops = triangles[triangles[:, :, 2].min(axis=1) > 3.0]  # walls' upper halves and roofs
    corners = tops.reshape(-1, 3)
    higher = []
    for x, y, z in path.poses[:, :3]:
        near = np.hypot(corners[:, 0] - x, corners[:, 1] - y) < 40.0
        higher.append((corners[near, 2] > z).any())
    assert np.mean(higher) > 0.95
    random = path_of(marunouchi, densest(marunouchi), "random", "drone", 50)
    assert path.poses[:, 2].mean() < random.poses[:, 2].mean()


def test_a_patrol_follows_real_roads(shared_data: Path) -> None:
    """Far more of it lies on `tran` surfaces than of a rover that goes anywhere."""
    city = read_city([shared_data / "plateau/citygml/osaka"])
    region = densest(city)
    grid = PlanGrid.over((region.x0, region.y0, region.x1, region.y1), 1.0)
    roads = city.roads.mask(grid)

    def share(pattern: str) -> float:
        xy = path_of(city, region, pattern, "rover", 80, seed=1).poses[:, :2]
        i, j = np.rint(xy - (grid.x0, grid.y0)).astype(int).T
        return float(roads[i, j].mean())

    assert share("patrol") > 0.8 > share("random")


@pytest.mark.parametrize("agent", ["drone", "rover"])
def test_a_revisit_comes_back_later_from_another_side(
    town: tuple[City, Region], agent: str
) -> None:
    path = path_of(*town, "revisit", agent, 160)
    xy, heading = path.poses[:, :2], np.arctan2(path.poses[:, 8], path.poses[:, 7])
    apart = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    later = path.times_s[None] - path.times_s[:, None] > 20.0
    turned = np.cos(heading[:, None] - heading[None]) < np.cos(np.radians(45))
    again = (apart < 8.0) & later & turned
    assert again.any(axis=0).sum() >= 10


def test_an_orbit_goes_round_and_a_survey_goes_in_lines() -> None:
    """Over free ground: a survey's headings are two axes, an orbit's are all."""
    block = [[-5, -5, 20], [5, -5, 20], [5, 5, 20], [-5, -5, 20], [5, 5, 20], [-5, 5, 20]]
    tiles = TriangleTiles.build(np.array(block, dtype=float).reshape(-1, 3, 3))
    obstacles = obstacles_in(tiles, (-150, -150, 150, 150), 2.0)
    everywhere = dataclasses.replace(obstacles, built=np.ones_like(obstacles.built))
    region, terrain = Region("train", -150, -150, 150, 150), Terrain.flat(0, (-150, -150, 150, 150))

    def headings(pattern: str) -> np.ndarray:
        path = plan_trajectory(terrain, everywhere, region, "drone", 240, 1, pattern=pattern)
        return np.arctan2(path.poses[:, 8], path.poses[:, 7])

    off_axis = np.abs(np.mod(headings("survey") + np.pi / 4, np.pi / 2) - np.pi / 4)
    assert (off_axis < np.radians(12)).mean() > 0.6
    counts, _ = np.histogram(headings("orbit"), 8, (-np.pi, np.pi))
    assert counts.min() > 240 / 8 * 0.4


def test_ways_keep_off_the_walls_and_join_what_is_joined(town: tuple[City, Region]) -> None:
    city, _ = town
    tiles = TriangleTiles.build(city.mesh.triangles())
    obstacles = obstacles_in(tiles, (-200, -200, 200, 200), 1.0, 0.5)
    streets = streets_of(obstacles, Roads.none())
    start = streets.nearest(np.array([0.0, 0.0]), 60.0)
    assert start is not None
    ways = streets.ways(start, 1e9)
    far = int(np.where(np.isfinite(ways.cost), ways.cost, -1).argmax())
    way = ways.to(far)
    np.testing.assert_array_equal(way[[0, -1]], streets.places[[start, far]])
    assert np.linalg.norm(np.diff(way, axis=0), axis=1).max() < 4.0
    assert obstacles.on_streets(way).mean() > 0.98


def test_names_are_dealt_in_turn_apart_for_each_split() -> None:
    plan = PreparePlan(frames=10, sessions=20, agents=("drone", "rover"), seed=1)
    dealt = deal_patterns(plan)
    for split in NAMES:
        for agent in ("drone", "rover"):
            names = [p for s, a, p in dealt if (s, a) == (split, agent)]
            wanted = [n for n in PATTERNS if agent in BY_NAME[n].agents]
            assert names == (wanted * 9)[: len(names)] and names[0] == "random"
    assert pattern_of(("orbit", "patrol"), "rover", 3) == "patrol"
    with pytest.raises(UsageError, match=r"no rover follows .*orbit.*--agents"):
        pattern_of(("orbit",), "rover", 0)


def test_the_session_names_its_pattern(tmp_path: Path) -> None:
    plan = PreparePlan(
        frames=4, sessions=4, agents=("drone", "rover"), seed=3, patterns=("orbit", "patrol")
    )
    prepare(procedural_city(500, 3), load_config("test_local"), tmp_path, plan)
    found = {p.name.split("_")[0]: Session(p).meta.pattern for p in tmp_path.glob("*_2*")}
    assert found == {"drone": "orbit", "rover": "patrol"}
