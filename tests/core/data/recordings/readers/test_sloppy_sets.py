"""Data sets as they are after years on disks: the same recording comes out, or one sentence."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from vlwm.core.data.recordings.readers.argoverse2 import read_argoverse2
from vlwm.core.data.recordings.readers.midair import read_midair
from vlwm.core.data.recordings.readers.tartanair import read_tartanair
from vlwm.core.data.recordings.readers.uavscenes import read_uavscenes
from vlwm.core.data.recordings.recording import Recording
from vlwm.core.errors import VlwmError

Read = Callable[[Path], list[Recording]]
Change = Callable[[Path], None]
FRAMES = (0, 5, 10, 15)  # the names of 5 and of 10 are not in order without zeros in front
TURN = np.array([0.1, 0.2, 0.3, 0.9])


def tartanair(root: Path) -> None:
    folder = root / "town/P001"
    (folder / "depth_left").mkdir(parents=True)
    poses = [[k, 0.5 * k, -3, *TURN] for k in range(20)]
    np.savetxt(folder / "pose_left.txt", poses)
    for k in FRAMES:
        depth = np.full((480, 640), 10.0 + k, "<f4")
        np.save(folder / f"depth_left/{k:06d}_left_depth.npy", depth)


def midair(root: Path) -> None:
    depth = root / "sunny/depth/trajectory_0007"
    depth.mkdir(parents=True)
    with h5py.File(root / "sunny/sensor_records.hdf5", "w") as out:
        truth = out.create_group("trajectory_0007/groundtruth")
        truth["position"] = np.arange(240).reshape(80, 3) / 10
        truth["attitude"] = np.tile(TURN, (80, 1))
    for k in FRAMES:
        picture = np.full((1024, 1024), 10.0 + k, np.float16)
        cv2.imwrite(str(depth / f"{k:06d}.PNG"), picture.view(np.uint16))


def uavscenes(root: Path) -> None:
    run = root / "interval5_AMtown01"
    (run / "interval5_LIDAR").mkdir(parents=True)
    mount = {"camera_ext_R": [0, -1, 0, 0, 0, -1, 1, 0, 0], "camera_ext_t": [0.01, 0.06, -0.05]}
    table = {"used_by": {"AMtown01": "A"}, "calibrations": {"A": mount}}
    (root / "calibration.json").write_text(json.dumps(table))
    infos = []
    for k in range(20):
        pose = np.array([[0, -1, 0, k], [-1, 0, 0, 2 * k], [0, 0, -1, 50], [0, 0, 0, 1.0]])
        infos.append({"OriginalImageName": f"{stamp(k)}.jpg", "T4x4": pose.tolist()})
    (run / "sampleinfos_interpolated.json").write_text(json.dumps(infos))
    for k in FRAMES:
        name = f"image{stamp(k)}_lidar{stamp(k)}.txt"
        np.savetxt(run / "interval5_LIDAR" / name, np.full((9, 3), 1.0 + k), fmt="%.4f")


def stamp(k: int) -> str:
    return f"16581370{57 + k // 10}.{k % 10}"


def argoverse2(root: Path) -> None:
    import pyarrow

    feather = pytest.importorskip("pyarrow.feather", reason="needs the extra vlwm[argoverse2]")
    log = root / "log"
    (log / "sensors/lidar").mkdir(parents=True)
    (log / "calibration").mkdir()
    rows = np.arange(20.0)
    poses = dict(zip(("tx_m", "ty_m", "tz_m"), (rows, 2 * rows, 0 * rows), strict=True))
    poses |= {n: np.full(20, v) for n, v in zip(("qx", "qy", "qz", "qw"), TURN, strict=True)}
    stamps = 315_966_070 * 10**9 + np.arange(20) * 10**8
    table = pyarrow.table({"timestamp_ns": stamps, **poses})
    feather.write_feather(table, str(log / "city_SE3_egovehicle.feather"))
    mounts = {n: np.zeros(2) for n in ("tx_m", "ty_m", "tz_m")}
    table = pyarrow.table({"sensor_name": ["up_lidar", "down_lidar"], **mounts})
    feather.write_feather(table, str(log / "calibration/egovehicle_SE3_sensor.feather"))
    for k in FRAMES:
        points = {a: np.full(9, 1.0 + k, np.float16) for a in "xyz"}
        more = {"laser_number": np.zeros(9, np.uint8), "intensity": np.ones(9, np.uint8)}
        file = log / f"sensors/lidar/{stamps[k]}.feather"
        feather.write_feather(pyarrow.table({**points, **more}), str(file))


SETS: dict[str, tuple[Change, Read]] = {
    "tartanair": (tartanair, read_tartanair),
    "midair": (midair, read_midair),
    "uavscenes": (uavscenes, read_uavscenes),
    "argoverse2": (argoverse2, read_argoverse2),
}


def each(root: Path, pattern: str, change: Callable[[Path], object]) -> None:
    files = sorted(root.rglob(pattern))
    assert files
    for file in files:
        change(file)


def to_npz(file: Path) -> None:
    np.savez_compressed(file.with_suffix(".npz"), depth=np.load(file))
    file.unlink()


def to_png(file: Path) -> None:
    pixels = np.load(file).view(np.uint8).reshape(480, 640, 4)
    cv2.imwrite(str(file.with_suffix(".png")), pixels)
    file.unlink()


def without_zeros(file: Path) -> None:
    number, _, rest = file.name.partition("_" if "_" in file.name else ".")
    file.rename(file.with_name(f"{int(number)}{file.name[len(number)]}{rest}"))


def hidden_twin(file: Path) -> None:
    """The file that macOS puts next to each on other disks."""
    file.with_name("._" + file.name).write_bytes(b"\0\5\x16\7" + bytes(78))


def windows_lines(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))


def to_small(file: Path) -> None:
    file.rename(file.with_suffix(".png"))


def shouted(file: Path) -> None:
    """A name in capitals after its number."""
    stem, ending = file.name.split(".", 1)
    file.rename(file.with_name(f"{stem.upper()}.{ending.upper()}"))


def twin(ending: str) -> Callable[[Path], object]:
    return lambda file: shutil.copy(file, file.with_suffix(ending))


def infos(change: Callable[[list], list]) -> Change:
    def changed(root: Path) -> None:
        (file,) = root.rglob("sampleinfos_interpolated.json")
        file.write_text(json.dumps(change(json.loads(file.read_text()))))

    return changed


def in_nanoseconds(root: Path) -> None:
    def name(text: str) -> str:
        return f"{text.replace('.', '')}00000000"

    def renamed(rows: list) -> list:
        return [{**r, "OriginalImageName": name(r["OriginalImageName"][:-4]) + ".jpg"}
                for r in rows]  # fmt: skip

    infos(renamed)(root)
    for file in sorted(root.rglob("image*.txt")):
        image, lidar = file.stem.removeprefix("image").split("_lidar")
        file.rename(file.with_name(f"image{name(image)}_lidar{name(lidar)}.txt"))


def table(change: Callable[[dict], dict], file: str = "city_SE3_egovehicle") -> Change:
    def changed(root: Path) -> None:
        import pyarrow
        from pyarrow import feather

        for path in sorted(root.rglob(f"{file}.feather")):
            columns = feather.read_table(str(path)).to_pydict()
            feather.write_feather(pyarrow.table(change(columns)), str(path))

    return changed


def with_lost_row(root: Path) -> None:
    with h5py.File(root / "sunny/sensor_records.hdf5", "r+") as records:
        records["trajectory_0007/groundtruth/attitude"][7] = np.nan


SAME = {
    ("tartanair", "npz"): lambda r: each(r, "*.npy", to_npz),
    ("tartanair", "the PNG of V2"): lambda r: each(r, "*.npy", to_png),
    ("tartanair", "no zeros in front"): lambda r: each(r, "*.npy", without_zeros),
    ("tartanair", "macOS"): lambda r: each(r, "*.npy", hidden_twin),
    ("tartanair", "Windows lines"): lambda r: each(r, "*.txt", windows_lines),
    ("tartanair", "capitals"): lambda r: each(r, "*.npy", shouted),
    ("midair", "no zeros in front"): lambda r: each(r, "*.PNG", without_zeros),
    ("midair", "macOS"): lambda r: each(r, "*.PNG", hidden_twin),
    ("midair", "small letters"): lambda r: each(r, "*.PNG", to_small),
    ("uavscenes", "nanoseconds"): in_nanoseconds,
    ("uavscenes", "out of order"): infos(lambda rows: rows[::-1]),
    ("uavscenes", "each twice"): infos(lambda rows: [*rows, *rows]),
    ("uavscenes", "macOS"): lambda r: each(r, "image*.txt", hidden_twin),
    ("uavscenes", "Windows lines"): lambda r: each(r, "image*.txt", windows_lines),
    ("argoverse2", "macOS"): lambda r: each(r, "*.feather", hidden_twin),
    ("argoverse2", "out of order"): table(lambda c: {n: v[::-1] for n, v in c.items()}),
    ("argoverse2", "each twice"): table(lambda c: {n: v + v for n, v in c.items()}),
    ("argoverse2", "more columns"): table(lambda c: {"index": c["qx"], **c}),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME, ids=lambda case: ": ".join(case))
def test_the_same_recording_comes_out(tmp_path: Path, case: tuple[str, str]) -> None:
    write, read = SETS[case[0]]
    write(tmp_path / "one")
    (clean,) = read(tmp_path / "one")
    wanted = list(clean.scans())
    write(tmp_path / "other")
    SAME[case](tmp_path / "other")
    (found,) = read(tmp_path / "other")
    scans = list(found.scans())
    assert found.damaged == [] and len(wanted) == len(FRAMES)
    assert [s.time_s for s in scans] == [s.time_s for s in wanted]
    for one, other in zip(scans, wanted, strict=True):
        np.testing.assert_array_equal(one.points, other.points)
    np.testing.assert_allclose(found.poses.times_s, clean.poses.times_s, atol=1e-6)
    np.testing.assert_array_equal(found.poses.positions, clean.poses.positions)
    np.testing.assert_array_equal(found.poses.quaternions, clean.poses.quaternions)


LEFT_OUT = {
    ("tartanair", "half size"): (
        lambda r: each(r, "*.npy", lambda f: np.save(f, np.load(f)[::2, ::2])),
        4, "a picture of 320 x 240 pixels, not of 640 x 480"),
    ("tartanair", "a second file of a number"): (
        lambda r: each(r, "000005*.npy", twin(".npz")), 1, "the same number as"),
    ("tartanair", "16-bit millimetres"): (
        lambda r: each(r, "*.npy", lambda f: (cv2.imwrite(
            str(f.with_suffix(".png")), np.full((480, 640), 9000, np.uint16)), f.unlink())),
        4, "not a picture of four 8-bit channels"),
    ("tartanair", "packed"): (
        lambda r: each(r, "*.npy", lambda f: (f.with_name(f.name + ".gz").write_bytes(
            gzip.compress(f.read_bytes())), f.unlink())), 4, "depth is read from .npy, .npz, .png"),
    ("midair", "half size"): (
        lambda r: each(r, "*.PNG", lambda f: cv2.imwrite(
            str(f), cv2.imread(str(f), cv2.IMREAD_UNCHANGED)[::2, ::2])),
        4, "a picture of 512 x 512 pixels, not of 1024 x 1024"),
    ("midair", "a second file of a number"): (
        lambda r: each(r, "000010.PNG", twin(".png")), 1, "the same number as 000010.PNG"),
    ("midair", "a copy by a file manager"): (
        lambda r: each(r, "000010.PNG", lambda f: shutil.copy(f, f.with_name("Copy of 10.png"))),
        1, "its name does not begin with a number"),
    ("argoverse2", "a copy by a file manager"): (
        lambda r: each(r, "3159660700*.feather", lambda f: shutil.copy(
            f, f.with_name(f"{f.stem} (1).feather"))), 1, "its name is not a time"),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT_OUT, ids=lambda case: ": ".join(case))
def test_what_is_not_read_is_named(tmp_path: Path, case: tuple[str, str]) -> None:
    write, read = SETS[case[0]]
    change, count, words = LEFT_OUT[case]
    write(tmp_path)
    change(tmp_path)
    (found,) = read(tmp_path)
    for _ in (1, 2):  # a second reading counts nothing twice
        scans = list(found.scans())
        assert len(found.damaged) == count and all(words in d[1] for d in found.damaged)
    read_again = {"half size", "16-bit millimetres", "packed"}
    assert len(scans) == (0 if case[1] in read_again else len(FRAMES))


REFUSED = {
    ("tartanair", "times in front"): (
        lambda r: each(r, "*.txt", lambda f: np.savetxt(f, np.loadtxt(f)[:, [0, *range(7)]])),
        "times with orientations of shape|not a table of seven numbers"),
    ("tartanair", "commas"): (
        lambda r: each(r, "*.txt", lambda f: f.write_text(f.read_text().replace(" ", ","))),
        "not a table of seven numbers"),
    ("uavscenes", "transposed"): (
        infos(lambda rows: [{**r, "T4x4": np.transpose(r["T4x4"]).tolist()} for r in rows]),
        "20 of 20 matrices T4x4 are not poses"),
    ("uavscenes", "scaled"): (
        infos(lambda rows: [{**r, "T4x4": (2 * np.array(r["T4x4"])).tolist()} for r in rows]),
        "20 of 20 matrices T4x4 are not poses"),
    ("argoverse2", "a row without time"): (
        table(lambda c: {**c, "timestamp_ns": [None, *c["timestamp_ns"][1:]]}),
        "timestamp_ns is empty in 1 of 20 rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: ": ".join(case))
def test_what_would_be_wrong_is_refused(tmp_path: Path, case: tuple[str, str]) -> None:
    write, read = SETS[case[0]]
    change, words = REFUSED[case]
    write(tmp_path)
    change(tmp_path)
    with pytest.raises(VlwmError, match=words):
        read(tmp_path)


LOST = {
    "tartanair": lambda r: each(r, "pose_left.txt", lambda f: f.write_text(
        f.read_text().replace("7.000000000000000000e+00", "nan", 1))),
    "midair": with_lost_row,
    "uavscenes": infos(lambda rows: [
        {**r, "T4x4": [[float("nan")] * 4] * 4} if k == 7 else r for k, r in enumerate(rows)]),
    "argoverse2": table(lambda c: {**c, "tx_m": [*c["tx_m"][:7], None, *c["tx_m"][8:]]}),
}  # fmt: skip


@pytest.mark.parametrize("name", LOST)
def test_a_pose_without_numbers_is_a_gap(tmp_path: Path, name: str) -> None:
    write, read = SETS[name]
    write(tmp_path)
    before = len(read(tmp_path)[0].poses)
    LOST[name](tmp_path)
    track = read(tmp_path)[0].poses
    assert len(track) == before - 1
    assert np.isfinite(track.positions).all() and np.isfinite(track.quaternions).all()


def test_other_files_among_the_scans_are_counted(tmp_path: Path) -> None:
    uavscenes(tmp_path)
    each(tmp_path, "image*.txt", lambda f: f.with_name(f.name + ".gz").write_bytes(b""))
    (found,) = read_uavscenes(tmp_path)
    assert any("4 other files among the scans are not read" in n for n in found.notes)
    assert len(list(found.scans())) == len(FRAMES)
