"""Pairs of plans on drawn walls, and what a model that has learnt nothing meets along them."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_world import batch_of, model_of, small
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.bit_packing import pack_bits

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from plan_pairs import Pair, in_the_way, pair_in, pair_of, straight

GRID = VoxelGrid.from_range([-16, -16, -2, 16, 16, 14], [0.5, 0.5, 2.0])
HORIZONS_S = 0.5 * np.arange(1, 7)
HEIGHT_M = 5.0  # layer 3


def city(wall_deg: float | None, away_m: float = 8.0, width_m: float = 6.0) -> np.ndarray:
    """A ground plane with one wall across the heading `wall_deg`, up to 10 m."""
    cells = np.zeros(GRID.shape, np.uint8)
    cells[..., 1] = 1
    if wall_deg is not None:
        x, y = np.meshgrid(*GRID.axis_centers()[:2], indexing="ij")
        cos, sin = np.cos(np.radians(wall_deg)), np.sin(np.radians(wall_deg))
        ahead, left = cos * x + sin * y, cos * y - sin * x
        cells[(np.abs(ahead - away_m) < 0.4) & (np.abs(left) < width_m / 2), 1:6] = 1
    return cells


def heading(way: np.ndarray) -> float:
    return float(np.degrees(way[0, 3]))


@pytest.mark.parametrize("wall_deg", [0, 40, -90, 170])
def test_a_pair_goes_into_the_wall_and_past_it(wall_deg: float) -> None:
    pair = pair_of(city(wall_deg), HEIGHT_M, 5.0, HORIZONS_S, GRID)
    assert pair is not None
    off = [abs((heading(way) - wall_deg + 180) % 360 - 180) for way in (pair.into, pair.beside)]
    assert off[0] <= np.degrees(np.arctan2(3.0, 8.0)) + 1 < off[1] <= 90


def test_without_a_wall_or_without_a_way_out_there_is_no_pair() -> None:
    assert pair_of(city(None), HEIGHT_M, 5.0, HORIZONS_S, GRID) is None
    closed = city(0)
    closed[:10, :, 1:6] = closed[-10:, :, 1:6] = closed[:, :10, 1:6] = closed[:, -10:, 1:6] = 1
    assert pair_of(closed, HEIGHT_M, 5.0, HORIZONS_S, GRID) is None
    assert pair_of(city(0), 11.0, 5.0, HORIZONS_S, GRID) is None  # over the wall
    assert pair_of(city(0), -1.5, 5.0, HORIZONS_S, GRID) is None  # in the ground


def warped(cells: np.ndarray, plan: np.ndarray) -> torch.Tensor:
    """Each frame of a still city as it stands in the planned ego frames, cell by cell."""
    x, y = np.meshgrid(*GRID.axis_centers()[:2], indexing="ij")
    frames = []
    for ego in plan:
        cos, sin = np.cos(ego[3]), np.sin(ego[3])
        at = (ego[0] + cos * x - sin * y, ego[1] + sin * x + cos * y)
        rows, columns = (np.floor((v + 16) / 0.5).astype(int) for v in at)
        inside = (rows >= 0) & (rows < 64) & (columns >= 0) & (columns < 64)
        seen = cells[rows.clip(0, 63), columns.clip(0, 63)] * inside[..., None]
        frames.append(torch.from_numpy(seen).float())
    return torch.stack(frames)


@pytest.mark.parametrize("wall_deg", [0, 40, -90, 170])
@pytest.mark.parametrize("away_m", [3.0, 6.7, 12.0])
def test_the_true_future_meets_the_wall_on_one_way_alone(wall_deg: float, away_m: float) -> None:
    cells = city(wall_deg, away_m)
    pair = pair_of(cells, HEIGHT_M, 5.0, HORIZONS_S, GRID)
    assert isinstance(pair, Pair)
    into, beside = (
        in_the_way(warped(cells, way), way, HEIGHT_M, GRID) for way in (pair.into, pair.beside)
    )
    assert (into, beside) == (1.0, 0.0)


def test_what_is_outside_the_grid_is_not_met() -> None:
    way = straight(0.3, 5.0, HORIZONS_S)
    assert in_the_way(torch.zeros(6, *GRID.shape), way, HEIGHT_M, GRID) == 0.0
    with pytest.raises(ValueError, match="outside"):
        in_the_way(torch.zeros(6, *GRID.shape), way, 99.0, GRID)


def test_the_pair_of_a_window_is_that_of_its_last_past_frame() -> None:
    config = small("point_cloud_range=[-16,-16,-2,16,16,14]")
    model, batch = model_of(config), batch_of(config, size=1)
    cells = torch.from_numpy(city(40.0))[::2, ::2].contiguous()
    bits, poses = batch.bits.clone(), batch.poses.clone()
    bits[0, 3], bits[0, 4:] = pack_bits(cells), 255  # the future is not looked at
    poses[0, 3, 2], poses[0, 3, 7:9] = HEIGHT_M, torch.tensor([3.0, 4.0])
    batch = dataclasses.replace(batch, bits=bits, poses=poses)
    expected = pair_of(cells.numpy(), HEIGHT_M, 5.0, HORIZONS_S, model.grid)
    found = pair_in(batch, model, HORIZONS_S, 4)
    assert expected is not None and found is not None
    np.testing.assert_array_equal(found.into, expected.into)
    np.testing.assert_array_equal(found.beside, expected.beside)
