"""Interpolation, spikes, jumps, and velocities that know no future."""

from __future__ import annotations

import numpy as np
import pytest

from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.errors import VlwmError
from vlwm.core.geometry.frames import quaternion_from_heading

TIMES = np.arange(0.0, 4.0, 0.1)


def track(places: np.ndarray, turn: float = 0.0) -> PoseTrack:
    return PoseTrack.of(TIMES, places, quaternion_from_heading(turn * TIMES))


def line(speed: float = 5.0) -> np.ndarray:
    return np.stack([speed * TIMES, 0 * TIMES, 0 * TIMES], axis=-1)


def test_a_constant_twist_is_interpolated_exactly() -> None:
    places, turns, valid = track(line(), 0.8).at([1.23, 3.99])
    np.testing.assert_allclose(places[:, 0], [6.15, 19.95])
    np.testing.assert_allclose(turns, quaternion_from_heading(0.8 * np.array([1.23, 3.99])))
    assert valid.all() and not track(line()).at([-0.2, 4.2])[2].any()


def test_spikes_are_removed_and_jumps_become_breaks() -> None:
    places = line()
    places[10:12] += 300.0
    places[25:] += 400.0
    clean, spikes, jumps = track(places).cleaned(20.0)
    assert (spikes, jumps) == (2, 1) and len(clean) == len(TIMES) - 2
    assert not clean.at([2.45])[2].any() and clean.at([1.05])[2].all()


def test_velocities_follow_an_acceleration_without_lag_and_know_no_future() -> None:
    places = np.stack([1.5 * TIMES**2, 0 * TIMES, 0 * TIMES], axis=-1)
    linear, angular = track(places, 0.4).velocities(np.array([2.0]))
    assert linear[0, 0] == pytest.approx(6.0) and angular[0, 2] == pytest.approx(0.4)
    other = places.copy()
    other[TIMES > 2.01] = 99.0
    poisoned, _ = track(other, 0.4).velocities(np.array([2.0]))
    np.testing.assert_array_equal(poisoned, linear)


def test_a_reset_ends_what_a_velocity_is_fitted_to() -> None:
    places = line()
    places[20:] += 3.0
    breaks = np.zeros(len(TIMES), bool)
    breaks[20] = True
    broken = PoseTrack.of(TIMES, places, np.tile([0, 0, 0, 1.0], (len(TIMES), 1)), breaks)
    linear, _ = broken.velocities(np.array([2.1, 3.0]))
    np.testing.assert_allclose(linear[:, 0], 5.0)


def test_no_pose_is_one_sentence() -> None:
    with pytest.raises(VlwmError, match="are not poses"):
        PoseTrack.of([], np.zeros((0, 3)), np.zeros((0, 4)))
    with pytest.raises(VlwmError, match="are not poses"):
        PoseTrack.of([0.0, 1.0], np.zeros((2, 3)), np.zeros((0, 4)))
