"""Reading a city with some workers: wall and processor time, memory, and bytes before and after.

    python benchmarks/reading.py --input DIR [DIR …] [--workers 1 2] [--times 1]

Each reading is a process of its own. `anonymous_mb` is what it and its workers take together and
the kernel cannot take back (see memory.py); `--times 16` lays OBJ tiles side by side as often.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.memory import repeated, watched
from vlwm.core.city.read import read_city
from vlwm.core.city.tiling.tile_writer import write_tiles
from vlwm.core.geometry.mapped_arrays import Scratch
from vlwm.core.store.objects import open_store


def read_once(folder: Path, count: int, out: Path, *, tiles: bool) -> None:
    """Read a city, write its tiles if asked, and leave the numbers in a file.

    `here_s` and `workers_s` are processor times of this process and of its workers.
    """
    with tempfile.TemporaryDirectory() as place:
        begin, used = time.perf_counter(), time.process_time()
        city = read_city([folder], workers=count, scratch=Scratch(Path(place)))
        wall_s = time.perf_counter() - begin
        here_s = time.process_time() - used
        workers = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = {
            "files": city.report.files,
            "buildings": city.report.buildings,
            "triangles": city.report.triangles,
            "wall_s": round(wall_s, 2),
            "here_s": round(here_s, 2),
            "workers_s": round(workers.ru_utime + workers.ru_stime, 2),
        }
        if tiles:
            store = open_store((Path(place) / "tiles").as_uri())
            write_tiles(city, store)
            sizes = [entry.size for entry in store.list().values()]
            found["source_mb"] = round(sum(s.bytes for s in city.sources) / 1e6, 2)
            found["tiles_mb"] = round(sum(sizes) / 1e6, 2)
    out.write_text(json.dumps(found))


def measured(folder: Path, workers: int, *, tiles: bool) -> dict[str, float]:
    """Read in a process of its own, and watch its memory."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "found.json"
        command = [sys.executable, "-m", "benchmarks.reading", "--input", str(folder)]
        command += ["--workers", str(workers), "--into", str(out)]
        seen = watched(command + (["--tiles"] if tiles else []))
        return {**json.loads(out.read_text()), "anonymous_mb": seen["anonymous_mb"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, nargs="+", required=True)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--times", type=int, nargs="+", default=[1])
    parser.add_argument("--into", type=Path, help="read once, here, and write the numbers there")
    parser.add_argument("--tiles", action="store_true", help="write tiles and count their bytes")
    options = parser.parse_args()
    if options.into is not None:
        read_once(options.input[0], options.workers[0], options.into, tiles=options.tiles)
        return
    with tempfile.TemporaryDirectory() as place:
        for given in options.input:
            for times in options.times:
                folder = given
                if times > 1:
                    files = sorted(given.rglob("*.obj"))
                    folder = repeated(files, times, Path(place) / f"{given.name}{times}")
                for workers in options.workers:
                    row = measured(folder, workers, tiles=options.tiles)
                    words = {"city": given.name, "times": times, "workers": workers, **row}
                    print("  ".join(f"{k} {v}" for k, v in words.items()), flush=True)


if __name__ == "__main__":
    main()
