"""Ways between the buildings: shortest paths on a net of the free ground that keep off the walls.

Where the source has roads (`tran`), ground next to them costs several times as much, so that a way
follows real streets and still crosses the gaps between their surfaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from vlwm.core.city.roads import Roads
from vlwm.core.data.trajectories.obstacle_map import Obstacles
from vlwm.core.geometry.mapped_arrays import Kind
from vlwm.core.geometry.plan_grid import PlanGrid

NODE_M = 2.0
"""between nodes of the net"""
_WALL_M = 3.0
"""distance over which the cost of a wall falls to a third"""
_WALL_COST = 4.0
"""more than in the open, at a wall"""
_OFF_ROAD_COST = 6.0
"""times the cost on a road"""
_LEAST_ROADS_M2 = 2000.0
"""less is not a net of roads"""
_BAND = 32  # rows of nodes
_STEPS = ((1, 0), (0, 1), (1, 1), (1, -1))


@dataclass(frozen=True, eq=False)
class Streets:
    """A net of nodes `NODE_M` apart on the free ground.

    Attributes:
        x0, y0: of node (0, 0), metres.
        number: int32 (nx, ny), number of a node; -1 where none is.
        places: float64 (N, 2) of the nodes, metres.
        on_road: bool (N,), True on a road; all True where the source has no roads.
        net: (N, N) sparse, cost of the way between neighbours.
    """

    x0: float
    y0: float
    number: NDArray[np.int32]
    places: NDArray[np.float64]
    on_road: NDArray[np.bool_]
    net: csr_matrix

    def nearest(self, xy: NDArray[np.float64], reach_m: float = 8.0) -> int | None:
        """Return the node nearest to a point (2,), or None where none is within reach."""
        reach = int(np.ceil(reach_m / NODE_M))
        i, j = (int(np.rint((xy[k] - c) / NODE_M)) for k, c in enumerate((self.x0, self.y0)))
        near = self.number[max(0, i - reach) : i + reach + 1, max(0, j - reach) : j + reach + 1]
        nodes = near[near >= 0]
        if not len(nodes):
            return None
        return int(nodes[np.linalg.norm(self.places[nodes] - xy, axis=1).argmin()])

    def ways(self, start: int, reach: float) -> Ways:
        """Find every way from a node up to a cost of `reach`, in metres of open road."""
        cost, before = dijkstra(
            self.net, indices=start, limit=reach, return_predecessors=True, directed=False
        )
        return Ways(self, start, cost, before)


@dataclass(frozen=True, eq=False)
class Ways:
    """Cheapest ways from one node: cost (N,), inf beyond reach, and the node before each."""

    streets: Streets
    start: int
    cost: NDArray[np.float64]
    before: NDArray[np.int32]

    def between(self, least: float, most: float) -> NDArray[np.int64]:
        """Return nodes on roads whose ways cost from `least` to `most`."""
        near = (self.cost >= least) & (self.cost <= most) & self.streets.on_road
        return np.flatnonzero(near)

    def to(self, node: int) -> NDArray[np.float64]:
        """Return the way (K, 2) from the start to a node within reach, `NODE_M` apart, smoothed."""
        rows = [node]
        while rows[-1] != self.start:
            rows.append(int(self.before[rows[-1]]))
        way = self.streets.places[rows[::-1]]
        return way if len(way) < 3 else _rounded(way)


def _rounded(way: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a way without the steps of the net: means of five nodes, the ends kept."""
    padded = np.pad(way, ((2, 2), (0, 0)), mode="edge")
    mean = np.mean([padded[k : k + len(way)] for k in range(5)], axis=0)
    mean[0], mean[-1] = way[0], way[-1]
    return np.asarray(mean)


def streets_of(obstacles: Obstacles, roads: Roads | None = None) -> Streets:
    """Return the net of an obstacle map's streets."""
    shape = tuple(max(1, int(n * obstacles.cell_m / NODE_M)) for n in obstacles.streets.shape)
    x0, y0 = obstacles.x0 + NODE_M / 2, obstacles.y0 + NODE_M / 2
    grid = PlanGrid(x0, y0, NODE_M, (shape[0], shape[1]))
    nodes = grid.nodes()
    there = np.concatenate([obstacles.on_streets(band) for band in _bands(nodes)])
    number = np.full(grid.shape, -1, dtype=np.int32)
    number[there] = np.arange(int(there.sum()))
    cost = _cost(obstacles, nodes[there])
    on_road = _on_road(roads, grid)[there]
    cost = np.where(on_road, cost, cost * _OFF_ROAD_COST)
    return Streets(x0, y0, number, nodes[there], on_road, _net(obstacles, number, nodes, cost))


def _bands(nodes: NDArray[Kind]) -> list[NDArray[Kind]]:
    """Yield rows of a grid, some at a time, to bound the memory of work on each node."""
    return np.array_split(nodes, -(-len(nodes) // _BAND))


def _cost(obstacles: Obstacles, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cost (N,) of a metre of way at nodes (N, 2): more next to a wall."""
    free, walls = obstacles.streets.view(np.uint8), obstacles.zeros(np.float32)
    cv2.distanceTransform(free, cv2.DIST_L2, 3, dst=walls)
    i, j, _ = obstacles.squares(places)
    near: NDArray[np.float64] = (walls[i, j] * obstacles.cell_m).astype(np.float64)
    return 1.0 + _WALL_COST * np.exp(-near / _WALL_M)


def _on_road(roads: Roads | None, grid: PlanGrid) -> NDArray[np.bool_]:
    """Return nodes (nx, ny) on roads; all where roads are unknown here."""
    if roads is not None and len(roads):
        found = roads.mask(grid)
        if found.sum() * grid.spacing_m**2 >= _LEAST_ROADS_M2:
            return found
    return np.ones(grid.shape, dtype=bool)


def _net(
    obstacles: Obstacles,
    number: NDArray[np.int32],
    nodes: NDArray[np.float64],
    cost: NDArray[np.float64],
) -> csr_matrix:
    """Return neighbours, eight to a node, that see each other over free ground."""
    rows, columns, weights = [], [], []
    for step in _STEPS:
        for a, b, middle in _pairs(number, nodes, *step):
            joined = obstacles.on_streets(middle)
            a, b = a[joined], b[joined]
            rows.append(a)
            columns.append(b)
            weights.append(NODE_M * np.hypot(*step) * (cost[a] + cost[b]) / 2)
    size = int(number.max(initial=-1)) + 1
    where = (np.concatenate(rows), np.concatenate(columns))
    return csr_matrix((np.concatenate(weights), where), shape=(size, size))


def _pairs(
    number: NDArray[np.int32], nodes: NDArray[np.float64], di: int, dj: int
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]]:
    """Yield numbers (K,) of nodes and of those a step away, and the places (K, 2) halfway."""
    nx, ny = number.shape
    for start in range(0, nx - di, _BAND):
        stop = min(start + _BAND, nx - di)
        here = (slice(start, stop), slice(max(0, -dj), ny - max(0, dj)))
        there = (slice(start + di, stop + di), slice(max(0, dj), ny + min(0, dj)))
        both = (number[here] >= 0) & (number[there] >= 0)
        middle = (nodes[here][both] + nodes[there][both]) / 2
        yield number[here][both], number[there][both], middle
