"""TartanAir V1 and V2 and Mid-Air: a known city comes back, real files, faults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from tests.core.data.recordings.known_city import KnownCity
from tests.core.data.recordings.readers.depth_city import DepthCity, ned_poses
from tests.core.data.recordings.sessions import (
    CITY,
    assert_equals_the_generic_door,
    assert_same_motion,
    session_of,
    share_of_equal_cells,
)
from vlwm.core.data.recordings.readers.midair import read_midair
from vlwm.core.data.recordings.readers.tartanair import read_tartanair
from vlwm.core.data.recordings.recording import Recording
from vlwm.core.errors import VlwmError

SEEN = slice(0, None, 3)  # pictures that are written: depth need not exist at every pose


def times_of(city: KnownCity) -> np.ndarray:
    """The poses of a trajectory at 10 Hz, without the last 0.8 s of the city's recording."""
    return city.start_s + np.arange(round(10 * (city.seconds - 0.8))) * 0.1


def tartan(root: Path, version: int, known: KnownCity = CITY) -> tuple[Path, Recording]:
    times = times_of(known)
    first = 0.5 if version == 2 else 0.0
    shape, centre = ((640, 640), (320, 320)) if version == 2 else ((480, 640), (320, 240))
    city = DepthCity(known, shape, 320.0, centre, first, 3)
    name = "lcam_front" if version == 2 else "left"
    folder = root / "town/Data_easy/P001"
    (folder / f"depth_{name}").mkdir(parents=True)
    places, turns = ned_poses(*known.poses(times))
    np.savetxt(folder / f"pose_{name}.txt", np.concatenate([places, turns], axis=1))
    for k in range(len(times))[SEEN]:
        depth = city.depth(float(times[k])).astype("<f4")
        if version == 2:
            file = folder / f"depth_{name}/{k:06d}_{name}_depth.png"
            cv2.imwrite(str(file), depth.view(np.uint8).reshape(*shape, 4))
        else:
            np.save(folder / f"depth_{name}/{k:06d}_{name}_depth.npy", depth)
    return root, city.recording(times, SEEN)


def midair(root: Path, known: KnownCity = CITY, climate: str = "sunny") -> tuple[Path, Recording]:
    """Poses at 100 Hz, pictures at 25 Hz of which each fifth is written."""
    city = DepthCity(known, (1024, 1024), 512.0, (512.0, 512.0), 0.5, 5, ahead_m=0.5)
    depth = root / climate / "depth/trajectory_0007"
    depth.mkdir(parents=True)
    seconds = times_of(known)[-1] - known.start_s
    times = known.start_s + np.arange(round(seconds * 100) + 1) * 0.01
    places, turns = ned_poses(*known.poses(times))
    with h5py.File(root / climate / "sensor_records.hdf5", "w") as out:
        truth = out.create_group("trajectory_0007/groundtruth")
        truth["position"], truth["attitude"] = places, turns[:, [3, 0, 1, 2]]
        out.create_group("trajectory_0008/groundtruth")
    seen = np.arange(0, len(times) // 4 + 1, 5)
    seen = seen[4 * seen < len(times)]
    for k in seen:
        picture = city.depth(float(times[4 * k])).astype(np.float16)
        cv2.imwrite(str(depth / f"{k:06d}.PNG"), picture.view(np.uint16))
    direct = city.recording(times[4 * seen])
    places, turns = known.poses(times)
    from vlwm.core.data.recordings.pose_track import PoseTrack

    return root, replace(direct, poses=PoseTrack.of(times - times[0], places, turns))


CASES = {
    "tartanair v1": (lambda p: tartan(p, 1), read_tartanair),
    "tartanair v2": (lambda p: tartan(p, 2), read_tartanair),
    "midair": (midair, read_midair),
}


@pytest.mark.parametrize("name", CASES)
def test_a_known_city_comes_back(tmp_path: Path, name: str) -> None:
    write, read = CASES[name]
    root, direct = write(tmp_path / "in")
    (found,) = read(root)
    one, report = session_of(found, tmp_path / "one")
    other, _ = session_of(direct, tmp_path / "other")
    assert not report.damaged
    least = 0.998 if name == "midair" else 1.0  # its depth is float16
    assert share_of_equal_cells(one, other) >= least
    assert_equals_the_generic_door(one, found, tmp_path / "plain")
    assert_same_motion(one, other)


def test_a_real_trajectory_lays_one_picture_on_the_next(shared_data: Path) -> None:
    """Points of two real pictures, 0.9 s apart, agree by the true poses and not without them."""
    from vlwm.core.data.recordings.placing import place_scan

    (recording,) = read_tartanair(shared_data / "tartanair/v1_indoor")
    assert len(recording.poses) == 189 and len(recording.images) == 10
    scans = list(recording.scans())
    assert [round(s.time_s, 1) for s in scans] == [round(17.8 + 0.1 * k, 1) for k in range(10)]
    first, last = (place_scan(scans[k], recording.poses, recording.extrinsics) for k in (0, 9))
    assert first is not None and last is not None

    def cells(points: np.ndarray) -> set[tuple[int, ...]]:
        return {tuple(c) for c in np.floor(points / 0.2).astype(int)}

    still = replace(scans[9], time_s=scans[0].time_s)
    unmoved = place_scan(still, recording.poses, recording.extrinsics)
    assert unmoved is not None
    a, b, c = cells(first.points), cells(last.points), cells(unmoved.points)
    iou = [len(a & x) / len(a | x) for x in (b, c)]
    assert iou[0] > 1.5 * iou[1], iou


def test_faults_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(VlwmError, match="no TartanAir trajectory here"):
        read_tartanair(tmp_path)
    with pytest.raises(VlwmError, match="no Mid-Air trajectory with depth here"):
        read_midair(tmp_path)
    (tmp_path / "sensor_records.hdf5").write_bytes(b"no records")
    with pytest.raises(VlwmError, match="the records cannot be read"):
        read_midair(tmp_path)
    (tmp_path / "pose_left.txt").write_text("1 2 x\n")
    with pytest.raises(VlwmError, match="not a table of seven numbers a line"):
        read_tartanair(tmp_path)
    (tmp_path / "pose_left.txt").write_text("0 0 0 0 0 0 1\n" * 3)
    (tmp_path / "depth_left").mkdir()
    np.save(tmp_path / "depth_left/000001_left_depth.npy", np.zeros((2, 2), int))
    (tmp_path / "depth_left/000002_left_depth.npy").write_bytes(b"x")
    (recording,) = read_tartanair(tmp_path)
    assert list(recording.scans()) == [] and len(recording.damaged) == 2
