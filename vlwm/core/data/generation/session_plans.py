"""Plan the sessions of `prepare`: regions of the splits, and in each the paths of its sessions.

Everything is a function of city, grid and plan, so it is planned again when a run resumes. A
session keeps to one part of its region, and the obstacle maps of the last parts are kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.city import BUILT_CELL_M, City
from vlwm.core.config.schema import Config
from vlwm.core.data.generation.frame_jobs import Scene
from vlwm.core.data.generation.many_regions import is_large, plan_many_regions
from vlwm.core.data.generation.scenes import AnyCity, Scenes, reach_of
from vlwm.core.data.session import SessionMeta
from vlwm.core.data.splits import HELD_OUT, Region, Splits, deal_sessions, plan_regions
from vlwm.core.data.trajectories.obstacle_map import Obstacles, obstacles_in
from vlwm.core.data.trajectories.patterns import MIX, RANDOM, pattern_of
from vlwm.core.data.trajectories.planner import Trajectory, plan_trajectory
from vlwm.core.data.trajectories.vehicle import VEHICLES
from vlwm.core.errors import DataError
from vlwm.core.geometry.frames import ego_of
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.parallel import each
from vlwm.core.store.progress import session_name

_SESSION_SIDE_M = 1200.0
"""longest side of the part that one session keeps to"""
_MAPS = 4
"""obstacle maps that are kept"""
_AT_ONCE = 5
"""sessions that each worker plans before frames are made"""
_PIECE_STREAM = 0x91ECE
"""number of the random stream that chooses a session's part of its region"""


@dataclass(frozen=True)
class PreparePlan:
    """The options of `prepare` that decide the content.

    Attributes:
        frames: of one session.
        sessions: in all.
        agents: taken in turn.
        patterns: taken in turn, apart for each split and agent; "mix" is all that suit an agent.
        workers: processes; the bytes do not depend on it.
        lidar: name of the lidar whose scans are written, of `sensors.LIDARS`; None: no scans.
        camera: whether pictures are written.
        observe: name of the sensor whose view is written as layers of each frame, of
            `ray_patterns.RAY_PATTERNS`; None: the frames are the truth alone.
        pose_noise: level of the believed poses, of `observe.POSE_NOISE`.
        held_out: share of the built area of validation and test together.
    """

    frames: int
    sessions: int
    agents: tuple[str, ...]
    seed: int
    fill: str = "surface"
    workers: int = 1
    dt_s: float = 0.5
    lidar: str | None = None
    camera: bool = False
    patterns: tuple[str, ...] = (MIX,)
    observe: str | None = None
    pose_noise: str = "none"
    held_out: float = HELD_OUT


@dataclass(frozen=True, eq=False)
class PlannedSession:
    """One session before its frames are made."""

    name: str
    trajectory: Trajectory
    meta: SessionMeta
    offset: NDArray[np.float64]

    def ego(self) -> NDArray[np.float64]:
        """Return the ego frames (N, 4) in the city's frame."""
        ego = ego_of(self.trajectory.poses, self.trajectory.ground_z)
        ego[:, :3] += self.offset
        return ego


def _built(city: AnyCity) -> NDArray[np.float64]:
    """Return the middles (N, 2) of the built squares of the plan, metres."""
    return np.asarray((city.built_squares + 0.5) * BUILT_CELL_M, dtype=np.float64)


Insides = dict[str, tuple[Region, ...]]
"""the insides of the regions of each split, in the city's frame"""


def regions_of(city: AnyCity, grid: VoxelGrid, plan: PreparePlan) -> tuple[Insides, Splits]:
    """Return the insides of the regions in the city's frame, and the splits in its CRS.

    Cities above 20 km² have many regions a split, smaller ones one.
    """
    margin, built = grid.horizontal_half_diagonal_m, _built(city)
    bounds = city.bounds_xy
    # whole metres: two poses of different splits are then 114 m apart at full size
    wide = float(np.ceil(margin))
    many = None
    if is_large(bounds):
        many = plan_many_regions(bounds, wide, plan.seed, built, city.built_heights)
    if many is not None:
        margin = wide
    regions = many or plan_regions(bounds, margin, plan.seed, built, plan.held_out)
    east, north = city.origin.easting, city.origin.northing
    placed = tuple(
        dataclasses.replace(r, x0=r.x0 + east, y0=r.y0 + north, x1=r.x1 + east, y1=r.y1 + north)
        for r in regions
    )
    insides: Insides = {}
    for region in regions:
        insides[region.split] = (*insides.get(region.split, ()), region.shrunk(margin))
    return insides, Splits(city.origin.crs, margin, placed)


class SessionPlanner:
    """Plans any session of a plan: a function of city, grid, plan and index alone.

    Args:
        scenes: of the city.
        regions: insides of the regions of the splits, in the city's frame.
        plan: the plan.
    """

    def __init__(self, scenes: Scenes, regions: Insides, plan: PreparePlan) -> None:
        self._scenes, self._regions, self._plan = scenes, regions, plan
        self._built = _built(scenes.city)
        self._dealt = deal_patterns(plan)
        self._city_hash = hash_of_sources(scenes.city)
        self._reach = reach_of(scenes.grid, plan.lidar, plan.observe, camera=plan.camera)
        self._map_of = lru_cache(_MAPS)(self._obstacles)

    def __len__(self) -> int:
        return len(self._dealt)

    def plan(self, index: int) -> PlannedSession:
        """Return session `index` of the plan."""
        _, agent, pattern = self._dealt[index]
        piece = self._piece(index)
        obstacles = self._map_of(piece, agent)
        scene = self.scene(index)
        session = _plan_session(scene, piece, obstacles, agent, pattern, index, self._plan)
        obstacles.let_go()
        meta = dataclasses.replace(session.meta, city=self._city_hash)
        return dataclasses.replace(session, meta=meta)

    def scene(self, index: int) -> Scene:
        """Return a scene with all that session `index` can touch."""
        return self._scenes.around(self._piece(index), self._reach)

    def _piece(self, index: int) -> Region:
        split, _, _ = self._dealt[index]
        return _piece(self._regions[split], self._built, [self._plan.seed, index])

    def _obstacles(self, region: Region, agent: str) -> Obstacles:
        scene = self._scenes.around(region, self._reach)
        window = (region.x0, region.y0, region.x1, region.y1)
        vehicle = VEHICLES[agent]
        margin, cell = vehicle.margin_m, vehicle.map_m
        obstacles = obstacles_in(scene.buildings, window, margin, cell, scene.city.scratch)
        scene.buildings.let_go()
        return obstacles


def plan_session(
    city: AnyCity, plan: PreparePlan, index: int, grid: VoxelGrid | None = None
) -> PlannedSession:
    """Return session `index` of a plan: a pure function of its arguments.

    Args:
        city: in memory, or as tiles in a store; the result is the same bit for bit.
        grid: of the frames; None is the full grid of the default config.

    Raises:
        DataError: the place is too small, or no path was found.
    """
    if grid is None:
        usual = Config()
        grid = VoxelGrid.from_range(usual.point_cloud_range, usual.voxel_size)
    regions, _ = regions_of(city, grid, plan)
    return SessionPlanner(Scenes(city, grid, plan.fill), regions, plan).plan(index)


def plan_sessions(
    scenes: Scenes, regions: Insides, plan: PreparePlan
) -> Iterator[list[PlannedSession]]:
    """Yield every session in order, some at a time, planned by the plan's workers."""
    planner = SessionPlanner(scenes, regions, plan)
    at_once = _AT_ONCE * max(1, plan.workers)
    for start in range(0, len(planner), at_once):
        some = range(start, min(start + at_once, len(planner)))
        yield list(each(planner.plan, some, plan.workers))  # before the frames fork their own


def session_names(plan: PreparePlan) -> list[str]:
    """Return the name of every session of a plan, by index."""
    agents = (plan.agents[index % len(plan.agents)] for index in range(plan.sessions))
    return [session_name(agent, index) for index, agent in enumerate(agents)]


def deal_patterns(plan: PreparePlan) -> list[tuple[str, str, str]]:
    """Return (split, agent, pattern) of each session; each split begins with the first pattern.

    Raises:
        UsageError: an agent follows none of the plan's patterns.
    """
    turns: Counter[tuple[str, str]] = Counter()
    dealt = []
    for index, split in enumerate(deal_sessions(plan.sessions)):
        agent = plan.agents[index % len(plan.agents)]
        dealt.append((split, agent, pattern_of(plan.patterns, agent, turns[split, agent])))
        turns[split, agent] += 1
    return dealt


def _piece(regions: Sequence[Region], built: NDArray[np.float64], seed: list[int]) -> Region:
    """Return the part of a split that one session keeps to, so that no map grows with the city.

    One of equal parts of a region of at most `_SESSION_SIDE_M`, as likely as much is built there.
    """
    insides = [built[region.inside(built, 0.0)] for region in regions]
    ends = np.cumsum([len(inside) for inside in insides])
    rng = np.random.default_rng([*seed, _PIECE_STREAM])
    region, place = regions[0], None
    if ends[-1]:
        drawn = int(rng.integers(ends[-1]))
        which = int(np.searchsorted(ends, drawn, side="right"))
        region = regions[which]
        place = insides[which][drawn - int(ends[which])]  # counted from the end of its region
    low, high = np.array([region.x0, region.y0]), np.array([region.x1, region.y1])
    if place is None:
        place = (low + high) / 2
    size = (high - low) / np.ceil((high - low) / _SESSION_SIDE_M)
    x0, y0 = (float(v) for v in low + np.floor((place - low) / size * (1 - 1e-9)) * size)
    x1, y1 = min(x0 + float(size[0]), region.x1), min(y0 + float(size[1]), region.y1)
    return Region(region.split, x0, y0, x1, y1)


def _path(
    city: City, region: Region, obstacles: Obstacles, agent: str, pattern: str,
    seed: int, plan: PreparePlan,
) -> tuple[Trajectory, str]:  # fmt: skip
    """Return a path and its pattern: random where a pattern of the mix finds no way here."""

    def along(name: str) -> Trajectory:
        return plan_trajectory(
            city.terrain, obstacles, region, agent, plan.frames, seed, plan.dt_s,
            pattern=name, roads=city.roads,
        )  # fmt: skip

    try:
        return along(pattern), pattern
    except DataError:
        if MIX not in plan.patterns or pattern == RANDOM:
            raise
        return along(RANDOM), RANDOM


def _plan_session(
    scene: Scene,
    region: Region,
    obstacles: Obstacles,
    agent: str,
    pattern: str,
    index: int,
    plan: PreparePlan,
) -> PlannedSession:
    city, seed = scene.city, plan.seed * 1000 + index
    path, pattern = _path(city, region, obstacles, agent, pattern, seed, plan)
    offset = np.array([*np.round(path.poses[0, :2]), path.ground_z[0]])
    origin = city.origin.moved(*(float(v) for v in offset))
    meta = SessionMeta(
        agent=agent,
        dt_s=plan.dt_s,
        grid=grid_values(scene.grid),
        origin=asdict(origin),
        seed=seed,
        frames=plan.frames,
        velocity_frame="world",
        velocity_source="past",
        split=region.split,
        pattern=pattern,
        fill=plan.fill,
        procedural=city.procedural,
        attribution=city.attribution,
    )
    return PlannedSession(session_name(agent, index), path.moved(offset), meta, offset)


def hash_of_sources(city: AnyCity) -> str:
    """Return the hash that names the files of a city: one in place of a list of thousands."""
    sources = [asdict(source) for source in city.sources]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def grid_values(grid: VoxelGrid) -> dict[str, Any]:
    return {
        "range": [*grid.lower_m, *grid.upper_m],
        "voxel_size": list(grid.cell_m),
        "shape": list(grid.shape),
    }
