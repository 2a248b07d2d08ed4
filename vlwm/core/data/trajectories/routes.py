"""Ways that patterns hand out one after the other: along streets, in lines, around, and back."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.trajectories.environment import World
from vlwm.core.data.trajectories.guidance import POINT_M
from vlwm.core.data.trajectories.obstacle_map import NOTHING
from vlwm.core.data.trajectories.street_graph import NODE_M

Points = NDArray[np.float64]

_STREET_M = (60.0, 350.0)
_REACH_M = 900.0
"""of one way along streets"""
_CANDIDATES = 12
"""ways that are compared"""
_TURN_M = 20.0
"""from the border of the region, for the turn between two lines of a survey"""
_HOME_M = 20.0
"""a vehicle that is nearer has come back"""


def straight(*corners: Points) -> Points:
    """Return points (N, 2), about `POINT_M` apart, from corner to corner (2,)."""
    pieces = []
    for a, b in itertools.pairwise(corners):
        count = max(1, round(float(np.linalg.norm(b - a)) / POINT_M))
        pieces.append(a + np.linspace(0.0, 1.0, count, endpoint=False)[:, None] * (b - a))
    return np.concatenate([*pieces, corners[-1][None]])


class StreetWays:
    """Along the streets to one place after the other, on roads where they are known.

    Of some places the one is taken whose way begins most nearly straight ahead and was driven
    least so far.
    """

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        self.visits = np.zeros(len(world.streets.places), dtype=np.int32)

    def __call__(self, state: Points) -> Points | None:
        streets = self.world.streets
        start = streets.nearest(state[:2])
        if start is None:
            return None
        ways = streets.ways(start, _REACH_M)
        nodes = ways.between(*_STREET_M)
        if not len(nodes):
            return None
        tried = [ways.to(int(n)) for n in self.rng.choice(nodes, _CANDIDATES)]
        way = min(tried, key=lambda w: self._dislike(w, state))
        self.visits[self._nodes(way)] += 1
        return way

    def _nodes(self, way: Points) -> NDArray[np.int64]:
        streets = self.world.streets
        at = np.rint((way - (streets.x0, streets.y0)) / NODE_M).astype(np.int64)
        at = np.clip(at, 0, np.array(streets.number.shape) - 1)
        nodes = streets.number[at[:, 0], at[:, 1]]
        return nodes[nodes >= 0].astype(np.int64)

    def _dislike(self, way: Points, state: Points) -> float:
        dx, dy = way[min(6, len(way) - 1)] - state[:2]
        turn = np.cos(np.arctan2(dy, dx) - state[3])
        nodes = self._nodes(way)
        seen = float((self.visits[nodes] > 0).mean()) if len(nodes) else 0.0
        return float(-2.0 * turn + 1.5 * seen)


class Lines:
    """To and fro in parallel lines over a block, then over the next one the other way.

    Lost in a block, it continues with the rest of it.
    """

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        self.rest: Points | None = None
        self.along_x = bool(rng.random() < 0.5)

    def __call__(self, state: Points) -> Points | None:
        if self.rest is not None:
            gone = int(np.linalg.norm(self.rest - state[:2], axis=1).argmin())
            self.rest = self.rest[gone + 20 :]
        if self.rest is None or len(self.rest) < 20:
            self.rest = self._block(state)
            self.along_x = not self.along_x
        return self.rest

    def _block(self, state: Points) -> Points:
        """Return a block that begins near the vehicle and reaches towards the region's middle."""
        region, rng = self.world.region, self.rng
        low = np.array([region.x0, region.y0]) + _TURN_M
        high = np.maximum(np.array([region.x1, region.y1]) - _TURN_M, low + 1.0)
        start = np.clip(state[:2], low, high)
        size = np.minimum(rng.uniform(120.0, 260.0, 2), high - low)
        # towards the middle of the region along both axes
        away = np.where(start < (low + high) / 2, 1.0, -1.0)
        end = np.clip(start + away * size, low, high)
        gap = rng.uniform(30.0, 50.0)
        long, short = (0, 1) if self.along_x else (1, 0)
        count = max(2, round(abs(end[short] - start[short]) / gap))
        corners = []
        for k, across in enumerate(np.linspace(start[short], end[short], count)):
            # every second line is flown back
            pair = [start[long], end[long]] if k % 2 == 0 else [end[long], start[long]]
            for along in pair:
                corner = np.empty(2)
                corner[long], corner[short] = along, across
                corners.append(corner)
        return straight(*corners)


class Orbits:
    """Rings about buildings, one to two rounds each.

    Of some buildings near the vehicle the one is taken whose ring is freest at the height it has.
    """

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        self.roof_m = 30.0
        tops = world.obstacles.tops
        occupied = (tops > NOTHING).astype(np.uint8)
        self.half = cv2.distanceTransform(occupied, cv2.DIST_L2, 3) * world.obstacles.cell_m
        ground = float(world.terrain.height(np.array([world.obstacles.x0, world.obstacles.y0])))
        self.tall = np.argwhere((self.half > 3.0) & (tops > ground + 5.0))

    def height(self, xy: Points, level: float) -> float:
        """Return the heights of the circle, from half of the roof's height to above it."""
        low, high = self.world.vehicle.height_m
        return float(np.clip((0.5 + 0.8 * level) * self.roof_m + 5.0, low, high))

    def __call__(self, state: Points) -> Points | None:
        if not len(self.tall):
            return None
        obstacles, rng = self.world.obstacles, self.rng
        squares = self.tall[rng.integers(len(self.tall), size=300)]
        middles = (squares + 0.5) * obstacles.cell_m + (obstacles.x0, obstacles.y0)
        away = np.linalg.norm(middles - state[:2], axis=1)
        near = np.argsort(np.abs(away - 60.0))[:_CANDIDATES]
        rings = [self._ring(middles[n], squares[n], state) for n in near]
        free = [self._freedom(ring, state[2]) for ring in rings]
        best = int(np.argmax(free))
        top = float(obstacles.tops[tuple(squares[near[best]])])
        self.roof_m = top - float(self.world.terrain.height(middles[near[best]]))
        return rings[best]

    def _ring(self, middle: Points, square: NDArray[np.int64], state: Points) -> Points:
        """Return one to two rounds, from the vehicle's side on, the way it is heading."""
        radius = float(self.half[tuple(square)]) + self.rng.uniform(10.0, 30.0)
        start = state[:2] - middle
        angle = float(np.arctan2(start[1], start[0]))
        side = -np.sin(angle) * np.cos(state[3]) + np.cos(angle) * np.sin(state[3])
        turn = (1.0 if side >= 0 else -1.0) * self.rng.uniform(1.0, 2.0) * 2 * np.pi
        angles = angle + np.linspace(0.0, turn, max(12, round(abs(turn) * radius / POINT_M)))
        return middle + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def _freedom(self, ring: Points, z: float) -> float:
        """Share of a ring's points that are in the region and clear at a height."""
        inside = self.world.region.inside(ring, 3.0)
        top = self.world.obstacles.top(ring, planning=True)
        return float((inside & (top + self.world.vehicle.margin_m + 1.5 < z)).mean())


class Returns:
    """Away from a place and back to it, each time to another side."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        self.place: Points | None = None
        self.angle = float(rng.uniform(-np.pi, np.pi))

    def __call__(self, state: Points) -> Points | None:
        if self.place is None:
            self.place = state[:2].copy()
        away = float(np.linalg.norm(state[:2] - self.place)) < _HOME_M
        if self.world.vehicle.climb_m_s == 0.0:
            return self._by_street(state, away)
        return self._by_air(state, away)

    def _by_air(self, state: Points, away: bool) -> Points | None:
        assert self.place is not None
        if not away:
            ahead = self.place + 16.0 * _unit(self.place - state[:2])
            return straight(state[:2], self.place, ahead)
        for _ in range(_CANDIDATES):
            self.angle += 2.4 + float(self.rng.normal(0.0, 0.2))  # about the golden angle
            reach = self.rng.uniform(50.0, 120.0)
            end = self.place + reach * np.array([np.cos(self.angle), np.sin(self.angle)])
            if self.world.region.inside(end, 8.0):
                return straight(state[:2], end)
        return None

    def _by_street(self, state: Points, away: bool) -> Points | None:
        assert self.place is not None
        streets = self.world.streets
        start, home = streets.nearest(state[:2]), streets.nearest(self.place)
        if start is None or home is None:
            return None
        ways = streets.ways(start, _REACH_M)
        if not away:
            return ways.to(home) if np.isfinite(ways.cost[home]) else None
        nodes = ways.between(40.0, 160.0)
        if not len(nodes):
            return None
        tried = self.rng.choice(nodes, _CANDIDATES)
        aside = streets.places[tried] - self.place
        self.angle += 2.4
        wanted = np.cos(np.arctan2(aside[:, 1], aside[:, 0]) - self.angle)
        return ways.to(int(tried[wanted.argmax()]))


def _unit(vector: Points) -> Points:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9))
