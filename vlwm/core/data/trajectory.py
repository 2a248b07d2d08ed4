"""Where vehicles go: drones and rovers with varying speed, turns and climbs, never through a wall.

A vehicle is a unicycle (position, heading, speed, turn rate, climb) whose commands follow slowly
varying wishes. Twice a second it looks several seconds ahead along a fan of commands, drops those
that would touch an obstacle or leave its region, and takes the one nearest to its wish; in a dead
end it goes back some steps and tries another way. Motion is integrated at 20 Hz and every tenth
state is a frame, so velocities are those of the instant and know nothing of the next frame.

A drone tilts into its acceleration, thrust along body z (up to 25°); a rover lies on the terrain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.terrain import Terrain
from vlwm.core.data.obstacles import NOTHING, SLACK_M, Obstacles
from vlwm.core.data.splits import Region
from vlwm.core.errors import DataError
from vlwm.core.geometry.frames import finite_difference_velocity, quaternion_from_rpy

STEP_S = 0.05
GRAVITY = 9.81
LARGEST_TILT = np.radians(25.0)
_LOOK_S = 5.0
_LOOK_STEP_S = 0.25
_LAG_S = 0.7
_ROUNDING_S = 0.6
_DECISION_S = 0.5
_TRIES = 12
_BACKWARD_DECISIONS = 8


@dataclass(frozen=True)
class Vehicle:
    """What a kind of vehicle can do.

    Attributes:
        speed_m_s: lowest and highest planar speed.
        climb_m_s: highest climb or sink rate; 0 keeps to the ground.
        height_m: lowest and highest wished height above the terrain.
        turn_rad_s: highest turn rate.
        lateral_m_s2: highest speed times turn rate.
        acceleration_m_s2: highest acceleration along the path.
        margin_m: distance kept from every surface.
        ride_m: height of the pose above the terrain, for vehicles on the ground.
    """

    speed_m_s: tuple[float, float]
    climb_m_s: float
    height_m: tuple[float, float]
    turn_rad_s: float
    lateral_m_s2: float
    acceleration_m_s2: float
    margin_m: float
    ride_m: float = 0.0


VEHICLES = {
    "drone": Vehicle((3.2, 13.5), 3.0, (5.0, 60.0), 0.7, 4.0, 2.5, 2.0),
    "rover": Vehicle((1.1, 7.5), 0.0, (0.0, 0.0), 0.6, 2.0, 1.5, 1.0, 0.5),
}


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A path in the city's frame.

    Attributes:
        agent: 'drone' or 'rover'.
        times_s: float64 (N,), seconds from the first frame.
        poses: float64 (N, 13), metres, city's local frame.
        ground_z: float64 (N,), terrain under the vehicle, metres.
    """

    agent: str
    times_s: NDArray[np.float64]
    poses: NDArray[np.float64]
    ground_z: NDArray[np.float64]

    def moved(self, offset: NDArray[np.float64]) -> Trajectory:
        """The same path in a frame whose origin lies at `offset` (3,)."""
        poses = self.poses.copy()
        poses[:, :3] -= offset
        return Trajectory(self.agent, self.times_s, poses, self.ground_z - offset[2])


@dataclass(frozen=True)
class _World:
    """What the planner asks about places."""

    obstacles: Obstacles
    terrain: Terrain
    region: Region
    vehicle: Vehicle

    def free(self, states: NDArray[np.float64], *, planning: bool = True) -> NDArray[np.bool_]:
        """Whether states (..., 7) are inside the region and clear of every surface.

        Plans keep `SLACK_M` more than what is checked when the path is done.
        """
        slack = SLACK_M if planning else 0.0
        xy, z, vehicle = states[..., :2], states[..., 2], self.vehicle
        inside = self.region.inside(xy, slack)
        top = self.obstacles.top(xy, planning=planning)
        if vehicle.climb_m_s == 0.0:
            return np.asarray(inside & (top <= NOTHING))
        ground = self.terrain.height(xy)
        low = vehicle.height_m[0] - 3.0 + slack
        return np.asarray(inside & (z > top + vehicle.margin_m + slack) & (z > ground + low))


# A state is (x, y, z, heading, speed, turn rate, climb); a command is its last three, wished.


def plan_trajectory(
    terrain: Terrain,
    obstacles: Obstacles,
    region: Region,
    agent: str,
    frames: int,
    seed: int,
    dt_s: float = 0.5,
) -> Trajectory:
    """A collision-free path of `frames` frames inside `region`.

    Args:
        terrain: ground of the city.
        obstacles: of the vehicle's margin, over the region.
        region: rectangle of the city's frame in which every pose stays.
        seed: another seed, another path.

    Raises:
        DataError: no such path was found; where and why is said.
    """
    world = _World(obstacles, terrain, region, VEHICLES[agent])
    rng = np.random.default_rng([seed, 0x7247])
    per_frame = round(dt_s / STEP_S)
    steps = (frames - 1) * per_frame + 2 + round(_ROUNDING_S / STEP_S)
    for _ in range(_TRIES):
        start = _start(world, rng)
        states = None if start is None else _drive(world, start, steps, rng)
        if states is not None and world.free(states := _rounded(states), planning=False).all():
            return _as_trajectory(states, world, agent, frames, per_frame, dt_s)
    raise DataError(
        f"no way for a {agent} of {frames} frames was found in the {region.split} region",
        remedy="take fewer --frames, another --seed, or a place with more open space",
    )


def _start(world: _World, rng: np.random.Generator) -> NDArray[np.float64] | None:
    """A free state with free space ahead, or None."""
    region, vehicle = world.region, world.vehicle
    for _ in range(200):
        x, y = rng.uniform(region.x0, region.x1), rng.uniform(region.y0, region.y1)
        speed = rng.uniform(*vehicle.speed_m_s)
        state = np.array([x, y, 0.0, rng.uniform(-np.pi, np.pi), speed, 0.0, 0.0])
        ground = float(world.terrain.height(state[:2]))
        state[2] = ground + rng.uniform(*vehicle.height_m) + vehicle.ride_m
        if world.free(state) and _feasible(world, state, _fan(vehicle, speed)).any():
            return state
    return None


def _drive(
    world: _World, start: NDArray[np.float64], steps: int, rng: np.random.Generator
) -> NDArray[np.float64] | None:
    """States (steps, 7) at `STEP_S`, or None where every way ends."""
    per_decision = round(_DECISION_S / STEP_S)
    decisions = -(-steps // per_decision)
    pieces: list[NDArray[np.float64]] = []
    wishes = _Wishes(world.vehicle, rng)
    state, left = start, 30 + decisions // 2
    while len(pieces) < decisions:
        command = _choose(world, state, wishes.next(world, state), rng)
        if command is None:
            left -= 1
            if left == 0 or not pieces:
                return None
            back = min(len(pieces), 1 + int(rng.integers(_BACKWARD_DECISIONS)))
            state = pieces[-back][0]
            del pieces[-back:]
            wishes = _Wishes(world.vehicle, rng)
            continue
        piece = _roll(state, command, world, per_decision + 1, STEP_S)
        pieces.append(piece[:-1])
        state = piece[-1]
    return np.concatenate(pieces)[:steps]


class _Wishes:
    """Slowly varying wishes: each is drawn anew after a while, at its own moments."""

    def __init__(self, vehicle: Vehicle, rng: np.random.Generator) -> None:
        self.vehicle, self.rng = vehicle, rng
        self.left = np.zeros(3)
        self.speed, self.turn, self.height = 0.0, 0.0, 0.0

    def next(self, world: _World, state: NDArray[np.float64]) -> NDArray[np.float64]:
        """Wished (speed, turn rate, climb) for the next decision."""
        vehicle, rng = self.vehicle, self.rng
        self.left -= _DECISION_S
        due = self.left <= 0
        self.left[due] = rng.uniform(1.5, 6.0, int(due.sum()))
        if due[0]:
            self.speed = rng.uniform(*vehicle.speed_m_s)
        if due[1]:
            self.turn = rng.choice([0.0, 1.0, 1.0]) * rng.normal(0.0, 0.45 * vehicle.turn_rad_s)
        if due[2]:
            self.height = rng.uniform(*vehicle.height_m)
        ground = float(world.terrain.height(state[:2]))
        climb = np.clip(0.5 * (ground + self.height - state[2]), -1, 1) * vehicle.climb_m_s
        return np.array([self.speed, self.turn, climb])


def _fan(vehicle: Vehicle, speed: float) -> NDArray[np.float64]:
    """Commands (K, 3) worth looking at from a speed."""
    low, high = vehicle.speed_m_s
    reach = vehicle.acceleration_m_s2 * 2.0
    speeds = np.unique(np.clip(speed + reach * np.array([-1.0, -0.4, 0.0, 0.4, 1.0]), low, high))
    turns = vehicle.turn_rad_s * np.array([-1, -0.7, -0.4, -0.2, -0.08, 0, 0.08, 0.2, 0.4, 0.7, 1])
    climbs = vehicle.climb_m_s * np.array([-1.0, 0.0, 1.0]) if vehicle.climb_m_s else np.zeros(1)
    grid = np.meshgrid(speeds, turns, climbs, indexing="ij")
    return np.stack([g.reshape(-1) for g in grid], axis=-1)


def _choose(
    world: _World,
    state: NDArray[np.float64],
    wish: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64] | None:
    """The feasible command nearest to the wish, or None."""
    commands = np.concatenate([wish[None], _fan(world.vehicle, state[4])])
    feasible = _feasible(world, state, commands)
    if not feasible.any():
        return None
    vehicle = world.vehicle
    scale = np.array([vehicle.speed_m_s[1], vehicle.turn_rad_s, max(vehicle.climb_m_s, 1.0)])
    cost = (((commands - wish) / scale) ** 2 * np.array([0.5, 1.0, 0.7])).sum(axis=1)
    cost += rng.uniform(0.0, 0.02, len(cost))
    return commands[np.where(feasible, cost, np.inf).argmin()]


def _feasible(
    world: _World, state: NDArray[np.float64], commands: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which commands (K, 3) stay clear for the time looked ahead."""
    count = round(_LOOK_S / _LOOK_STEP_S) + 1
    paths = _roll(state, commands, world, count, _LOOK_STEP_S)
    return np.asarray(world.free(paths).all(axis=0))


def _roll(
    state: NDArray[np.float64],
    command: NDArray[np.float64],
    world: _World,
    count: int,
    step_s: float,
) -> NDArray[np.float64]:
    """States (count, ..., 7) from `state` on under commands (..., 3); the first is `state`."""
    vehicle = world.vehicle
    now = np.broadcast_to(state, (*command.shape[:-1], 7)).copy()
    out = np.empty((count, *now.shape))
    for k in range(count):
        out[k] = now
        now = _step(now, command, vehicle, step_s)
        if vehicle.climb_m_s == 0.0:
            now[..., 2] = world.terrain.height(now[..., :2]) + vehicle.ride_m
    return out


def _step(
    state: NDArray[np.float64], command: NDArray[np.float64], vehicle: Vehicle, step_s: float
) -> NDArray[np.float64]:
    """One step of the unicycle: rates follow the command with a lag, within their limits."""
    new = state.copy()
    speed, turn, climb = state[..., 4], state[..., 5], state[..., 6]
    limit = np.minimum(vehicle.turn_rad_s, vehicle.lateral_m_s2 / np.maximum(speed, 0.1))
    wished_turn = np.clip(command[..., 1], -limit, limit)
    push = np.clip((command[..., 0] - speed) / _LAG_S, -1, 1) * vehicle.acceleration_m_s2
    low, high = vehicle.speed_m_s
    new[..., 4] = np.clip(speed + push * step_s, low, high)
    new[..., 5] = turn + (wished_turn - turn) * (step_s / _LAG_S)
    lift = np.clip((command[..., 2] - climb) / _LAG_S, -2.0, 2.0)
    new[..., 6] = np.clip(climb + lift * step_s, -vehicle.climb_m_s, vehicle.climb_m_s)
    heading = state[..., 3] + 0.5 * (turn + new[..., 5]) * step_s
    mean_speed = 0.5 * (speed + new[..., 4])
    middle = 0.5 * (state[..., 3] + heading)
    new[..., 0] += mean_speed * np.cos(middle) * step_s
    new[..., 1] += mean_speed * np.sin(middle) * step_s
    new[..., 2] += 0.5 * (climb + new[..., 6]) * step_s
    new[..., 3] = heading
    return new


def _rounded(states: NDArray[np.float64]) -> NDArray[np.float64]:
    """The path with its corners of acceleration rounded off: what is flown, and checked again."""
    return _smooth(states, round(_ROUNDING_S / STEP_S))[round(_ROUNDING_S / STEP_S) :]


def _as_trajectory(
    states: NDArray[np.float64],
    world: _World,
    agent: str,
    frames: int,
    per_frame: int,
    dt_s: float,
) -> Trajectory:
    positions, heading = states[:, :3], states[:, 3]
    if world.vehicle.climb_m_s == 0.0:
        roll, pitch = _lie_on(world.terrain, positions[:, :2], heading)
    else:
        roll, pitch = _tilt(positions, heading)
    turned = quaternion_from_rpy(roll, pitch, heading)
    linear, angular = finite_difference_velocity(positions, turned, STEP_S)
    rows = np.arange(frames) * per_frame
    poses = np.concatenate([positions, turned, linear, angular], axis=1)[rows]
    ground = world.terrain.height(poses[:, :2])
    times = np.arange(frames, dtype=np.float64) * dt_s
    return Trajectory(agent, times, poses, ground)


def _tilt(
    positions: NDArray[np.float64], heading: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Roll and pitch (N,) that put thrust along body z, after the last half second's motion."""
    velocity = np.gradient(positions, STEP_S, axis=0)
    acceleration = _smooth(np.gradient(velocity, STEP_S, axis=0), round(0.5 / STEP_S))
    cos, sin = np.cos(heading), np.sin(heading)
    ahead = acceleration[:, 0] * cos + acceleration[:, 1] * sin
    left = -acceleration[:, 0] * sin + acceleration[:, 1] * cos
    up = np.maximum(GRAVITY + acceleration[:, 2], 0.5 * GRAVITY)
    horizontal = np.hypot(ahead, left)
    shrink = np.minimum(1.0, np.tan(LARGEST_TILT) * up / np.maximum(horizontal, 1e-9))
    pitch = np.arctan2(ahead * shrink, up)
    return -np.arctan2(left * shrink * np.cos(pitch), up), pitch


def _smooth(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Mean of the last `width` rows along the first axis, the start held; knows no future."""
    padded = np.pad(values, ((width - 1, 0), (0, 0)), mode="edge")
    sums = np.cumsum(np.concatenate([np.zeros((1, values.shape[1])), padded]), axis=0)
    return (sums[width:] - sums[:-width]) / width


def _lie_on(
    terrain: Terrain, xy: NDArray[np.float64], heading: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Roll and pitch (N,) of a vehicle whose wheels stand on the terrain, over a metre each way."""
    ahead = np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    left = np.stack([-np.sin(heading), np.cos(heading)], axis=-1)
    rise = terrain.height(xy + ahead) - terrain.height(xy - ahead)
    bank = terrain.height(xy + left) - terrain.height(xy - left)
    width = round(1.0 / STEP_S)
    slopes = _smooth(np.stack([rise, bank], axis=-1) / 2.0, width)
    return np.arctan(slopes[:, 1]), -np.arctan(slopes[:, 0])
