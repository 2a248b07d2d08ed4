"""Plan paths of drones and rovers: varying speed, turns and climbs, never through a wall.

A vehicle is a unicycle (position, heading, speed, turn rate, climb) whose commands follow the
guidance of a pattern. Twice a second it looks several seconds ahead along a fan of commands, drops
those that would touch an obstacle or leave its region, and takes the one nearest to the desired
one; in a dead end it goes back some steps and tries another way. Motion is integrated at 20 Hz and
every tenth state is a frame. Velocities and tilt are backward differences of these states, as a
vehicle's own filter would compute them: they depend on positions up to the frame, never on later
ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.roads import Roads
from vlwm.core.city.terrain import Terrain
from vlwm.core.data.splits import Region
from vlwm.core.data.trajectories.environment import World
from vlwm.core.data.trajectories.guidance import DECISION_S
from vlwm.core.data.trajectories.obstacle_map import Obstacles
from vlwm.core.data.trajectories.patterns import BY_NAME, RANDOM, Pattern
from vlwm.core.data.trajectories.vehicle import STEP_S, Vehicle, lie_on, smooth, step, tilt
from vlwm.core.errors import DataError
from vlwm.core.geometry.frames import finite_difference_velocity, quaternion_from_rpy

_LOOK_S = 5.0
"""seconds that each command is followed ahead"""
_LOOK_STEP_S = 0.25
"""between two looks at the obstacles on the way"""
_SINK_S = 1.5
"""seconds for which a descent is held in a look ahead"""
_ROUNDING_S = 0.6
"""width of the moving mean that rounds a path"""
_LEAD_S = 0.6
"""driven before the first frame, so that its velocity and tilt come from a past as well"""
_TRIES = 12
"""paths that are begun before a region counts as too narrow"""
_STREAM = 0x7247
"""number of the random stream of a path: no other draw of the same seed changes it"""
_START_TRIES = 1000
"""places that are drawn for the start"""
_BACKWARD_DECISIONS = 8
"""decisions that are taken back at most where no command is free"""


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
        """Return the same path in a frame whose origin is at `offset` (3,)."""
        poses = self.poses.copy()
        poses[:, :3] -= offset
        return Trajectory(self.agent, self.times_s, poses, self.ground_z - offset[2])


def plan_trajectory(
    terrain: Terrain,
    obstacles: Obstacles,
    region: Region,
    agent: str,
    frames: int,
    seed: int,
    dt_s: float = 0.5,
    *,
    pattern: str = RANDOM,
    roads: Roads | None = None,
) -> Trajectory:
    """Return a collision-free path of `frames` frames inside `region`.

    Args:
        terrain: ground of the city.
        obstacles: of the vehicle's margin, over the region.
        region: rectangle of the city's frame in which every pose stays.
        seed: another seed, another path.
        pattern: a name of `patterns.BY_NAME` that suits the agent.
        roads: of the city, for patterns that follow them.

    Raises:
        DataError: no such path was found; the sentence names the place and the reason.
    """
    style = BY_NAME[pattern]
    world = World(
        obstacles, terrain, region, style.vehicle(agent),
        confined=style.confined, turns_off=pattern != RANDOM, roads=roads,
    )  # fmt: skip
    rng = np.random.default_rng([seed, _STREAM])
    per_frame = round(dt_s / STEP_S)
    steps = (frames - 1) * per_frame + 1 + round(_ROUNDING_S / STEP_S) + round(_LEAD_S / STEP_S)
    for _ in range(_TRIES):
        start = _start(world, style, rng)
        states = None if start is None else _drive(world, style, start, steps, rng)
        if states is not None and world.free(states := _rounded(states), planning=False).all():
            return _as_trajectory(states, world, agent, frames, per_frame, dt_s)
    raise DataError(
        f"no way for a {agent} of {frames} frames was found in the {region.split} region "
        f"(pattern {pattern})",
        remedy="take fewer --frames, another --seed or --pattern, or a place with more open space",
    )


def _start(world: World, style: Pattern, rng: np.random.Generator) -> NDArray[np.float64] | None:
    """Return a free state with free space ahead (in a street for a ground vehicle), or None."""
    region, vehicle = world.region, world.vehicle
    on_street = vehicle.climb_m_s == 0.0 or style.on_streets
    for _ in range(_START_TRIES):
        x, y = rng.uniform(region.x0, region.x1), rng.uniform(region.y0, region.y1)
        speed = rng.uniform(*vehicle.speed_m_s)
        state = np.array([x, y, 0.0, rng.uniform(-np.pi, np.pi), speed, 0.0, 0.0])
        if on_street and not world.obstacles.on_streets(state[:2]):
            continue
        ground = float(world.terrain.height(state[:2]))
        state[2] = ground + rng.uniform(*vehicle.height_m) + vehicle.ride_m
        if world.free(state) and _feasible(world, state, _fan(vehicle, speed)).any():
            return state
    return None


def _drive(
    world: World,
    style: Pattern,
    start: NDArray[np.float64],
    steps: int,
    rng: np.random.Generator,
) -> NDArray[np.float64] | None:
    """Return states (steps, 7) at `STEP_S`, or None where every way ends."""
    per_decision = round(DECISION_S / STEP_S)
    decisions = -(-steps // per_decision)
    pieces: list[NDArray[np.float64]] = []
    guidance = style.make(world, rng)
    state, left = start, 30 + decisions // 2
    while len(pieces) < decisions:
        command = _choose(world, state, guidance.next(state), rng)
        if command is None:
            left -= 1
            if left == 0 or not pieces:
                return None
            back = min(len(pieces), 1 + int(rng.integers(_BACKWARD_DECISIONS)))
            state = pieces[-back][0]
            del pieces[-back:]
            guidance.lost()
            continue
        piece = _roll(state, command, world, per_decision + 1, STEP_S)
        pieces.append(piece[:-1])
        state = piece[-1]
    return np.concatenate(pieces)[:steps]


def _fan(vehicle: Vehicle, speed: float) -> NDArray[np.float64]:
    """Return the commands (K, 3) to consider at a speed."""
    low, high = vehicle.speed_m_s
    reach = vehicle.acceleration_m_s2 * 2.0
    speeds = np.unique(np.clip(speed + reach * np.array([-1.0, -0.4, 0.0, 0.4, 1.0]), low, high))
    turns = vehicle.turn_rad_s * np.array([-1, -0.7, -0.4, -0.2, -0.08, 0, 0.08, 0.2, 0.4, 0.7, 1])
    climbs = (
        vehicle.climb_m_s * np.array([-1.0, -0.4, 0.0, 1.0]) if vehicle.climb_m_s else np.zeros(1)
    )
    grid = np.meshgrid(speeds, turns, climbs, indexing="ij")
    return np.stack([g.reshape(-1) for g in grid], axis=-1)


def _choose(
    world: World,
    state: NDArray[np.float64],
    desired: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64] | None:
    """Return the feasible command nearest to the desired one, or None."""
    if world.turns_off and _feasible(world, state, desired[None])[0]:
        return desired
    commands = np.concatenate([desired[None], _fan(world.vehicle, state[4])])
    feasible = _feasible(world, state, commands)
    if not feasible.any():
        return None
    vehicle = world.vehicle
    scale = np.array([vehicle.speed_m_s[1], vehicle.turn_rad_s, max(vehicle.climb_m_s, 1.0)])
    cost = (((commands - desired) / scale) ** 2 * np.array([0.5, 1.0, 0.7])).sum(axis=1)
    cost += rng.uniform(0.0, 0.02, len(cost))
    return commands[np.where(feasible, cost, np.inf).argmin()]


def _feasible(
    world: World, state: NDArray[np.float64], commands: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return True for commands (K, 3) that stay clear for the time looked ahead.

    A sinking drone levels off after `_SINK_S`: held for the whole time, no sink would end low. In a
    world that turns off, going straight on after that is as good: a corner ends.
    """
    sinking = round(_SINK_S / _LOOK_STEP_S)
    first = _roll(state, commands, world, sinking + 1, _LOOK_STEP_S)
    level = np.maximum(commands, [-np.inf, -np.inf, 0.0])
    count = round(_LOOK_S / _LOOK_STEP_S) + 1 - sinking
    rest = world.free(_roll(first[-1], level, world, count, _LOOK_STEP_S)).all(axis=0)
    if world.turns_off:
        straight = level * [1.0, 0.0, 1.0]
        rest |= world.free(_roll(first[-1], straight, world, count, _LOOK_STEP_S)).all(axis=0)
    return np.asarray(world.free(first).all(axis=0) & rest)


def _roll(
    state: NDArray[np.float64],
    command: NDArray[np.float64],
    world: World,
    count: int,
    step_s: float,
) -> NDArray[np.float64]:
    """Return states (count, ..., 7) under commands (..., 3); the first one is `state`."""
    vehicle = world.vehicle
    now = np.broadcast_to(state, (*command.shape[:-1], 7)).copy()
    out = np.empty((count, *now.shape))
    for k in range(count):
        out[k] = now
        now = step(now, command, vehicle, step_s)
    if vehicle.climb_m_s == 0.0:
        out[..., 2] = world.terrain.height(out[..., :2]) + vehicle.ride_m
    return out


def _rounded(states: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the path with its acceleration smoothed: this one is flown, and checked again."""
    return smooth(states, round(_ROUNDING_S / STEP_S))[round(_ROUNDING_S / STEP_S) :]


def _as_trajectory(
    states: NDArray[np.float64],
    world: World,
    agent: str,
    frames: int,
    per_frame: int,
    dt_s: float,
) -> Trajectory:
    """Return every `per_frame`-th state after the lead as a frame, with what a filter knows there.

    Roll, pitch and velocities of a frame are computed from the states up to it.
    """
    positions, heading = states[:, :3], states[:, 3]
    if world.vehicle.climb_m_s == 0.0:
        roll, pitch = lie_on(world.terrain, positions[:, :2], heading)
    else:
        roll, pitch = tilt(positions, heading)
    turned = quaternion_from_rpy(roll, pitch, heading)
    linear, angular = finite_difference_velocity(positions, turned, STEP_S, kind="backward")
    rows = round(_LEAD_S / STEP_S) + np.arange(frames) * per_frame
    poses = np.concatenate([positions, turned, linear, angular], axis=1)[rows]
    ground = world.terrain.height(poses[:, :2])
    times = np.arange(frames, dtype=np.float64) * dt_s
    return Trajectory(agent, times, poses, ground)
