"""Loading windows from shards against raw mapped bits, in one run.

    python benchmarks/loader.py DATA [--config finetune_tokyo] [--sessions 10000]

Times a training step's load (four windows of ten frames, one process) warm and with the page cache
dropped, the bytes on disk, and the time to open a data folder of many sessions.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from vlwm.core.config.load import load_config
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.geometry.grid import VoxelGrid

WINDOWS, FRAMES, STEPS = 4, 10, 60


def drop_cache(paths: list[Path]) -> None:
    """Ask the kernel to forget the pages of some files."""
    os.sync()
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def step_ms(
    load: Callable[[int], object], starts: NDArray[np.int64], cold: list[Path]
) -> tuple[float, float]:
    """Median wall and processor time of a step; `cold` files are dropped from the cache before."""
    times = []
    for step in range(STEPS):
        if cold:
            drop_cache(cold)
        begin, used = time.perf_counter(), time.process_time()
        for start in starts[step * WINDOWS : (step + 1) * WINDOWS]:
            load(int(start))
        times.append((time.perf_counter() - begin, time.process_time() - used))
    wall_s, processor_s = np.median(times, axis=0)
    return 1e3 * float(wall_s), 1e3 * float(processor_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--config", default="finetune_tokyo")
    parser.add_argument("--sessions", type=int, default=0)
    args = parser.parse_args()
    config = load_config(args.config)
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    store = PackedStore.open(args.data, grid)
    rows = np.concatenate([r[: len(r) - FRAMES + 1] for _, r in store.session_rows()])
    starts = np.random.default_rng(0).choice(rows, WINDOWS * STEPS)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.bits"
        store.read_bits(np.arange(len(store))).tofile(raw)
        mapped = [np.memmap(raw, np.uint8, "c").reshape(len(store), -1)]

        def from_map(row: int) -> NDArray[np.uint8]:
            bits = mapped[0][row : row + FRAMES]
            if [isal_zlib.crc32(b) for b in bits] != store.crc[row : row + FRAMES].tolist():
                raise SystemExit("a frame differs")
            return bits

        def from_shard(row: int) -> NDArray[np.uint8]:
            return store.read_bits(np.arange(row, row + FRAMES))

        shards = sorted(set(store._shards))
        size = sum(path.stat().st_size for path in shards)
        print(f"bytes a frame: raw {raw.stat().st_size / len(store):.0f}, "
              f"shard {size / len(store):.0f}")  # fmt: skip

        def cold_map(row: int) -> NDArray[np.uint8]:
            bits = from_map(row)
            mapped[0] = np.memmap(raw, np.uint8, "c").reshape(len(store), -1)  # lets go of pages
            return bits

        for name, load, cold_raw, cold_shards in (
            ("warm", from_map, [], []), ("cold", cold_map, [raw], shards),
        ):  # fmt: skip
            a, b = step_ms(load, starts, cold_raw), step_ms(from_shard, starts, cold_shards)
            for k, clock in enumerate(("wall", "processor")):
                print(f"{name}, {clock} time: mapped bits {a[k]:.1f} ms a step, "
                      f"shards {b[k]:.1f} ms, ratio {b[k] / max(a[k], 1e-9):.2f}")  # fmt: skip
    if args.sessions:
        opening(shards[0], grid, args.sessions)


def opening(shard: Path, grid: VoxelGrid, sessions: int) -> None:
    """Time to open a folder of links to one shard: from its headers, then from what was kept."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "one"
        shutil.copy(shard, source)
        for number in range(sessions):
            os.link(source, Path(folder) / f"drone_{number:06d}.shard")
        for how in ("headers", "headers, warm", "kept", "kept, again"):
            if how.startswith("headers"):
                shutil.rmtree(Path(folder) / ".packed", ignore_errors=True)
            begin, used = time.perf_counter(), time.process_time()
            store = PackedStore.open(folder, grid)
            took, used = time.perf_counter() - begin, time.process_time() - used
            files = len(os.listdir("/proc/self/fd"))
            print(f"open {sessions} sessions, {len(store)} frames, {how}: {took:.2f} s, "
                  f"{used:.2f} s of processor time, {files} open files")  # fmt: skip


if __name__ == "__main__":
    main()
