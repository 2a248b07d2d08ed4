"""From a recording to a session: rates, resuming, moving points, terrain, counts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.core.data.recordings.known_city import GRID
from tests.core.data.recordings.sessions import CITY, OPTIONS, session_of
from vlwm.core.data.recordings import scan_window, session_files
from vlwm.core.data.recordings.convert import convert
from vlwm.core.data.recordings.movers import later_scans, moving_points
from vlwm.core.data.recordings.options import ConvertOptions
from vlwm.core.data.recordings.placing import PlacedScan
from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.data.recordings.recording import Image, Recording, Scan
from vlwm.core.data.session import Session
from vlwm.core.errors import VlwmError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Session]:
    output = tmp_path_factory.mktemp("made")
    return output, session_of(CITY.recording, output)[0]


def test_frames_are_half_a_second_apart_over_true_terrain(made: tuple[Path, Session]) -> None:
    _, session = made
    np.testing.assert_allclose(np.diff(session.timestamps), 0.5)
    places, _ = CITY.poses(session.timestamps)
    height = places[:, 2] - CITY.ground(places[:, :2])
    np.testing.assert_allclose(session.poses[:, 2] - session.ground_z, height, atol=0.3)
    assert session.ground_z[0] == 0.0
    layers = session.read_layers(int(session.numbers[1]))
    assert {"occupancy", "known", "seen_occupied", "seen_free"} <= set(layers)
    assert not (layers["occupancy"] & (1 - layers["known"])).any()


@pytest.mark.parametrize("noted", [False, True])
def test_a_killed_conversion_resumes_to_the_same_bytes(
    made: tuple[Path, Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted: bool
) -> None:
    """Without its note of the progress a start reads all again; with it, only what is left."""
    output, session = made
    stopped = 3
    monkeypatch.setattr(session_files, "_SAVE_S", 0.0 if noted else 1e9)

    def stop(name: str, done: int, total: int) -> None:
        if done > stopped:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(CITY.recording, tmp_path, GRID, OPTIONS, stop)
    first = sorted((tmp_path / session.path.name / "occupancy").iterdir())
    stamps = [f.stat().st_mtime_ns for f in first]
    placed: list[float] = []
    place_scan = scan_window.place_scan

    def counted(scan: Scan, *rest: Any, **more: Any) -> Any:
        placed.append(scan.time_s)
        return place_scan(scan, *rest, **more)

    monkeypatch.setattr(scan_window, "place_scan", counted)
    convert(CITY.recording, tmp_path, GRID, OPTIONS)
    # frames are half a second apart, the window is half a second: the first scan is not needed
    assert (placed[0] > CITY.start_s + 0.1) == noted
    assert [f.stat().st_mtime_ns for f in first] == stamps  # kept, not made a second time
    for file in sorted(p for p in session.path.rglob("*") if p.is_file()):
        assert (tmp_path / file.relative_to(output)).read_bytes() == file.read_bytes(), file


def test_other_options_make_the_frames_again(made: tuple[Path, Session], tmp_path: Path) -> None:
    convert(CITY.recording, tmp_path, GRID, OPTIONS)
    report = convert(CITY.recording, tmp_path, GRID, replace(OPTIONS, rate_hz=1.0))
    session = Session(tmp_path / report.session)
    assert session.meta.dt_s == 1.0 and len(list((session.path / "poses").iterdir())) == 3


def test_an_impossible_speed_is_clamped_and_counted(tmp_path: Path) -> None:
    track = CITY.track
    fast = replace(track, positions=track.positions * 6.0)
    _, report = session_of(replace(CITY.recording, poses=fast), tmp_path)
    assert report.clamped_velocities > 0
    written = json.loads((tmp_path / report.session / "recording.json").read_text())
    assert written["report"]["clamped_velocities"] == report.clamped_velocities


def test_a_recording_without_scans_or_points_is_one_sentence(tmp_path: Path) -> None:
    empty = Recording("x", "drone", lambda: iter(()), CITY.track, {"LIDAR": np.eye(4)})
    with pytest.raises(VlwmError, match="the recording holds no scan that could be read"):
        convert(empty, tmp_path, GRID, OPTIONS)
    blind = [Scan(float(t), np.empty((0, 3), np.float32)) for t in CITY.scan_times]
    with pytest.raises(VlwmError, match="the scans of the recording are empty"):
        convert(replace(empty, scans=lambda: iter(blind)), tmp_path, GRID, OPTIONS)


@pytest.mark.parametrize(("scale", "east", "away"), [(1000.0, 0.0, ""), (1.0, 4e5, "400")])
def test_points_of_a_map_or_in_millimetres_are_one_sentence(
    tmp_path: Path, scale: float, east: float, away: str
) -> None:
    """Fault: the clocks of scans and poses were blamed, which agree."""
    scans = [replace(s, points=s.points * np.float32(scale) + [east, 0, 0]) for s in CITY.scans]
    far = replace(CITY.recording, scans=lambda: iter(scans), notes=[])
    words = rf"no return is between 0\.8 and 120 m from its sensor; they are {away}\S+ m away"
    with pytest.raises(VlwmError, match=words):
        convert(far, tmp_path, GRID, OPTIONS)
    some = replace(far, name="some", scans=lambda: iter([*CITY.scans[:9], *scans[9:]]))
    notes = convert(some, tmp_path, GRID, OPTIONS).notes
    assert "3 of 12 scans have no return between 0.8 and 120 m from the sensor" in notes


def _wall(time_s: float, box_x: float | None) -> PlacedScan:
    """A wall at 20 m, and a box of two metres 10 m in front of it unless None."""
    y, z = (a.ravel() for a in np.meshgrid(np.arange(-10, 10, 0.2), np.arange(-3, 3, 0.2)))
    rays = np.stack([np.full_like(y, 20.0), y, z], axis=-1)
    points = rays.copy()
    if box_x is not None:
        at = rays[:, 1:] / 2
        hit = (np.abs(at[:, 0] - box_x) < 1) & (np.abs(at[:, 1]) < 1)
        points[hit] = rays[hit] / 2
    return PlacedScan(time_s, points, np.zeros((1, 3)), np.arange(len(points)))


def test_a_box_that_drove_away_is_found_and_the_wall_stays() -> None:
    scans = [_wall(0.2 * k, -3.0 + 0.8 * k) for k in range(9)]
    moving = moving_points(scans[0], later_scans(scans, 0))
    box = scans[0].points[:, 0] < 19.0
    assert moving[box].mean() > 0.6 and moving[~box].mean() < 0.005
    standing = [_wall(0.2 * k, -3.0) for k in range(9)]
    assert not moving_points(standing[0], later_scans(standing, 0)).any()


def test_what_moves_is_left_out_and_counted_or_called_smeared(tmp_path: Path) -> None:
    slow = replace(CITY.recording, name="slow", scans=lambda: iter(CITY.scans[::10]))
    cases = {
        "": (CITY.recording, OPTIONS),
        "moving points are kept": (CITY.recording, replace(OPTIONS, remove_moving=False)),
        "no scan has another 0.2 to 1.6 s after it": (slow, OPTIONS),
    }
    for k, (words, (recording, options)) in enumerate(cases.items()):
        notes = convert(replace(recording, notes=[]), tmp_path / f"{k}", GRID, options).notes
        smeared = [n for n in notes if "what moves is smeared" in n]
        assert len(smeared) == bool(words) and all(words in n for n in smeared)


def test_pictures_lie_next_to_their_frames_or_are_missed_by_name(tmp_path: Path) -> None:
    times = CITY.track.times_s[0] + np.array([0.0, 0.5, 1.02])  # frames begin at the first pose
    pictures = []
    for k, now in enumerate(times):
        file = tmp_path / f"{k}.png"
        cv2.imwrite(str(file), np.full((4, 6, 3), 80 * k, np.uint8))
        pictures.append(Image(float(now), file))
    pictures[1].path.write_bytes(b"\x89PNG")
    seen = replace(CITY.recording, images=pictures, notes=[], damaged=[])
    report = convert(seen, tmp_path / "out", GRID, replace(OPTIONS, camera=True))
    folder = tmp_path / "out" / report.session / "images"
    assert sorted(p.name for p in folder.iterdir()) == [
        "000000_CAM_FRONT.jpg", "000002_CAM_FRONT.jpg"
    ]  # fmt: skip
    pixels = cv2.imread(str(folder / "000002_CAM_FRONT.jpg"))
    assert pixels.shape == (4, 6, 3) and abs(int(pixels.mean()) - 160) < 4
    assert report.damaged == [(str(pictures[1].path), "not a readable picture")]
    assert f"{report.frames - 3} of {report.frames} frames have no picture" in " ".join(
        report.notes
    )
    blind = replace(CITY.recording, name="blind", notes=[])
    notes = convert(blind, tmp_path / "out", GRID, replace(OPTIONS, camera=True)).notes
    assert "--camera has no effect: the recording has no pictures" in notes


def test_a_session_of_another_recording_is_not_overwritten(made: tuple[Path, Session]) -> None:
    output, _ = made
    with pytest.raises(VlwmError, match="this session is already made from"):
        convert(replace(CITY.recording, source="elsewhere"), output, GRID, OPTIONS)


def test_terrain_of_a_room_and_of_a_vehicle_that_sees_none(tmp_path: Path) -> None:
    """A floor of a few metres is level; without one, z counts from the vehicle, which is noted."""
    rng = np.random.default_rng(3)
    times = np.array([0.0, 0.5, 1.0])
    track = PoseTrack.of(times, [[7.0, -3.0, 600.0]] * 3, [[0.0, 0.0, 0.0, 1.0]] * 3)
    for name, height, level in (("floor", -1.2, 598.8), ("ceiling", 2.0, 600.0)):
        points = np.column_stack([rng.uniform(-2, 2, (500, 2)), np.full(500, height)])
        scans = [Scan(t, points.astype(np.float32)) for t in times]
        recording = Recording(name, "drone", lambda s=scans: iter(s), track, {"LIDAR": np.eye(4)})
        report = convert(recording, tmp_path, GRID, ConvertOptions())
        session = Session(tmp_path / report.session)
        above = session.poses[:, 2] - session.ground_z
        np.testing.assert_allclose(above, 600.0 - level, atol=1e-3)
        assert session.read_layers(0)["occupancy"].any()
        said = any("no return below the vehicle in the first 3 frames" in n for n in report.notes)
        assert said == (name == "ceiling")
