"""Vehicles move as vehicles can, vary, stay in their region and never meet a surface."""

from __future__ import annotations

import numpy as np
import pytest

from vlwm.core.city.city import City
from vlwm.core.city.procedural import procedural_city
from vlwm.core.city.terrain import Terrain
from vlwm.core.data.splits import Region
from vlwm.core.data.trajectories.obstacle_map import Obstacles, obstacles_in
from vlwm.core.data.trajectories.planner import Trajectory, plan_trajectory
from vlwm.core.data.trajectories.vehicle import LARGEST_TILT, STEP_S, VEHICLES, tilt
from vlwm.core.errors import DataError
from vlwm.core.geometry.frames import (
    constant_twist,
    ego_of,
    finite_difference_velocity,
    rotate,
)
from vlwm.core.geometry.voxelize import TriangleTiles

FRAMES = 150


@pytest.fixture(scope="module")
def city() -> City:
    return procedural_city(500, 5)


REGION = Region("train", -200, -200, 200, 200)


def obstacles_of(city: City, agent: str) -> Obstacles:
    tiles, vehicle = TriangleTiles.build(city.mesh.triangles()), VEHICLES[agent]
    return obstacles_in(tiles, (-200, -200, 200, 200), vehicle.margin_m, vehicle.map_m)


def plan(
    city: City, agent: str, seed: int = 1, frames: int = FRAMES, dt_s: float = 0.5
) -> Trajectory:
    obstacles = obstacles_of(city, agent)
    return plan_trajectory(city.terrain, obstacles, REGION, agent, frames, seed, dt_s)


@pytest.mark.parametrize(("agent", "low", "high"), [("drone", 3, 15), ("rover", 1, 8)])
def test_speeds_and_turns_are_in_range_and_vary(
    city: City, agent: str, low: float, high: float
) -> None:
    path = plan(city, agent)
    speed = np.linalg.norm(path.poses[:, 7:10], axis=1)
    assert low <= speed.min() and speed.max() <= high
    assert np.ptp(speed) > 0.3 * (high - low)
    turn = path.poses[:, 12]
    assert np.abs(turn).max() < 1.0 and turn.std() > 0.03
    assert len(path.poses) == FRAMES and path.times_s[1] - path.times_s[0] == 0.5


@pytest.mark.parametrize("agent", ["drone", "rover"])
def test_velocities_equal_finite_differences(city: City, agent: str) -> None:
    path = plan(city, agent)
    linear, angular = finite_difference_velocity(path.poses[:, :3], path.poses[:, 3:7], 0.5)
    inner = slice(1, -1)
    assert np.abs(linear - path.poses[:, 7:10])[inner].max() < 0.5
    assert np.median(np.linalg.norm(linear - path.poses[:, 7:10], axis=1)[inner]) < 0.12
    assert np.median(np.abs(angular[:, 2] - path.poses[:, 12])[inner]) < 0.05


@pytest.mark.parametrize("agent", ["drone", "rover"])
def test_velocities_are_those_of_the_instant(city: City, agent: str) -> None:
    """On the path's own steps they are its backward differences, to the last digit."""
    path = plan(city, agent, frames=400, dt_s=STEP_S)
    linear, angular = finite_difference_velocity(
        path.poses[:, :3], path.poses[:, 3:7], STEP_S, kind="backward"
    )
    np.testing.assert_allclose(path.poses[1:, 7:10], linear[1:], atol=1e-9)
    np.testing.assert_allclose(path.poses[1:, 10:13], angular[1:], atol=1e-7)
    coarse = plan(city, agent, frames=20)
    fine = plan(city, agent, frames=191, dt_s=STEP_S)
    np.testing.assert_array_equal(coarse.poses, fine.poses[::10])


def test_tilt_knows_nothing_of_later_positions() -> None:
    """A path that is cut after any state has the same tilt there as the whole one."""
    rng = np.random.default_rng(0)
    positions = np.cumsum(rng.normal(0.3, 0.02, (60, 3)), axis=0)
    heading = np.cumsum(rng.normal(0, 0.02, 60))
    whole = np.stack(tilt(positions, heading))
    for count in (3, 10, 25, 59):
        part = np.stack(tilt(positions[:count], heading[:count]))
        np.testing.assert_array_equal(part, whole[:, :count])


@pytest.mark.parametrize("agent", ["drone", "rover"])
def test_constant_motion_is_the_exception(city: City, agent: str) -> None:
    """Going on as before is off by decimetres after half a second and by metres after three."""
    path = plan(city, agent, frames=300)
    ego = ego_of(path.poses, path.ground_z)
    ahead = constant_twist(ego[:-7], ego[1:-6], 0.5, np.array([0.5, 3.0]))[..., :2]
    off = np.linalg.norm(ahead - np.stack([ego[2:-5, :2], ego[7:, :2]], axis=1), axis=-1)
    half, three = off.mean(axis=0)
    assert 0.05 < half < 0.6 and 1.0 < three < 8.0


def test_drones_use_the_heights_they_are_given(city: City) -> None:
    low, high = VEHICLES["drone"].height_m
    paths = [plan(city, "drone", seed, frames=300) for seed in range(4)]
    height = np.concatenate([p.poses[:, 2] - p.ground_z for p in paths])
    assert height.min() < low + 5.0 and height.max() > high - 10.0
    assert height.std() > 8.0


def test_rovers_start_in_the_streets_and_not_in_a_courtyard() -> None:
    """Four walls around 60 m of free ground, and more of it outside."""
    walls = [(-30, -30, 30, -28), (-30, 28, 30, 30), (-30, -30, -28, 30), (28, -30, 30, 30)]
    roofs = [
        [[x0, y0, 9], [x1, y0, 9], [x1, y1, 9], [x0, y0, 9], [x1, y1, 9], [x0, y1, 9]]
        for x0, y0, x1, y1 in walls
    ]
    tiles = TriangleTiles.build(np.array(roofs, dtype=float).reshape(-1, 3, 3))
    vehicle = VEHICLES["rover"]
    obstacles = obstacles_in(tiles, (-60, -60, 60, 60), vehicle.margin_m, vehicle.map_m)
    region = Region("train", -60, -60, 60, 60)
    terrain = Terrain.flat(0.0, (-60, -60, 60, 60))
    for seed in range(5):
        path = plan_trajectory(terrain, obstacles, region, "rover", 10, seed)
        assert (np.abs(path.poses[:, :2]).max(axis=1) > 30).all()


@pytest.mark.parametrize("agent", ["drone", "rover"])
def test_no_frame_is_in_or_near_a_building(city: City, agent: str) -> None:
    """Against prisms themselves: a point below a roof must be outside its footprint."""
    path = plan(city, agent, seed=3)
    triangles = city.mesh.triangles()
    roofs = triangles[_up(triangles) > 1e-9]
    dense = _between(path.poses[:, :3])
    for a, b, c in roofs:
        below = dense[:, 2] < min(a[2], b[2], c[2])
        assert not (below & _in_triangle(dense, a, b, c)).any()


def _between(points: np.ndarray) -> np.ndarray:
    """Ten points on each straight piece of a path."""
    s = np.linspace(0, 1, 10, endpoint=False)[None, :, None]
    return (points[:-1, None] * (1 - s) + points[1:, None] * s).reshape(-1, 3)


def _up(triangles: np.ndarray) -> np.ndarray:
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    return np.cross(b - a, c - a)[:, 2]


def _in_triangle(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    def side(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return (v[0] - u[0]) * (p[:, 1] - u[1]) - (v[1] - u[1]) * (p[:, 0] - u[0])

    return (side(a, b) >= 0) & (side(b, c) >= 0) & (side(c, a) >= 0)


def test_a_drone_tilts_into_its_acceleration(city: City) -> None:
    path = plan(city, "drone", frames=300)
    up = rotate(path.poses[:, 3:7], np.array([0.0, 0.0, 1.0]))
    tilt = np.arccos(np.clip(up[:, 2], -1, 1))
    assert tilt.max() <= LARGEST_TILT + 1e-6 and tilt.max() > np.radians(5)
    acceleration = np.gradient(path.poses[:, 7:10], 0.5, axis=0)
    strong = np.linalg.norm(acceleration[:, :2], axis=1) > 1.5
    cosine = (up[:, :2] * acceleration[:, :2]).sum(axis=1)[strong]
    assert (cosine > 0).mean() > 0.9


def test_a_rover_stays_on_the_ground_and_a_drone_above_it(city: City) -> None:
    rover, drone = plan(city, "rover"), plan(city, "drone")
    assert np.abs(rover.poses[:, 2] - rover.ground_z - 0.5).max() < 0.2
    assert (drone.poses[:, 2] - drone.ground_z).min() > 2.0
    np.testing.assert_allclose(drone.ground_z, city.terrain.height(drone.poses[:, :2]))


def test_seeds_differ_and_repeat(city: City) -> None:
    a, b, c = plan(city, "drone", 1), plan(city, "drone", 1), plan(city, "drone", 2)
    np.testing.assert_array_equal(a.poses, b.poses)
    assert np.linalg.norm(a.poses[:, :2] - c.poses[:, :2], axis=1).min() > 0.1


def test_it_stays_in_its_region(city: City) -> None:
    for agent in ("drone", "rover"):
        assert np.abs(plan(city, agent).poses[:, :2]).max() <= 200.0


def test_no_way_is_said() -> None:
    city = procedural_city(300, 5)
    region = Region("test", 2000, 2000, 2050, 2050)
    tiles = TriangleTiles.build(city.mesh.triangles())
    obstacles = obstacles_in(tiles, (2000, 2000, 2050, 2050), 2.0)
    with pytest.raises(DataError, match=r"no way for a drone.*test region"):
        plan_trajectory(city.terrain, obstacles, region, "drone", 50, 1)
