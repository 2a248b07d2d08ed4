"""Candidate manoeuvres: thirty-three, from the last pose, swept with body and margin."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.evaluation.observed_windows import GRID
from vlwm.core.evaluation.observed.manoeuvres import (
    BODY_M,
    DURATION_S,
    MARGIN_M,
    Manoeuvre,
    candidates,
    paths_ahead,
    swept_cells,
)


def pose(z: float, speed: float = 2.0) -> np.ndarray:
    found = np.zeros(13)
    found[2], found[6], found[7] = z, 1.0, speed
    return found


def test_there_are_33_and_a_vehicle_on_the_ground_does_not_climb() -> None:
    assert len(candidates()) == 33 and len(set(candidates())) == 33
    paths = paths_ahead(pose(0.5), 0.0)
    assert paths.shape == (33, 30, 3)
    assert (paths[..., 2] == paths[0, 0, 2]).all()
    assert np.ptp(paths_ahead(pose(9.0), 0.0)[..., 2]) > 5.0


def test_a_path_is_an_arc_and_braking_ends_it() -> None:
    times = np.linspace(0.1, DURATION_S, 30)
    start = np.array([1.0, 2.0, 3.0, 0.5, 4.0])
    arc = Manoeuvre(0.4, 1.0, 0.0).path(start, times)
    yaw = 0.5 + 0.4 * times
    exact = 1.0 + 10.0 * (np.sin(yaw) - np.sin(0.5)), 2.0 - 10.0 * (np.cos(yaw) - np.cos(0.5))
    np.testing.assert_allclose(arc[:, 0], exact[0], atol=1e-3)
    np.testing.assert_allclose(arc[:, 1], exact[1], atol=1e-3)
    np.testing.assert_allclose(arc[:, 2], 3.0 + times)
    stop = Manoeuvre(0.0, 0.0, 3.0).path(start, times)
    assert np.linalg.norm(stop[-1, :2] - start[:2]) == pytest.approx(16.0 / 6.0, abs=0.01)


def test_swept_cells_are_those_that_the_box_meets() -> None:
    path = np.array([[[0.3, 0.3, 0.3]]])
    swept = swept_cells(path, np.zeros(4), GRID).numpy()
    half = BODY_M + MARGIN_M
    low, high = (GRID.index_of(np.full(3, 0.3 + s * half)) for s in (-1, 1))
    wanted = np.zeros(GRID.shape, bool)
    wanted[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))] = True
    np.testing.assert_array_equal(swept > 0, wanted)


def test_cells_count_the_manoeuvres_that_sweep_them() -> None:
    swept = swept_cells(paths_ahead(pose(3.0), 0.0), np.zeros(4), GRID)
    assert swept.max() == 33  # all begin at the pose
    assert swept[:4].sum() == 0  # none goes backwards
