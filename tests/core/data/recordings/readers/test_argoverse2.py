"""Argoverse 2: a known city comes back, the real log agrees with its own ground and flow labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.core.data.recordings.known_city import MOUNT
from tests.core.data.recordings.sessions import (
    CITY,
    STILL,
    assert_same_motion,
    session_of,
    share_of_equal_cells,
)
from vlwm.core.data.recordings.movers import moving_points
from vlwm.core.data.recordings.placing import place_scan
from vlwm.core.data.recordings.readers.argoverse2 import read_argoverse2
from vlwm.core.data.recordings.recording import Recording, Scan
from vlwm.core.errors import VlwmError

feather = pytest.importorskip("pyarrow.feather", reason="needs the extra vlwm[argoverse2]")


def table(path: Path, **columns: object) -> None:
    import pyarrow

    path.parent.mkdir(parents=True, exist_ok=True)
    feather.write_feather(pyarrow.table(columns), str(path))


def write(root: Path, recording: Recording, name: str = "log") -> Path:
    """Points in the body frame; the upper lidar is where the known city's lidar is."""
    log = root / name
    track = recording.poses
    names = dict(zip(("tx_m", "ty_m", "tz_m"), track.positions.T, strict=True))
    names |= dict(zip(("qx", "qy", "qz", "qw"), track.quaternions.T, strict=True))
    stamps = np.round(track.times_s * 1e9).astype(np.int64)
    table(log / "city_SE3_egovehicle.feather", timestamp_ns=stamps, **names)
    place = np.stack([MOUNT[:3, 3], [0.0, 0.0, 0.0]]).T
    sensors = dict(zip(("tx_m", "ty_m", "tz_m"), place, strict=True))
    file = log / "calibration/egovehicle_SE3_sensor.feather"
    table(file, sensor_name=["up_lidar", "down_lidar"], **sensors)
    for scan in recording.scans():
        body = (scan.points @ MOUNT[:3, :3].T + MOUNT[:3, 3]).astype(np.float16)
        axes = dict(zip("xyz", body.T, strict=True))
        name = f"sensors/lidar/{round(scan.time_s * 1e9)}.feather"
        beams = np.zeros(len(body), np.uint8)
        shine = scan.intensity.astype(np.uint8)
        table(log / name, laser_number=beams, intensity=shine, **axes)
    return root


def test_a_known_city_comes_back(tmp_path: Path) -> None:
    (found,) = read_argoverse2(write(tmp_path / "in", STILL.recording))
    one, _ = session_of(found, tmp_path / "one")
    other, _ = session_of(replace(STILL.recording, agent="rover"), tmp_path / "other")
    assert share_of_equal_cells(one, other) > 0.99  # float16

    def rounded() -> Iterator[Scan]:
        for scan in STILL.recording.scans():
            body = (scan.points @ MOUNT[:3, :3].T + MOUNT[:3, 3]).astype(np.float16)
            origins = np.tile(MOUNT[:3, 3].astype(np.float32), (len(body), 1))
            yield replace(scan, points=body.astype(np.float32), origins=origins)

    plain = replace(STILL.recording, agent="rover", scans=rounded, extrinsics={"LIDAR": np.eye(4)})
    same, _ = session_of(plain, tmp_path / "same")
    assert share_of_equal_cells(one, same) == 1.0  # the float16 points as a plain recording
    assert_same_motion(one, other)


def test_the_real_log_stands_on_its_ground_and_shows_what_moves(shared_data: Path) -> None:
    import json

    from vlwm.core.data.recordings.ground import ground_under

    (recording,) = read_argoverse2(shared_data / "argoverse2")
    scans = [place_scan(s, recording.poses, recording.extrinsics) for s in recording.scans()]
    assert scans[0] is not None and len(scans[0].points) == 99229
    first, second = scans
    assert first is not None and second is not None
    place = recording.poses.at([first.time_s])[0][0]
    (folder,) = (shared_data / "argoverse2").rglob("map")
    raster = np.load(next(folder.glob("*ground_height*.npy")))
    sim = json.loads(next(folder.glob("*Sim2_city.json")).read_text())
    turn, move = np.array(sim["R"]).reshape(2, 2), np.array(sim["t"])
    column, row = np.floor((turn @ place[:2] + move) * sim["s"]).astype(int)
    assert ground_under([first, second], place) == pytest.approx(
        float(raster[row, column]), abs=0.2
    )
    # Two sweeps 0.1 s apart: what they prove to move is mostly labelled as moving.
    flow = feather.read_table(next((shared_data / "argoverse2").rglob("flow_labels.feather")))
    dynamic = flow.column("dynamic").to_numpy(zero_copy_only=False)[first.kept]
    moving = moving_points(first, [second], votes=1)
    share = dynamic.mean()
    assert moving.any() and dynamic[moving].mean() > 3 * share
    assert moving[~dynamic].mean() < 0.02


def test_faults_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    with pytest.raises(VlwmError, match="no Argoverse 2 log here"):
        read_argoverse2(tmp_path)
    root = write(tmp_path / "in", STILL.recording)
    sweep = sorted((root / "log/sensors/lidar").iterdir())[1]
    sweep.write_bytes(sweep.read_bytes()[:500])
    (recording,) = read_argoverse2(root)
    assert len(list(recording.scans())) == len(CITY.scan_times) - 1 and len(recording.damaged) == 1
    table(root / "log/calibration/egovehicle_SE3_sensor.feather", sensor_name=["up_lidar"])
    with pytest.raises(VlwmError, match="a table of the log lacks"):
        read_argoverse2(root)
    (root / "log/city_SE3_egovehicle.feather").write_bytes(b"x")
    with pytest.raises(VlwmError, match="a damaged feather file"):
        read_argoverse2(root)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(VlwmError, match="reading Argoverse 2 needs pyarrow"):
        read_argoverse2(root)
