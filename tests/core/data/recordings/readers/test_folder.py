"""The generic door: any point and pose format gives the session of the recording itself."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.data.recordings.formats import POINT_WRITERS, write_bin, write_folder, write_pcd
from tests.core.data.recordings.known_city import MOUNT
from tests.core.data.recordings.sessions import CITY, session_of, share_of_equal_cells
from vlwm.core.data.recordings.formats.clock import point_times, seconds_of
from vlwm.core.data.recordings.formats.extrinsic import read_extrinsic
from vlwm.core.data.recordings.formats.points import read_points
from vlwm.core.data.recordings.formats.pose_files import read_poses
from vlwm.core.data.recordings.pose_track import PoseTrack
from vlwm.core.data.recordings.readers.folder import FolderSource, read_folder
from vlwm.core.data.session import Session
from vlwm.core.errors import VlwmError

RECORDING = CITY.recording


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """The session of the recording itself, without any file between."""
    return session_of(RECORDING, tmp_path_factory.mktemp("direct"))[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "rec", RECORDING)


def source(root: Path, **changes: object) -> FolderSource:
    values = {"points": root / "points", "poses": root / "poses.txt",
              "extrinsic": root / "extrinsic.yaml", **changes}  # fmt: skip
    return FolderSource(**values)


@pytest.mark.parametrize("kind", POINT_WRITERS)
def test_each_point_format_gives_the_points(tmp_path: Path, kind: str) -> None:
    scan = CITY.scans[3]
    POINT_WRITERS[kind](tmp_path / "1", scan)
    points = read_points(next(tmp_path.iterdir()))
    np.testing.assert_allclose(points.xyz, scan.points, atol=1e-5)
    np.testing.assert_allclose(points.intensity, scan.intensity, atol=1.0)
    if kind not in ("bin", "npy"):
        assert points.times is not None and scan.times_s is not None
        times = point_times(points.times, scan.time_s)
        np.testing.assert_allclose(times, scan.times_s, atol=2e-6)


def test_the_folder_gives_the_session_of_the_recording(
    folder: Path, tmp_path: Path, direct: Session
) -> None:
    session, report = session_of(read_folder(source(folder)), tmp_path / "out")
    assert share_of_equal_cells(session, direct) == 1.0
    np.testing.assert_allclose(session.poses, direct.poses, atol=1e-6)
    assert report.deskewed and report.scans == len(CITY.scans)


def _sensor(track: PoseTrack) -> PoseTrack:
    return track.moved_by(MOUNT)


def _csv(root: Path, track: PoseTrack, name: str = "p.csv", quaternion: str = "wxyz") -> Path:
    """Named columns in another order than TUM's, times in nanoseconds."""
    with open(root / name, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["timestamp_ns", *(f"q{a}" for a in quaternion), "tx", "ty", "tz"])
        order = ["xyzw".index(a) for a in quaternion]
        for t, p, q in zip(track.times_s, track.positions, track.quaternions, strict=True):
            writer.writerow([round(t * 1e9), *q[order], *p])
    return root / name


def _kitti(root: Path) -> Path:
    from scipy.spatial.transform import Rotation

    places, turns, _ = RECORDING.poses.at(CITY.scan_times)
    rows = np.concatenate([Rotation.from_quat(turns).as_matrix(), places[:, :, None]], axis=2)
    np.savetxt(root / "kitti.txt", rows.reshape(-1, 12))
    return root / "kitti.txt"


def test_other_pose_forms_give_the_same_session(
    folder: Path, tmp_path: Path, direct: Session
) -> None:
    sensor = _csv(folder, _sensor(RECORDING.poses))
    cases = [
        source(folder, poses=_csv(folder, RECORDING.poses, "b.csv")),
        source(folder, poses=sensor, poses_of="sensor"),
    ]
    for k, case in enumerate(cases):
        session, _ = session_of(read_folder(case), tmp_path / f"out{k}")
        assert share_of_equal_cells(session, direct) == 1.0
    track = read_folder(source(folder, poses=_kitti(folder))).poses
    np.testing.assert_allclose(track.times_s, CITY.scan_times)
    np.testing.assert_allclose(track.at(CITY.scan_times)[0], CITY.poses(CITY.scan_times)[0])


def test_aviation_axes_and_a_list_of_files(folder: Path, tmp_path: Path, direct: Session) -> None:
    from scipy.spatial.transform import Rotation

    ned = np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1.0]])
    frd = np.diag([1.0, -1, -1])
    track = RECORDING.poses
    turns = Rotation.from_quat(track.quaternions).as_matrix()
    turned = Rotation.from_matrix(ned @ turns @ frd).as_quat()
    flown = PoseTrack.of(track.times_s, track.positions @ ned.T, turned)
    mount = np.eye(4)
    mount[:3, :3], mount[:3, 3] = frd @ MOUNT[:3, :3], frd @ MOUNT[:3, 3]
    np.savetxt(folder / "mount.txt", mount)
    rows = ["time,file"]
    for k, scan in enumerate(CITY.scans):
        write_pcd(folder / f"{k:06d}", scan)
        rows.append(f"{scan.time_s:.6f},{k:06d}.pcd")
    (folder / "list.csv").write_text("\n".join(rows))
    case = source(folder, points=folder / "list.csv", poses=_csv(folder, flown),
                  extrinsic=folder / "mount.txt", axes="ned")  # fmt: skip
    session, _ = session_of(read_folder(case), tmp_path / "out")
    assert share_of_equal_cells(session, direct) == 1.0


FORMS = {
    "e.yaml": "# lidar to body\ntranslation: [0.1, 0.2, -0.3]\nrotation: [0, 0, {s}, {s}]\n",
    "axes.yaml": "translation:\n  x: 0.1\n  y: 0.2\n  z: -0.3\n"
    "rotation:\n  w: {s}\n  x: 0\n  y: 0\n  z: {s}\n",
    "e.json": '{{"translation": [0.1, 0.2, -0.3], "rotation": [0, 0, {s}, {s}]}}',
    "matrix.json": '{{"matrix": [[0,-1,0,0.1],[1,0,0,0.2],[0,0,1,-0.3],[0,0,0,1]]}}',
    "e.txt": "0 -1 0 0.1\n1 0 0 0.2\n0 0 1 -0.3\n0 0 0 1\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_each_form_of_an_extrinsic_gives_the_mount(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FORMS[name].format(s=np.sqrt(0.5)))
    np.testing.assert_allclose(read_extrinsic(tmp_path / name), MOUNT, atol=1e-12)


STAMP = 1_700_000_000.0
CLOCKS = {
    "absolute": (STAMP + np.array([0.01, 0.05]), STAMP + 0.01),
    "relative": (np.array([0, 40_000_000]), STAMP),
    "before the stamp": (np.array([-0.1, 0.0]), STAMP - 0.1),
    "seconds of the GPS week": (345_600.0 + np.array([0.0, 0.05]), STAMP),
    "nanoseconds since the boot": (np.array([90_000_000_000, 90_050_000_000]), STAMP),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_points_stay_at_the_time_of_their_scan_whatever_clock_they_have(name: str) -> None:
    raw, first = CLOCKS[name]
    times = point_times(raw, STAMP)
    assert times is not None and times[0] == pytest.approx(first, abs=1e-6)
    assert 0.03 < np.ptp(times) < 0.11


def test_units_of_time_by_magnitude() -> None:
    for scale, unit in ((1, "s"), (10**3, "ms"), (10**6, "us"), (10**9, "ns")):
        times, found = seconds_of(np.array([1_600_000_000 * scale, 1_600_000_001 * scale]))
        assert found == unit and np.diff(times)[0] == pytest.approx(1.0)
    assert seconds_of(np.array([0, 500_000_000, 1_000_000_000]))[1] == "ns"
    assert seconds_of(np.array([0.0, 0.1, 0.2]))[1] == "s"


WRONG = [
    ("points=nowhere", "no such folder of point files"),
    ("points=empty", "no point file in this folder, only .txt"),
    ("points=bad.csv", "the list of point files has no rows of time and file"),
    ("points=odd.csv", "not a readable list"),
    ("points=numbered", "the point files are numbered from 0 on and have no times"),
    ("points=named", "the point files have no time in their names"),
    ("poses=nowhere", "no such file"),
    ("poses=words.txt", "not a pose file that is understood"),
    ("poses=binary.txt", "not a readable pose file"),
    ("poses=nan.csv", "no row of it is a finite pose"),
    ("extrinsic=words.txt", "not a readable extrinsic"),
    ("extrinsic=short.txt", "an extrinsic of shape (2, 2) instead of 4x4 finite numbers"),
    ("extrinsic=mirror.txt", "its matrix differs from a rotation by"),
    ("axes=nwu", "--axes nwu is unknown"),
    ("poses_of=lidar", "--poses-of lidar is unknown"),
]


@pytest.mark.parametrize(("case", "words"), WRONG, ids=[c for c, _ in WRONG])
def test_bad_input_is_one_sentence(folder: Path, case: str, words: str) -> None:
    for name in ("empty", "numbered", "named"):
        (folder / name).mkdir()
    (folder / "empty/a.txt").write_text("")
    write_bin(folder / "named/first", CITY.scans[0])
    for k in range(3):
        write_bin(folder / f"numbered/{k:06d}", CITY.scans[k])
    texts = {"bad.csv": "a,b\n1,2\n", "odd.csv": "time,file\nx,a.bin\n", "words.txt": "a: [1\nb c",
             "nan.csv": "time,x,y,z,qx,qy,qz,qw\n1,nan,0,0,0,0,0,1\n", "short.txt": "1 0\n0 1\n",
             "mirror.txt": "1 0 0 0\n0 1 0 0\n0 0 -1 0\n0 0 0 1\n"}  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00")
    key, value = case.split("=")
    change = value if key in ("axes", "poses_of") else folder / value
    with pytest.raises(VlwmError) as caught:
        read_folder(source(folder, **{key: change}))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_file_is_named_and_left_out(folder: Path, tmp_path: Path) -> None:
    files = sorted((folder / "points").iterdir())
    files[2].write_bytes(files[2].read_bytes()[:700])
    (folder / "points/99.xyz").write_text("")
    session, report = session_of(read_folder(source(folder)), tmp_path / "out")
    assert [Path(f).name for f, _ in report.damaged] == [files[2].name]
    assert "a damaged point file" in report.damaged[0][1] and len(session.numbers)
    with pytest.raises(VlwmError, match=r"point files of the kind \.xyz are not supported"):
        read_points(folder / "points/99.xyz")


def test_clocks_without_overlap_name_both_ranges(folder: Path, tmp_path: Path) -> None:
    late = _csv(folder, RECORDING.poses.shifted(5000.0))
    with pytest.raises(VlwmError, match=r"scans from 1000\.000 .* poses from 5999\.800") as caught:
        session_of(read_folder(source(folder, poses=late)), tmp_path / "out")
    assert "have no time in common" in str(caught.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip # noqa: E501
@given(data=st.data())
def test_damage_never_ends_in_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([k for k in POINT_WRITERS if k not in ("las", "laz")]))
    place = tmp_path / kind
    place.mkdir(exist_ok=True)
    if not any(place.iterdir()):
        POINT_WRITERS[kind](place / "1", CITY.scans[0])
    original = next(p for p in place.iterdir() if p.stem == "1")
    raw = bytearray(original.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, min(len(raw) - 1, 400)))] = data.draw(st.integers(0, 255))
    damaged = place / f"2{original.suffix}"
    damaged.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        assert np.isfinite(read_points(damaged).xyz).all()
    except VlwmError as error:
        assert "\n" not in str(error)


EXTRAS = [("laspy", "a.laz", "needs laspy"), ("pyulog", "a.ulg", "needs pyulog")]


@pytest.mark.parametrize(("module", "name", "words"), EXTRAS, ids=[m for m, _, _ in EXTRAS])
def test_a_missing_extra_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str, words: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    read = read_points if name.endswith("laz") else read_poses
    with pytest.raises(VlwmError, match=words) as caught:
        read(tmp_path / name)
    assert "pip install 'vlwm[" in str(caught.value)


def test_times_of_kitti_poses_come_from_times_txt(folder: Path, tmp_path: Path) -> None:
    poses = _kitti(folder)
    (folder / "times.txt").write_text("\n".join(map(str, CITY.scan_times[:-1])))
    with pytest.raises(VlwmError, match=r"times\.txt has 11 times, fewer than there are") as caught:
        shutil.copy(folder / "kitti.txt", poses.with_name("k.txt"))
        lines = poses.read_text().splitlines()[:-1]
        poses.write_text("\n".join(lines))
        read_folder(source(folder, poses=poses))
    assert "point files" in str(caught.value)
