"""Vehicles move as vehicles can, vary, stay in their region and never meet a surface."""

from __future__ import annotations

import numpy as np
import pytest

from vlwm.core.city.city import City
from vlwm.core.city.procedural import procedural_city
from vlwm.core.data.obstacles import obstacles_in
from vlwm.core.data.splits import Region
from vlwm.core.data.trajectory import LARGEST_TILT, VEHICLES, Trajectory, plan_trajectory
from vlwm.core.errors import DataError
from vlwm.core.geometry.frames import finite_difference_velocity, rotate
from vlwm.core.geometry.voxelize import TriangleTiles

FRAMES = 150


@pytest.fixture(scope="module")
def city() -> City:
    return procedural_city(500, 5)


def plan(city: City, agent: str, seed: int = 1, frames: int = FRAMES) -> Trajectory:
    region = Region("train", -200, -200, 200, 200)
    tiles = TriangleTiles.build(city.mesh.triangles())
    margin = VEHICLES[agent].margin_m
    obstacles = obstacles_in(tiles, (-200, -200, 200, 200), margin)
    return plan_trajectory(city.terrain, obstacles, region, agent, frames, seed)


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
