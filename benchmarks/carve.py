"""Time carving of free space against ray casting alone, on one core.

    python benchmarks/carve.py --input DIR [--sensor HDL-32E] [--scans 30] [--json]

Scans are taken at random places above the densest 500 m square of a city, by a drone 10 to 40 m
above the ground, on the grid of a preset. Times are of the process, so that a busy machine changes
them little. `ratio` is carving over casting: how much dearer an observed frame is than its rays.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from prepare import SQUARE_M, densest_square
from vlwm.core.city.city import City
from vlwm.core.city.read import read_city
from vlwm.core.config.load import load_config
from vlwm.core.data.sensors.recorder import surfaces_in
from vlwm.core.data.sensors.rig import LIDAR, LIDARS, MOUNTS
from vlwm.core.geometry.carve import carve
from vlwm.core.geometry.frames import ORIENTATION, POSE_SIZE, ego_of, quaternion_from_heading
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.rays import RayCaster
from vlwm.core.geometry.voxelize import TriangleTiles


def measure(city: City, grid: VoxelGrid, sensor: str, scans: int) -> dict[str, Any]:
    """Return milliseconds a scan of casting and of carving, their ratio, and what was seen."""
    pattern = LIDARS[sensor]
    rng = np.random.default_rng(26)
    corner = densest_square(city)
    reach = pattern.range_m[1]
    around = (*(corner - reach), *(corner + SQUARE_M + reach))
    tiles = TriangleTiles.build(city.triangles)
    middle = np.array([*corner, 0.0])
    caster = RayCaster(surfaces_in(tiles, city, around).triangles - middle)
    places = corner + rng.uniform(0, SQUARE_M, (scans + 1, 2))
    poses = np.zeros((scans + 1, POSE_SIZE))
    ground = city.terrain.height(places)
    poses[:, :2] = places - corner
    poses[:, 2] = ground + rng.uniform(10, 40, scans + 1)
    poses[:, ORIENTATION] = quaternion_from_heading(rng.uniform(-np.pi, np.pi, scans + 1))
    rays, casting, carving, known = pattern.directions(), 0.0, 0.0, 0.0
    for k, pose in enumerate(poses):
        place, axes = MOUNTS["drone"][LIDAR].pose(pose)
        along = rays @ axes
        started = time.process_time()
        hits = caster.first_hits(place, along, reach)
        cast = time.process_time()
        distance = np.minimum(hits.distances, reach)
        ends = place + distance[:, None] * along
        occupied, free = carve(grid, ego_of(pose, ground[k]), place, ends, hits.faces >= 0)
        if k:  # the first scan compiles
            casting += cast - started
            carving += time.process_time() - cast
            known += float((occupied | free).mean())
    return {
        "city": city.name,
        "sensor": pattern.model,
        "rays": pattern.beams,
        "grid": list(grid.shape),
        "casting_ms": round(1e3 * casting / scans, 2),
        "carving_ms": round(1e3 * carving / scans, 2),
        "ratio": round(carving / casting, 2),
        "carvings_per_s_per_core": round(scans / carving, 1),
        "known_share": round(known / scans, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, required=True, help="folder of city models")
    parser.add_argument("--config", default="finetune_tokyo", help="preset that sets the grid")
    parser.add_argument("--sensor", default="HDL-32E", choices=sorted(LIDARS))
    parser.add_argument("--scans", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    config = load_config(options.config)
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    found = measure(read_city([options.input]), grid, options.sensor, options.scans)
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:26s} {value}")


if __name__ == "__main__":
    main()
