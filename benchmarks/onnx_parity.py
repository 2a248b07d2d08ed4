"""Compare an ONNX export with its model: probabilities, cells and times.

    python benchmarks/onnx_parity.py RUN [--windows 10] [--repeats 3] [--json]
    python benchmarks/onnx_parity.py --preset finetune_tokyo [--set key=value …]

With RUN, windows of its test split, evenly spaced. With --preset, an untrained model of the
preset's size on windows among random boxes: whether it exports, how large the files are, and times;
--repeats 0 exports alone.
Both tracks; onnxruntime on the CPU, as many threads as torch has.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vlwm
from latency import windows_of_boxes
from vlwm.core.config.load import load_config
from vlwm.core.data.batch import Batch, collate
from vlwm.core.data.datasets import WindowDataset
from vlwm.core.data.windows import windows_of
from vlwm.core.evaluation.column_prior import evenly
from vlwm.core.evaluation.load import EvalData, open_splits_of
from vlwm.core.evaluation.model_forecasts import TrackThresholds
from vlwm.core.export.onnx.onnx_model import OnnxModel
from vlwm.core.export.onnx.writer import export_onnx
from vlwm.core.export.trained_model import Provenance, TrainedModel, open_checkpoint
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.bit_packing import unpack_bits
from vlwm.core.model.world_model import WorldModel
from vlwm.core.run_folder import RunFolder

TRACKS = ("predicted", "plan")


def main() -> None:
    given = _arguments()
    model, batches = _opened(given)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        files = export_onnx(model._trained, Path(folder))
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in files) / 1e6
        rows = {}
        if given.repeats:
            there = OnnxModel(folder, threads=torch.get_num_threads())
            rows = compared(model, there, batches, given.repeats)
    found = {
        "export_s": round(seconds, 1),
        "mb": round(size, 1),
        "threads": torch.get_num_threads(),
    }
    if given.json:
        print(json.dumps({**found, **rows}))
        return
    print(found)
    for track, row in rows.items():
        print(f"{track:10} {row}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--preset", default="finetune_tokyo")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--windows", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    return parser.parse_args()


def _opened(given: argparse.Namespace) -> tuple[vlwm.Model, Iterable[Batch]]:
    """Return the model and its windows, one a batch."""
    if given.run is not None:
        return vlwm.load(given.run, device="cpu"), _of_run(given.run, given.windows)
    config = load_config(given.preset, given.set)
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    torch.manual_seed(0)
    model = WorldModel(config, grid).eval()
    untrained = TrainedModel(model, config, TrackThresholds(), Provenance())
    return vlwm.Model(untrained), [windows_of_boxes(model, 1)]


def _of_run(path: Path, count: int) -> Iterator[Batch]:
    """Yield windows of a run's test split; without the baselines, which `open_run` fits."""
    trained = open_checkpoint(path, "cpu")
    config, run = trained.config, RunFolder(Path(trained.provenance.source).parent)
    data = EvalData("test", run.find_data(config.data_root))
    store, splits = open_splits_of(config, data, run.splits_json)
    windows = windows_of(store, splits, "test", config.window_frames)
    chosen = [windows[int(i)] for i in evenly(len(windows), count)]
    observed = config.data.observed
    dataset = WindowDataset(store, chosen, config.history_frames, observed=observed)
    for index in range(len(chosen)):
        yield collate([dataset[0, index]])


def compared(
    model: vlwm.Model, there: OnnxModel, batches: Iterable[Batch], repeats: int
) -> dict[str, dict[str, float]]:
    """Return for each track the largest difference, cells that differ, and medians of seconds."""
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in TRACKS}
    for batch in batches:
        window, flown = _window(model, batch)
        for track, plan in zip(TRACKS, (None, flown), strict=True):
            row = found[track]
            for _ in range(repeats):
                a = _timed(row["torch_s"], model, plan=plan, **window)
                b = _timed(row["onnx_s"], there, plan=plan, **window)
            row["gap"].append(float(np.abs(a.probability - b.probability).max()))
            row["cells"].append(int((a.occupied != b.occupied).sum()))
    return {
        track: {
            "windows": len(row["gap"]),
            "largest difference": max(row["gap"]),
            "thresholded cells that differ": sum(row["cells"]),
            "torch s": round(statistics.median(row["torch_s"]), 2),
            "onnx s": round(statistics.median(row["onnx_s"]), 2),
        }
        for track, row in found.items()
    }


def _timed(times: list[float], model: Any, **window: Any) -> Any:
    start = time.perf_counter()
    answer = model.forecast(**window)
    times.append(time.perf_counter() - start)
    return answer


def _window(model: vlwm.Model, batch: Batch) -> tuple[dict[str, Any], np.ndarray]:
    """Return the arguments of `forecast` for a batch of one window, and the true future poses."""
    past, poses = model.history, batch.poses[0].double().numpy()
    if not poses[:, 7:10].any():  # boxes come without velocities
        poses[:, 7:10] = np.gradient(poses[:, :3], model._trained.config.frame_dt_s, axis=0)
    shape = model.grid.shape
    given = {
        "occupancy": unpack_bits(batch.bits[0, :past], shape).numpy(),
        "poses": poses[:past],
        "ground_z": batch.ground_z[0].double().numpy()[:past],
    }
    if model._trained.config.data.observed:
        assert batch.seen_occupied is not None and batch.seen_free is not None
        given["occupancy"] = unpack_bits(batch.seen_occupied[0], shape).numpy()
        given["known"] = given["occupancy"] | unpack_bits(batch.seen_free[0], shape).numpy()
    return given, poses[past:]


if __name__ == "__main__":
    main()
