"""Limits of the kinds of vehicles, their motion under a command, and their tilt.

A state is (x, y, z, heading, speed, turn rate, climb); a command is its last three, as desired.
Motion is that of a unicycle whose rates follow the command with a lag, within the vehicle's limits.
A drone tilts into its acceleration, thrust along body z (up to 25°); a rover follows the terrain.
Both lean after the last moments alone: an attitude knows nothing of the next frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlwm.core.city.terrain import Terrain
from vlwm.core.vocabulary import Agent

STEP_S = 0.05
"""of the integration"""
GRAVITY = 9.81
"""m/s²"""
LARGEST_TILT = np.radians(25.0)
_LAG_S = 0.7
"""time constant of a vehicle that follows a command"""


@dataclass(frozen=True)
class Vehicle:
    """Limits of a kind of vehicle.

    Attributes:
        speed_m_s: lowest and highest planar speed.
        climb_m_s: highest climb or sink rate; 0 keeps to the ground.
        height_m: lowest and highest desired height above the terrain.
        turn_rad_s: highest turn rate.
        lateral_m_s2: highest speed times turn rate.
        acceleration_m_s2: highest acceleration along the path.
        margin_m: distance kept from every surface.
        ride_m: height of the pose above the terrain, for vehicles on the ground.
        map_m: side of a square of its obstacle map; finer, narrower streets are open to it.
    """

    speed_m_s: tuple[float, float]
    climb_m_s: float
    height_m: tuple[float, float]
    turn_rad_s: float
    lateral_m_s2: float
    acceleration_m_s2: float
    margin_m: float
    ride_m: float = 0.0
    map_m: float = 1.0


VEHICLES: dict[str, Vehicle] = {
    Agent.DRONE: Vehicle((3.2, 13.5), 3.0, (5.0, 60.0), 0.7, 4.0, 2.5, 2.0),
    Agent.ROVER: Vehicle((1.1, 7.5), 0.0, (0.0, 0.0), 0.6, 2.0, 1.5, 1.0, 0.5, 0.5),
}


def step(
    state: NDArray[np.float64], command: NDArray[np.float64], vehicle: Vehicle, step_s: float
) -> NDArray[np.float64]:
    """Take one step of the unicycle: rates follow the command with a lag, within their limits."""
    new = state.copy()
    speed, turn, climb = state[..., 4], state[..., 5], state[..., 6]
    limit = np.minimum(vehicle.turn_rad_s, vehicle.lateral_m_s2 / np.maximum(speed, 0.1))
    desired_turn = _within(command[..., 1], -limit, limit)
    push = _within((command[..., 0] - speed) / _LAG_S, -1, 1) * vehicle.acceleration_m_s2
    low, high = vehicle.speed_m_s
    new[..., 4] = _within(speed + push * step_s, low, high)
    new[..., 5] = turn + (desired_turn - turn) * (step_s / _LAG_S)
    lift = _within((command[..., 2] - climb) / _LAG_S, -2.0, 2.0)
    new[..., 6] = _within(climb + lift * step_s, -vehicle.climb_m_s, vehicle.climb_m_s)
    heading = state[..., 3] + 0.5 * (turn + new[..., 5]) * step_s
    mean_speed = 0.5 * (speed + new[..., 4])
    middle = 0.5 * (state[..., 3] + heading)
    new[..., 0] += mean_speed * np.cos(middle) * step_s
    new[..., 1] += mean_speed * np.sin(middle) * step_s
    new[..., 2] += 0.5 * (climb + new[..., 6]) * step_s
    new[..., 3] = heading
    return new


def _within(values: NDArray[np.float64], low: ArrayLike, high: ArrayLike) -> NDArray[np.float64]:
    """Clip as `np.clip` without its checks, which cost more than the work on a fan of commands."""
    return np.asarray(np.minimum(np.maximum(values, low), high))


def tilt(
    positions: NDArray[np.float64], heading: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return roll and pitch (N,) that put thrust along body z, after the last half second's motion.

    Accelerations are backward differences: row k depends on positions up to row k, except in the
    first two rows, which take the values of the rows after them.
    """
    acceleration = smooth(_rate(_rate(positions)), round(0.5 / STEP_S))
    cos, sin = np.cos(heading), np.sin(heading)
    ahead = acceleration[:, 0] * cos + acceleration[:, 1] * sin
    left = -acceleration[:, 0] * sin + acceleration[:, 1] * cos
    up = np.maximum(GRAVITY + acceleration[:, 2], 0.5 * GRAVITY)
    horizontal = np.hypot(ahead, left)
    shrink = np.minimum(1.0, np.tan(LARGEST_TILT) * up / np.maximum(horizontal, 1e-9))
    pitch = np.arctan2(ahead * shrink, up)
    return -np.arctan2(left * shrink * np.cos(pitch), up), pitch


def _rate(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the backward difference (N, D) of values (N, D) per second; row 0 repeats row 1."""
    change = np.diff(values, axis=0) / STEP_S
    return np.concatenate([change[:1], change])


def smooth(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the mean of the last `width` rows along the first axis; the first row is repeated."""
    padded = np.pad(values, ((width - 1, 0), (0, 0)), mode="edge")
    sums = np.cumsum(np.concatenate([np.zeros((1, values.shape[1])), padded]), axis=0)
    return (sums[width:] - sums[:-width]) / width


def lie_on(
    terrain: Terrain, xy: NDArray[np.float64], heading: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return roll and pitch (N,) of a vehicle on the terrain, over a metre each way."""
    ahead = np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    left = np.stack([-np.sin(heading), np.cos(heading)], axis=-1)
    rise = terrain.height(xy + ahead) - terrain.height(xy - ahead)
    bank = terrain.height(xy + left) - terrain.height(xy - left)
    width = round(1.0 / STEP_S)
    slopes = smooth(np.stack([rise, bank], axis=-1) / 2.0, width)
    return np.arctan(slopes[:, 1]), -np.arctan(slopes[:, 0])
