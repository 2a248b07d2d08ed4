"""Observed frames: surfaces of the truth, free space in front of them, nothing behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.core.data.sensors.test_sensors import body, wall
from tests.core.data.small_data import OBSERVED, digest, make_in
from vlwm.core.config.data_schema import OBSERVE
from vlwm.core.config.load import load_config
from vlwm.core.data.sensors.observe import POSE_NOISE, Observer, PoseNoise, Track, believed_track
from vlwm.core.data.sensors.ray_patterns import RAY_PATTERNS
from vlwm.core.data.sensors.rig import Mount
from vlwm.core.data.session import Session
from vlwm.core.errors import ConfigError
from vlwm.core.geometry.frames import heading_of
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.rays import RayCaster

GRID = VoxelGrid((-8.0, -8.0, -8.0), (0.5, 0.5, 0.5), (64, 32, 32))
LEVEL = Mount((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_in(tmp_path_factory.mktemp("observed"), OBSERVED)


def before_a_wall(name: str, noise: PoseNoise | None = None) -> tuple[np.ndarray, np.ndarray]:
    track = Track(body()[None], np.zeros(1))
    believed = believed_track(track, noise, 1)
    caster = RayCaster(wall(10.2))
    observer = Observer(caster, RAY_PATTERNS[name], LEVEL, GRID, track, believed, 1)
    seen = observer.observe(0)
    return seen["seen_occupied"], seen["seen_free"]


@pytest.mark.parametrize("name", RAY_PATTERNS)
def test_a_wall_is_seen_the_way_to_it_is_free_and_behind_it_nothing_is_known(name: str) -> None:
    occupied, free = before_a_wall(name)
    at = np.unique(np.nonzero(occupied)[0])
    sigma = float(RAY_PATTERNS[name].range_sigma(np.array([10.2]))[0])
    assert abs(at - 36).max() <= np.ceil(5 * sigma / 0.5) and occupied[36].any()  # 10.2 m
    assert free[20:36].any() and not free[:16].any()  # no ray returns from behind
    assert not (occupied & free).any()
    beyond = 36 + int(np.ceil(5 * sigma / 0.5)) + 1
    assert not occupied[beyond:].any() and not free[beyond:].any()


def test_rays_are_unit_vectors_and_a_rosette_never_repeats() -> None:
    for pattern in RAY_PATTERNS.values():
        rays = pattern.rays(2)
        assert rays.shape == (pattern.beams, 3)
        np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1.0)
    livox = RAY_PATTERNS["Livox"]
    assert np.abs(livox.rays(0)[:, None] - livox.rays(1)[None, :50]).sum(-1).min() > 1e-6


def test_lost_returns_are_as_many_as_the_pattern_loses() -> None:
    pattern = dataclasses.replace(RAY_PATTERNS["HDL-32E"], dropout=1.0)
    track = Track(body()[None], np.zeros(1))
    seen = Observer(RayCaster(wall(10.2)), pattern, LEVEL, GRID, track, track, 1).observe(0)
    assert not seen["seen_occupied"].any() and not seen["seen_free"].any()


def test_believed_poses_err_as_told_and_keep_height_above_ground() -> None:
    track = Track(np.repeat(body(x=5.0, z=9.0, yaw=0.4)[None], 4000, axis=0), np.full(4000, 2.0))
    believed = believed_track(track, POSE_NOISE["15cm"], 7)
    shift = believed.poses[:, :3] - track.poses[:, :3]
    np.testing.assert_allclose(shift.std(axis=0), 0.15, rtol=0.05)
    turn = np.degrees(heading_of(believed.poses[:, 3:7]) - 0.4)
    assert turn.std() == pytest.approx(0.3, rel=0.05) and abs(turn.mean()) < 0.02
    np.testing.assert_allclose(believed.poses[:, 2] - believed.ground_z, 7.0)
    np.testing.assert_allclose(np.linalg.norm(believed.poses[:, 3:7], axis=1), 1.0)
    assert believed_track(track, None, 7) is track


def test_a_scan_is_placed_by_the_believed_tilt() -> None:
    level, _ = before_a_wall("HDL-32E")
    tilted, _ = before_a_wall("HDL-32E", PoseNoise(0.0, 5.0))
    assert (level != tilted).any()


def test_prepared_frames_hold_the_truth_and_what_was_seen_of_it(prepared: Path) -> None:
    near, shares = [], []
    for path in sorted(prepared.glob("*_2024*")):
        session = Session(path)
        assert session.meta.sensors["OBSERVER"]["model"] == "Velodyne HDL-32E"
        assert not session.has_believed
        layers = session.read_layers(1)
        truth, occupied, free = (
            layers[name] for name in ("occupancy", "seen_occupied", "seen_free")
        )
        assert not (occupied & free).any() and free.any()
        near.append((occupied & truth).sum() / occupied.sum())
        shares.append((truth & occupied).sum() / truth.sum())
    assert min(near) > 0.9  # 2 cm of range noise against cells of 1.6 m
    assert 0.0 < max(shares) < 0.5  # most surfaces are hidden


def test_the_truth_is_the_same_bit_for_bit_and_workers_change_nothing(
    prepared: Path, tmp_path: Path
) -> None:
    plain = make_in(tmp_path / "plain", OBSERVED, observe=None)
    again = make_in(tmp_path / "again", OBSERVED, workers=2)
    assert digest(again) == digest(prepared)
    for path in sorted(plain.glob("*_2024*")):
        truth = Session(path).read_layers(2)
        assert list(truth) == ["occupancy"]
        seen = Session(prepared / path.name).read_layers(2)
        np.testing.assert_array_equal(truth["occupancy"], seen["occupancy"])
    assert "observe" not in (plain / "prepare.json").read_text()


def test_pose_noise_is_written_as_believed_poses(prepared: Path, tmp_path: Path) -> None:
    noisy = make_in(tmp_path / "noisy", OBSERVED, pose_noise="5cm", sessions=3)
    for path in sorted(noisy.glob("*_2024*")):
        session, exact = Session(path), Session(prepared / path.name)
        np.testing.assert_array_equal(session.poses, exact.poses)
        off = np.abs(session.believed[:, :3] - session.poses[:, :3])
        assert 0.0 < off.max() < 0.3


def test_the_config_names_every_sensor_and_level() -> None:
    assert {"none", "lidar", *RAY_PATTERNS} == set(OBSERVE)
    config = load_config("test_local_lidar")
    assert config.prepare.observed_by == "HDL-32E"
    assert load_config("test_local").prepare.observed_by is None
    for noise in POSE_NOISE:
        assert load_config("test_local", [f"prepare.pose_noise='{noise}'"]).prepare
    with pytest.raises(ConfigError, match="Livox"):
        load_config("test_local", ["prepare.observe='sonar'"])
    with pytest.raises(ConfigError, match="15cm"):
        load_config("test_local", ["prepare.pose_noise='1m'"])
