"""Prepared folders: right geometry, the same bytes however they came about, nothing half."""

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

from tests.core.data.seen_cells import seen_cells
from tests.core.data.small_data import PLAN, SIZE_M, config, digest, grid, make
from vlwm.core.city.procedural import procedural_city
from vlwm.core.city.read import read_city
from vlwm.core.city.terrain import Terrain
from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config
from vlwm.core.data.generation.prepare import PreparePlan, PrepareReport, prepare
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.session import Session
from vlwm.core.data.splits import NAMES, Splits
from vlwm.core.data.windows import windows_of
from vlwm.core.errors import DataError
from vlwm.core.geometry.frames import ego_of, from_ego
from vlwm.core.geometry.grid import VoxelGrid


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PrepareReport]:
    folder = tmp_path_factory.mktemp("prepared")
    return folder, make(folder)


def test_report_and_folders(prepared: tuple[Path, PrepareReport]) -> None:
    folder, report = prepared
    assert (report.sessions, report.frames, report.procedural) == (4, 56, True)
    assert report.ground_below_share == 0.0
    assert sum(report.splits.values()) == 56 and set(report.splits) == set(NAMES)
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name != ".packed")
    assert [n.split("_")[0] for n in names] == ["drone", "drone", "rover", "rover"]
    meta = json.loads((folder / names[0] / "session.json").read_text())
    assert meta["origin"]["crs"] == "procedural" and meta["velocity_frame"] == "world"
    assert "not real" in meta["attribution"]


def test_the_users_readers_read_it(prepared: tuple[Path, PrepareReport]) -> None:
    folder, _ = prepared
    session = sorted(folder.glob("drone_*"))[0]
    with np.load(session / "occupancy/000000_occupancy.npz") as opened:
        occupancy = opened["occupancy"]
    assert occupancy.shape == grid().shape and occupancy.dtype == np.uint8
    assert set(np.unique(occupancy)) == {0, 1}
    pose = json.loads((session / "poses/000000.json").read_text())
    assert set(pose) == {"position", "orientation", "velocity", "ground_z", "timestamp"}
    assert set(pose["velocity"]) == {"linear", "angular"}
    assert pose["ground_z"] == 0.0


def test_frames_show_the_city_where_it_is(prepared: tuple[Path, PrepareReport]) -> None:
    """Corners of buildings near a vehicle are occupied cells of its frame."""
    folder, _ = prepared
    city = procedural_city(SIZE_M, 3)
    for path in sorted(folder.glob("*_2*")):
        session = Session(path)
        origin = session.meta.origin
        assert origin is not None
        shift = np.array([origin["easting"], origin["northing"], origin["height"]])
        ego = ego_of(session.poses, session.ground_z)
        for place in (0, 7, 13):
            here = ego[place].copy()
            here[:3] += shift
            points = city.mesh.vertices
            from vlwm.core.geometry.frames import to_ego

            seen = to_ego(points, here)
            inside = grid().contains(seen)
            cells = grid().index_of(seen[inside])
            occupancy = session.read_occupancy(int(session.numbers[place]))
            assert inside.any() and occupancy[tuple(cells.T)].all()
            ahead = from_ego(np.array([20.0, 0.0, 0.0]), here)
            np.testing.assert_allclose(to_ego(ahead, here), [20, 0, 0], atol=1e-9)


def test_splits_share_no_world_cell(prepared: tuple[Path, PrepareReport]) -> None:
    folder, _ = prepared
    store, splits = PackedStore.open(folder, grid()), Splits.read(folder / "splits.json")
    labels = splits.labels(store)
    assert set(labels) == set(NAMES)
    seen = {}
    for name in NAMES:
        rows = np.flatnonzero(labels == name)
        origins = [store.meta[s]["origin"] for s in store.session[rows]]
        shift = np.array([[o["easting"], o["northing"]] for o in origins])
        ego = ego_of(store.poses[rows], store.ground_z[rows])
        seen[name] = seen_cells(ego[:, :2] + shift, ego[:, 3], grid())
    assert not seen["train"] & seen["val"]
    assert not seen["train"] & seen["test"]
    assert not seen["val"] & seen["test"]


def test_workers_change_nothing(prepared: tuple[Path, PrepareReport], tmp_path: Path) -> None:
    make(tmp_path / "two", workers=2)
    assert digest(prepared[0]) == digest(tmp_path / "two")


def test_a_finished_folder_is_left_as_it_is(prepared: tuple[Path, PrepareReport]) -> None:
    before = digest(prepared[0])
    report = make(prepared[0])
    assert report.written == 0 and report.kept == 56
    assert digest(prepared[0]) == before


def test_sessions_differ(prepared: tuple[Path, PrepareReport]) -> None:
    store = PackedStore.open(prepared[0], grid())
    frames = [store.read_bits(rows[:1]).tobytes() for _, rows in store.session_rows()]
    assert len(set(frames)) == 4


def test_another_plan_in_the_same_folder_is_refused(prepared: tuple[Path, PrepareReport]) -> None:
    with pytest.raises(DataError, match="another seed"):
        make(prepared[0], seed=4)


def test_the_share_of_ground_below_the_grid_is_told(tmp_path: Path) -> None:
    """On a slope of a third all ground farther than 6 m downhill lies below -2 m."""
    city = procedural_city(SIZE_M, 3)
    heights = -np.arange(0.0, 3000.0, 10.0)[:, None] / 3 * np.ones((1, 300))
    slope = Terrain(-1500.0, -1500.0, 10.0, heights)
    low = (
        city.mesh.vertices
        + np.array([0.0, 0.0, 1.0]) * slope.height(city.mesh.vertices[:, :2])[:, None]
    )
    steep = dataclasses.replace(city, terrain=slope, triangles=low.reshape(-1, 3, 3))
    plan = dataclasses.replace(PLAN, patterns=("random",))
    found = prepare(steep, config(), tmp_path / "steep", plan).ground_below_share
    half, bottom = grid().upper_m[0], -grid().lower_m[2]
    assert found == pytest.approx((half - 3 * bottom) / (2 * half), abs=0.03)


def test_every_feature_left_out_is_named(tmp_path: Path) -> None:
    city = procedural_city(SIZE_M, 3)
    left_out = tuple(("a.gml", f"b{k}", "a coordinate is not finite") for k in range(9))
    broken = dataclasses.replace(city, report=dataclasses.replace(city.report, skipped=left_out))
    prepare(broken, config(), tmp_path, dataclasses.replace(PLAN, frames=2, sessions=3))
    told = json.loads((tmp_path / "city_report.json").read_text())
    assert [tuple(row) for row in told["skipped"]] == list(left_out)


def test_solid_fills_buildings(tmp_path: Path, prepared: tuple[Path, PrepareReport]) -> None:
    report = make(tmp_path / "solid", fill="solid")
    assert report.occupied_share > 1.2 * prepared[1].occupied_share


def test_what_was_deleted_or_damaged_is_made_again(
    prepared: tuple[Path, PrepareReport], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(prepared[0], folder)
    frames = sorted(folder.glob("*/occupancy/*.npz"))
    frames[3].unlink()
    frames[20].write_bytes(frames[20].read_bytes()[:50])
    poses = sorted(folder.glob("*/poses/*.json"))
    poses[9].write_text("{")
    poses[30].unlink()
    report = make(folder)
    assert report.frames == 56 and report.written == 2
    assert digest(folder) == digest(prepared[0])


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    process = start(tmp_path, 400)
    wait_for(tmp_path, 20, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(is_running(c) for c in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.core.data.small_data import make
make(Path(sys.argv[1]), workers=2, frames=int(sys.argv[3]))
"""


@pytest.mark.parametrize("share", [0.15, 0.4, 0.8])
def test_killed_it_goes_on_to_the_same_bytes(
    prepared: tuple[Path, PrepareReport], tmp_path: Path, share: float
) -> None:
    kill_when(tmp_path / "out", share)
    make(tmp_path / "out", workers=2)
    assert digest(tmp_path / "out") == digest(prepared[0])


def start(folder: Path, frames: int) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[4])
    command = [sys.executable, "-c", SCRIPT, str(folder), root, str(frames)]
    return subprocess.Popen(command, start_new_session=True)


def wait_for(folder: Path, files: float, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while len(list(folder.rglob("*.npz"))) < files and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_when(folder: Path, share: float) -> None:
    with start(folder, PLAN.frames) as process:
        wait_for(folder, share * 56, process)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.endurance
@pytest.mark.parametrize("round_", range(20))
def test_killed_at_random(
    prepared: tuple[Path, PrepareReport], tmp_path: Path, round_: int
) -> None:
    kill_when(tmp_path / "out", float(np.random.default_rng(round_).random()))
    make(tmp_path / "out")
    assert digest(tmp_path / "out") == digest(prepared[0])


def test_marunouchi_at_full_size(shared_data: Path, tmp_path: Path) -> None:
    city = read_city([shared_data / "plateau/tokyo_marunouchi_obj"])
    plan = PreparePlan(frames=12, sessions=3, agents=("drone",), seed=42, workers=1)
    report = prepare(city, load_config("finetune_tokyo"), tmp_path, plan)
    assert 0.012 <= report.occupied_share <= 0.028
    assert 0.25 <= report.ground_share <= 0.7
    assert "Project PLATEAU" in report.attribution
    full = VoxelGrid.from_range(Config().point_cloud_range, Config().voxel_size)
    store = PackedStore.open(tmp_path, full)
    windows = windows_of(store, Splits.read(tmp_path / "splits.json"), "train", 10)
    assert len(windows) == 3 and windows[0].rows.tolist() == list(range(10))
