"""PX4 logs as a source of poses: real flights, resets, and logs that never had a position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.core.data.recordings.sessions import session_of
from vlwm.core.data.recordings.formats.pose_files import read_poses
from vlwm.core.data.recordings.readers.folder import FolderSource, read_folder
from vlwm.core.errors import VlwmError
from vlwm.core.geometry.frames import rotate

pytest.importorskip("pyulog", reason="PX4 logs need the extra vlwm[px4]")


def test_a_real_takeoff_climbs_and_is_dated(shared_data: Path) -> None:
    found = read_poses(shared_data / "px4_ulog/sitl_takeoff.ulg")
    track = found.track
    assert found.axes == "ned" and len(track) == 215 and int(track.breaks.sum()) == 1
    assert track.positions[:, 2].min() == pytest.approx(-2.16, abs=0.01)  # down: 2 m up
    assert 1.7e9 < track.times_s[0] < 1.8e9 and np.diff(track.times_s).mean() == pytest.approx(0.1)
    assert any("1 resets of the estimator" in note for note in found.notes)
    _, _, valid = track.at(track.times_s[track.breaks] - 0.05)
    assert not valid.any()  # nothing is interpolated across a reset


def test_a_real_log_and_a_folder_of_points_make_a_session(
    shared_data: Path, tmp_path: Path
) -> None:
    """The log's clock is UTC, its axes are turned without being asked: up is up, once."""
    log = shared_data / "px4_ulog/sitl_takeoff.ulg"
    times = read_poses(log).track.times_s[20:60:2]
    y, x = (v.ravel() for v in np.mgrid[-6:6:0.3, -6:6:0.3])
    ground = np.stack([x, y, np.full(len(x), 2.0)], -1)  # below: the body is forward-right-down
    (tmp_path / "points").mkdir()
    for now in times:
        np.save(tmp_path / f"points/{round(now * 1e6)}.npy", ground)
    recording = read_folder(FolderSource(tmp_path / "points", log))
    session, report = session_of(recording, tmp_path / "out")
    assert report.frames >= 4 and not any("upside down" in n for n in report.notes)
    assert any("UTC by the satellite receiver" in n for n in report.notes)
    above = session.poses[:, 2] - session.ground_z
    np.testing.assert_allclose(above, 2.0, atol=0.3)
    assert rotate(session.poses[:, 3:7], [0.0, 0.0, 1.0])[:, 2].min() > 0.9


FAULTS = [
    ("cubeorange_no_gps.ulg", "no position in the log is valid: the vehicle never had a fix"),
    ("missing.ulg", "no such file"),
    ("damaged.ulg", "a damaged PX4 log"),
    ("cut.ulg", "the log has no vehicle_local_position, only"),
]


@pytest.mark.parametrize(("name", "words"), FAULTS, ids=[n for n, _ in FAULTS])
def test_a_log_without_poses_is_one_sentence(
    shared_data: Path, tmp_path: Path, name: str, words: str
) -> None:
    logs = shared_data / "px4_ulog"
    whole = (logs / "v6c_flight_gps.ulg").read_bytes()
    (tmp_path / "damaged.ulg").write_bytes(b"ULog" + whole[9:400])
    (tmp_path / "cut.ulg").write_bytes(whole[:20000])
    path = logs / name if (logs / name).exists() else tmp_path / name
    with pytest.raises(VlwmError) as caught:
        read_poses(path)
    assert words in str(caught.value) and "\n" not in str(caught.value)
