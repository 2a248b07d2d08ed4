"""Batches: anchored, deterministic, symmetric, and without the future where it is cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.core.data.test_npz import some_layers
from tests.core.data.test_packed_store import GRID, record
from vlwm.core.data.batch import MIRROR, Batch, apply_symmetry, collate, mirrored_poses
from vlwm.core.data.datasets import FrameDataset, WindowDataset
from vlwm.core.data.npz import write_layers
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.sampler import EpochSampler
from vlwm.core.data.session import Session, write_pose
from vlwm.core.data.splits import Splits
from vlwm.core.data.windows import windows_of
from vlwm.core.geometry.frames import ego_of, relative_ego, rotate
from vlwm.core.training.loop.data_loader import make_loader


@pytest.fixture
def dataset(tmp_path: Path) -> WindowDataset:
    record(tmp_path / "drone_a", list(range(16)))
    store = PackedStore.open(tmp_path, GRID)
    windows = windows_of(store, Splits(None, 1.0, (), {"drone_a": "train"}), "train", 10)
    return WindowDataset(store, windows, history=4)


def test_poses_are_in_the_frame_of_the_last_past_pose(dataset: WindowDataset) -> None:
    item = dataset[0, 2]
    rows = dataset.windows[2].rows
    ego = ego_of(dataset.store.poses[rows], dataset.store.ground_z[rows])
    expected = relative_ego(ego[3], ego)
    np.testing.assert_allclose(item.poses[:, :2], expected[:, :2], atol=1e-5)
    np.testing.assert_allclose(item.poses[3, :2], [0, 0], atol=1e-6)
    assert item.bits.dtype == torch.uint8 and item.bits.shape == (10, GRID.packed_bytes)


def test_a_past_holds_nothing_of_the_future(dataset: WindowDataset) -> None:
    batch = collate([dataset[0, 0], dataset[0, 1]])
    past = batch.past(4)
    assert past.bits.shape[1] == past.poses.shape[1] == past.ground_z.shape[1] == 4
    plan = batch.plan(4)
    assert plan.ego.shape == (2, 6, 4)
    torch.testing.assert_close(plan.ego[..., :2], batch.poses[:, 4:, :2])


def test_a_plan_has_the_headings_of_its_poses() -> None:
    poses = torch.randn(3, 10, 13, generator=torch.Generator().manual_seed(0))
    poses[..., 3:7] /= poses[..., 3:7].norm(dim=-1, keepdim=True)
    ground, zero = torch.randn(3, 10), torch.zeros(3, dtype=torch.int64)
    batch = Batch(torch.zeros(3, 10, 4, dtype=torch.uint8), poses, ground, zero, zero)
    expected = ego_of(poses[:, 4:].numpy(), ground[:, 4:].numpy())
    np.testing.assert_allclose(batch.plan(4).ego.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_restarts_change_nothing(dataset: WindowDataset, workers: int) -> None:
    dataset.mirror, dataset.seed = True, 5
    every = EpochSampler(len(dataset), 2, seed=1, epoch=3)
    whole = list(make_loader(dataset, every, workers=0, pin=False))
    sampler = EpochSampler(len(dataset), 2, seed=1, epoch=3, first=4)
    rest = list(make_loader(dataset, sampler, workers=workers, pin=False))
    assert len(sampler) == len(rest)
    for a, b in zip(whole[2:], rest, strict=True):
        assert all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("bits", "poses", "symmetry"))


def test_ranks_share_one_global_batch() -> None:
    whole = list(EpochSampler(11, 4, seed=2, epoch=1))
    parts = [list(EpochSampler(11, 4, seed=2, epoch=1, rank=r, world_size=2)) for r in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    assert sorted(i for batch in whole for _, i in batch) == list(range(11))
    assert list(EpochSampler(11, 4, seed=2, epoch=2)) != whole


def test_a_short_epoch_takes_another_part_in_each() -> None:
    first = list(EpochSampler(50, 4, seed=2, epoch=0, most=10))
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert first == list(EpochSampler(50, 4, seed=2, epoch=0))[:2] + first[2:]
    assert list(EpochSampler(50, 4, seed=2, epoch=0, most=10, first=8)) == first[2:]
    taken = {
        i for e in range(30) for b in EpochSampler(50, 4, seed=2, epoch=e, most=10) for _, i in b
    }
    assert taken == set(range(50))
    assert list(EpochSampler(5, 4, seed=2, most=10)) == list(EpochSampler(5, 4, seed=2))


def test_mirrored_poses_mirror_the_motion() -> None:
    rng = np.random.default_rng(0)
    poses = rng.normal(size=(5, 13))
    poses[:, 3:7] /= np.linalg.norm(poses[:, 3:7], axis=1, keepdims=True)
    mirrored = mirrored_poses(poses)
    flip = np.array([1.0, -1.0, 1.0])
    for axis in np.eye(3):
        turned = rotate(poses[:, 3:7], axis)
        np.testing.assert_allclose(rotate(mirrored[:, 3:7], axis * flip), turned * flip, atol=1e-12)
    spin, point = poses[:, 10:13], rng.normal(size=(5, 3))
    np.testing.assert_allclose(
        np.cross(mirrored[:, 10:13], point * flip), np.cross(spin, point) * flip, atol=1e-12
    )
    np.testing.assert_array_equal(mirrored_poses(mirrored), poses)


def test_symmetries_of_voxels_are_those_of_the_plane() -> None:
    voxels = torch.zeros(1, 8, 8, 5, dtype=torch.uint8)
    voxels[0, 6, 2, 1] = 1  # x = 2.5, y = −1.5 from the middle
    for code in range(8):
        (at,) = apply_symmetry(voxels, torch.tensor([code])).nonzero()[:, 1:3].tolist()
        x, y = 2.5, 1.5 if code >= MIRROR else -1.5
        for _ in range(code % 4):
            x, y = -y, x
        assert (at[0] - 3.5, at[1] - 3.5) == (x, y)


def test_single_frames_for_the_tokenizer(dataset: WindowDataset) -> None:
    frames = FrameDataset(dataset.store, np.arange(16), symmetries=8, seed=1)
    codes = {int(frames[0, i].symmetry) for i in range(16)}
    assert len(codes) > 3
    assert torch.equal(frames[2, 5].symmetry, frames[2, 5].symmetry)


def test_layers_come_when_asked_for_and_are_none_where_no_frame_has_them(tmp_path: Path) -> None:
    folder = record(tmp_path / "drone_a", list(range(12)))
    layers = some_layers(shape=GRID.shape)
    few = {name: layers[name] for name in ("occupancy", "seen_free", "known")}
    write_layers(folder / "occupancy/000003_occupancy.npz", few)
    pose = Session(folder).poses[4]
    write_pose(folder / "poses/000004.json", pose, 0.0, 2.0, (pose + 0.5, 0.0))
    store = PackedStore.open(tmp_path, GRID)
    windows = windows_of(store, Splits(None, 1.0, (), {"drone_a": "train"}), "train", 10)
    wanted = ("truth.known", "seen.free", "classes")
    dataset = WindowDataset(store, windows, 4, layers=wanted)
    batch = collate([dataset[0, 0], dataset[0, 1]])
    assert batch.classes is None and batch.seen_occupied is None
    assert GRID.unpack(batch.seen_free[1, 2].numpy()).sum() == layers["seen_free"].sum()
    assert GRID.unpack(batch.known[0, 0].numpy()).all()
    assert batch.believed.shape == (2, 10, 13)
    assert batch.past(4).seen_free.shape == (2, 4, GRID.packed_bytes)
    assert WindowDataset(store, windows, 4)[0, 0].known is None
    frame = FrameDataset(store, np.arange(12), layers=("truth.known",))[0, 3]
    np.testing.assert_array_equal(GRID.unpack(frame.known.numpy()), layers["known"])
