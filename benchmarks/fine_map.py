"""What a map of the world in cells could reach at most, at one, two and four times the resolution.

    python benchmarks/fine_map.py --input TILES --data DIR [--folds 1 2 4] [--windows 60]
                                  [--config tokyo_small]

The past could be fused once, in the world frame, into a map of finer cells, which every future
frame reads. No fusion makes a better map than the truth: here the map *is* the city, voxelised in
the ego frame of the last past pose in columns a fold narrower. A future cell is read as the share
of its plan that lies in marked columns and cut where that is best on these very windows, for each
score and horizon apart (any share above 0 is the OR of the sub-cells). Next to it stand the walls
as planes, fitted to the four frames of the past alone and cut at a half. Cells that a past frame
contains count; layers keep their height.
"""

from __future__ import annotations

import argparse
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlwm.core.city.city import Origin
from vlwm.core.city.read import read_city
from vlwm.core.config.load import load_config
from vlwm.core.data.generation.frame_jobs import Scene
from vlwm.core.data.generation.scenes import Scenes
from vlwm.core.data.windows import windows_of
from vlwm.core.evaluation.calibration.histogram import ProbabilityHistogram
from vlwm.core.evaluation.clusters import over_clusters
from vlwm.core.evaluation.metrics import structure_mask
from vlwm.core.geometry.frames import ego_of, from_ego, to_ego
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.plane_reading import PlaneReading
from vlwm.core.training.startup.train_data import open_data

MARGIN_M = 24.0
"""beyond the anchor's grid: what older frames saw of the future ones"""
POINTS = 8
"""of a cell's side, at which the map is read"""


class Sweep:
    """IoU and structure IoU of one reading at its best threshold, per horizon."""

    def __init__(self, horizons: int) -> None:
        self.scores = [[ProbabilityHistogram() for _ in range(horizons)] for _ in range(2)]

    def add(self, horizon: int, said: Tensor, truth: Tensor, seen: Tensor) -> None:
        above = seen & (structure_mask(truth) > 0)
        for histograms, counted in zip(self.scores, (seen, above), strict=True):
            histograms[horizon].add(said[counted], truth[counted])

    def line(self, name: str) -> str:
        best = [[h.best_threshold()[1] or 0.0 for h in score] for score in self.scores]
        return f"{name:24}" + "   ".join(" ".join(f"{v:.3f}" for v in score) for score in best)


def fine_grid(grid: VoxelGrid, fold: int) -> VoxelGrid:
    """The grid of the map: wider by `MARGIN_M`, its columns a fold narrower."""
    low, high = grid.lower_m, grid.upper_m
    wide = (*(v - MARGIN_M for v in low[:2]), low[2], *(v + MARGIN_M for v in high[:2]), high[2])
    cell = (grid.cell_m[0] / fold, grid.cell_m[1] / fold, grid.cell_m[2])
    return VoxelGrid.from_range(wide, cell)


def read_map(
    cells: NDArray[np.uint8], fine: VoxelGrid, anchor: NDArray[np.float64],
    ego: NDArray[np.float64], grid: VoxelGrid,
) -> Tensor:  # fmt: skip
    """Share of each cell's plan in marked columns, float32 (X, Y, Z), in an ego frame (4,)."""
    x, y, z = grid.shape
    off = (np.arange(POINTS) + 0.5) / POINTS
    along_x = grid.lower_m[0] + (np.arange(x)[:, None] + off).ravel() * grid.cell_m[0]
    along_y = grid.lower_m[1] + (np.arange(y)[:, None] + off).ravel() * grid.cell_m[1]
    points = np.stack(
        [*np.meshgrid(along_x, along_y, indexing="ij"), np.zeros((x * POINTS, y * POINTS))], -1
    )
    local = to_ego(from_ego(points, ego), anchor)
    index = np.floor((local[..., :2] - fine.lower_m[:2]) / fine.cell_m[:2]).astype(np.int64)
    index = np.clip(index, 0, np.array(fine.shape[:2]) - 1)
    # whole layers by which the frame is higher
    shift = int(np.floor(0.5 + (ego[2] - anchor[2]) / grid.cell_m[2]))
    layers = np.clip(np.arange(z) + shift, 0, z - 1)
    table = torch.from_numpy(np.ascontiguousarray(cells[..., layers])).flatten(0, 1)
    rows = torch.from_numpy(index[..., 0] * fine.shape[1] + index[..., 1])
    bags = rows.view(x, POINTS, y, POINTS).permute(0, 2, 1, 3).reshape(x * y, POINTS * POINTS)
    return torch.nn.functional.embedding_bag(bags, table.float(), mode="mean").view(x, y, z)


def main() -> None:
    options = _arguments()
    config = load_config(options.config, (f"data_root={str(options.data)!r}",))
    config = replace(config, load_from=None)
    data = open_data(config, lambda: None)
    city = read_city([options.input])
    scene = Scenes(city, data.grid, "surface").whole
    windows = windows_of(data.store, data.splits, options.split, config.window_frames)
    windows = over_clusters(data.store, windows, config.history_frames, options.windows)
    history, horizons = config.history_frames, config.future_frames
    names = [f"map, {fold} x the resolution" for fold in options.folds]
    sweeps = {name: Sweep(horizons) for name in (*names, "walls as planes")}
    for window in windows:
        rows = window.rows
        frames = np.stack([data.store.read_frame(int(row)) for row in rows])
        ego = ego_of(data.store.poses[rows], data.store.ground_z[rows])
        ego[:, :3] += _in_the_city(data.store.meta[int(data.store.session[rows[0]])], city.origin)
        anchor = ego[history - 1]
        assert (scene.frame(anchor) == frames[history - 1]).all(), "other tiles than the data's"
        grids = [fine_grid(data.grid, fold) for fold in options.folds]
        maps = [Scene(scene.buildings, city, grid, "surface").frame(anchor) for grid in grids]
        walls = PlaneReading(torch.from_numpy(frames[:history]), ego[:history], data.grid)
        for h in range(horizons):
            own, truth = ego[history + h], torch.from_numpy(frames[history + h])
            planes = walls.read(own)
            seen = planes.seen[0].permute(1, 2, 0)
            for name, grid, cells in zip(names, grids, maps, strict=True):
                sweeps[name].add(h, read_map(cells, grid, anchor, own, data.grid), truth, seen)
            cut = (planes.probability()[0].permute(1, 2, 0) >= 0.5).float()
            sweeps["walls as planes"].add(h, cut, truth, seen)
    print(f"{len(windows)} windows; IoU per horizon, then structure IoU, seen zone")
    for name, sweep in sweeps.items():
        print(sweep.line(name))


def _in_the_city(session: dict[str, Any], origin: Origin) -> NDArray[np.float64]:
    """Return the translation (3,) from a session's frame to the city's."""
    own = session["origin"]
    pairs = zip(("easting", "northing", "height"), astuple(origin)[1:], strict=True)
    return np.array([own[axis] - metres for axis, metres in pairs])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, required=True, help="the tiles of the data")
    parser.add_argument("--data", type=Path, required=True, help="sessions prepared from them")
    parser.add_argument("--config", default="tokyo_small")
    parser.add_argument("--split", default="test")
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 4])
    return parser.parse_args()


if __name__ == "__main__":
    main()
