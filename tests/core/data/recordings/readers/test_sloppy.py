"""Files as teams really have them: other names, units, orders and marks give the same poses."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.core.data.recordings.known_city import SMALL, KnownCity
from tests.core.data.recordings.sessions import CITY, OPTIONS
from vlwm.core.data.recordings.convert import convert
from vlwm.core.data.recordings.formats.clock import seconds_of, unit_in_name
from vlwm.core.data.recordings.formats.extrinsic import read_extrinsic
from vlwm.core.data.recordings.formats.points import read_points
from vlwm.core.data.recordings.formats.pose_files import read_poses
from vlwm.core.data.recordings.readers.folder import FolderSource, point_files, read_folder
from vlwm.core.errors import VlwmError
from vlwm.core.geometry.grid import VoxelGrid

ROWS = [(1.5e9 + 0.1 * k, float(k), 2.0, -3.0, 0.0, 0.0, 0.6, 0.8) for k in range(5)]
XYZW, WXYZ = (0, 1, 2, 3, 4, 5, 6, 7), (0, 1, 2, 3, 7, 4, 5, 6)
EUROC = (
    "#timestamp [ns],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],q_RS_w [],q_RS_x [],q_RS_y [],q_RS_z []"
)
ROSTOPIC = "%time,field.header.seq,field.header.stamp," + ",".join(
    f"field.pose.pose.{name}"
    for name in (*(f"position.{a}" for a in "xyz"), *(f"orientation.{a}" for a in "xyzw"))
)


def lines(order: tuple[int, ...], mark: str, end: str = "", scale: float = 1.0) -> list[str]:
    """Rows in another order, with another mark between the numbers."""
    rows = [[r[0] * scale, *r[1:]] for r in ROWS]
    return [mark.join(repr(row[k]) for k in order) + end for row in rows]


FILES = {
    "w first by its comment.txt": "\n".join(["# t tx ty tz qw qx qy qz", *lines(WXYZ, " ")]),
    "a plain comment.txt": "\n".join(["# poses of SLAM, run 3", *lines(XYZW, " ")]),
    "EuRoC.csv": "\n".join([EUROC, *lines(WXYZ, ",", scale=1e9)]),
    "without names.csv": "\n".join(lines(XYZW, ",")),
    "semicolons, Windows, a mark.csv": "\ufefftime;x;y;z;qx;qy;qz;qw\r\n"
    + "\r\n".join(lines(XYZW, ";", ";")),
    "trailing commas.txt": "\n".join(lines(XYZW, ",", ",")),
    "spaces at the end.txt": "\n".join(lines(XYZW, " ", "  ")) + "\n\n",
    "nanoseconds as floats.txt": "\n".join(lines(XYZW, " ", scale=1e9)),
    "columns in another order.csv": "\n".join(
        ["qw, qx, qy, qz, z, y, x, time_ms", *lines((7, 4, 5, 6, 3, 2, 1, 0), ", ",
                                                   scale=1e3)]
    ),
    "rostopic.csv": "\n".join(
        [ROSTOPIC, *(f"9,{k},{line}" for k, line in enumerate(lines(XYZW, ",", scale=1e9)))]
    ),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", FILES)
def test_the_same_poses_come_out(tmp_path: Path, name: str, packed: bool) -> None:
    path = tmp_path / (name + ".gz" if packed else name)
    data = FILES[name].encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    track = read_poses(path).track
    np.testing.assert_allclose(track.times_s, [r[0] for r in ROWS], atol=1e-6)
    np.testing.assert_allclose(track.positions, [r[1:4] for r in ROWS])
    np.testing.assert_allclose(track.quaternions, [r[4:] for r in ROWS])


def test_units_are_named_by_the_column_or_told_by_the_step() -> None:
    names = ("time_ns", "timestamp [us]", "t_s", "time", "t", "time_msec", "stamps")
    assert [unit_in_name(n) for n in names] == ["ns", "us", "s", None, None, "ms", None]
    # ten seconds at 200 Hz in nanoseconds from 0: in microseconds a step would be 5 s
    assert seconds_of(np.arange(2000) * 5_000_000)[1] == "ns"
    # key frames two seconds apart, nanoseconds since 1970
    assert seconds_of(1_600_000_000 * 10**9 + np.arange(9) * 2 * 10**9)[1] == "ns"


def test_rows_of_another_length_are_not_mixed(tmp_path: Path) -> None:
    scan = CITY.scans[0].points[:1200]
    for width in (3, 5):  # 1200 rows of 3 and of 5 are also rows of 4
        rows = np.zeros((len(scan), width), "<f4")
        rows[:, :3] = scan
        (tmp_path / f"{width}.bin").write_bytes(rows.tobytes())
        with pytest.raises(VlwmError, match=f"rows of {width}, not of x, y, z, intensity"):
            read_points(tmp_path / f"{width}.bin")
    (tmp_path / "5.bin").rename(tmp_path / "5.pcd.bin")  # nuScenes
    np.testing.assert_array_equal(read_points(tmp_path / "5.pcd.bin").xyz, scan)
    rows = np.column_stack([scan, np.arange(len(scan))]).astype("<f4")
    (tmp_path / "4.bin").write_bytes(rows.tobytes())
    np.testing.assert_array_equal(read_points(tmp_path / "4.bin").xyz, scan)


@pytest.mark.parametrize(
    "text",
    ["0, -1, 0, 1\n1, 0, 0, 2\n0, 0, 1, 3\n0, 0, 0, 1\n", "0 -1 0 1 # lidar\n1 0 0 2\n0 0 1 3\n",
     "# sensor to body\n0 -1 0 1\n1 0 0 2\n0 0 1 3\n0 0 0 1", "[[0,-1,0,1],[1,0,0,2],[0,0,1,3],"
     "[0,0,0,1]]"],
    ids=["commas", "3x4", "comment", "brackets"],
)  # fmt: skip
def test_a_matrix_is_read_as_people_write_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "mount.txt").write_text(text)
    matrix = read_extrinsic(tmp_path / "mount.txt")
    np.testing.assert_allclose(matrix[:3], [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3]])


def test_poses_without_times_belong_to_numbered_files(tmp_path: Path) -> None:
    """A file that is missing in between shifts none of the others."""
    (tmp_path / "points").mkdir()
    for k in (0, 1, 3):
        np.save(tmp_path / f"points/{k:06d}.npy", np.full((10, 3), float(k)))
    pose = "1 0 0 {} 0 1 0 0 0 0 1 0"
    poses = tmp_path / "poses.txt"
    poses.write_text("\n".join(pose.format(k) for k in range(4)))
    (tmp_path / "times.txt").write_text("0.0\n0.5\n1.0\n1.5\n")
    recording = read_folder(FolderSource(tmp_path / "points", poses))
    assert [s.time_s for s in recording.scans()] == [0.0, 0.5, 1.5]
    assert recording.poses.at([1.5])[0][0, 0] == 3.0
    (tmp_path / "times.txt").write_text("0.0\nx\n")
    with pytest.raises(VlwmError, match="not a list of times, one a line"):
        read_folder(FolderSource(tmp_path / "points", poses))
    (tmp_path / "times.txt").unlink()
    for k, file in enumerate(point_files(tmp_path / "points")[0]):
        file.rename(tmp_path / f"points/{10 + 0.5 * k}.npy")
    with pytest.raises(VlwmError, match="4 poses without times and 3 point files"):
        read_folder(FolderSource(tmp_path / "points", poses))
    poses.write_text("\n".join(pose.format(k) for k in range(2)))
    recording = read_folder(FolderSource(tmp_path / "points", poses))
    assert any("the last 1 of 3 times have no pose" in note for note in recording.notes)


GRID = VoxelGrid.from_range((-24.0, -24.0, -2.0, 24.0, 24.0, 28.0), (1.6, 1.6, 5.0))


def test_poses_that_end_early_and_clouds_upside_down_are_named(tmp_path: Path) -> None:
    beams = tuple(np.linspace(-25.0, 2.0, 16))  # as those of KITTI's sensor: most look down
    pattern = replace(SMALL, azimuths=240, elevations_deg=beams)
    city: KnownCity = replace(CITY, seconds=1.6, pattern=pattern)
    known = city.recording
    half = known.poses.times_s < city.start_s + 0.6
    track = replace(
        known.poses, times_s=known.poses.times_s[half], positions=known.poses.positions[half],
        quaternions=known.poses.quaternions[half], breaks=known.poses.breaks[half],
    )  # fmt: skip
    short = convert(replace(known, poses=track), tmp_path / "short", GRID, OPTIONS)
    assert any("4 of 8 scans have no pose at their time" in note for note in short.notes), (
        short.notes
    )
    mount = known.extrinsics["LIDAR"] @ np.diag([1.0, -1.0, -1.0, 1.0])
    fallen = replace(known, extrinsics={"LIDAR": mount})
    report = convert(fallen, tmp_path / "fallen", GRID, OPTIONS)
    assert any("the cloud may be upside down" in note for note in report.notes)
    clean = convert(known, tmp_path / "clean", GRID, OPTIONS)
    assert not any("upside down" in note or "no pose" in note for note in clean.notes)
