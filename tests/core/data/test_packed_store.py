"""The packed store hands out what the sessions hold, and notices damage and change."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.core.data.test_npz import some_layers
from vlwm.core.data.npz import npz_bytes, write_layers
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.session import (
    Session,
    SessionMeta,
    guess_velocity_frame,
    write_meta,
    write_pose,
)
from vlwm.core.data.shards.session_shard import KINDS, shard_of_session
from vlwm.core.data.source_splits import open_splits
from vlwm.core.data.splits import Region, Splits
from vlwm.core.data.windows import windows_of
from vlwm.core.errors import DataError
from vlwm.core.geometry.frames import quaternion_from_heading, rotate
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.store.shard_files import read_index

GRID = VoxelGrid.from_range((-4, -4, -1, 4, 4, 4), (1, 1, 1))


def record(folder: Path, numbers: list[int], seed: int = 0, *, ground: bool = False) -> Path:
    """A recorded session: no session.json, and no ground_z unless asked for."""
    rng = np.random.default_rng(seed)
    for name in ("occupancy", "poses"):
        (folder / name).mkdir(parents=True)
    for k, n in enumerate(numbers):
        frame = (rng.random(GRID.shape) < 0.2).astype(np.uint8)
        np.savez_compressed(folder / "occupancy" / f"{n:06d}_occupancy.npz", occupancy=frame)
        pose = np.array([2.0 * k, 0, 5, 0, 0, 0, 1, 4, 0, 0, 0, 0, 0], dtype=float)
        write_pose(folder / "poses" / f"{n:06d}.json", pose, 1.5, 0.5 * k)
        if not ground:
            path = folder / "poses" / f"{n:06d}.json"
            value = json.loads(path.read_text())
            del value["ground_z"], value["timestamp"]
            path.write_text(json.dumps(value))
    return folder


def test_bits_are_the_frames(tmp_path: Path) -> None:
    record(tmp_path / "drone_a", list(range(5)))
    record(tmp_path / "rover_b", list(range(7, 11)), seed=1, ground=True)
    store = PackedStore.open(tmp_path, GRID)
    assert store.sessions == ["drone_a", "rover_b"] and len(store) == 9
    for row in range(9):
        session = Session(tmp_path / store.sessions[store.session[row]])
        frame = session.read_occupancy(int(store.frame[row]))
        np.testing.assert_array_equal(store.read_frame(row), frame)
    assert store.frame.tolist() == [0, 1, 2, 3, 4, 7, 8, 9, 10]
    assert set(store.ground_z) == {0.0, 1.5}
    store.check(np.arange(9))


def test_opening_again_packs_nothing_and_a_change_only_its_session(tmp_path: Path) -> None:
    record(tmp_path / "drone_a", [0, 1])
    record(tmp_path / "drone_b", [0, 1], seed=1)
    first = PackedStore.open(tmp_path, GRID)
    packed: list[str] = []

    def note(name: str, done: int, total: int) -> None:
        packed.append(name)

    assert PackedStore.open(tmp_path, GRID, on_session=note).data_hash == first.data_hash
    assert packed == []
    write_layers(
        tmp_path / "drone_b/occupancy/000001_occupancy.npz",
        {"occupancy": np.ones(GRID.shape, np.uint8)},
    )
    second = PackedStore.open(tmp_path, GRID, on_session=note)
    assert packed == ["drone_b"] and second.data_hash != first.data_hash
    assert second.read_frame(3).all()


def test_a_damaged_frame_is_left_out_and_named(tmp_path: Path) -> None:
    record(tmp_path / "drone_a", list(range(24)))
    bad = tmp_path / "drone_a/occupancy/000012_occupancy.npz"
    bad.write_bytes(bad.read_bytes()[:60])
    store = PackedStore.open(tmp_path, GRID)
    assert len(store) == 23 and [f for f, _ in store.damaged] == [str(bad)]
    windows = windows_of(store, Splits(None, 1.0, (), {"drone_a": "train"}), "train", 10)
    assert [w.start for w in windows] == [0, 1, 2, 13, 14]
    shutil.rmtree(tmp_path / ".packed")
    with pytest.raises(DataError, match="damaged"):
        PackedStore.open(tmp_path, GRID, strict=True)


def damage(path: Path, frame: int) -> None:
    """Flip a bit of the occupancy of one frame of a shard."""
    index = read_index(path)
    raw = bytearray(path.read_bytes())
    raw[index.data_at + int(index.layers["truth.occupied"].offset[frame]) + 9] ^= 4
    path.write_bytes(raw)


def test_damage_in_the_store_is_found(tmp_path: Path) -> None:
    record(tmp_path / "drone_a", [0, 1, 2])
    store = PackedStore.open(tmp_path, GRID)
    damage(tmp_path / ".packed/drone_a.shard", 1)
    damaged = PackedStore.open(tmp_path, GRID)
    with pytest.raises(DataError, match="frame 1 differs from its checksum"):
        damaged.check()
    with pytest.raises(DataError, match=r"drone_a\.shard"):
        damaged.read_bits(np.arange(3))
    damaged.read_bits(np.array([0, 2]))
    assert len(store) == 3


def test_a_packed_shard_that_is_cut_short_is_made_again(tmp_path: Path) -> None:
    record(tmp_path / "drone_a", [0, 1, 2])
    store = PackedStore.open(tmp_path, GRID)
    path = tmp_path / ".packed/drone_a.shard"
    whole = path.read_bytes()
    os.truncate(path, len(whole) - 5)
    with pytest.raises(DataError, match="ends too early"):
        store.check()
    PackedStore.open(tmp_path, GRID).check()
    assert path.read_bytes() == whole


def test_any_rows_in_any_order_and_the_caller_owns_them(tmp_path: Path) -> None:
    record(tmp_path / "drone_a", list(range(12)))
    record(tmp_path / "drone_b", list(range(12)), seed=1)
    store = PackedStore.open(tmp_path, GRID)
    window = store.read_bits(np.arange(14, 24))
    mixed = store.read_bits(np.array([3, 20, 4]))
    np.testing.assert_array_equal(mixed[1], window[6])
    assert store.read_bits(np.array([], dtype=int)).shape == (0, GRID.packed_bytes)
    window[:] = 0
    PackedStore.open(tmp_path, GRID).check()


def test_a_spawned_worker_reads_the_files_itself(tmp_path: Path) -> None:
    record(tmp_path / "drone_a", list(range(200)))
    store = PackedStore.open(tmp_path, GRID)
    store.check()
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.read_frame(7), store.read_frame(7))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_few_files_are_open_however_many_sessions(tmp_path: Path) -> None:
    record(tmp_path / "drone_0000", [0, 1])
    raw = shard_of_session(Session(tmp_path / "drone_0000"), GRID)
    for number in range(300):
        name = f"rover_{number:05d}"
        (tmp_path / f"{name}.shard").write_bytes(raw)
    before = open_files()
    store = PackedStore.open(tmp_path, GRID)
    assert len(store) == 602 and len(store.sessions) == 301
    store.check()
    assert open_files() - before <= 64


def test_shards_npz_and_packed_folders_have_one_hash(tmp_path: Path) -> None:
    """The value is that of the packed bits of vlwm 0.1, so its runs resume."""
    record(tmp_path / "npz/drone_a", list(range(3)), ground=True)
    record(tmp_path / "npz/rover_b", list(range(4)), seed=1)
    by_npz = PackedStore.open(tmp_path / "npz", GRID)
    (tmp_path / "shards").mkdir()
    for name in ("drone_a", "rover_b"):
        raw = shard_of_session(Session(tmp_path / "npz" / name), GRID)
        (tmp_path / "shards" / f"{name}.shard").write_bytes(raw)
    by_shards = PackedStore.open(tmp_path / "shards", GRID)
    digest = hashlib.sha256(repr((GRID, ["drone_a", "rover_b"])).encode())
    frames = [by_npz.read_frame(row) for row in range(7)]
    crc = np.array([zlib.crc32(GRID.pack(f).tobytes()) for f in frames], dtype=np.uint32)
    rows = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 1, 2, 0, 1, 2, 3])
    for array in (*rows, crc, by_npz.poses, by_npz.ground_z):
        digest.update(array.tobytes())
    assert by_npz.data_hash == by_shards.data_hash == digest.hexdigest()


def test_layers_and_believed_poses_come_back_and_change_the_hash(tmp_path: Path) -> None:
    folder = record(tmp_path / "drone_a", [0, 1, 2], ground=True)
    record(tmp_path / "drone_b", [0, 1], seed=1)
    plain = PackedStore.open(tmp_path, GRID).data_hash
    layers = some_layers(shape=GRID.shape)
    write_layers(folder / "occupancy/000001_occupancy.npz", layers)
    believed = Session(folder).poses[1] + 0.5
    write_pose(folder / "poses/000001.json", Session(folder).poses[1], 1.5, 0.5, (believed, 2.0))
    store = PackedStore.open(tmp_path, GRID)
    rows = np.arange(5)
    assert store.layers == tuple(sorted(KINDS)) and store.data_hash != plain
    known = store.read_layer("truth.known", rows)
    np.testing.assert_array_equal(GRID.unpack(known[1]), layers["known"])
    assert GRID.unpack(known[0]).all() and GRID.unpack(known[4]).all()
    assert not store.read_layer("seen.free", rows)[[0, 2, 3, 4]].any()
    classes = store.read_layer("classes", rows)
    np.testing.assert_array_equal(classes[1], layers["classes"])
    assert (classes[0] == 255).all()
    np.testing.assert_allclose(store.believed[1, :3], believed[:3])
    np.testing.assert_array_equal(store.believed[[0, 2, 3, 4]], store.poses[[0, 2, 3, 4]])


def test_an_old_packed_folder_is_built_again_with_a_sentence(tmp_path: Path) -> None:
    record(tmp_path / "drone_a", [0, 1])
    (tmp_path / ".packed").mkdir()
    (tmp_path / ".packed/index.json").write_text("{}")
    (tmp_path / ".packed/drone_a.bits").write_bytes(b"old")
    store = PackedStore.open(tmp_path, GRID)
    assert any("of an earlier version" in note for note in store.notes)
    assert sorted(p.name for p in (tmp_path / ".packed").iterdir()) == ["drone_a.shard"]
    assert not any("earlier" in note for note in PackedStore.open(tmp_path, GRID).notes)


def test_derived_files_have_another_place_for_read_only_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path / "data/drone_a", list(range(30)))
    before = sorted(p for p in (tmp_path / "data").rglob("*"))
    monkeypatch.setenv("VLWM_CACHE", str(tmp_path / "cache"))
    store = PackedStore.open(tmp_path / "data", GRID)
    open_splits(store, 1.0, 0)
    assert sorted(p for p in (tmp_path / "data").rglob("*")) == before
    assert (store.derived / "splits.json").exists() and (store.derived / "drone_a.shard").exists()
    assert open_splits(PackedStore.open(tmp_path / "data", GRID), 1.0, 0).sessions


def test_a_session_that_went_away_leaves_nothing(tmp_path: Path) -> None:
    for name in ("drone_a", "drone_b"):
        record(tmp_path / name, [0, 1])
    PackedStore.open(tmp_path, GRID)
    shutil.rmtree(tmp_path / "drone_b")
    assert PackedStore.open(tmp_path, GRID).sessions == ["drone_a"]
    assert [p.name for p in (tmp_path / ".packed").glob("*.shard")] == ["drone_a.shard"]


@pytest.mark.parametrize("text", [None, "{", '{"position": {"x": 1}}', "[]"])
def test_a_broken_pose_leaves_out_its_frame(tmp_path: Path, text: str | None) -> None:
    record(tmp_path / "drone_a", list(range(4)))
    bad = tmp_path / "drone_a/poses/000002.json"
    bad.unlink() if text is None else bad.write_text(text)
    store = PackedStore.open(tmp_path, GRID)
    assert store.frame.tolist() == [0, 1, 3] and [f for f, _ in store.damaged] == [str(bad)]
    assert any("1 frame numbers are missing" in note for note in store.notes)
    shutil.rmtree(tmp_path / ".packed")
    with pytest.raises(DataError, match="pose"):
        PackedStore.open(tmp_path, GRID, strict=True)


def test_what_was_guessed_of_a_recorded_session_is_said(tmp_path: Path) -> None:
    record(tmp_path / "drone_a", list(range(5)))
    record(tmp_path / "drone_b", list(range(5)), ground=True)
    notes = PackedStore.open(tmp_path, GRID).notes
    assert any(n.startswith("drone_a: velocities taken as world-frame") for n in notes)
    assert "drone_a: 0.5 s between frames, after the format's default" in notes
    assert "drone_b: 0.5 s between frames, after the timestamps" in notes


def test_a_session_recorded_faster_gives_every_nth_frame(tmp_path: Path) -> None:
    folder = record(tmp_path / "drone_a", list(range(3, 63)))
    splits = Splits(None, 1.0, (), {"drone_a": "train"})
    (folder / "session.json").write_text('{"dt_s": 0.1}')
    windows = windows_of(PackedStore.open(tmp_path, GRID), splits, "train", 10)
    assert len(windows) == 60 - 45 and windows[2].start == 5
    assert windows[2].rows.tolist() == list(range(2, 52, 5))
    (folder / "session.json").write_text('{"dt_s": 0.3}')
    with pytest.raises(DataError, match=r"drone_a has a frame every 0\.3 s"):
        windows_of(PackedStore.open(tmp_path, GRID), splits, "train", 10)


def test_windows_that_no_split_has_whole_are_counted(tmp_path: Path) -> None:
    origin = {"crs": "EPSG:6677", "easting": 0.0, "northing": 0.0, "height": 0.0}
    folder = record(tmp_path / "drone_a", list(range(60)))
    (folder / "session.json").write_text(json.dumps({"origin": origin}))
    regions = (Region("train", -10, -50, 61, 50), Region("test", 61, -50, 200, 50))
    splits = Splits("EPSG:6677", 10.0, regions)  # 2 m a frame: 26 frames, 10 in no split, 24
    store = PackedStore.open(tmp_path, GRID)
    assert splits.counts(store) == {"train": 26, "val": 0, "test": 24, "none": 10}
    assert len(windows_of(store, splits, "train", 10)) == 17
    assert len(windows_of(store, splits, "test", 10)) == 15  # of 51; 19 are whole in no split


def test_another_grid_is_one_sentence(tmp_path: Path) -> None:
    record(tmp_path / "drone_a", [0, 1])
    other = VoxelGrid.from_range((-4, -4, -1, 4, 4, 5), (1, 1, 1))
    with pytest.raises(DataError, match="8x8x5 cells and the config has 8x8x6"):
        PackedStore.open(tmp_path, other)


def test_an_unfinished_preparation_is_not_trained_on(tmp_path: Path) -> None:
    record(tmp_path / "drone_a", [0, 1])
    (tmp_path / "prepare.json").write_text("{}")
    with pytest.raises(DataError, match="not finished this folder"):
        open_splits(PackedStore.open(tmp_path, GRID), 1.0, 0)
    assert not (tmp_path / "splits.json").exists()


def test_missing_folders_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data folder"):
        PackedStore.open(tmp_path / "absent", GRID)
    with pytest.raises(DataError, match="no session"):
        PackedStore.open(tmp_path, GRID)


@pytest.mark.parametrize("turned", [False, True])
def test_velocity_frames_are_told_apart(turned: bool) -> None:
    yaw = np.linspace(0.5, 2.5, 20)
    world = np.stack([4 * np.cos(yaw), 4 * np.sin(yaw), 0 * yaw], axis=1)
    quaternion = quaternion_from_heading(yaw)
    positions = np.cumsum(world * 0.5, axis=0)
    told = rotate(quaternion * [-1, -1, -1, 1], world) if turned else world
    poses = np.concatenate([positions, quaternion, told, 0 * told], axis=1)
    assert guess_velocity_frame(poses, 0.5) == ("body" if turned else "world")


def test_npz_is_what_numpy_reads_and_has_no_clock(tmp_path: Path) -> None:
    frame = (np.random.default_rng(0).random(GRID.shape) < 0.3).astype(np.uint8)
    path = tmp_path / "a.npz"
    write_layers(path, {"occupancy": frame})
    with np.load(path) as opened:
        np.testing.assert_array_equal(opened["occupancy"], frame)
    os.utime(path, (0, 0))
    assert path.read_bytes() == npz_bytes(frame)


def test_believed_poses_are_read_beside_the_true_ones(tmp_path: Path) -> None:
    folder = record(tmp_path / "drone_a", [0, 1, 2], ground=True)
    plain = Session(folder)
    assert not plain.has_believed
    np.testing.assert_array_equal(plain.believed, plain.poses)
    believed = plain.poses[1].copy()
    believed[:3] += 0.25
    write_pose(folder / "poses/000001.json", plain.poses[1], 1.5, 0.5, (believed, 1.75))
    session = Session(folder)
    assert session.has_believed
    np.testing.assert_array_equal(session.poses, plain.poses)
    np.testing.assert_allclose(session.believed[1], believed)
    assert session.believed_ground_z.tolist() == [1.5, 1.75, 1.5]
    path = folder / "poses/000001.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "believed": {"position": 1}}))
    with pytest.raises(DataError, match="a pose lacks"):
        Session(folder, strict=True)


def whole_session(folder: Path) -> Path:
    """A session as `prepare` leaves it, with checksums."""
    record(folder, list(range(4)), ground=True)
    origin = {"crs": "EPSG:6677", "easting": 1.0, "northing": 2.0, "height": 3.0}
    write_meta(folder, SessionMeta(agent="drone", dt_s=0.5, origin=origin, attribution="a city"))
    return folder


def test_a_flip_in_a_pose_file_or_session_json_is_never_silent(tmp_path: Path) -> None:
    folder = whole_session(tmp_path / "drone_a")
    before = Session(folder, strict=True)
    rng = np.random.default_rng(0)
    for name in ("poses/000002.json", "session.json"):
        whole = (folder / name).read_bytes()
        for at in rng.integers(0, 8 * len(whole), 150):
            raw = bytearray(whole)
            raw[at // 8] ^= 1 << (at % 8)
            (folder / name).write_bytes(raw)
            try:
                after = Session(folder, strict=True)
            except DataError:
                continue
            assert after.meta == before.meta
            np.testing.assert_array_equal(after.poses, before.poses)
        (folder / name).write_bytes(whole)
    path = folder / "poses/000001.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(DataError, match=r"it differs from its checksum in session\.json"):
        Session(folder, strict=True)


@pytest.mark.parametrize(
    "values",
    [{"dt_s": "x"}, {"dt_s": -1}, {"frames": 1.5}, {"origin": {"crs": 1}}, {"sensors": []}],
)
def test_values_of_a_wrong_type_are_one_sentence(tmp_path: Path, values: dict) -> None:
    folder = record(tmp_path / "drone_a", [0, 1])
    (folder / "session.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match="makes no sense"):
        Session(folder)


def test_a_changed_splits_json_is_found(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    Splits(None, 1.0, (), {"drone_a": "train"}).write(path)
    path.write_text(path.read_text().replace('"train"', '"tra)n"'))
    with pytest.raises(DataError, match="the file differs from its checksum"):
        Splits.read(path)
    path.write_text("[]")
    with pytest.raises(DataError, match=r"not a valid splits\.json"):
        Splits.read(path)
