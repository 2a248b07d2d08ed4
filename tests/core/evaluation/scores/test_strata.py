"""Strata depend on the past alone and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from vlwm.core.evaluation.scores.strata import (
    past_acceleration_m_s2,
    past_yaw_rate_deg_s,
    strata_of,
)


def test_yaw_rate_takes_the_short_way_round():
    ego = np.zeros((4, 4))
    ego[-2:, 3] = np.radians([179.0, -178.0])
    assert past_yaw_rate_deg_s(ego, 0.5) == pytest.approx(6.0)


def test_acceleration_is_the_second_difference():
    times = 0.5 * np.arange(4)
    ego = np.zeros((4, 4))
    ego[:, 0] = 3.0 * times + 0.5 * 2.0 * times**2
    ego[:, 2] = 9.0 * times**2  # terrain is no acceleration
    assert past_acceleration_m_s2(ego, 0.5) == pytest.approx(2.0)
    assert past_acceleration_m_s2(ego[:2], 0.5) is None


def test_bins_hold_their_lower_end():
    ego = np.zeros((4, 4))
    ego[-1, 3] = np.radians(2.51)
    ego[-1, 0] = 0.125  # 0.5 m/s² over two steps of 0.5 s, exact in binary
    assert dict(strata_of(ego, 0.5))["yaw_rate_deg_s"] == "5 to 15"
    assert dict(strata_of(ego, 0.5))["acceleration_m_s2"] == "0.5 to 1.5"
    assert [name for name, _ in strata_of(ego[:2], 0.5)] == ["yaw_rate_deg_s"]
