"""Scans show a wrong mount or delay before they are added up; clean ones are silent."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.core.data.recordings.formats import write_folder
from tests.core.data.recordings.known_city import MOUNT
from vlwm.core.data.recordings.checking.session_check import check_session
from vlwm.core.data.recordings.formats.extrinsic import inverse
from vlwm.core.data.recordings.mount import Mount
from vlwm.core.data.recordings.pose_track import PoseTrack, matrix_of
from vlwm.core.data.recordings.recording import Recording, Scan
from vlwm.core.data.recordings.scan_fit import ScanFit, chosen_pairs
from vlwm.core.data.session import Session
from vlwm.core.errors import DataError
from vlwm.core.geometry.frames import quaternion_from_rpy
from vlwm.core.geometry.grid import VoxelGrid

GRID = VoxelGrid.from_range((-24.0, -24.0, -2.0, 24.0, 24.0, 28.0), (1.6, 1.6, 5.0))


def walls(seed: int = 3) -> np.ndarray:
    """Points (N, 3) on the ground and on upright walls, anywhere."""
    rng = np.random.default_rng(seed)
    parts = [np.append(rng.uniform(-70, 70, (8000, 2)), np.zeros((8000, 1)), axis=1)]
    for _ in range(70):
        along, height = rng.uniform(-8, 8, 400), rng.uniform(0, 12, 400)
        angle, middle = rng.uniform(0, np.pi), rng.uniform(-70, 70, 2)
        plan = middle + along[:, None] * [np.cos(angle), np.sin(angle)]
        parts.append(np.append(plan, height[:, None], axis=1))
    return np.concatenate(parts)


def flight(turn: float = 0.25, weave: float = 0.5, speed: float = 5.0, seed: int = 3) -> Recording:
    """Sixteen seconds of a drone that turns, weaves, sways and tilts among walls."""
    times = np.arange(-0.2, 16.4, 0.05)
    heading = 0.3 + turn * times
    radius = speed / turn
    place = np.stack([radius * np.sin(heading), -radius * np.cos(heading) + radius,
                      9 + 0.5 * np.sin(0.8 * times)], -1)  # fmt: skip
    place -= place[0] - [0.0, 0.0, place[0, 2]]
    yaw = heading + weave * np.sin(1.3 * times)
    turns = quaternion_from_rpy(0.1 * np.sin(times), 0.08 * np.cos(1.3 * times), yaw)
    track, world, rng = PoseTrack.of(times, place, turns), walls(seed), np.random.default_rng(seed)
    scans = []
    for now in np.arange(0.0, 16.0, 0.2):
        at, quaternion, _ = track.at([now])
        sensor = inverse(matrix_of(at[0], quaternion[0]) @ MOUNT)
        near = world[np.linalg.norm(world - at[0], axis=1) < 40.0]
        near = near[rng.random(len(near)) < 0.3]
        points = near @ sensor[:3, :3].T + sensor[:3, 3]
        scans.append(Scan(float(now), points.astype(np.float32)))
    return Recording("flight", "drone", lambda: iter(scans), track, {"LIDAR": MOUNT})


FLIGHT = flight()


def mounted(recording: Recording, matrix: np.ndarray) -> Recording:
    return replace(recording, extrinsics={"LIDAR": matrix})


def late(recording: Recording, seconds: float) -> Recording:
    return replace(recording, poses=recording.poses.shifted(seconds))


def turned(mount: Mount) -> Callable[[Recording], Recording]:
    return lambda r: mounted(r, mount.matrix @ r.extrinsics["LIDAR"])


FAULTS: dict[str, tuple[Callable[[Recording], Recording], str]] = {
    "5 degrees and 1 m": (turned(Mount(5.0, 1.0, 0.0)), "mount of the sensor is off"),
    "6 degrees": (turned(Mount(-6.0)), "off in yaw by +"),
    "1 m to the side": (turned(Mount(0.0, 0.0, 1.0)), "along y by -"),
    "half a turn": (turned(Mount(180.0)), "off in yaw by +180 degrees"),
    "inverse": (lambda r: mounted(r, np.linalg.inv(r.extrinsics["LIDAR"])), "invert it"),
    "a quarter of a second late": (lambda r: late(r, -0.25), "--lidar-delay -0.25"),
}


def said(recording: Recording) -> tuple[list[str], list[str]]:
    fit = ScanFit(recording.poses, recording.extrinsics)
    for scan in recording.scans():
        fit.take(scan)
    return fit.sentences()


def test_clean_scans_are_silent() -> None:
    assert said(FLIGHT) == ([], [])


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_mount_or_delay_is_named(name: str) -> None:
    change, words = FAULTS[name]
    faults, _ = said(change(FLIGHT))
    assert len(faults) == 1 and words in faults[0], faults


def test_straight_flight_cannot_tell_a_shift() -> None:
    straight = flight(turn=0.001, weave=0.0)
    faults, unsure = said(turned(Mount(0.0, 1.0, 0.0))(straight))
    assert faults == [] and any("the vehicle turns too little" in u for u in unsure)
    faults, _ = said(turned(Mount(6.0))(straight))
    assert len(faults) == 1 and "off in yaw by -6 degrees" in faults[0]
    assert chosen_pairs(flight(turn=0.001, weave=0.0, speed=1e-6).poses)[0] == []


def test_pairs_do_not_cross_a_jump() -> None:
    track = FLIGHT.poses
    jump = track.times_s > 8.0
    breaks = np.zeros(len(track), bool)
    breaks[np.flatnonzero(jump)[0]] = True
    pairs, shown = chosen_pairs(replace(track, breaks=breaks))
    assert len(pairs) == len(shown) > 8
    assert all((a - 8.0) * (b - 8.0) > 0 for a, b in pairs)


def test_prepare_says_it_and_strict_ends_with_4(tmp_path: Path) -> None:
    """The sentence comes with the conversion, and again from a check of the accumulated cells."""
    from tests.commands.test_prepare import run

    folder = write_folder(tmp_path / "in", turned(Mount(5.0, 1.0, 0.0))(FLIGHT))
    line = (
        "--points", folder / "points", "--poses", folder / "poses.txt", "--extrinsic",
        folder / "extrinsic.yaml", "--output", tmp_path / "out", "--config", "test_local", "--set",
        "point_cloud_range=[-24,-24,-2,24,24,28]", "--set", "voxel_size=[1.6,1.6,5]",
    )  # fmt: skip
    free = run(*line)
    assert free.exit_code == 0 and "the mount of the sensor is off" in free.stderr
    strict = run(*line, "--strict")
    assert isinstance(strict.exception, DataError) and strict.exception.exit_code == 4
    assert "the scans contradict their mount" in strict.exception.what
    (session,) = (p.parent for p in (tmp_path / "out").rglob("session.json"))
    found = check_session(Session(session), GRID)
    assert any(s.startswith("by its scans, the mount of the sensor is off") for s in found.faults)
    file = session / "recording.json"
    report = json.loads(file.read_text())
    del report["report"]["faults"]
    file.write_text(json.dumps(report))
    unsure = check_session(Session(session), GRID).cannot_tell
    assert any("without comparing its scans" in u for u in unsure)


@pytest.mark.parametrize(("heads", "tosses"), [(0, 0), (0, 5), (5, 5), (12, 16), (3, 16)])
def test_chance_is_the_tail_of_fair_tosses(heads: int, tosses: int) -> None:
    from scipy.stats import binom

    from vlwm.core.data.recordings.scan_fit import _at_least

    assert _at_least(heads, tosses) == pytest.approx(binom.sf(heads - 1, tosses, 0.5))


def test_a_conversion_loads_no_heavy_library() -> None:
    """Fault: a fifth of the memory of a conversion, and a second at its start, for one sum."""
    code = (
        "import sys, vlwm.core.data.recordings.convert; "
        "print(sorted({'scipy.stats', 'scipy.optimize', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
