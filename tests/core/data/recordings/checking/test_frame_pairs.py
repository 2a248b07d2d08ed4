"""Pairs of frames show a difference of two readings, and a wrong mount is fitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.core.data.recordings.checking.test_session_check import write
from tests.core.data.recordings.known_city import GRID, SMALL, KnownCity
from vlwm.core.data.recordings.checking.frame_pairs import SHOWN_CELLS, FramePairs, _rows
from vlwm.core.data.recordings.checking.mount_fit import Mount, fitted_mount
from vlwm.core.data.recordings.checking.readings import READINGS
from vlwm.core.data.recordings.checking.session_check import check_session
from vlwm.core.data.recordings.convert import convert
from vlwm.core.data.recordings.options import ConvertOptions
from vlwm.core.data.session import Session
from vlwm.core.geometry.frames import ego_of


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    city = KnownCity(seed=4, turn_rad_s=0.25, weave_rad=0.5)
    return write(tmp_path_factory.mktemp("pairs") / "drone_clean", city, frames=16)


@pytest.fixture(scope="module")
def frames(session: Session) -> FramePairs:
    return FramePairs(session, GRID, ego_of(session.poses, session.ground_z))


def test_pairs_are_those_in_which_a_point_moves(session: Session, frames: FramePairs) -> None:
    own = ego_of(session.poses, session.ground_z)
    assert len(frames.showing(own, own)) == 0
    assert len(frames.showing(own, Mount(yaw_deg=0.05).applied(own))) == 0
    chosen = frames.showing(own, Mount(ahead_m=2.0).applied(own))
    assert len(chosen) > 10
    # 2 m ahead moves the points of a pair by as much as the vehicle turns between its frames
    turn = np.abs(np.diff(np.unwrap(own[:, 3])[chosen], axis=1))[:, 0]
    assert 2 * 2.0 * np.sin(turn.min() / 2) > SHOWN_CELLS * GRID.cell_m[0]


def test_a_fit_does_not_depend_on_readings_before(session: Session, frames: FramePairs) -> None:
    """Half a frame later and earlier share their ego frames, shifted by one row."""
    own = ego_of(session.poses, session.ground_z)
    later, earlier = (
        READINGS[f"half a frame {name}"][0](session.poses, session.ground_z)
        for name in ("later", "earlier")
    )
    frames.fit(later, frames.pairs)
    fresh = FramePairs(session, GRID, own)
    np.testing.assert_array_equal(
        frames.fit(earlier, frames.pairs), fresh.fit(earlier, frames.pairs)
    )


def test_a_wrong_mount_is_fitted(session: Session, frames: FramePairs) -> None:
    own = ego_of(session.poses, session.ground_z)
    wrong = Mount(yaw_deg=-5.0, ahead_m=0.9, left_m=-0.4)
    inverse, _ = fitted_mount(frames, wrong.applied(own))
    found = inverse.applied(wrong.applied(own))
    away = np.linalg.norm((found - own)[:, :2], axis=1)
    assert away.max() < 0.4 and abs(inverse.yaw_deg - 5.0) < 1.0
    assert "in yaw by +5 degrees" in inverse.words
    clean, held_out = fitted_mount(frames, own)
    assert clean == Mount() and len(held_out) > 10


def test_of_a_long_session_the_stretches_that_turn_are_read() -> None:
    ego = np.zeros((1000, 4))
    ego[:, 0] = np.arange(1000)
    ego[500:, 3] = np.linspace(0, 3, 500)
    rows = _rows(ego)
    assert len(rows) == 128 and rows.min() > 440
    assert len(_rows(ego[:100])) == 100


@pytest.mark.ci
def test_a_delay_of_the_lidar_is_found_in_accumulated_frames(tmp_path: Path) -> None:
    """The fault is in the recording: its scans are placed by poses a quarter of a second late."""
    pattern = replace(SMALL, azimuths=240)
    city = KnownCity(seed=4, turn_rad_s=0.25, weave_rad=0.5, seconds=12.0, pattern=pattern)
    for name, delay in (("clean", 0.0), ("late", 0.25)):
        recording = replace(city.recording, name=name)
        report = convert(recording, tmp_path, GRID, ConvertOptions(lidar_delay_s=delay))
        faults = check_session(Session(tmp_path / report.session), GRID).faults
        assert len(faults) == (delay > 0), faults
        assert all("earlier than the poses by half a frame" in fault for fault in faults)
