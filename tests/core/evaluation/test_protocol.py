"""The rules of docs/evaluation.md, each stated once on windows whose scores are known by hand.

A fault of the kinds "the wrong split, frame, track or side" must fail here: each rule says which.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.core.evaluation.street_sessions import config_of, write_session
from tests.small_world import batch_of, grid_of, model_of, small
from vlwm.core.config.load import config_from_dict
from vlwm.core.data.batch import MIRROR, Batch, apply_symmetry
from vlwm.core.data.datasets import WindowDataset
from vlwm.core.data.npz import write_layers
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.splits import Splits
from vlwm.core.data.windows import frame_rows, windows_of
from vlwm.core.evaluation.accumulators import Tally
from vlwm.core.evaluation.baselines import fit
from vlwm.core.evaluation.baselines.fit import fit_baselines
from vlwm.core.evaluation.baselines.fitted import FittedBaselines
from vlwm.core.evaluation.calibration.thresholds import ThresholdHistogram, Thresholds
from vlwm.core.evaluation.clusters import cluster_of
from vlwm.core.evaluation.eval_windows import WindowShape
from vlwm.core.evaluation.evaluator import evaluate
from vlwm.core.evaluation.load import EvalData, open_run, thresholds_of
from vlwm.core.evaluation.metrics import CELLS, HIT, PREDICTED, TRUE, ZONES
from vlwm.core.evaluation.model_forecasts import TrackThresholds
from vlwm.core.evaluation.scores.score_sheet import score_sheet
from vlwm.core.evaluation.window_scorer import WindowScorer
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.bit_packing import pack_bits, unpack_bits
from vlwm.core.model.checkpoint import save_checkpoint
from vlwm.core.model.world_loss import WorldLoss
from vlwm.core.model.world_model import WorldModel
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.tasks.best_motion import BestMotion
from vlwm.core.training.tasks.world_task import WorldTask

CONFIG = small("model.use_tokens=False")
GRID = grid_of(CONFIG)
HISTORY, FUTURE = 4, 6
LEVELS = {"model": (0.3, 0.1), "model_plan": (0.9, 0.7)}
"""probability of truly occupied and of free cells, by method: no threshold serves both tracks"""


class Oracle:
    """Answers with the true future in probabilities that differ between the tracks.

    Args:
        truth: uint8 (B, F, packed_bytes) of the windows.
        horizons: those that are answered rightly; the others are all free.
    """

    def __init__(self, truth: Tensor, horizons: tuple[int, ...] = tuple(range(FUTURE))) -> None:
        self.cells = unpack_bits(truth[:, HISTORY:], GRID.shape).float()
        for h in set(range(FUTURE)) - set(horizons):
            self.cells[:, h] = 0.0
        self.residual_weight = torch.ones(2)
        self.motion_head = SimpleNamespace(calibrate=lambda windows: None)
        self.vae = SimpleNamespace(
            tokenise=lambda frames: frames, embed=lambda found: found,
            decode_occupancy=lambda found: 8.0 * found.float() - 4.0,
        )  # fmt: skip

    def forecast(self, past, plan=None) -> SimpleNamespace:
        track = int(plan is not None)
        right, wrong = LEVELS[("model", "model_plan")[track]]
        good = torch.logit(wrong + (right - wrong) * self.cells)
        memory = torch.logit(torch.full_like(self.cells, 0.05))
        logits = memory + float(self.residual_weight[track]) * (good - memory)
        poses = torch.zeros(len(self.cells), FUTURE, 13)
        poses[..., 6] = 1.0
        zeros = torch.zeros(len(self.cells), FUTURE, 4)
        return SimpleNamespace(
            classes=None,
            logits=logits,
            memory_logits=memory,
            ego=zeros,
            poses=poses,
            log_sigma=zeros,
        )


def scored(
    oracle: Oracle, batch: Batch, thresholds: TrackThresholds
) -> dict[str, list[float | None]]:
    """IoU per horizon of both tracks."""
    scorer = WindowScorer(
        GRID, np.arange(GRID.shape[2]) == 0, HISTORY, FUTURE, 0.5, oracle, thresholds
    )
    tally = scorer.new_tally()
    scorer.add(batch, list(range(len(batch.index))), tally)
    return {name: tally.total.scores(name)["iou"] for name in LEVELS}


RIGHT = TrackThresholds(model=Thresholds(0.2), model_plan=Thresholds(0.8))


def test_a_perfect_forecast_scores_one_at_every_horizon_and_only_where_it_is_right():
    """Fault: a horizon counted against the truth of its neighbour."""
    batch = batch_of(CONFIG, size=1)
    assert scored(Oracle(batch.bits), batch, RIGHT) == dict.fromkeys(LEVELS, [1.0] * 6)
    for h in (0, 2, 5):
        one = [float(k == h) for k in range(FUTURE)]
        assert scored(Oracle(batch.bits, (h,)), batch, RIGHT) == dict.fromkeys(LEVELS, one)


def test_counts_of_a_horizon_are_those_of_its_own_frame():
    """Fault: the truth of a horizon taken one frame too early or too late."""
    batch = batch_of(CONFIG, size=1)
    cells = torch.zeros((1, 10, *GRID.shape), dtype=torch.bool)
    for frame in range(10):
        cells[0, frame].view(-1)[: 10 * frame] = True  # frame k has 10 k occupied cells
    batch = replace(batch, bits=pack_bits(cells))
    scorer = WindowScorer(GRID, np.zeros(GRID.shape[2], bool), HISTORY, FUTURE, 0.5)
    tally = scorer.new_tally()
    scorer.add(batch, ["here"], tally)
    assert tally.total.counts[0, :, 0, TRUE].tolist() == [40, 50, 60, 70, 80, 90]
    copied = tally.methods.index("copy_last")
    assert tally.total.counts[copied, :, 0, PREDICTED].tolist() == [30] * 6


def test_classes_of_a_horizon_are_those_of_its_own_frame():
    """Fault: the true classes of a horizon taken one frame too early or too late."""
    batch = batch_of(CONFIG, size=1)
    cells = torch.ones((1, 10, *GRID.shape), dtype=torch.bool)
    classes = torch.arange(10, dtype=torch.uint8).view(1, 10, 1, 1, 1).expand(cells.shape)
    batch = replace(batch, bits=pack_bits(cells), classes=classes.contiguous())
    scorer = WindowScorer(GRID, np.zeros(GRID.shape[2], bool), HISTORY, FUTURE, 0.5, free_class=17)
    tally = scorer.new_tally()
    scorer.add(batch, ["here"], tally)
    counts = tally.classes.counts[tally.classes.methods.index("copy_last")]  # (H, 18, 3)
    assert counts[:, :17, TRUE].argmax(axis=1).tolist() == [4, 5, 6, 7, 8, 9]
    assert counts[:, :17, PREDICTED].argmax(axis=1).tolist() == [3] * 6
    assert (counts[:, :17, HIT] == 0).all()


def test_each_track_is_cut_at_its_own_thresholds():
    """Fault: the plan track at the other track's thresholds, or both exchanged."""
    batch = batch_of(CONFIG, size=1)
    assert all(v == [1.0] * 6 for v in scored(Oracle(batch.bits), batch, RIGHT).values())
    for wrong in (
        replace(RIGHT, model=Thresholds(0.8)),
        replace(RIGHT, model_plan=Thresholds(0.2)),
    ):
        scores = scored(Oracle(batch.bits), batch, wrong)
        assert sum(values == [1.0] * 6 for values in scores.values()) == 1


def task_of(batch: Batch, monkeypatch) -> WorldTask:
    """A task whose validation split is one batch, and whose model is an oracle of it."""
    task = object.__new__(WorldTask)
    oracle = Oracle(batch.bits)
    oracle.residual_weight.zero_()  # as an earlier validation may have left them
    task.module, task.config, task.device = oracle, CONFIG, torch.device("cpu")
    task.data = SimpleNamespace(grid=GRID)
    task.prior = np.arange(GRID.shape[2]) == 0
    task.ranks = SimpleNamespace(sum_array=lambda array: None)
    task.unseen, task.thresholds, task.fresh = (), {}, ()
    task.best_motion = BestMotion()
    task.baselines, task.baseline_iou = None, {"val/iou_memory_baseline": 0.1}
    task.val_set = "validation"
    task.objective = lambda batch, forecast: SimpleNamespace(total=torch.tensor(0.5))
    module = "vlwm.core.training.tasks.world_task."
    read = []
    monkeypatch.setattr(module + "share_of", lambda windows, *rest: read.append(windows) or [batch])
    task.read = read
    return task


def test_validation_chooses_thresholds_of_each_track_and_reads_the_validation_windows(monkeypatch):
    """Fault: tracks exchanged in the checkpoint; windows of the train split; no residual."""
    batch = batch_of(CONFIG, size=1)
    task = task_of(batch, monkeypatch)
    numbers = task.validate(lambda full: None, 3)
    assert task.read == ["validation"]
    # without the network nothing is foreseen, so that some of it must be taken in both tracks
    assert all(task.module.residual_weight > 0)
    assert numbers["val/iou"] == numbers["val/iou_plan"] == 1.0
    kept = thresholds_of(task.state())
    assert scored(task.module, batch, kept) == dict.fromkeys(LEVELS, [1.0] * 6)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three sessions; each has another layer full of cells."""
    folder = tmp_path_factory.mktemp("three")
    config = config_of(folder)
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    for number in range(3):
        path = folder / f"drone_20240101_{number:06d}"
        write_session(path, grid, number, None)
        for frame in range(14):
            cells = np.zeros(grid.shape, np.uint8)
            cells[..., number + 1] = 1
            write_layers(path / "occupancy" / f"{frame:06d}_occupancy.npz", {"occupancy": cells})
    return folder


def opened(root) -> tuple:
    config = config_of(root)
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    return config, PackedStore.open(root, grid)


def named(*splits: str) -> Splits:
    names = [f"drone_20240101_{i:06d}" for i in range(3)]
    return Splits(None, 1.0, (), dict(zip(names, splits, strict=True)))


def unfitted(store: PackedStore) -> FittedBaselines:
    """Baselines of data without train and validation split: no time is spent on them."""
    shape = WindowShape(HISTORY, FUTURE, 0.5)
    return fit_baselines(store, named("test", "test", "test"), shape, torch.device("cpu"))


def test_the_column_prior_is_that_of_the_train_split(root):
    """Fault: a prior made from the test split, which then scores 1."""
    config, store = opened(root)
    splits = named("train", "test", "test")
    sheet, own = (
        evaluate(
            None, None, store, splits, split, config, fitted=unfitted(store), max_windows=2
        )
        for split in ("test", "train")
    )  # fmt: skip
    assert sheet["scores"]["ground_prior"]["iou"] == [0.0] * 6
    assert sheet["scores"]["copy_last"]["iou"] == [1.0] * 6
    assert sheet["baseline"] == {"predicted": "memory_baseline", "plan": "true_pose_memory"}
    assert own["scores"]["ground_prior"]["iou"] == [1.0] * 6


SHAPE = WindowShape(HISTORY, FUTURE, 0.5)


def fit_with(store: PackedStore, monkeypatch, *splits: str) -> tuple[FittedBaselines, dict]:
    """Baselines, and the sessions that each step of their fit read, by the step's name."""
    read: dict[str, set[str]] = {}

    def spy(name: str, sessions) -> None:
        original = getattr(fit, name)

        def recorded(*args, **more):
            for windows in sessions(*args):
                found = read.setdefault(name, set())
                found.update(w.session[-1] for w in windows)
            return original(*args, **more)

        monkeypatch.setattr(fit, name, recorded)

    spy("motion_of", lambda store, windows, shape: [windows])
    spy("fit_edges", lambda data, store, shape: [data.windows])
    spy("_calibrate", lambda fitted, store, windows, *rest: [windows])
    return fit_baselines(store, named(*splits), SHAPE, torch.device("cpu"), max_windows=1), read


def test_motions_and_edges_are_fitted_to_the_train_split_alone(root, monkeypatch):
    """Fault: fitted to validation or test windows, or to all windows of the folder."""
    _, store = opened(root)
    fitted, read = fit_with(store, monkeypatch, "test", "train", "val")
    assert read["fit_edges"] == {"1"} and read["motion_of"] == {"1", "2"}
    assert fitted.windows["train"] == fitted.windows["val"] == 5
    # session k is full in layer k + 1 and empty elsewhere: so is the column of the train split
    assert fitted.column.argmax() == 2 and float(fitted.column[2]) == 1.0
    # other poses of the split that validates change no spread, those of the train split do
    spreads = [fitted.motions["turn_rate"].errors]
    for session in (2, 1):
        other = PackedStore.open(root, store.grid)
        rows = other.session == session
        other.poses[rows, :2] *= 1.0 + 0.1 * other.frame[rows, None]
        again, _ = fit_with(other, monkeypatch, "test", "train", "val")
        spreads.append(again.motions["turn_rate"].errors)
    assert np.array_equal(spreads[0], spreads[1]) and not np.array_equal(spreads[0], spreads[2])


def test_thresholds_and_the_strongest_baseline_come_from_the_validation_split_alone(
    root, monkeypatch
):
    """Fault: chosen on windows of the train or the test split."""
    _, store = opened(root)
    fitted, read = fit_with(store, monkeypatch, "train", "test", "val")
    assert read["_calibrate"] == {"2"}
    truths = []
    add = ThresholdHistogram.add

    def recorded(self, probability, truth, *rest):
        truths.append(truth)
        add(self, probability, truth, *rest)

    monkeypatch.setattr(ThresholdHistogram, "add", recorded)
    fit_with(store, monkeypatch, "train", "test", "val")
    assert truths and all(bool(t[..., 3].all()) and int(t[..., :3].sum()) == 0 for t in truths)
    assert set(fitted.merits) >= set(fitted.methods)


def test_a_cluster_is_the_tile_of_the_last_past_pose(root):
    """Fault: the tile of the first past pose."""
    _, store = opened(root)
    store.poses[:, :2] = 0.0
    window = windows_of(store, named("test", "val", "train"), "test", 10)[0]
    for frame, x in enumerate((0.0, 130.0, 250.0, 370.0, 490.0)):
        store.poses[window.rows[frame], 0] = x
    assert cluster_of(store, window, 4)[1:] == (3, 0)


def test_the_difference_of_equal_methods_has_no_width():
    """Fault: methods resampled apart, whose difference then is as wide as a score."""
    rng = np.random.default_rng(0)
    methods = ("model", "memory_baseline")
    tally = Tally(methods, 2)
    for cluster in range(40):
        counts = np.zeros((2, 2, len(ZONES), 4), np.int64)
        counts[..., TRUE] = counts[..., PREDICTED] = rng.integers(50, 100)
        counts[..., HIT], counts[..., CELLS] = rng.integers(1, 50), 1000
        tally.add(counts, cluster, [])
    sheet = score_sheet(tally)
    assert sheet["intervals"]["model"]["iou"][0][0] < sheet["intervals"]["model"]["iou"][0][1]
    difference = sheet["differences"]["model-memory_baseline"]["iou"]
    assert difference["interval"] == [[0.0, 0.0]] * 2


def test_a_run_is_scored_on_its_own_splits(root, tmp_path):
    """Fault: the splits of the data folder, which may have changed since."""
    shape = {"point_cloud_range": [-8, -8, -2, 8, 8, 10], "voxel_size": [1.0, 1.0, 1.5]}
    config = small("model.use_tokens=False", *(f"{k}={v}" for k, v in shape.items()))
    config = replace(config, data_root=str(root))
    content = {"stage": "world", "model": model_of(config).state_dict(), "config": config.to_dict()}
    content |= {"threshold": 0.5, "baselines": unfitted(opened(root)[1]).content()}
    save_checkpoint(tmp_path / "best.pth", content)
    for session, splits in enumerate((("test", "val", "train"), ("train", "test", "val"))):
        named(*splits).write(tmp_path / "splits.json")
        subject = open_run(tmp_path, EvalData("test", max_windows=1)).subject
        assert {w.session for w in subject.windows} == {f"drone_20240101_{session:06d}"}


def test_what_a_task_chooses_on_validation_never_comes_from_train(root):
    """Fault: thresholds, residual weights or sigmas chosen on windows of the train split."""
    config, store = opened(root)
    splits = named("train", "val", "test")
    val = windows_of(store, splits, "val", config.window_frames)
    train = windows_of(store, splits, "train", config.window_frames)
    share = np.full(store.grid.shape[2], 0.1)
    rows = {name: frame_rows(store, splits, name) for name in ("train", "val")}
    data = SimpleNamespace(
        store=store, splits=splits, train=train, val=val[:2], val_motion=val, grid=store.grid,
        train_rows=rows["train"], val_rows=rows["val"], column=share, rate=0.1, data_hash="",
    )  # fmt: skip
    grid = config.to_dict()
    wanted = {"model": {"use_tokens": False, "memory_channels": 8, "pose_channels": 8}}
    own = config_from_dict({**grid, **wanted})
    task = WorldTask(WorldModel(own, store.grid), data, own, torch.device("cpu"), 0, Ranks())
    assert {w.session for w in task.val_set.windows} == {"drone_20240101_000001"}
    # what the phases before stage 2 learn, the statistics of the edge first, comes from train
    prior, *_ = task.phases()
    assert {w.session for w in prior.windows.windows} == {"drone_20240101_000000"}
    expected = [WindowDataset(store, val, 4).motion(i)[0] for i in range(len(val))]
    assert np.allclose(task.unseen.poses, np.array(expected), atol=1e-5)


def test_a_mirrored_window_is_what_a_mirrored_vehicle_sees(root):
    """Fault: frames mirrored and poses kept, or the other way round."""
    _, store = opened(root)
    windows = windows_of(store, named("train", "val", "test"), "train", 10)
    plain = WindowDataset(store, windows, 4)
    mirrored = WindowDataset(store, windows, 4, mirror=True)
    found = set()
    for index in range(len(windows)):
        as_it_is, other = plain[0, index], mirrored[0, index]
        found.add(int(other.symmetry))
        sign = -1.0 if int(other.symmetry) == MIRROR else 1.0
        assert torch.allclose(other.poses[:, 1], sign * as_it_is.poses[:, 1], atol=1e-6)
        assert torch.allclose(other.poses[:, 12], sign * as_it_is.poses[:, 12], atol=1e-6)
        cells = unpack_bits(other.bits[None], store.grid.shape)
        seen = apply_symmetry(cells, other.symmetry[None])[0]
        original = unpack_bits(as_it_is.bits, store.grid.shape)
        assert torch.equal(seen, original.flip(-2) if sign < 0 else original)
    assert found == {0, MIRROR}


def test_losses_compare_a_frame_with_the_right_one():
    """Fault: token loss or pose loss off by one frame."""
    config = small()
    model, batch = model_of(config), batch_of(config)
    loss, seen = WorldLoss(model), {}
    # codes that are the number of their frame: what frame f predicts must be compared with f + 1
    codes = torch.arange(config.window_frames)[None, :, None, None]
    codes = codes.expand(3, -1, *model.vae.latent_shape[1:]).contiguous()

    def certain(tokens, track):
        count = tokens.shape[1]
        logits = torch.full((3, count, 32, *codes.shape[2:]), -20.0)
        for f in range(count):
            logits[:, f, f + 1] = 20.0  # each frame is sure of the next one
        return logits, None

    model.transform = certain
    scene = model.scene(batch.past(4))
    scene = replace(scene, tokens=model.embedded(codes))
    ego = batch.plan(4).ego
    assert float(loss._token_loss(codes, scene, ego)) < 1e-3

    model.motion_head.loss = lambda motion, truth: seen.setdefault("truth", truth).sum() * 0
    loss._pose_loss(None, batch, None)
    # three degrees of freedom begin with x: that of the frames after the anchor, in order
    assert torch.allclose(seen["truth"][..., 0], batch.poses[:, 4:, 0], atol=1e-5)
