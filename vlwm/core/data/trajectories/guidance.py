"""Choose the command that a vehicle wants next; the planner takes the nearest free one.

A desired motion is (speed, turn rate, climb). `RandomGuidance` vary slowly; `PathGuidance` lets
speed and height vary in the same way and steers along ways that a pattern hands out, by pure
pursuit (Coulter, Implementation of the Pure Pursuit Path Tracking Algorithm, CMU-RI-TR-92-01,
1992). Where the planner had to back out of a dead end it calls `lost`, and the next guidance is
another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.trajectories.environment import World

DECISION_S = 0.5
"""between two commands"""
POINT_M = 2.0
"""between points of a way"""
_AHEAD_S, _AHEAD_M = 2.2, (7.0, 24.0)
_OFF_M = 25.0
"""off its way, from which a vehicle asks for another one"""
_WINDOW = 20
"""points of the way in which the nearest one is looked for"""
_SLOWEST = 0.3
"""of the speed, at the sharpest bend"""

Height = Callable[[NDArray[np.float64], float], float]
"""desired height above the ground at a point (2,), metres, for a level from 0 to 1"""
Paths = Callable[[NDArray[np.float64]], NDArray[np.float64] | None]
"""the next way (N, 2), points about `POINT_M` apart, from a state (7,); None where there is none"""


class Guidance(Protocol):
    """A source of desired motions."""

    def next(self, state: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the desired (speed, turn rate, climb) for the next half second at a state (7,)."""

    def lost(self) -> None:
        """Note that the last commands led into a dead end."""


class RandomGuidance:
    """Slowly varying desired values: each is drawn again after a while, at its own moments.

    A desired speed or turn lasts up to 6 s, a desired height long enough to get there.
    """

    def __init__(
        self, world: World, rng: np.random.Generator, height: Height | None = None
    ) -> None:
        self.world, self.rng = world, rng
        self.height = height or self._anywhere
        self.lost()

    def lost(self) -> None:
        self.left = np.zeros(3)
        self.speed, self.turn, self.level = 0.0, 0.0, 0.0

    def next(self, state: NDArray[np.float64]) -> NDArray[np.float64]:
        vehicle, rng = self.world.vehicle, self.rng
        self.left -= DECISION_S
        due = self.left <= 0
        self.left[due] = (rng.uniform(1.5, 6.0, 3) * (1.0, 1.0, 3.0))[due]
        if due[0]:
            self.speed = rng.uniform(*vehicle.speed_m_s)
        if due[1]:
            self.turn = rng.choice([0.0, 1.0, 1.0]) * rng.normal(0.0, 0.45 * vehicle.turn_rad_s)
        if due[2]:
            self.level = rng.uniform()
        height = self.height(state[:2], self.level)
        ground = float(self.world.terrain.height(state[:2]))
        climb = np.clip(0.5 * (ground + height - state[2]), -1, 1) * vehicle.climb_m_s
        return np.array([self.speed, self.turn, climb])

    def _anywhere(self, xy: NDArray[np.float64], level: float) -> float:
        low, high = self.world.vehicle.height_m
        return low + level * (high - low)


class PathGuidance:
    """Guidance along the ways that `paths` hands out one after the other.

    Speed and height vary as random ones do; turns slow it down. Where it is lost, it wanders for
    some seconds and asks for another way; a way that takes far too long is given up.
    """

    def __init__(
        self, world: World, rng: np.random.Generator, paths: Paths, height: Height | None = None
    ) -> None:
        self.world, self.rng, self.paths = world, rng, paths
        self.random = RandomGuidance(world, rng, height)
        self.path: NDArray[np.float64] | None = None
        self.at, self.wander_s, self.budget_s = 0, 0.0, 0.0

    def lost(self) -> None:
        self.random.lost()
        self.path, self.wander_s = None, float(self.rng.uniform(1.0, 4.0))

    def next(self, state: NDArray[np.float64]) -> NDArray[np.float64]:
        desired = self.random.next(state)
        if self.wander_s > 0:
            self.wander_s -= DECISION_S
            return desired
        if self.path is None or self._is_done(state):
            self._begin(state)
        return desired if self.path is None else self._along(self.path, state, desired)

    def _begin(self, state: NDArray[np.float64]) -> None:
        self.path, self.at = self.paths(state), 0
        low, high = self.world.vehicle.speed_m_s
        if self.path is None:
            self.wander_s = 5.0
        else:
            self.budget_s = 15.0 + 3.0 * len(self.path) * POINT_M / (0.5 * (low + high))

    def _is_done(self, state: NDArray[np.float64]) -> bool:
        assert self.path is not None
        ahead = self.path[self.at : self.at + _WINDOW]
        away = np.linalg.norm(ahead - state[:2], axis=1)
        self.at += int(away.argmin())
        self.budget_s -= DECISION_S
        near_end = len(self.path) - self.at <= 3
        return near_end or float(away.min()) > _OFF_M or self.budget_s < 0

    def _along(
        self, path: NDArray[np.float64], state: NDArray[np.float64], desired: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        ahead_m = float(np.clip(_AHEAD_S * state[4], *_AHEAD_M))
        step = round(ahead_m / POINT_M)
        target, beyond = (path[min(self.at + k * step, len(path) - 1)] for k in (1, 3))
        angle, distance = _towards(target, state)
        turn = 2.0 * state[4] * np.sin(angle) / max(distance, 1.0)
        if abs(angle) > np.pi / 2:
            turn = np.sign(angle) * self.world.vehicle.turn_rad_s
        bend = max(abs(angle), abs(_towards(beyond, state)[0]))
        slow = max(_SLOWEST, np.cos(min(bend, np.pi) / 2) ** 2)
        speed = max(desired[0] * slow, self.world.vehicle.speed_m_s[0])
        return np.array([speed, turn, desired[2]])


def _towards(target: NDArray[np.float64], state: NDArray[np.float64]) -> tuple[float, float]:
    """Return the angle from the heading to a point (2,), in (-pi, pi], and its distance."""
    dx, dy = target - state[:2]
    angle = np.arctan2(dy, dx) - state[3]
    return float(np.arctan2(np.sin(angle), np.cos(angle))), float(np.hypot(dx, dy))
