"""The public forecast: places, swept volumes, windows of a batch."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from vlwm.core.errors import UsageError
from vlwm.core.export.forecast import Forecast
from vlwm.core.geometry.grid import VoxelGrid

GRID = VoxelGrid((-8.0, -8.0, -2.0), (1.0, 1.0, 2.0), (16, 16, 8))


def wall(windows: int | None = None) -> Forecast:
    """A wall 5 m ahead of a vehicle at (100, 50) that looks north, in every future frame."""
    lead = (6,) if windows is None else (windows, 6)
    probability = np.zeros((*lead, *GRID.shape), np.float32)
    probability[..., 13, :, :] = 0.9
    ego = np.broadcast_to([100.0, 50.0, 7.0, np.pi / 2], (*lead, 4))
    return Forecast(
        probability, probability > 0.5, np.zeros((*lead, 13)), ego, np.ones((*lead, 4)),
        np.arange(1, 7) / 2, GRID,
    )  # fmt: skip


def test_a_point_is_looked_up_in_the_frame_of_the_forecast() -> None:
    seen = wall().at([[100.0, 55.5, 9.0], [100.0, 50.0, 9.0], [100.0, 80.0, 9.0]], 2)
    np.testing.assert_allclose(seen, [0.9, 0.0, np.nan], atol=1e-6)


def test_a_path_meets_the_wall_it_passes_between_two_frames() -> None:
    path = np.tile([100.0, 50.0, 9.0], (6, 1))
    path[3:, 1] = 57.0  # behind the wall, which no position touches
    np.testing.assert_allclose(wall().along(path, 0.4), [0, 0, 0, 0.9, 0, 0], atol=1e-6)


def test_a_wide_vehicle_meets_what_a_point_passes() -> None:
    path = np.tile([100.0, 54.0, 9.0], (6, 1))
    assert wall().along(path, 0.5).max() == 0.0
    np.testing.assert_allclose(wall().along(path, 1.1).max(), 0.9, atol=1e-6)


def test_outside_of_the_grid_is_unknown() -> None:
    path = np.tile([100.0, 50.0, 9.0], (6, 1))
    path[5, 0] += 40.0
    assert np.isnan(wall().along(path, 0.4)).tolist() == [False] * 5 + [True]


def test_a_batch_gives_its_windows() -> None:
    batch = wall(3)
    assert (len(batch), len(batch[1]), batch[1].ego.shape) == (3, 1, (6, 4))
    assert "'probability': (3, 6, 16, 16, 8)" in repr(batch)


def test_mistakes_name_the_fix() -> None:
    with pytest.raises(UsageError, match="this forecast is of a batch"):
        wall(2).at([0, 0, 0], 0)
    with pytest.raises(UsageError, match="this forecast is of one window"):
        wall()[0]
    with pytest.raises(UsageError, match="with a radius of 0 m"):
        wall().along(np.zeros((6, 3)), 0.0)
    with pytest.raises(FrozenInstanceError):
        wall().grid = GRID
