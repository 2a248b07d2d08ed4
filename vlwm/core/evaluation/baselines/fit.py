"""Fit the baselines: motions on train windows, everything chosen on validation windows.

The test split is never read, and cells whose truth is unknown count nowhere. Validation windows are
taken from every cluster of the split, so that thresholds do not depend on a few places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from vlwm.core.data.batch import collate
from vlwm.core.data.datasets import KNOWN, WindowDataset
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.splits import Splits
from vlwm.core.data.windows import Window, frame_rows, windows_of
from vlwm.core.errors import DataError
from vlwm.core.evaluation.baselines.fitted import FittedBaselines, strongest
from vlwm.core.evaluation.baselines.forecasts import BaselineForecasts
from vlwm.core.evaluation.baselines.motions import (
    Analogs,
    ConstantTwist,
    MotionBaseline,
    PastMotion,
    Ridge,
    TurnRate,
    energy_score,
)
from vlwm.core.evaluation.baselines.warps import BASELINES, plan_track, predicted_track
from vlwm.core.evaluation.calibration.thresholds import ThresholdHistogram
from vlwm.core.evaluation.clusters import over_clusters
from vlwm.core.evaluation.column_prior import MOST_FRAMES, ColumnPrior, evenly
from vlwm.core.evaluation.eval_windows import WindowShape, windows_in
from vlwm.core.geometry.frames import ego_of
from vlwm.core.model.memory.extrapolation import Extrapolation, unseen_columns
from vlwm.core.vocabulary import Split

VALIDATION_WINDOWS = 64
"""validation windows that thresholds come from; more where there are more clusters"""
_MOTION_WINDOWS = 20_000
"""train windows that motions are fitted on, at most"""
_EDGE_WINDOWS = 128
"""train windows that the edges are counted on, at most"""
FEWEST_WINDOWS = 50
"""train windows below which ridge and analogs are not fitted"""

OnWindow = Callable[[int, int], None]


def fit_baselines(
    store: PackedStore,
    splits: Splits,
    shape: WindowShape,
    device: torch.device,
    *,
    max_windows: int = VALIDATION_WINDOWS,
    on_window: OnWindow | None = None,
) -> FittedBaselines:
    """Return baselines fitted to the train and validation split of a data folder.

    Without a train split motions have no spread and their default constants; without a validation
    split all thresholds are 0.5 and the baselines are those without parameters.

    Args:
        max_windows: validation windows that thresholds come from.
        on_window: called with (windows done, all) after each of them.
    """
    train, val = (split_windows(store, splits, name, shape) for name in (Split.TRAIN, Split.VAL))
    rows = frame_rows(store, splits, Split.TRAIN)
    rows = rows[evenly(len(rows), MOST_FRAMES)]
    column = store.column_prior(rows)
    prior = ColumnPrior.of_shares(column, len(rows), store.grid)
    share = column if len(rows) else prior.layers
    motions, best = fit_motions(store, train, val, shape)
    fitted = FittedBaselines(
        motions=motions,
        planes_motion=best,
        column=torch.as_tensor(share, dtype=torch.float32),
        edges=fit_edges(_frames_of(store, train, shape), store, shape),
        windows={"train": len(train), "val": len(val)},
    )
    chosen = over_clusters(store, val, shape.history, max_windows)
    if chosen:
        _calibrate(fitted, store, chosen, prior.layers, shape, device, on_window)
    return fitted


def _frames_of(store: PackedStore, windows: Sequence[Window], shape: WindowShape) -> WindowDataset:
    return WindowDataset(store, windows, shape.history, observed=shape.observed, layers=KNOWN)


def split_windows(
    store: PackedStore, splits: Splits, split: str, shape: WindowShape
) -> list[Window]:
    """Return the windows of a split; none of an empty one."""
    try:
        return windows_of(store, splits, split, shape.history + shape.future)
    except DataError:
        return []


def motion_of(
    store: PackedStore, windows: Sequence[Window], shape: WindowShape
) -> tuple[PastMotion, np.ndarray]:
    """Return the past poses of some windows and their future ego frames (N, H, 4)."""
    data = WindowDataset(store, windows, shape.history)
    motions = [data.motion(i) for i in range(len(windows))]
    poses, ground = (np.stack(values) for values in zip(*motions, strict=True))
    past, future = slice(shape.history), slice(shape.history, None)
    return (
        PastMotion(poses[:, past], ground[:, past], shape.dt_s),
        ego_of(poses[:, future], ground[:, future]),
    )


def fit_motions(
    store: PackedStore, train: list[Window], val: list[Window], shape: WindowShape
) -> tuple[dict[str, MotionBaseline], str]:
    """Return the motions, and the name of the one with the lowest energy score on validation."""
    horizons_s = shape.horizons_s
    if not train:
        return {
            "constant_twist": ConstantTwist(horizons_s),
            "turn_rate": TurnRate(horizons_s),
        }, "turn_rate"
    some = [train[i] for i in evenly(len(train), _MOTION_WINDOWS)]
    past, future = motion_of(store, some, shape)
    tested = val or some
    tested = [tested[i] for i in evenly(len(tested), _MOTION_WINDOWS)]
    val_past, val_future = motion_of(store, tested, shape)
    rate = TurnRate.fit(past, future, horizons_s)
    motions: dict[str, MotionBaseline] = {
        "constant_twist": ConstantTwist.fit(past, future, horizons_s),
        "turn_rate": rate,
    }
    if len(some) >= FEWEST_WINDOWS:
        ridge = Ridge.fit(rate, past, future, val_past, val_future)
        motions |= {"ridge": ridge, "analogs": Analogs.fit(ridge, past, future)}
    scores = {name: energy_score(m, val_past, val_future) for name, m in motions.items()}
    return motions, min(scores, key=lambda name: scores[name])


def fit_edges(data: WindowDataset, store: PackedStore, shape: WindowShape) -> Extrapolation:
    """Count occupancy beyond the edge of the view on train windows, in every second frame."""
    edges = Extrapolation()
    for index in evenly(len(data), _EDGE_WINDOWS if len(data) else 0):
        window = next(windows_in(collate([data[0, index]]), shape.history, store.grid))
        ego = torch.as_tensor(window.past.ego)[None]
        for h in range(min(1, shape.future - 1), shape.future, 2):
            target = torch.as_tensor(window.future_ego[h])[None]
            unseen = unseen_columns(window.past.occupancy[None], ego, target, store.grid)
            known = None if window.known is None else window.known[h : h + 1]
            edges.count(unseen, window.truth[h : h + 1], known)
    return edges


def _calibrate(
    fitted: FittedBaselines,
    store: PackedStore,
    windows: list[Window],
    prior: np.ndarray,
    shape: WindowShape,
    device: torch.device,
    on_window: OnWindow | None,
) -> None:
    """Choose thresholds and the strongest method of each track on validation windows."""
    data = _frames_of(store, windows, shape)
    swept = {method: ThresholdHistogram(shape.future) for method in (*fitted.methods, *BASELINES)}
    for index in range(len(data)):
        batch = collate([data[0, index]]).to(device)
        window = next(windows_in(batch, shape.history, store.grid))
        forecasts = BaselineForecasts(window.past, fitted, store.grid, shape.dt_s)
        nearest = zip(
            predicted_track(window.past, prior, store.grid, shape.dt_s, shape.horizons_s),
            plan_track(window.past, window.future_ego, prior, store.grid),
            strict=True,
        )
        for h, (unknown, (planned, _)) in enumerate(nearest):
            probabilities = {**forecasts.predicted(h), **forecasts.planned(window.future_ego[h])}
            probabilities |= {name: cells.float() for name, cells in {**unknown, **planned}.items()}
            known = None if window.known is None else window.known[h]
            for method, probability in probabilities.items():
                swept[method].add(probability.contiguous(), window.truth[h], h, known)
        if on_window is not None:
            on_window(index + 1, len(data))
    for method, histogram in swept.items():
        best, fitted.merits[method] = histogram.best_with_merit()
        if method in fitted.methods:
            fitted.thresholds[method] = best
    fitted.windows["thresholds"] = len(data)
    fitted.baseline = strongest(fitted.merits)
