"""How many machines, minutes and dollars a city takes, from measured constants.

    python benchmarks/city_plan.py [--frames-per-s 25.6] [--cores 8] [--dollars 0.20]

One machine reads the city, with all its cores, and writes its tiles; then the others are started.
Ten cities are ten such plans at once. Frames a second, bytes of a frame and of tiles, the processor
time to read a building and the part of it that one process does alone are measured
(docs/benchmarks.md); price, network and the start of a machine are assumptions.
"""

from __future__ import annotations

import argparse

FRAMES = 500  # of a session
FRAMES_PER_KM2 = 1000  # 627,000 frames for the 627 km² of the 23 wards
BUILDINGS_PER_KM2 = 3130  # 1.96 M on 627 km²
READ_S_PER_BUILDING = 0.49e-3  # processor time in Matsumoto (LOD2), the slowest of three cities
ALONE = 0.3  # share of it that one process does: it takes the batches of all workers in order
TILES_MB_PER_KM2 = 1.3  # Matsumoto, 2.8 MB of two mesh squares; Niiza 0.6
FETCH_MB_PER_S = 10.0  # assumed
BEGIN_S = 60.0  # assumed: a machine's start, packages, compilation
CITIES = {
    "one ward of 20 km²": (20, 1),
    "the 23 wards, 627 km²": (627, 1),
    "ten cities of 627 km²": (627, 10),
}
MACHINES = (1, 4, 16, 64)


def read_s(area_km2: float, cores: int) -> float:
    """Seconds until the tiles of a city are in the store; one machine works."""
    used_s = area_km2 * BUILDINGS_PER_KM2 * READ_S_PER_BUILDING
    return BEGIN_S + used_s * (ALONE + (1 - ALONE) / cores)


def make_s(area_km2: float, machines: int, cores: int, frames_per_s: float) -> float:
    """Seconds in which all machines work: start, fetch the tiles, make the frames."""
    fetch_s = BEGIN_S + area_km2 * TILES_MB_PER_KM2 / FETCH_MB_PER_S if machines > 1 else 0.0
    frames = area_km2 * FRAMES_PER_KM2
    # each machine makes about one session for nothing, or waits for that long at the end
    spare_s = FRAMES / (cores * frames_per_s) if machines > 1 else 0.0
    return fetch_s + frames / (machines * cores * frames_per_s) + spare_s


def plan(
    area_km2: float, cities: int, machines: int, cores: int, frames_per_s: float
) -> tuple[float, float]:
    """Return wall minutes and machine hours; machines share the cities."""
    turns = max(1.0, cities / machines)  # cities after one another
    each = max(1, machines // cities)
    begin_s, work_s = read_s(area_km2, cores), make_s(area_km2, each, cores, frames_per_s)
    return turns * (begin_s + work_s) / 60, cities * (begin_s + each * work_s) / 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames-per-s", type=float, default=25.6, help="of one core")
    parser.add_argument("--cores", type=int, default=8, help="of a machine")
    parser.add_argument("--dollars", type=float, default=0.20, help="a machine and hour")
    parser.add_argument("--bytes-per-frame", type=float, default=2700.0)
    args = parser.parse_args()
    print("| city | frames | shards, GB | machines | minutes | dollars |")
    print("|---|---|---|---|---|---|")
    for name, (area, cities) in CITIES.items():
        frames = cities * area * FRAMES_PER_KM2
        size = frames * args.bytes_per_frame / 1e9
        for machines in MACHINES:
            wall, hours = plan(area, cities, machines, args.cores, args.frames_per_s)
            cost = hours * args.dollars
            print(f"| {name} | {frames:,} | {size:.1f} | {machines} | {wall:.0f} | {cost:.2f} |")


if __name__ == "__main__":
    main()
