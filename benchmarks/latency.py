"""How long one forecast of six frames takes, beside what needs no learning.

    python benchmarks/latency.py [--config finetune_tokyo] [--set key=value …] [--run RUN]
                                 [--windows 1] [--repeats 20] [--threads N] [--profile]
                                 [--stages] [--json]

A world model (of `--run`, or untrained: the numbers in it cost nothing) foresees windows of random
boxes over a ground, in turn with the memory baseline of either track and, where the past is
observed, with the tri-state fusion and pyoctomap, on the GPU where there is one, else on the CPU's
threads. It prints medians in milliseconds of all `--windows` together, of the clock and of the
processor, forecasts a second, and the ratio to the predicted baseline in the same run; on a GPU
also with mixed precision, and one future frame at a time. `--profile` prints where a GPU's time
goes, `--stages` where a CPU's goes, by function.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vlwm.core.model.world_model as world_model
from vlwm.core.config.load import load_config
from vlwm.core.data.batch import Batch
from vlwm.core.data.sensors.rig import LIDARS
from vlwm.core.evaluation.baselines.tri_state import TriState, evidence_of
from vlwm.core.evaluation.baselines.warps import plan_track, predicted_ego, predicted_track
from vlwm.core.evaluation.eval_windows import windows_in
from vlwm.core.evaluation.load import find_checkpoint
from vlwm.core.geometry.frames import quaternion_from_heading
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.bit_packing import pack_bits
from vlwm.core.model.checkpoint import load_world_model
from vlwm.core.model.world_model import WorldModel

WARM_UP = 3
BOXES = 40


def main() -> None:
    given = _arguments()
    if given.threads:
        torch.set_num_threads(given.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _model(given, device)
    batch = windows_of_boxes(model, given.windows).to(device)
    past = batch.past(model.history)
    horizons = model.config.frame_dt_s * np.arange(1, model.future + 1)
    prior = np.arange(model.grid.shape[2]) == 1

    def baseline() -> None:
        for window in windows_in(batch, model.history, model.grid):
            for _ in predicted_track(
                window.past, prior, model.grid, model.config.frame_dt_s, horizons
            ):
                pass

    def true_pose_memory() -> None:
        for window in windows_in(batch, model.history, model.grid):
            for _ in plan_track(window.past, window.future_ego, prior, model.grid):
                pass

    def forecast(half: bool = False) -> None:
        kind = torch.autocast(device.type, torch.bfloat16) if half else nullcontext()
        with kind:
            model.forecast(past)

    ways: dict[str, Callable[[], None]] = {
        "memory_baseline": baseline,
        "true_pose_memory": true_pose_memory,
        "model": forecast,
    }
    if model.config.data.observed:
        ways["tri_state"] = lambda: _tri_state(batch, model, horizons)
        if (octomap := _octomap(model)) is not None:
            ways["pyoctomap, 4 scans"] = octomap
    if device.type == "cuda":
        ways["model, mixed precision"] = lambda: forecast(half=True)
        ways["model, one frame at a time"] = lambda: _one_by_one(forecast)
    with torch.inference_mode():
        times = _in_turn(ways, given.repeats, device)
        if given.profile:
            _profile(lambda: forecast(half=True), device)
        if given.stages:
            _stages(forecast)
    told = _told(times, model, given.windows, device)
    print(json.dumps(told)) if given.json else _show(told)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="finetune_tokyo")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--run", type=Path, help="run folder or checkpoint, in place of --config")
    parser.add_argument("--windows", type=int, default=1, help="foreseen together")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, help="of torch on a CPU")
    parser.add_argument("--profile", action="store_true", help="where a GPU's time goes")
    parser.add_argument(
        "--stages", action="store_true", help="where a CPU's time goes, by function"
    )
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    return parser.parse_args()


def _model(given: argparse.Namespace, device: torch.device) -> WorldModel:
    if given.run:
        model, _ = load_world_model(find_checkpoint(given.run), device)
    else:
        config = load_config(given.config, given.set)
        grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
        torch.manual_seed(0)
        model = WorldModel(config, grid)
        model.residual_weight.zero_()  # as validation has it of a run of minutes
    return model.to(device).eval()


def windows_of_boxes(model: WorldModel, count: int) -> Batch:
    """So many times one window: a turn among boxes."""
    random, (x, y, z) = np.random.default_rng(0), model.grid.shape
    cells = np.zeros((x, y, z), bool)
    cells[:, :, 1] = True
    for _ in range(BOXES):
        i, j = random.integers(0, (x - 20, y - 20))
        cells[i : i + 20, j : j + 20, : random.integers(2, z)] = True
        cells[i + 1 : i + 19, j + 1 : j + 19, 2 : z - 1] = False
    frames = model.history + model.future
    steps = np.arange(frames) - (model.history - 1)
    poses = np.zeros((count, frames, 13))
    poses[..., 0], poses[..., 1], poses[..., 2] = 2.0 * steps, 0.1 * steps**2, 20.0
    poses[..., 3:7] = quaternion_from_heading(0.1 * steps)
    whole = torch.from_numpy(cells).expand(1, frames, -1, -1, -1)
    seen: dict[str, torch.Tensor] = {}
    if model.config.data.observed:  # a tenth of the cells; their number costs nothing
        known = torch.from_numpy(random.random((1, model.history, x, y, z)) < 0.1)
        past = whole[:, : model.history]
        seen = {
            "seen_occupied": pack_bits(known & past).repeat(count, 1, 1),
            "seen_free": pack_bits(known & ~past).repeat(count, 1, 1),
        }
    return Batch(
        bits=pack_bits(whole).repeat(count, 1, 1),
        poses=torch.from_numpy(poses).float(),
        ground_z=torch.zeros(count, frames),
        index=torch.arange(count),
        symmetry=torch.zeros(count, dtype=torch.int64),
        **seen,
    )


def _tri_state(batch: Batch, model: WorldModel, horizons: np.ndarray) -> None:
    """Fuse the past by log-odds at every future frame, walls and ground filled in."""
    methods = TriState(np.zeros(model.grid.shape[2], dtype=bool), model.grid)
    for window in windows_in(batch, model.history, model.grid):
        assert window.seen is not None
        ego = predicted_ego(window.past.ego, model.config.frame_dt_s, horizons)
        for h, evidence in enumerate(evidence_of(window.seen, ego, model.grid)):
            methods.plane("tri_state_ground", evidence, h)


def _octomap(model: WorldModel) -> Callable[[], None] | None:
    """Return the insertion of as many HDL-32E scans into an OctoMap; None where it is missing."""
    try:
        import pyoctomap
    except ImportError:
        return None
    rays = LIDARS["HDL-32E"].directions()
    reach = np.minimum(40.0, 15.0 / np.maximum(-rays[:, 2], 1e-3))  # flat ground 15 m below
    points = rays * reach[:, None]

    def insert() -> None:
        tree = pyoctomap.OcTree(model.grid.cell_m[0])
        for k in range(model.history):
            origin = np.array([float(k), 0.0, 15.0])
            tree.insertPointCloud(points + origin, origin, -1.0, True, True)

    return insert


def _one_by_one(forecast: Callable[[], None]) -> None:
    together = world_model.frames_at_once
    world_model.frames_at_once = lambda windows, device: 1
    try:
        forecast()
    finally:
        world_model.frames_at_once = together


def _in_turn(
    ways: dict[str, Callable[[], None]], repeats: int, device: torch.device
) -> dict[str, list[tuple[float, float]]]:
    """Return seconds of the clock and of the processor of each way, the ways in turn."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(WARM_UP + repeats):
        for name, way in ways.items():
            _wait(device)
            begun, worked = time.perf_counter(), time.process_time()
            way()
            _wait(device)
            if turn >= WARM_UP:
                times[name].append((time.perf_counter() - begun, time.process_time() - worked))
    return times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _profile(way: Callable[[], None], device: torch.device) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(3):
            way()
        _wait(device)
    print(profile.key_averages().table(sort_by="self_cuda_time_total", row_limit=30))


def _stages(way: Callable[[], None]) -> None:
    """Print the functions that take most of a forecast's processor time, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    profile = cProfile.Profile(time.process_time)
    profile.runcall(way)
    torch.set_num_threads(threads)
    pstats.Stats(profile).sort_stats("tottime").print_stats(15)


def _told(
    times: dict[str, list[tuple[float, float]]],
    model: WorldModel,
    windows: int,
    device: torch.device,
) -> dict[str, Any]:
    middle = {name: statistics.median(t for t, _ in some) for name, some in times.items()}
    worked = {name: statistics.median(t for _, t in some) for name, some in times.items()}
    gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if gpu else "cpu",
        "threads": torch.get_num_threads(),
        "grid": list(model.grid.shape),
        "windows": windows,
        "ms": {name: round(1000 * s, 2) for name, s in middle.items()},
        "processor_ms": {name: round(1000 * s, 2) for name, s in worked.items()},
        "forecasts_per_s": {name: round(windows / s, 1) for name, s in middle.items()},
        "ratio": {name: round(s / middle["memory_baseline"], 2) for name, s in middle.items()},
        "peak_gb": round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if gpu else None,
    }


def _show(told: dict[str, Any]) -> None:
    print(f"{told['device']}, {told['threads']} threads, grid {told['grid']}, "
          f"windows {told['windows']}")  # fmt: skip
    for name, ms in told["ms"].items():
        rate, ratio, worked = (
            told[key][name] for key in ("forecasts_per_s", "ratio", "processor_ms")
        )
        print(f"{name:28} {ms:9.2f} ms {worked:9.2f} ms of processor {rate:8.1f} /s "
              f"{ratio:7.2f} times the baseline's time")  # fmt: skip
    if told["peak_gb"]:
        print(f"peak memory {told['peak_gb']} GB")


if __name__ == "__main__":
    main()
