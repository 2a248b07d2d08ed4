"""A check is silent on clean sessions and names the fault of broken ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.core.data.recordings.known_city import GRID, KnownCity
from vlwm.core.data.npz import write_layers
from vlwm.core.data.recordings.checking.session_check import SessionCheck, check_session
from vlwm.core.data.session import Session, SessionMeta, write_meta, write_pose
from vlwm.core.errors import VlwmError
from vlwm.core.geometry.frames import (
    conjugate,
    ego_of,
    finite_difference_velocity,
    multiply_quaternions,
    quaternion_from_heading,
)
from vlwm.core.geometry.grid import VoxelGrid

FRAMES = 24


def write(root: Path, city: KnownCity, frames: int = FRAMES) -> Session:
    """A session of exact voxels along a turning path."""
    times = city.start_s + 0.5 * np.arange(frames)
    places, turns = city.poses(times)
    ground = city.ground(places[:, :2])
    velocity = finite_difference_velocity(places, turns, 0.5)
    poses = np.concatenate([places, turns, *velocity], axis=1)
    for folder in ("occupancy", "poses"):
        (root / folder).mkdir(parents=True)
    for k, ego in enumerate(ego_of(poses, ground)):
        cells = city.scene.frame(ego)
        write_layers(root / f"occupancy/{k:06d}_occupancy.npz", {"occupancy": cells})
        write_pose(root / f"poses/{k:06d}.json", poses[k], float(ground[k]), float(times[k]))
    write_meta(root, SessionMeta(agent="drone", dt_s=0.5, velocity_frame="world"))
    return Session(root)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    city = KnownCity(seed=4, turn_rad_s=0.25, weave_rad=0.5)
    return write(tmp_path_factory.mktemp("check") / "drone_clean", city)


def checked(session: Session, change: Callable[[np.ndarray], None]) -> SessionCheck:
    """The check of a session whose poses (N, 13) were changed."""
    poses = session.poses.copy()
    change(session.poses)
    try:
        return check_session(session, GRID)
    finally:
        session.poses = poses


def half_a_frame(poses: np.ndarray) -> None:
    later = np.concatenate([poses[1:], poses[-1:]])
    sign = np.sign((poses[:, 3:7] * later[:, 3:7]).sum(axis=1, keepdims=True))
    poses[:, :3] = (poses[:, :3] + later[:, :3]) / 2
    poses[:, 3:7] = poses[:, 3:7] + sign * later[:, 3:7]
    poses[:, 3:7] /= np.linalg.norm(poses[:, 3:7], axis=1, keepdims=True)


def turned(degrees: float) -> Callable[[np.ndarray], None]:
    def change(poses: np.ndarray) -> None:
        turn = quaternion_from_heading(np.radians(degrees))
        poses[:, 3:7] = multiply_quaternions(poses[:, 3:7], turn)

    return change


def put(columns: list[int], values: Callable[[np.ndarray], np.ndarray]) -> Callable:
    def change(poses: np.ndarray) -> None:
        poses[:, columns] = values(poses)

    return change


QUATERNION, PLACE, SPEED = [3, 4, 5, 6], [0, 1], [7, 8, 9]
FAULTS = {
    "w first": (put(QUATERNION, lambda p: p[:, [6, 3, 4, 5]]), "written w first"),
    "inverse": (put(QUATERNION, lambda p: conjugate(p[:, 3:7])), "from the world to the body"),
    "mirrored y": (put([1], lambda p: -p[:, [1]]), "y is mirrored"),
    "flipped x": (put([0], lambda p: -p[:, [0]]), "x is mirrored"),
    "swapped": (put(PLACE, lambda p: p[:, [1, 0]]), "x and y are exchanged"),
    "quarter turn": (turned(90), "off by a quarter turn"),
    "extrinsic": (turned(6), "the mount of the sensor is off in yaw"),
    "delay": (half_a_frame, "by half a frame"),
    "milliseconds": (put(SPEED, lambda p: p[:, 7:10] / 1e3), "times in milliseconds"),
}


def test_a_clean_session_is_silent(session: Session) -> None:
    found = check_session(session, GRID)
    assert found.faults == [] and found.cannot_tell == []
    assert found.facts["turn_deg"] > 90 and found.fits["as written"] > 0.4


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(session: Session, name: str) -> None:
    change, words = FAULTS[name]
    found = checked(session, change)
    assert any(words in sentence for sentence in found.faults), (found.faults, found.fits)


def test_mounts_and_time_stamps_are_checked(session: Session) -> None:
    meta, stamps = session.meta, session.timestamps
    bad = {"A": {"matrix": (np.eye(4) * 1.1).tolist()}, "B": {"rotation": [0, 0, 0, 1]}, "C": {}}
    session.meta, session.timestamps = replace(meta, sensors=bad), stamps * 1e9
    try:
        faults = check_session(session, GRID).faults
    finally:
        session.meta, session.timestamps = meta, stamps
    assert any("the mount of A in session.json is not a rotation" in f for f in faults)
    assert any("no readable mount of C" in f for f in faults)
    assert any("the time stamps are in nanoseconds" in f for f in faults)
    assert not any("of B" in f for f in faults)


def test_a_vehicle_upside_down_is_named_without_any_motion(tmp_path: Path) -> None:
    still = write(tmp_path / "drone_a", KnownCity(seed=4, turn_rad_s=0.001), frames=2)
    written = still.poses[:, 3:7].copy()
    assert check_session(still, GRID).faults == []
    still.poses[:, 3:7] = written[:, [3, 0, 1, 2]]  # w, x, y, z
    (fault,) = check_session(still, GRID).faults
    assert "written w first" in fault and "upside down as written" in fault
    half_a_turn = np.array([0.0, 1.0, 0.0, 0.0])  # about y: x and z point the other way
    still.poses[:, 3:7] = multiply_quaternions(written, half_a_turn)
    (fault,) = check_session(still, GRID).faults
    assert "the vehicle is upside down in most frames" in fault


def test_a_straight_or_resting_vehicle_cannot_tell(tmp_path: Path) -> None:
    straight = write(tmp_path / "drone_a", KnownCity(seed=4, turn_rad_s=0.001))
    assert "hardly turns" in check_session(straight, GRID).cannot_tell[0]
    straight.poses[:, :3] = straight.poses[0, :3]
    assert "hardly moves" in check_session(straight, GRID).cannot_tell[0]
    other = VoxelGrid((0, 0, 0), (1, 1, 1), (4, 4, 4))
    turning = write(tmp_path / "drone_b", KnownCity(seed=4, turn_rad_s=0.25))
    with pytest.raises(VlwmError, match="the session has 60x60x12 cells and the config 4x4x4"):
        check_session(turning, other)


def test_strict_ends_with_exit_code_4(tmp_path: Path) -> None:
    from tests.commands.test_prepare import run

    session = write(tmp_path / "drone_short", KnownCity(seed=4, turn_rad_s=0.25), frames=8)
    grid = "point_cloud_range=[-24,-24,-2,24,24,28]", "voxel_size=[0.8,0.8,2.5]"
    preset = ("--config", "test_local", "--set", grid[0], "--set", grid[1])
    line = (*preset, "--check", session.path.parent)
    clean = run(*line, "--strict")
    assert clean.exit_code == 0 and "1 sessions checked, 0 with faults" in clean.stdout
    file = session.path / "session.json"
    values = {k: v for k, v in json.loads(file.read_text()).items() if k != "checksum"}
    file.write_text(json.dumps({**values, "sensors": {"A": {}}}))
    assert json.loads(run(*line, "--json").stdout)["sessions"][0]["faults"]
    strict = run(*line, "--strict")
    assert isinstance(strict.exception, VlwmError) and strict.exception.exit_code == 4
    assert "1 of 1 sessions have faults" in str(strict.exception)
