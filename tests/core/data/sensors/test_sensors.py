"""Scans and pictures: on the surfaces, in the right frames, in agreement with each other."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.core.data.small_data import SENSORS, SIZE_M, digest, make_in
from tests.core.geometry.triangles import distance_to_triangles
from vlwm.core.city.city import City
from vlwm.core.city.procedural import procedural_city
from vlwm.core.city.read import read_city
from vlwm.core.config.load import load_config
from vlwm.core.data.generation.prepare import prepare
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.sensors.camera import CameraView, paint, read_picture
from vlwm.core.data.sensors.lidar import LidarScanner, read_lidar
from vlwm.core.data.sensors.rig import CAMERA, FRONT, LIDAR, LIDARS, MOUNTS
from vlwm.core.data.session import Session
from vlwm.core.errors import ConfigError, DataError
from vlwm.core.geometry.frames import ego_of, quaternion_from_rpy, to_ego
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.rays import RayCaster

HDL = LIDARS["HDL-32E"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_in(tmp_path_factory.mktemp("sensors"), SENSORS)


@pytest.fixture(scope="module")
def surfaces() -> np.ndarray:
    return everything(procedural_city(SIZE_M, 3))


def everything(city: City) -> np.ndarray:
    low, high = city.mesh.bounds
    around = (low[0] - 150, low[1] - 150, high[0] + 150, high[1] + 150)
    return np.concatenate([city.mesh.triangles(), city.terrain.triangles(around)])


def to_world(session: Path, sensor: str, number: int, points: np.ndarray) -> np.ndarray:
    """Sensor frame to city frame, from the session's files alone and by SciPy's rotations."""
    meta = json.loads((session / "session.json").read_text())
    pose = json.loads((session / f"poses/{number:06d}.json").read_text())
    told = meta["sensors"][sensor]
    hung = Rotation.from_quat(told["rotation"]).apply(points) + told["translation"]
    turn = Rotation.from_quat([pose["orientation"][k] for k in "xyzw"])
    origin = meta["origin"]
    place = np.array([pose["position"][k] for k in "xyz"])
    return turn.apply(hung) + place + [origin["easting"], origin["northing"], origin["height"]]


def hanging(agent: str, sensor: str) -> tuple[Rotation, np.ndarray]:
    mount = MOUNTS[agent][sensor]
    return Rotation.from_quat(mount.rotation), np.array(mount.translation_m)


def body(x: float = 0.0, z: float = 0.0, roll: float = 0.0, pitch: float = 0.0, yaw: float = 0.0):
    pose = np.zeros(13)
    pose[[0, 2]], pose[3:7] = (x, z), quaternion_from_rpy(roll, pitch, yaw)
    return pose


def wall(x: float) -> np.ndarray:
    """A wall across the x axis, 100 m to each side and up and down."""
    a, b, c, d = ([x, s * 100.0, t * 100.0] for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1)))
    return np.array([[a, b, c], [a, c, d]])


# Patterns


def test_the_pattern_is_that_of_the_manual() -> None:
    """HDL-32E user's manual: angles of some lasers, 41.34 degrees in all, 0.16 degrees a step."""
    told = {-30.67, -9.33, -29.33, -8.0, -28.0, -6.67, -4.0, -1.33, 0.0, 1.33, 5.33, -10.67, 10.67}
    assert told <= set(HDL.elevations_deg) and len(set(HDL.elevations_deg)) == 32
    rays = HDL.directions()
    np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1.0)
    elevations = np.degrees(np.arcsin(rays[:, 2]))
    assert (elevations.min(), elevations.max()) == pytest.approx((-30.67, 10.67))
    step = np.degrees(np.arctan2(rays[0, 1], rays[0, 0]) - np.arctan2(rays[32, 1], rays[32, 0]))
    assert 0.16 <= step <= 0.17  # clockwise seen from above
    assert HDL.range_m == (1.0, 100.0) and HDL.range_sigma_m == 0.02


def test_the_config_knows_every_lidar() -> None:
    for name in LIDARS:
        assert load_config("test_local", [f"prepare.lidar_model={name!r}"]).prepare
    with pytest.raises(ConfigError, match="HDL-32E"):
        load_config("test_local", ["prepare.lidar_model='HDL-64E'"])


# Scans


def test_each_noiseless_return_lies_on_a_surface(prepared: Path, surfaces: np.ndarray) -> None:
    city = procedural_city(SIZE_M, 3)
    caster = RayCaster(everything(city))
    rng = np.random.default_rng(0)
    for path in sorted(prepared.glob("*_2*")):
        session, number = Session(path), 2
        pose = session.poses[number].copy()
        origin = session.meta.origin
        assert origin is not None
        pose[:3] += [origin["easting"], origin["northing"], origin["height"]]
        scanner = LidarScanner(caster, HDL, MOUNTS[session.meta.agent][LIDAR], 1)
        points = scanner.scan(pose, number, noise=False)
        assert points.dtype == np.float32 and points.shape[1] == 4 and len(points) > 3000
        ranges = np.linalg.norm(points[:, :3], axis=1)
        assert ranges.min() >= 0.999 and ranges.max() <= 100.001
        some = rng.choice(len(points), 100, replace=False)
        placed = to_world(path, LIDAR, number, points[some, :3])
        assert distance_to_triangles(placed, surfaces).max() < 1e-3


def test_returns_are_in_or_next_to_occupied_cells(prepared: Path) -> None:
    config = load_config("test_local")
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    for path in sorted(prepared.glob("*_2*")):
        session = Session(path)
        origin = session.meta.origin
        assert origin is not None
        shift = np.array([origin["easting"], origin["northing"], origin["height"]])
        ego = ego_of(session.poses, session.ground_z)
        for number in (0, 3):
            points = read_lidar(path / f"lidar/{number:06d}_LIDAR.npy")[:, :3].astype(np.float64)
            local = to_ego(to_world(path, LIDAR, number, points) - shift, ego[number])
            cells = grid.index_of(local[grid.contains(local)])
            occupancy = np.pad(session.read_occupancy(number), 1)
            near = np.zeros(len(cells), dtype=bool)
            for step in np.ndindex(3, 3, 3):
                near |= occupancy[tuple((cells + step).T)] > 0
            assert len(cells) > 1000 and near.all()


def test_noise_has_the_stated_sigma_and_is_along_the_beam() -> None:
    scanner = LidarScanner(RayCaster(wall(20.0)), HDL, MOUNTS["rover"][LIDAR], 7)
    clean = scanner.scan(body(), 5, noise=False).astype(np.float64)
    noisy = scanner.scan(body(), 5).astype(np.float64)
    assert len(clean) == len(noisy) > 10000
    lengths = [np.linalg.norm(p[:, :3], axis=1) for p in (clean, noisy)]
    np.testing.assert_allclose(
        clean[:, :3] / lengths[0][:, None], noisy[:, :3] / lengths[1][:, None], atol=1e-6
    )
    errors = lengths[1] - lengths[0]
    tolerance = 4 / np.sqrt(len(errors))
    assert errors.std() == pytest.approx(HDL.range_sigma_m, rel=tolerance)
    assert abs(errors.mean()) < tolerance * HDL.range_sigma_m
    assert (noisy[:, 3] == clean[:, 3]).all()


def test_noise_belongs_to_session_and_frame() -> None:
    caster = RayCaster(wall(20.0))
    scans = {
        (seed, number): LidarScanner(caster, HDL, MOUNTS["rover"][LIDAR], seed)
        .scan(body(), number)
        .tobytes()
        for seed, number in ((1, 0), (1, 1), (2, 0))
    }
    again = LidarScanner(caster, HDL, MOUNTS["rover"][LIDAR], 1).scan(body(), 0).tobytes()
    assert scans[1, 0] == again and len(set(scans.values())) == 3


@pytest.mark.parametrize("agent", ["drone", "rover"])
def test_an_object_20_m_ahead_appears_ahead(agent: str) -> None:
    """In the body frame, whatever way the sensor hangs, for a body turned any way."""
    turn, place = hanging(agent, LIDAR)
    for pose in (body(), body(roll=0.2, pitch=-0.3, yaw=0.4)):
        world = Rotation.from_quat(pose[3:7])
        target = world.apply([[20.0, -0.6, 0.3], [20.0, 0.6, 0.3], [20.0, 0.0, -1.2]])
        scanner = LidarScanner(RayCaster(target[None]), HDL, MOUNTS[agent][LIDAR], 0)
        points = scanner.scan(pose, 0, noise=False)
        hung = turn.apply(points[:, :3]) + place
        assert len(points) > 20
        np.testing.assert_allclose(hung[:, 0], 20.0, atol=1e-4)
        assert np.abs(hung[:, 1]).max() < 0.61 and np.abs(hung[:, 2] + 0.45).max() < 0.76


def test_roll_and_pitch_count() -> None:
    """Over level ground, a tilted scan is a tilted plane; turned back by the tilt it is level."""
    ground = np.array([[[-900.0, -900, 0], [900, -900, 0], [0, 1800, 0]]])
    scanner = LidarScanner(RayCaster(ground), HDL, MOUNTS["rover"][LIDAR], 0)
    pose = body(z=10.0, roll=0.15, pitch=0.2)
    points = scanner.scan(pose, 0, noise=False)[:, :3]
    turn, place = hanging("rover", LIDAR)
    level = Rotation.from_quat(pose[3:7]).apply(turn.apply(points) + place)
    np.testing.assert_allclose(level[:, 2], -10.0, atol=1e-4)
    assert np.ptp(points[:, 2]) > 5.0


def test_intensity_is_that_of_the_incidence() -> None:
    scanner = LidarScanner(RayCaster(wall(20.0)), HDL, MOUNTS["rover"][LIDAR], 0)
    points = scanner.scan(body(), 0, noise=False).astype(np.float64)
    cosine = points[:, 0] / np.linalg.norm(points[:, :3], axis=1)
    np.testing.assert_allclose(points[:, 3], 100 * cosine, atol=1e-4)


# Pictures


def test_pictures_are_900_by_1600(prepared: Path) -> None:
    files = sorted(prepared.glob("*/images/*.jpg"))
    assert len(files) == 12 and files[0].name == "000000_CAM_FRONT.jpg"
    for file in files[:3]:
        picture = read_picture(file)
        assert picture.shape == (900, 1600, 3) and picture.std() > 5.0
        assert b"procedural city, not real data" in file.read_bytes()[:64]


def test_lidar_points_land_on_the_depth_of_the_picture(
    prepared: Path, surfaces: np.ndarray
) -> None:
    """Projected by the files' own numbers; the depths come from another algorithm than the rays."""
    colours = np.zeros((len(surfaces), 2, 3), dtype=np.uint8)
    for path in sorted(prepared.glob("*_2*")):
        session = Session(path)
        told = session.meta.sensors[CAMERA]
        matrix = np.array(told["intrinsics"])
        origin = session.meta.origin
        assert origin is not None
        shift = np.array([origin["easting"], origin["northing"], origin["height"]])
        view = CameraView(surfaces - shift, colours, FRONT, MOUNTS[session.meta.agent][CAMERA])
        for number in (0, 3):
            depth = view.depth(session.poses[number])
            points = read_lidar(path / f"lidar/{number:06d}_LIDAR.npy")[:, :3].astype(np.float64)
            world = to_world(path, LIDAR, number, points)
            pixels, away = project(path, world, number, matrix)
            inside = (away > 0.5) & (pixels >= 1).all(axis=1) & (pixels < (1598, 898)).all(axis=1)
            pixels, away = pixels[inside], away[inside]
            assert len(away) > 50
            u, v = np.round(pixels).astype(int).T
            around = np.stack([depth[v + j, u + i] for i in (-1, 0, 1) for j in (-1, 0, 1)])
            slack = 0.1 + 0.01 * away
            lands = (around.min(axis=0) - slack < away) & (away < around.max(axis=0) + slack)
            hidden = around.max(axis=0) < away - slack  # seen by the lidar above the camera only
            assert lands[~hidden].mean() > 0.999
            assert hidden.mean() < 0.12
            assert np.median(np.abs(around[4] - away)) < 0.03


def project(
    session: Path, world: np.ndarray, number: int, matrix: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 2) and depths (N,) of points of the city's frame, by the session's files."""
    place = to_world(session, CAMERA, number, np.zeros((1, 3)))
    axes = to_world(session, CAMERA, number, np.eye(3)) - place
    local = (world - place) @ axes.T
    pixels = local @ matrix.T
    return pixels[:, :2] / pixels[:, 2:], local[:, 2]


@pytest.mark.parametrize("agent", ["drone", "rover"])
def test_the_camera_sees_ahead_left_is_left_and_up_is_up(agent: str) -> None:
    turn, place = hanging(agent, CAMERA)

    def middle(at: list[float]) -> np.ndarray:
        corners = np.array(at) + np.array([[0, -0.5, -0.5], [0, 0.5, -0.5], [0, 0, 1.0]])
        colours = np.zeros((1, 2, 3), dtype=np.uint8)
        depth = CameraView(corners[None], colours, FRONT, MOUNTS[agent][CAMERA]).depth(body())
        v, u = np.nonzero(np.isfinite(depth))
        wanted = FRONT.project(turn.inv().apply(np.array([at]) - place))[0]
        assert abs(u.mean() - wanted[0]) < 1.5 and abs(v.mean() - wanted[1]) < 1.5
        return np.array([u.mean(), v.mean()])

    ahead, left, up = middle([20, 0, 0]), middle([20, 3, 0]), middle([20, 0, 3])
    assert abs(ahead[0] - 799.5) < 1.0
    assert left[0] < ahead[0] - 100 and up[1] < ahead[1] - 100


def test_light_follows_the_normal_and_haze_the_distance() -> None:
    def colour(triangles: np.ndarray) -> np.ndarray:
        lit = paint(triangles, np.zeros(len(triangles), np.int32), np.zeros(len(triangles), bool))
        view = CameraView(triangles, lit, FRONT, MOUNTS["rover"][CAMERA])
        return view.picture(body())[450, 800].astype(int)

    near, far = colour(wall(15.0)), colour(wall(600.0))
    assert abs(far - [205, 216, 226]).sum() < abs(near - [205, 216, 226]).sum()
    slanted = wall(15.0)
    slanted[..., 0] += 0.8 * slanted[..., 1]
    assert (colour(slanted) != near).any()
    assert (
        colour(wall(15.0)[:, ::-1]) == near
    ).all()  # the side that is seen is lit, not the other


def test_sky_is_above_and_ground_below(prepared: Path) -> None:
    for path in sorted(prepared.glob("rover_*")):
        picture = read_picture(path / "images/000000_CAM_FRONT.jpg").astype(int)
        ground = picture[880]
        assert (np.ptp(ground, axis=1) < 25).mean() > 0.8  # grey


# Sessions


def test_workers_change_no_byte(prepared: Path, tmp_path: Path) -> None:
    assert digest(make_in(tmp_path / "two", SENSORS, workers=2)) == digest(prepared)


def test_the_rest_of_a_session_is_as_without_sensors(prepared: Path, tmp_path: Path) -> None:
    plain, with_sensors = (
        digest(make_in(tmp_path / "plain", SENSORS, lidar=None, camera=False)),
        digest(prepared),
    )
    changed = {k for k in plain if plain[k] != with_sensors[k]}
    assert {Path(k).name for k in changed} == {"session.json", "prepare.json"}
    added = {Path(k).parent.name for k in set(with_sensors) - set(plain)}
    assert added == {"lidar", "images"}
    config = load_config("test_local")
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    assert len(PackedStore.open(prepared, grid)) == 12
    meta = Session(sorted(prepared.glob("drone_*"))[0]).meta
    assert set(meta.sensors) == {LIDAR, CAMERA} and "not real" in meta.attribution


def test_what_was_deleted_or_damaged_is_made_again(prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(prepared, folder)
    sessions = sorted(folder.glob("*_2*"))
    (sessions[0] / "images/000001_CAM_FRONT.jpg").unlink()
    (sessions[1] / "session.json").unlink()  # as if killed before its end
    scan = sessions[1] / "lidar/000002_LIDAR.npy"
    scan.write_bytes(scan.read_bytes()[:5000])
    picture = sessions[1] / "images/000003_CAM_FRONT.jpg"
    picture.write_bytes(picture.read_bytes()[:5000])
    (sessions[1] / "lidar/.000000_LIDAR.npy.1.tmp").write_bytes(b"half")
    make_in(folder, SENSORS)
    assert digest(folder) == digest(prepared)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.core.data.small_data import SENSORS, make
make(Path(sys.argv[1]), SENSORS, workers=2)
"""


@pytest.mark.endurance
@pytest.mark.parametrize("round_", range(20))
def test_killed_at_random_it_goes_on_to_the_same_bytes(
    prepared: Path, tmp_path: Path, round_: int
) -> None:
    root, share = str(Path(__file__).parents[4]), float(np.random.default_rng(round_).random())
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "out"), root]
    with subprocess.Popen(command, start_new_session=True) as process:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.rglob("*.jpg"))) < 12 * share and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    make_in(tmp_path / "out", SENSORS)
    assert digest(tmp_path / "out") == digest(prepared)


def test_other_sensors_in_the_same_folder_are_refused(prepared: Path) -> None:
    with pytest.raises(DataError, match="another lidar"):
        make_in(prepared, SENSORS, lidar="VLP-16")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    for reader, name in ((read_lidar, "scan"), (read_picture, "picture")):
        with pytest.raises(DataError, match=f"no such {name}"):
            reader(tmp_path / "none")
        (tmp_path / "half").write_bytes(b"half")
        with pytest.raises(DataError, match=f"damaged {name}"):
            reader(tmp_path / "half")


@pytest.mark.endurance
def test_marunouchi_is_seen(shared_data: Path, tmp_path: Path) -> None:
    city = read_city([shared_data / "plateau/tokyo_marunouchi_obj"])
    plan = dataclasses.replace(SENSORS, frames=2, seed=42)
    prepare(city, load_config("finetune_tokyo"), tmp_path, plan)
    for path in sorted(tmp_path.glob("*_2*")):
        points = read_lidar(path / "lidar/000001_LIDAR.npy")
        assert len(points) > 5000 and points[:, 3].min() >= 0.0 and points[:, 3].max() <= 100.0
        assert "Project PLATEAU" in json.loads((path / "session.json").read_text())["attribution"]
