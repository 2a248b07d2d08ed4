"""`vlwm prepare` on recordings: a session, its counts, and one sentence for each fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.test_prepare import fault, run
from tests.core.data.recordings.formats import write_folder
from tests.core.data.recordings.sessions import CITY
from vlwm.core.data.session import Session
from vlwm.core.errors import UsageError

GRID = ("--config", "test_local", "--set", "voxel_size=[1.6,1.6,5.0]")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "rec", CITY.recording, "bin")


def parts(folder: Path) -> list[object]:
    return ["--points", folder / "points", "--poses", folder / "poses.txt",
            "--extrinsic", folder / "extrinsic.yaml"]  # fmt: skip


def test_a_folder_becomes_a_session(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(*GRID, *parts(folder), "--output", out, "--json", "--window", 0.5)
    assert result.exit_code == 0, result.exception
    value = json.loads(result.stdout)
    (session,) = value["sessions"]
    assert session["frames"] == len(Session(out / session["session"]).numbers) >= 5
    assert "TUM poses, times in s" in result.stderr and "times in ns" in result.stderr
    shown = run(*GRID, *parts(folder), "--output", out, "--window", 0.5)
    assert "moving points left out" in shown.stdout and "vlwm train" in shown.stdout


FAULTS = [
    ("--dataset nuscene", "--dataset nuscene needs its folder: give --input DIR"),
    ("--dataset kity --input .", "--dataset kity is unknown: did you mean kitti?"),
    ("--dataset kitti --input nowhere", "no such folder"),
    ("--points .", "--points needs the poses of the vehicle"),
    ("--points . --poses . --agents both", "a recording is made by one vehicle, not by both"),
    ("--poses slam.txt", "--poses needs the points of a recording"),
    ("--poses-of sensor", "--poses-of needs the points of a recording"),
    ("--topic-pose /odom --input .", "--topic-pose needs the points of a recording"),
    ("--points . --dataset kitti --input .", "--points and --dataset exclude each other"),
    ("--dataset kitti --input . --poses a.txt", "--poses does not go with --dataset kitti"),
    ("--points . --poses . --topic-pose /odom", "--topic-pose belongs to a ROS bag"),
    ("--points b.bag --poses-of lidar", "--poses-of lidar is unknown"),
    ("--points b.bag --axes nwu", "--axes nwu is unknown"),
]


@pytest.mark.parametrize(("line", "words"), FAULTS, ids=[line for line, _ in FAULTS])
def test_a_fault_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*GRID, *line.split())
    kind = UsageError if "nowhere" not in line else Exception
    assert words in (fault(result, kind) if kind is UsageError else str(result.exception))


def test_strict_stops_at_files_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    files = sorted((folder / "points").iterdir())
    files[1].write_bytes(b"\0" * 5)
    lax = run(*GRID, *parts(folder), "--output", tmp_path / "a", "--window", 0.5)
    assert lax.exit_code == 0 and "left out" in lax.stderr
    hard = run(*GRID, *parts(folder), "--output", tmp_path / "b", "--window", 0.5, "--strict")
    assert "1 files could not be read" in str(hard.exception)


def test_a_dry_run_prints_the_plan_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    result = run(*GRID, *parts(folder), "--output", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0, result.exception
    assert "Plan (nothing is written)" in result.stdout and "150 poses" in result.stdout
    assert not (tmp_path / "out").exists()
    value = json.loads(run(*GRID, *parts(folder), "--dry-run", "--json").stdout)
    assert value["dry_run"] and value["recordings"][0]["frames_at_most"] >= 5
