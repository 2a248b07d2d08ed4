"""Parameters come from train and validation alone, travel in a checkpoint, and fit any data."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from tests.core.evaluation.street_sessions import config_of, write_session
from vlwm.core.data.npz import read_occupancy, write_layers
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.splits import Splits
from vlwm.core.data.windows import windows_of
from vlwm.core.evaluation.baselines.fit import fit_baselines, motion_of
from vlwm.core.evaluation.baselines.fitted import MEMORY, FittedBaselines, track_of
from vlwm.core.evaluation.baselines.motions import Analogs, Ridge, TurnRate
from vlwm.core.evaluation.clusters import cluster_of, over_clusters
from vlwm.core.evaluation.eval_windows import WindowShape
from vlwm.core.geometry.grid import VoxelGrid

SHAPE = WindowShape(4, 6, 0.5)
CPU = torch.device("cpu")
DAY = "drone_20240101_{:06d}"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> PackedStore:
    """Twelve sessions of 14 frames: 5 windows each."""
    root = tmp_path_factory.mktemp("many")
    config = config_of(root)
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    for number in range(12):
        write_session(root / DAY.format(number), grid, number, None)
    return PackedStore.open(root, grid)


def split_as(*counts: int) -> Splits:
    """The first sessions train, the next validation, the rest test."""
    names = np.repeat(["train", "val", "test"][: len(counts)], counts)
    return Splits(None, 1.0, (), {DAY.format(i): str(n) for i, n in enumerate(names)})


@pytest.fixture(scope="module")
def fitted(store) -> FittedBaselines:
    return fit_baselines(store, split_as(10, 1, 1), SHAPE, CPU, max_windows=1)


def test_all_methods_get_thresholds_and_the_strongest_has_the_highest_merit(fitted):
    assert set(fitted.motions) == {"constant_twist", "turn_rate", "ridge", "analogs"}
    assert set(fitted.thresholds) == set(fitted.methods) <= set(fitted.merits)
    assert all(len(cut.ground) == len(cut.above) == 6 for cut in fitted.thresholds.values())
    for track, name in fitted.baseline.items():
        assert track_of(name) == track
        own = [m for name, m in fitted.merits.items() if track_of(name) == track]
        assert fitted.merits[name] == max(own)


def test_a_checkpoint_keeps_them_to_the_last_digit(store, fitted):
    """Through `torch.save` and a load of weights only, as in a run folder."""
    file = io.BytesIO()
    torch.save(fitted.content(), file)
    file.seek(0)
    back = FittedBaselines.of(torch.load(file, weights_only=True))
    assert back.summary() == fitted.summary() and back.baseline == fitted.baseline
    past, _ = motion_of(store, windows_of(store, split_as(10, 1, 1), "test", 10), SHAPE)
    for name, motion in fitted.motions.items():
        assert np.array_equal(back.motions[name].expected(past), motion.expected(past)), name
        assert np.array_equal(back.motions[name].draws(past), motion.draws(past)), name
    assert torch.equal(back.edges.counts, fitted.edges.counts)


def test_the_test_split_has_no_influence(store, fitted, monkeypatch):
    """Its frames are never read, and other poses there change nothing."""
    rows = {r for w in windows_of(store, split_as(10, 1, 1), "test", 10) for r in w.rows}
    other = PackedStore.open(store.root, store.grid)
    other.poses[sorted(rows), :2] += 3.0
    read = PackedStore.read_bits

    def guarded(self, wanted):
        assert not rows & set(np.ravel(wanted).tolist())
        return read(self, wanted)

    monkeypatch.setattr(PackedStore, "read_bits", guarded)
    again = fit_baselines(other, split_as(10, 1, 1), SHAPE, CPU, max_windows=1)
    assert again.summary() == fitted.summary()


def test_few_train_windows_fit_no_regression_and_none_fit_no_spread(store):
    few = fit_baselines(store, split_as(2, 0, 10), SHAPE, CPU)
    assert set(few.motions) == {"constant_twist", "turn_rate"} and not few.thresholds
    none = fit_baselines(store, split_as(0, 0, 12), SHAPE, CPU)
    assert none.baseline == MEMORY and not none.thresholds
    assert all(not m.draws(motion_of_first(store)).any() for m in none.motions.values())
    assert none.column.sum() == 1  # the layer that holds z = 0


def motion_of_first(store):
    return motion_of(store, windows_of(store, split_as(0, 0, 12), "test", 10)[:1], SHAPE)[0]


def test_windows_are_taken_from_every_cluster(store):
    windows = windows_of(store, split_as(0, 12, 0), "val", 10)
    clusters = {cluster_of(store, w, 4) for w in windows}
    assert len(clusters) >= 12
    for most in (1, 15, 30):
        chosen = over_clusters(store, windows, 4, most)
        assert {cluster_of(store, w, 4) for w in chosen} == clusters
        assert len(chosen) <= max(most, len(clusters)) + 3
    assert over_clusters(store, windows, 4, 0) == windows


def test_ridge_and_analogs_build_on_the_turn_rate_of_the_same_fit(fitted):
    ridge, analogs = fitted.motions["ridge"], fitted.motions["analogs"]
    assert isinstance(ridge, Ridge) and isinstance(analogs, Analogs)
    assert isinstance(ridge.base, TurnRate) and ridge.base is fitted.motions["turn_rate"]
    assert analogs.ridge is ridge


def test_cells_of_unknown_truth_count_in_no_fit(tmp_path):
    """The truth of the late frames, which are no window's past, differs where nobody knows it."""
    config = config_of(tmp_path)
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    fits = []
    for kind in ("one", "other"):
        root = tmp_path / kind
        for number in range(2):
            write_session(root / DAY.format(number), grid, number, None)
            for frame in range(14):
                path = root / DAY.format(number) / "occupancy" / f"{frame:06d}_occupancy.npz"
                cells, known = read_occupancy(path), np.ones(grid.shape, np.uint8)
                if frame >= 8:
                    known[:, :9] = 0
                if kind == "other":
                    cells = np.where(known > 0, cells, 1 - cells)
                write_layers(path, {"occupancy": cells, "known": known})
        store = PackedStore.open(root, grid)
        assert "truth.known" in store.layers
        fits.append(fit_baselines(store, split_as(1, 1), SHAPE, CPU))
    one, other = fits
    assert one.merits == other.merits and one.summary() == other.summary()
    assert torch.equal(one.edges.counts, other.edges.counts) and one.edges.counts.sum() > 0
    assert torch.equal(one.column, other.column)
