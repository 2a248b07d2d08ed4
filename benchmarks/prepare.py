"""Frames from city models: vlwm beside two other ways, in one run on one core.

    python benchmarks/prepare.py --input DIR [--frames 100] [--json]

The place is the densest 500 m square of the city, the grid that of the guide (200 x 200 x 121 by
default), and every way writes the users' npz files. The rivals:

Ratios are of the same frames, those nearest to the square's middle.

* usual: the mesh vertices of the whole city are moved into each frame and their cells marked,
  written by `np.savez_compressed`. It misses every cell without a vertex.
* sampling: surfaces are sampled every 0.1 m, which finds nearly every cell a surface meets; the
  samples are sorted into squares of 16 m beforehand (not timed), and written the same way.

Recall is the share of the cells that vlwm marks; vlwm's own exactness is proven by the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.city import City
from vlwm.core.city.read import read_city
from vlwm.core.config.load import load_config
from vlwm.core.data.generation.frame_jobs import Scene
from vlwm.core.data.npz import write_layers
from vlwm.core.data.sensors.lidar import LidarScanner
from vlwm.core.data.sensors.recorder import surfaces_in
from vlwm.core.data.sensors.rig import LIDAR, LIDARS, MOUNTS
from vlwm.core.data.trajectories.obstacle_map import obstacles_in
from vlwm.core.data.trajectories.vehicle import VEHICLES
from vlwm.core.geometry.frames import ORIENTATION, POSE_SIZE, quaternion_from_heading, to_ego
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.mapped_arrays import Scratch
from vlwm.core.geometry.rays import RayCaster
from vlwm.core.geometry.voxelize import TriangleTiles

SQUARE_M = 500.0
SAMPLE_M = 0.1
BIN_M = 16.0
PIECE_M = 64.0
Bounds = tuple[float, float, float, float]
Frame = Callable[[NDArray[np.float64]], NDArray[np.uint8]]


def densest_square(city: City) -> NDArray[np.float64]:
    """Lower corner (2,) of the 500 m square with the most triangles, in the city's frame."""
    middles = city.mesh.triangles().mean(axis=1)[:, :2]
    squares, counts = np.unique(np.floor(middles / SQUARE_M), axis=0, return_counts=True)
    return np.asarray(squares[counts.argmax()] * SQUARE_M)


def poses_in(city: City, corner: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Ego frames (count, 4) on the ground of the square: x, y, ground_z, yaw."""
    rng = np.random.default_rng(6)
    xy = corner + rng.uniform(0, SQUARE_M, (count, 2))
    return np.column_stack([xy, city.terrain.height(xy), rng.uniform(-np.pi, np.pi, count)])


def nearest_to_the_middle(egos: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The `count` frames nearest to the middle of all, so that they share their samples."""
    away = np.linalg.norm(egos[:, :2] - egos[:, :2].mean(axis=0), axis=1)
    return egos[np.argsort(away, kind="stable")[:count]]


def triangles_over(city: City, window: Bounds) -> NDArray[np.float64]:
    """Buildings and terrain (T, 3, 3) over a window of the plan, in pieces of at most `PIECE_M`.

    A level city stands on two triangles of kilometres: only what may be seen of them is sampled.
    """
    pieces = np.concatenate([city.mesh.triangles(), city.terrain.triangles(window)])
    done = []
    while len(pieces):
        plan = pieces[:, :, :2]
        near = (plan.max(axis=1) >= window[:2]).all(axis=1)
        near &= (plan.min(axis=1) <= window[2:]).all(axis=1)
        pieces = pieces[near]
        sides = np.linalg.norm(np.roll(pieces, -1, axis=1) - pieces, axis=2)
        small = sides.max(axis=1) <= PIECE_M
        done.append(pieces[small])
        pieces = halved(pieces[~small], sides[~small].argmax(axis=1))
    return np.concatenate(done)


def halved(triangles: NDArray[np.float64], side: NDArray[np.int64]) -> NDArray[np.float64]:
    """Triangles (2T, 3, 3): each cut from the middle of a side (T,) to the corner across."""
    rows = np.arange(len(triangles))
    a, b, c = (triangles[rows, (side + k) % 3] for k in range(3))
    middle = (a + b) / 2
    return np.concatenate([np.stack([a, middle, c], axis=1), np.stack([middle, b, c], axis=1)])


def mark_points(
    points: NDArray[np.floating], ego: NDArray[np.float64], grid: VoxelGrid, out: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Mark in `out` the cells that hold points (N, 3) of the city's frame."""
    local = to_ego(points.astype(np.float64), ego)
    cells = np.floor((local - grid.lower_m) / grid.cell_m).astype(np.int64)
    inside = ((cells >= 0) & (cells < grid.shape)).all(axis=1)
    out[tuple(cells[inside].T)] = 1
    return out


def samples_of(triangle: NDArray[np.float64], step_m: float) -> NDArray[np.float32]:
    """Points (N, 3) on a triangle (3, 3): rows along the longest side, `step_m` apart."""
    sides = np.linalg.norm(np.roll(triangle, -1, axis=0) - triangle, axis=1)
    a, b, c = np.roll(triangle, -int(sides.argmax()), axis=0)
    longest = max(float(sides.max()), 1e-9)
    height = float(np.linalg.norm(np.cross(b - a, c - a))) / longest
    along = max(1, int(np.ceil(longest / step_m)))
    across = max(1, int(np.ceil(height / step_m)))
    v, u = np.divmod(np.arange((across + 1) * (along + 1)), along + 1)
    inside = u * across + v * along <= along * across
    u, v = u[inside, None] / along, v[inside, None] / across
    return np.asarray(a + u * (b - a) + v * (c - a), dtype=np.float32)


class Sampling:
    """Samples of the surfaces near some ego frames, sorted into squares of the plan.

    Only the squares that a frame reaches are kept, and they are marked one by one, which is
    faster than all at once and needs no more memory than the samples themselves.
    """

    def __init__(self, city: City, egos: NDArray[np.float64], grid: VoxelGrid) -> None:
        self.grid, self.reach = grid, grid.horizontal_half_diagonal_m
        wanted = {square for ego in egos for square in self.squares(ego)}
        corners = np.array(sorted(wanted))
        low, high = corners.min(axis=0) * BIN_M, (corners.max(axis=0) + 1) * BIN_M
        found: dict[tuple[int, int], list[NDArray[np.float32]]] = {s: [] for s in wanted}
        for triangle in triangles_over(city, (*low, *high)):
            points = samples_of(triangle, SAMPLE_M)
            keys = np.floor(points[:, :2] / BIN_M).astype(np.int32)
            for i, j in np.unique(keys, axis=0).tolist():
                if (i, j) in wanted:
                    found[i, j].append(points[(keys == (i, j)).all(axis=1)])
        self.bins = {s: np.concatenate(pieces) for s, pieces in found.items() if pieces}

    def squares(self, ego: NDArray[np.float64]) -> list[tuple[int, int]]:
        """Squares of the plan within reach of an ego frame (4,)."""
        low = np.floor((ego[:2] - self.reach) / BIN_M).astype(int)
        high = np.floor((ego[:2] + self.reach) / BIN_M).astype(int)
        rows, columns = range(low[0], high[0] + 1), range(low[1], high[1] + 1)
        return [(i, j) for i in rows for j in columns]

    def frame(self, ego: NDArray[np.float64]) -> NDArray[np.uint8]:
        out = np.zeros(self.grid.shape, dtype=np.uint8)
        for square in self.squares(ego):
            if square in self.bins:
                mark_points(self.bins[square], ego, self.grid, out)
        return out


def write_usual(path: Path, occupancy: NDArray[np.uint8]) -> None:
    np.savez_compressed(path, occupancy=occupancy)


def seconds_per_frame(
    frame: Frame,
    write: Callable[[Path, NDArray[np.uint8]], None],
    egos: NDArray[np.float64],
    folder: Path,
) -> float:
    """Mean CPU seconds of making and writing frames, after one that is not counted."""
    write(folder / "warm.npz", frame(egos[0]))
    started = time.process_time()
    for number, ego in enumerate(egos):
        write(folder / f"{number:06d}_occupancy.npz", frame(ego))
    return (time.process_time() - started) / len(egos)


def mean_recall(frame: Frame, exact: Frame, egos: NDArray[np.float64]) -> float:
    shares = []
    for ego in egos:
        wanted = exact(ego)
        shares.append(float((frame(ego) & wanted).sum() / max(1, wanted.sum())))
    return statistics.mean(shares)


def measure_lidar(city: City, buildings: TriangleTiles, scans: int = 40) -> float:
    """Million beams a second (CPU) of HDL-32E scans with noise and intensity, from the streets."""
    corner, rng = densest_square(city), np.random.default_rng(7)
    x0, y0 = (float(v) for v in corner)
    window = (x0, y0, x0 + SQUARE_M, y0 + SQUARE_M)
    streets = obstacles_in(buildings, window, VEHICLES["rover"].margin_m)
    places = corner + rng.uniform(0, SQUARE_M, (200 * scans, 2))
    places = places[streets.on_streets(places)][:scans]
    poses = np.zeros((scans, POSE_SIZE))
    poses[:, :2] = places
    poses[:, 2] = city.terrain.height(places) + VEHICLES["rover"].ride_m
    poses[:, ORIENTATION] = quaternion_from_heading(rng.uniform(-np.pi, np.pi, scans))
    pattern = LIDARS["HDL-32E"]
    reach = pattern.range_m[1]
    around = (x0 - reach, y0 - reach, x0 + SQUARE_M + reach, y0 + SQUARE_M + reach)
    middle = np.array([x0, y0, 0.0])
    caster = RayCaster(surfaces_in(buildings, city, around).triangles - middle)
    poses[:, :3] -= middle
    scanner = LidarScanner(caster, pattern, MOUNTS["rover"][LIDAR], 42)
    scanner.scan(poses[0], 0)
    started = time.process_time()
    for number, pose in enumerate(poses):
        scanner.scan(pose, number)
    return round(scans * pattern.beams / (time.process_time() - started) / 1e6, 2)


def write_frame(path: Path, cells: NDArray[np.uint8]) -> None:
    write_layers(path, {"occupancy": cells})


def measure(city: City, grid: VoxelGrid, frames: int, rival_frames: int) -> dict[str, Any]:
    egos = poses_in(city, densest_square(city), frames)
    few = nearest_to_the_middle(egos, rival_frames)
    buildings = TriangleTiles.build(city.triangles, scratch=Scratch())
    scene = Scene(buildings, city, grid, "surface")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene.frame(egos[0])
        started = time.process_time()
        for ego in egos:
            scene.frame(ego)
        bare = (time.process_time() - started) / frames
        ours = seconds_per_frame(scene.frame, write_frame, egos, folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        same = seconds_per_frame(scene.frame, write_frame, few, folder)

        def usual_frame(ego: NDArray[np.float64]) -> NDArray[np.uint8]:
            out = np.zeros(grid.shape, dtype=np.uint8)
            return mark_points(city.mesh.vertices, ego, grid, out)

        usual = seconds_per_frame(usual_frame, write_usual, few, folder)
        sampling = Sampling(city, few, grid)
        sampled = seconds_per_frame(sampling.frame, write_usual, few, folder)
    return {
        "city": city.name,
        "triangles": len(city.mesh.faces),
        "grid": list(grid.shape),
        "voxelize_ms_per_frame": round(1e3 * bare, 3),
        "frames_per_s_per_core": round(1 / ours, 1),
        "usual_frames_per_s": round(1 / usual, 2),
        "exact_by_sampling_frames_per_s": round(1 / sampled, 2),
        "ratio_to_usual": round(usual / same, 1),
        "ratio_to_sampling": round(sampled / same, 1),
        "usual_recall": round(mean_recall(usual_frame, scene.frame, few), 4),
        "sampling_recall": round(mean_recall(sampling.frame, scene.frame, few), 4),
        "lidar_mrays_per_s": measure_lidar(city, scene.buildings),
        "peak_mb": round(peak),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, required=True, help="folder of city models")
    parser.add_argument("--config", default="finetune_tokyo", help="preset that says the grid")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rival-frames", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    config = load_config(options.config)
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    found = measure(read_city([options.input]), grid, options.frames, options.rival_frames)
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:32s} {value}")


if __name__ == "__main__":
    main()
