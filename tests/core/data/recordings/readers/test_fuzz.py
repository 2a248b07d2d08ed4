"""Damage in any file of any data set is one sentence, or is named, counted and left out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.core.city.test_hostile import limited
from tests.core.data.recordings.formats import write_folder
from tests.core.data.recordings.known_city import SMALL, KnownCity
from tests.core.data.recordings.readers import (
    test_argoverse2,
    test_bags,
    test_depth_sets,
    test_kitti,
    test_nuscenes,
    test_uavscenes,
)
from vlwm.core.data.recordings.readers.bags import read_bags
from vlwm.core.data.recordings.readers.folder import FolderSource, read_folder
from vlwm.core.data.recordings.readers.registry import read_dataset
from vlwm.core.data.recordings.recording import Recording
from vlwm.core.errors import VlwmError

TINY = KnownCity(seconds=1.2, scan_hz=5.0, blocks=1, pattern=replace(SMALL, azimuths=40))
TRIES, MANY = 12, 1000
Read = Callable[[Path], list[Recording]]


def _folder(root: Path) -> Read:
    write_folder(root, TINY.recording, "pcd_compressed")
    return lambda place: [
        read_folder(FolderSource(place / "points", place / "poses.txt", place / "extrinsic.yaml"))
    ]


def _bag(root: Path, name: str, distro: str, plugin: str) -> Read:
    root.mkdir()
    test_bags.write_rosbags(root / name, distro, plugin, "cloud", "odom", TINY)
    return lambda place: read_bags(place / name)


def _set(name: str, write: Callable[[Path], object]) -> Callable[[Path], Read]:
    def made(root: Path) -> Read:
        write(root)
        return lambda place: read_dataset(name, place)

    return made


def _depth(version: int) -> Callable[[Path], object]:
    return lambda root: test_depth_sets.tartan(root, version, TINY)


SETS: dict[str, Callable[[Path], Read]] = {
    "folder": _folder,
    "ros1": lambda root: _bag(root, "b.bag", "ROS1_NOETIC", ""),
    "sqlite3": lambda root: _bag(root, "b", "ROS2_HUMBLE", "SQLITE3"),
    "mcap": lambda root: _bag(root, "b", "ROS2_JAZZY", "MCAP"),
    "kitti": _set("kitti", lambda root: test_kitti.write(root, TINY.recording)),
    "nuscenes": _set("nuscenes", lambda root: test_nuscenes.write(root, TINY.recording)),
    "uavscenes": _set("uavscenes", lambda root: test_uavscenes.write(root, TINY.recording)),
    "argoverse2": _set("argoverse2", lambda root: test_argoverse2.write(root, TINY.recording)),
    "tartanair v1": _set("tartanair", _depth(1)),
    "tartanair v2": _set("tartanair", _depth(2)),
    "midair": _set("midair", lambda root: test_depth_sets.midair(root, TINY)),
}


def damaged(root: Path, rng: np.random.Generator) -> Iterator[str]:
    """Flip bytes of a file, or cut it, and put it back afterwards."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.stat().st_size)
    file = files[int(rng.integers(len(files)))]
    whole = file.read_bytes()
    raw = bytearray(whole)
    for _ in range(int(rng.integers(0, 5))):
        raw[int(rng.integers(len(raw)))] = int(rng.integers(256))
    if rng.random() < 0.5:
        del raw[int(rng.integers(len(raw))) :]
    file.write_bytes(bytes(raw))
    yield f"{file.name}, {len(raw)} of {len(whole)} bytes"
    file.write_bytes(whole)


def survive(root: Path, read: Read, seeds: range) -> dict[str, int]:
    """Count how the damage of each seed ends: refused in a sentence, partly left out, unnoticed."""
    counts = {"refused": 0, "left out": 0, "unnoticed": 0}
    for seed in seeds:
        for what in damaged(root, np.random.default_rng([11, seed])):
            try:
                with limited():
                    recordings = read(root)
                    scans = [s for r in recordings for s in r.scans()]
            except VlwmError as error:
                assert "\n" not in str(error), (what, error)
                counts["refused"] += 1
                continue
            assert all(np.isfinite(s.points).all() for s in scans), what
            lost = any(r.damaged for r in recordings)
            counts["left out" if lost else "unnoticed"] += 1
    return counts


@pytest.mark.parametrize("name", SETS)
def test_damage_is_one_sentence_or_left_out(tmp_path: Path, name: str) -> None:
    root = tmp_path / "in"
    read = SETS[name](root)
    counts = survive(root, read, range(TRIES))
    assert counts["refused"] + counts["left out"] > 0, counts


@pytest.mark.endurance
@pytest.mark.parametrize("name", SETS)
def test_much_damage(tmp_path: Path, name: str, seeds_of: Callable[[int], range]) -> None:
    root = tmp_path / "in"
    counts = survive(root, SETS[name](root), seeds_of(MANY))
    print(name, counts)


@pytest.mark.parametrize("name", ["ros1", "sqlite3", "mcap"])
def test_a_bag_cut_anywhere_is_one_sentence_or_what_is_readable(tmp_path: Path, name: str) -> None:
    root = tmp_path / "in"
    read = SETS[name](root)
    bag = max((p for p in root.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    whole = bag.read_bytes()
    kinds = set()
    for share in (0.0, 0.01, 0.3, 0.6, 0.9, 0.97, 0.995):
        bag.write_bytes(whole[: int(share * len(whole))])
        try:
            (recording,) = read(root)
            scans = list(recording.scans())
        except VlwmError as error:
            assert "\n" not in str(error)
            kinds.add("refused")
        else:
            assert len(scans) <= len(TINY.scans)
            assert recording.damaged or len(scans) == len(TINY.scans), share
            kinds.add("read")
    assert "refused" in kinds


def test_an_archive_is_read_member_by_member(tmp_path: Path) -> None:
    root = test_uavscenes.write(tmp_path / "in", TINY.recording)
    packed = Path(shutil.make_archive(str(tmp_path / "interval5_CAM_LIDAR"), "zip", root))
    shutil.copy(root / "calibration.json", tmp_path)
    (direct,), (zipped,) = read_dataset("uavscenes", root), read_dataset("uavscenes", packed)
    assert zipped.name == direct.name and len(zipped.images) == len(direct.images)
    for one, other in zip(direct.scans(), zipped.scans(), strict=True):
        np.testing.assert_array_equal(one.points, other.points)
    with pytest.raises(VlwmError, match="kitti is read from a folder"):
        read_dataset("kitti", packed)
    raw = bytearray(packed.read_bytes())
    at = raw.index(b"_LIDAR/image") + 80
    raw[at : at + 40] = bytes(40)
    packed.write_bytes(bytes(raw))
    (hurt,) = read_dataset("uavscenes", packed)
    assert len(list(hurt.scans())) == len(TINY.scans) - len(hurt.damaged) < len(TINY.scans)
    packed.write_bytes(bytes(raw[: len(raw) // 2]))
    with pytest.raises(VlwmError, match="the archive cannot be read"):
        read_dataset("uavscenes", packed)
