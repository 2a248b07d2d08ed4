"""Fly missions with one planner and different maps, and count collisions.

    python benchmarks/closed_loop.py --input DIR --out FILE [--missions 60] [--speeds 6 9 12]
                                     [--maps NAME ...] [--run RUN] [--seconds 30]
    python benchmarks/closed_loop.py --out FILE --summary

Maps: `free`: the tri-state map, unknown is free; `blocked`: the same, unknown is blocked; `filled`:
the map completed without learning (extruded walls); `forecast`: the map where it knows a cell, the
forecast of --run where it does not; `truth`: the true cells. A drone with a 32-beam lidar flies for
30 s through the test region of a city. Once a second a sampling planner chooses among 33 manoeuvres
(turn x climb x brake) of which it can stop in clear space, an emergency stop where there is none,
and the vehicle flies the choice with limits on acceleration. Missions (place, heading, height)
depend on the seed and number alone, so all maps fly the same ones. Lines of --out are not flown
again: run the same command again after an interruption.

A collision is a body box of 1 m that meets a true surface, at cells of 0.5 m; it ends the mission.
A near miss is a body box widened by 0.5 m that meets one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlwm.core.city.city import City
from vlwm.core.city.procedural import procedural_city
from vlwm.core.city.read import read_city
from vlwm.core.config.load import load_config
from vlwm.core.data.batch import Past, Plan
from vlwm.core.data.sensors.observe import Observer, Track
from vlwm.core.data.sensors.ray_patterns import RAY_PATTERNS
from vlwm.core.data.sensors.recorder import surfaces_in
from vlwm.core.data.sensors.rig import LIDAR, MOUNTS
from vlwm.core.data.splits import plan_regions
from vlwm.core.evaluation.baselines.tri_state import TriState, evidence_of
from vlwm.core.evaluation.load import find_checkpoint
from vlwm.core.evaluation.observed.manoeuvres import BODY_M, MARGIN_M, Manoeuvre, candidates
from vlwm.core.evaluation.zones import SeenPast
from vlwm.core.geometry.frames import (
    ego_of,
    quaternion_from_heading,
    relative_ego,
    to_ego,
)
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.rays import RayCaster
from vlwm.core.geometry.voxelize import TriangleTiles, voxelize
from vlwm.core.model.checkpoint import load_world_model

MAPS = ("free", "blocked", "filled", "forecast", "truth")
FRAME_S, PLAN_EVERY, STEP_S = 0.5, 2, 0.05
ACCELERATION = 2.5  # m/s², of speeding up
HISTORY = 4
FINE_M = 0.5
REACH_M = 520.0  # metres around the start that a mission can meet: 30 s at 14 m/s, and 100 m seen
HEIGHT_M = (4.0, 18.0)
RISK = 0.3  # forecast probability from which a cell is blocked
_CHECK_EVERY = 2  # steps
STOP = Manoeuvre(0.0, 0.0, 6.0)

State = NDArray[np.float64]  # x, y, z, yaw, speed


@dataclass(frozen=True)
class World:
    """True surfaces around one mission, in a frame whose origin is at the start.

    Attributes:
        solid: bool (X, Y, Z), cells of `FINE_M` that a surface meets.
        fine: grid of `solid`.
        caster: the same surfaces for rays.
        triangles: float64 (T, 3, 3).
    """

    solid: NDArray[np.bool_]
    fine: VoxelGrid
    caster: RayCaster
    triangles: NDArray[np.float64]

    def meets(self, place: NDArray[np.float64], half_m: float) -> bool:
        """Return True if a box of half side `half_m` around a place (3,) meets a surface."""
        low, high = (self.fine.index_of(place + s * half_m) for s in (-1, 1))
        low, high = np.maximum(low, 0), np.minimum(high + 1, self.fine.shape)
        return bool(self.solid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].any())


@dataclass(frozen=True)
class Mission:
    """A start: in the city's frame x, y, terrain height, and height above it, heading."""

    number: int
    place: NDArray[np.float64]
    height_m: float
    yaw: float


class Blocked:
    """Which places a planner may not enter.

    Args:
        planes: bool (K, X, Y, Z), blocked cells of K frames.
        ego: float64 (K, 4), where each frame is; frame k is asked at its time.
        grid: of the frames.
        outside: whether places outside the grid are blocked.
    """

    def __init__(
        self, planes: NDArray[np.bool_], ego: NDArray[np.float64], grid: VoxelGrid, outside: bool
    ) -> None:
        self.planes, self.ego, self.grid, self.outside = planes, ego, grid, outside

    def any(self, points: NDArray[np.float64], times_s: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return whether points (T, P, 3) at times (T,) hit a blocked cell: bool (T,)."""
        last = len(self.planes) - 1
        frame = np.clip(np.ceil(times_s / FRAME_S).astype(int) - 1, 0, last)
        found = np.zeros(len(points), dtype=bool)
        for k in np.unique(frame):
            at = frame == k
            index = self.grid.index_of(to_ego(points[at], self.ego[k]))  # (t, P, 3)
            inside = ((index >= 0) & (index < self.grid.shape)).all(axis=-1)
            cells = index[inside]
            hit = np.full(inside.shape, self.outside)
            hit[inside] = self.planes[k][tuple(cells.T)]
            found[at] = hit.any(axis=-1)
        return found


def choose(state: State, heading: float, cruise: float, blocked: Blocked) -> Manoeuvre:
    """Return the manoeuvre of most progress that stays clear, or the emergency stop.

    A candidate is clear if the body, widened by the margin in the plane, meets no blocked cell
    while it is flown until the next plan and then stopped as hard as the vehicle can.
    """
    steps = [np.linspace(-h, h, n) for h, n in ((BODY_M + MARGIN_M, 5), (BODY_M, 3))]
    axes = (steps[0], steps[0], steps[1])
    box = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    best, merit = STOP, -np.inf
    for option in candidates():
        flown = fly(state, option, cruise, PLAN_EVERY * FRAME_S)
        stopping = fly(flown[-1], STOP, cruise, flown[-1][4] / STOP.brake + STEP_S)
        path = np.array([*flown, *stopping])[::_CHECK_EVERY]  # (T, 5)
        times = STEP_S * np.arange(1, len(flown) + len(stopping) + 1)[::_CHECK_EVERY]
        if blocked.any(path[:, None, :3] + box, times).any():
            continue
        along = path[-1, :2] - state[:2]
        progress = along @ np.array([np.cos(heading), np.sin(heading)])
        value = progress - 0.3 * abs(option.turn) - 0.3 * abs(option.climb)
        if value > merit:
            best, merit = option, value
    return best


def fly(state: State, option: Manoeuvre, cruise: float, seconds: float) -> list[State]:
    """Return the states every `STEP_S` while the vehicle follows a manoeuvre."""
    found, now = [], state.copy()
    for _ in range(round(seconds / STEP_S)):
        if option.brake:
            now[4] = max(now[4] - option.brake * STEP_S, 0.0)
        else:
            now[4] = min(now[4] + ACCELERATION * STEP_S, cruise)
        moves = option.climb if now[4] > 0.1 or not option.brake else 0.0
        now[3] += option.turn * STEP_S * (now[4] > 0.1)
        now[0] += now[4] * np.cos(now[3]) * STEP_S
        now[1] += now[4] * np.sin(now[3]) * STEP_S
        now[2] += moves * STEP_S
        found.append(now.copy())
    return found


def pose_of(state: State) -> NDArray[np.float64]:
    """Return the pose (13,) of a level vehicle."""
    pose = np.zeros(13)
    pose[:3], pose[3:7] = state[:3], quaternion_from_heading(state[3])
    pose[7:9] = state[4] * np.array([np.cos(state[3]), np.sin(state[3])])
    return pose


class Sight:
    """The last frames that the sensor saw, as maps are made of them.

    Args:
        world: true surfaces.
        ground: terrain height at places (N, 2), in the mission's frame.
        grid: of a frame.
    """

    def __init__(
        self,
        world: World,
        ground: Callable[[NDArray[np.float64]], NDArray[np.float64]],
        grid: VoxelGrid,
        seed: int,
    ) -> None:
        self.world, self.ground, self.grid, self.seed = world, ground, grid, seed
        self.poses: list[NDArray[np.float64]] = []
        self.heights: list[float] = []
        self.layers: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []

    def look(self, state: State) -> None:
        """Take a scan, and forget the oldest frame."""
        pose = pose_of(state)
        self.poses.append(pose)
        self.heights.append(float(self.ground(pose[None, :2])[0]))
        track = Track(np.array(self.poses), np.array(self.heights))
        sensor = Observer(
            self.world.caster, RAY_PATTERNS["HDL-32E"], MOUNTS["drone"][LIDAR], self.grid, track,
            track, self.seed,
        )  # fmt: skip
        seen = sensor.observe(len(self.poses) - 1)
        self.layers.append((seen["seen_occupied"], seen["seen_free"]))
        self.layers = self.layers[-HISTORY:]

    @property
    def ego(self) -> NDArray[np.float64]:
        """Ego frames (F, 4) of the frames that are kept."""
        poses = np.array(self.poses[-HISTORY:])
        return ego_of(poses, np.array(self.heights[-HISTORY:]))

    def seen(self) -> SeenPast:
        """Return the kept frames; the oldest is repeated until there are enough."""
        missing = HISTORY - len(self.layers)
        layers = [self.layers[0]] * missing + self.layers
        ego = np.concatenate([np.repeat(self.ego[:1], missing, axis=0), self.ego])
        occupied, free = (torch.from_numpy(np.stack(v)) for v in zip(*layers, strict=True))
        return SeenPast(occupied, free, ego, ego)


def straight_ahead(sight: Sight, state: State, frames: int) -> NDArray[np.float64]:
    """Return ego frames (K, 4) of a vehicle that goes on straight at its speed."""
    times = FRAME_S * np.arange(1, frames + 1)
    path = Manoeuvre(0.0, 0.0, 0.0).path(state, times)
    poses = np.repeat(pose_of(state)[None], frames, axis=0)
    poses[:, :3] = path
    return np.asarray(ego_of(poses, sight.ground(path[:, :2])))


class Mapper:
    """Makes the blocked cells of one kind of map.

    Args:
        kind: of `MAPS`.
        model: a world model with an observed past, for `forecast`.
    """

    def __init__(self, kind: str, grid: VoxelGrid, model: Any = None) -> None:
        self.kind, self.grid, self.model = kind, grid, model
        self.fusion = TriState(np.zeros(grid.shape[2], dtype=bool), grid)

    def blocked(self, sight: Sight, state: State) -> Blocked:
        """Return where the vehicle may not go, seen from its last frame."""
        if self.kind == "truth":
            ego = sight.ego[-1:]
            moved = to_ego(sight.world.triangles, ego[0])
            return Blocked(voxelize(moved, self.grid)[None] > 0, ego, self.grid, False)
        ego = straight_ahead(sight, state, 6) if self.kind == "forecast" else sight.ego[-1:]
        planes = []
        forecast = self._forecast(sight, ego) if self.kind == "forecast" else None
        for k, evidence in enumerate(evidence_of(sight.seen(), ego, self.grid)):
            occupied = self.fusion.plane("tri_state", evidence, 0)
            if self.kind == "blocked":
                occupied = occupied | evidence.unknown
            elif self.kind == "filled":
                occupied = self.fusion.plane("tri_state_ground", evidence, 0)
            elif forecast is not None:
                occupied = occupied | (evidence.unknown & (forecast[k] >= RISK))
            planes.append(occupied.numpy())
        return Blocked(np.stack(planes), ego, self.grid, self.kind == "blocked")

    @torch.no_grad()
    def _forecast(self, sight: Sight, ego: NDArray[np.float64]) -> Tensor:
        """Return the model's probabilities (K, X, Y, Z) along frames `ego` (K, 4)."""
        seen, anchor = sight.seen(), sight.ego[-1]
        poses = np.array(sight.poses[-HISTORY:])
        poses = np.concatenate([np.repeat(poses[:1], HISTORY - len(poses), axis=0), poses])
        past_ego = relative_ego(anchor, seen.ego)
        turned = quaternion_from_heading(past_ego[:, 3])
        heights = past_ego[:, 2] + poses[:, 2] - seen.ego[:, 2]
        speed = np.linalg.norm(poses[:, 7:9], axis=1)
        moved = np.zeros((HISTORY, 13))
        moved[:, :2], moved[:, 2], moved[:, 3:7] = past_ego[:, :2], heights, turned
        moved[:, 7] = speed * np.cos(past_ego[:, 3])
        moved[:, 8] = speed * np.sin(past_ego[:, 3])
        bits = [
            torch.from_numpy(np.stack([self.grid.pack(f.numpy()) for f in frames]))[None]
            for frames in (seen.occupied, seen.free)
        ]
        future = relative_ego(anchor, ego)
        plan_poses = np.zeros((1, len(ego), 13))
        plan_poses[0, :, :2], plan_poses[0, :, 2] = future[:, :2], future[:, 2]
        plan_poses[0, :, 3:7] = quaternion_from_heading(future[:, 3])
        past = Past(
            bits=bits[0],
            poses=torch.from_numpy(moved[None]).float(),
            ground_z=torch.from_numpy(past_ego[None, :, 2]).float(),
            symmetry=torch.zeros(1, dtype=torch.int64),
            seen_occupied=bits[0],
            seen_free=bits[1],
        )
        plan = Plan(torch.from_numpy(future[None]).float(), torch.from_numpy(plan_poses).float())
        return torch.sigmoid(self.model.forecast(past, plan).logits[0].float())


def world_of(city: City, tiles: TriangleTiles, mission: Mission) -> World:
    """Return the true surfaces around a mission, its start at the origin."""
    x, y, _ = mission.place
    window = (x - REACH_M, y - REACH_M, x + REACH_M, y + REACH_M)
    triangles = surfaces_in(tiles, city, window).triangles - mission.place
    reach = REACH_M - 100.0
    fine = VoxelGrid.from_range(
        [-reach, -reach, -20.0, reach, reach, 60.0], [FINE_M, FINE_M, FINE_M]
    )
    return World(voxelize(triangles, fine) > 0, fine, RayCaster(triangles), triangles)


def missions_of(city: City, grid: VoxelGrid, count: int, seed: int) -> list[Mission]:
    """Return starts in the test region, spread by the seed; clearance is checked when flown."""
    regions = plan_regions(city.bounds_xy, grid.horizontal_half_diagonal_m, seed)
    test = next(r for r in regions if r.split == "test")
    # In the middle of a layer: a level beam then sees the cells that a level flight needs.
    heights = grid.axis_centers()[2]
    found = []
    for number in range(count):
        rng = np.random.default_rng([seed, number, 0xC105ED])
        xy = rng.uniform([test.x0, test.y0], [test.x1, test.y1])
        place = np.array([*np.round(xy), float(city.terrain.height(xy[None])[0])])
        height = float(rng.choice(heights[(heights > HEIGHT_M[0]) & (heights < HEIGHT_M[1])]))
        found.append(Mission(number, place, height, rng.uniform(-np.pi, np.pi)))
    return found


def clear_start(world: World, mission: Mission) -> State | None:
    """Return the first state: at the start, or as near to it as the space is clear."""
    rng = np.random.default_rng([mission.number, 0x57A27])
    for away in np.linspace(0.0, 60.0, 200):
        angle = rng.uniform(-np.pi, np.pi)
        place = np.array([away * np.cos(angle), away * np.sin(angle), mission.height_m])
        if not world.meets(place, 3.0) and not _roofed(world, place):
            return np.array([*place, mission.yaw, 0.0])
    return None


def _roofed(world: World, place: NDArray[np.float64]) -> bool:
    """Return True if a surface is above a place: it may be inside a building."""
    up = np.array([[0.0, 0.0, 1.0]])
    return bool(world.caster.first_hits(place, up, 300.0).faces[0] >= 0)


def run_mission(
    city: City, world: World, mission: Mission, mapper: Mapper, speed: float, seconds: float
) -> dict[str, Any]:
    """Fly one mission and return what happened."""

    def ground(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(city.terrain.height(xy + mission.place[:2]) - mission.place[2])

    state = clear_start(world, mission)
    if state is None:
        return {"skipped": True}
    sight, heading = Sight(world, ground, mapper.grid, mission.number), mission.yaw
    option, path, near = Manoeuvre(0.0, 0.0, 0.0), [state], 0
    for frame in range(round(seconds / FRAME_S)):
        sight.look(state)
        if frame % PLAN_EVERY == 0:
            option = choose(state, heading, speed, mapper.blocked(sight, state))
        flown = fly(state, option, speed, FRAME_S)
        for now in flown:
            path.append(now)
            if world.meets(now[:3], BODY_M):
                return _outcome(path, near, collided=True)
            near += world.meets(now[:3], BODY_M + MARGIN_M)
        state = flown[-1]
    return _outcome(path, near, collided=False)


def _outcome(path: list[State], near: int, *, collided: bool) -> dict[str, Any]:
    places = np.array(path)[:, :3]
    length = float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum())
    seconds = STEP_S * (len(path) - 1)
    return {
        "collided": collided,
        "ended": not collided,
        "near_miss_s": round(near * STEP_S, 2),
        "seconds": round(seconds, 2),
        "mean_speed": round(length / max(seconds, STEP_S), 3),
    }


def summary_of(rows: list[dict[str, Any]]) -> str:
    """Return collisions, near misses and mean speed of each map and speed, with 95 % intervals.

    Below it, what each rule of the map alone costs at the mean speed of the forecast.
    """
    lines = [f"{'map':10s} {'cruise':>6s} {'flown':>5s} {'collided':>24s} {'near':>7s} {'m/s':>6s}"]
    flown = [row for row in rows if not row.get("skipped")]
    for kind, speed in dict.fromkeys((r["map"], r["cruise"]) for r in flown):
        some = [r for r in flown if (r["map"], r["cruise"]) == (kind, speed)]
        hits = np.array([r["collided"] for r in some], dtype=float)
        means = hits[_resampled(len(hits))].mean(axis=1)
        near = np.mean([r["near_miss_s"] for r in some])
        pace = np.mean([r["mean_speed"] for r in some])
        share = f"{int(hits.sum())} = {hits.mean():.2f} {_interval(means)}"
        line = f"{kind:10s} {speed:6.1f} {len(some):5d} {share:>24s}"
        lines.append(f"{line} {near:6.2f}s {pace:6.2f}")
    return "\n".join([*lines, *equal_speed(flown)])


def equal_speed(rows: list[dict[str, Any]]) -> list[str]:
    """Return what each rule of the map alone costs at the mean speed of each flown forecast.

    A rule's share of collisions at a mean speed is read between its own cruises, over the missions
    that all of them flew; intervals resample missions. Above its fastest and below its slowest
    cruise there is nothing to read.
    """
    flights: dict[tuple[str, float], dict[int, tuple[float, float]]] = {}
    for row in rows:
        found = (row["mean_speed"], float(row["collided"]))
        flights.setdefault((row["map"], row["cruise"]), {})[row["mission"]] = found
    lines = []
    for kind, cruise in sorted(key for key in flights if key[0] == "forecast"):
        for rule in ("free", "blocked"):
            keys = [key for key in sorted(flights) if key[0] == rule]
            curve = [flights[kind, cruise], *(flights[key] for key in keys)]
            missions = sorted(set(curve[0]).intersection(*curve[1:]))
            if not keys or not missions:
                continue
            table = np.array([[one[mission] for mission in missions] for one in curve])
            draws = np.concatenate([np.arange(len(missions))[None], _resampled(len(missions))])
            means = table[:, draws].mean(axis=2)  # (1 + C, draws, speed and share)
            own, others = means[0], means[1:]
            shares = np.array(
                [_read(*pair) for pair in zip(own, others.swapaxes(0, 1), strict=True)]
            )
            line = f"forecast at {cruise:g}: {own[0, 0]:.2f} m/s, collided {own[0, 1]:.2f}; {rule}"
            lines.append(f"{line}, as fast: {_told(shares, own[:, 1])}, {len(missions)} missions")
    return lines


def _read(own: NDArray[np.float64], curve: NDArray[np.float64]) -> float:
    """Return the share at the speed of `own` (speed, share) on a curve (C, 2); NaN beyond it."""
    speed, share = curve[np.argsort(curve[:, 0])].T
    return float(np.interp(own[0], speed, share, np.nan, np.nan))


def _told(shares: NDArray[np.float64], own: NDArray[np.float64]) -> str:
    """Return the first share, as flown, and the interval of how much more it is than `own`."""
    if np.isnan(shares[0]):
        return "never"
    more = (shares - own)[np.isfinite(shares)]
    low, high = np.quantile(more, [0.025, 0.975])
    return f"{shares[0]:.2f} ({low:+.2f} ... {high:+.2f} more)"


def _resampled(count: int) -> NDArray[np.int64]:
    """Return rows of `count` missions drawn with replacement (2000, count)."""
    return np.random.default_rng(0).integers(count, size=(2000, count))


def _interval(means: NDArray[np.float64]) -> str:
    low, high = np.quantile(means, [0.025, 0.975])
    return f"[{low:.2f}, {high:.2f}]"


def read_lines(out: Path) -> list[dict[str, Any]]:
    """Return the rows of the file; none where it is missing."""
    if not out.exists():
        return []
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines() if line]


def fly_all(options: argparse.Namespace) -> None:
    """Fly every mission that the file lacks."""
    config = load_config(options.config)
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    city = read_city([options.input]) if options.input else procedural_city(1000.0, options.seed)
    tiles = TriangleTiles.build(city.triangles)
    model = None
    if options.run is not None:
        model, _ = load_world_model(find_checkpoint(options.run))
    maps = {kind: Mapper(kind, grid, model) for kind in options.maps}
    done = {(r["map"], r["cruise"], r["mission"]) for r in read_lines(options.out)}
    for mission in missions_of(city, grid, options.missions, options.seed):
        wanted = [
            (kind, speed)
            for kind in maps
            for speed in options.speeds
            if (kind, speed, mission.number) not in done
        ]
        if not wanted:
            continue
        world = world_of(city, tiles, mission)
        for kind, speed in wanted:
            found = run_mission(city, world, mission, maps[kind], speed, options.seconds)
            row = {"map": kind, "cruise": speed, "mission": mission.number, **found}
            with open(options.out, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, help="city models; a procedural city without it")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines")
    parser.add_argument("--config", default="tokyo_small_lidar", help="preset that sets the grid")
    parser.add_argument("--run", type=Path, help="run or checkpoint, for the map `forecast`")
    parser.add_argument("--missions", type=int, default=60)
    parser.add_argument("--speeds", nargs="+", type=float, default=[6.0, 9.0, 12.0])
    parser.add_argument("--maps", nargs="+", choices=MAPS, default=["free", "blocked", "truth"])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--summary", action="store_true", help="print the table of the file")
    options = parser.parse_args()
    if options.summary:
        print(summary_of(read_lines(options.out)))
        return
    if "forecast" in options.maps and options.run is None:
        parser.error("the map `forecast` needs --run RUN")
    fly_all(options)


if __name__ == "__main__":
    main()
