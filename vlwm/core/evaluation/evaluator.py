"""Apply the whole protocol to one split: `evaluate` turns a model and data into a score sheet.

docs/evaluation.md states the protocol; `window_scorer` applies the methods, `scores` does the
arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vlwm.core.config.schema import Config
from vlwm.core.data.batch import Batch, collate
from vlwm.core.data.datasets import KNOWN, WindowDataset
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.splits import Splits
from vlwm.core.data.windows import windows_of
from vlwm.core.engines import Engine
from vlwm.core.evaluation.baselines.fit import (
    OnWindow,
    fit_baselines,
    fit_motions,
    split_windows,
)
from vlwm.core.evaluation.baselines.fitted import FittedBaselines
from vlwm.core.evaluation.baselines.tri_state import TriState
from vlwm.core.evaluation.baselines.tri_state_fit import ValidationWindow, fit_tri_state
from vlwm.core.evaluation.column_prior import ColumnPrior, evenly, train_prior
from vlwm.core.evaluation.eval_windows import WindowShape, windows_in
from vlwm.core.evaluation.model_forecasts import LEARNED, TrackThresholds
from vlwm.core.evaluation.scores.score_sheet import score_sheet
from vlwm.core.evaluation.window_scorer import WindowScorer
from vlwm.core.evaluation.window_work import Progress, Subject, WindowWork, tally_windows
from vlwm.core.vocabulary import Split

if TYPE_CHECKING:
    from vlwm.core.model.world_model import WorldModel

_FIT_WINDOWS, _FIT_CELLS = 12, 12_000_000  # that the tri-state baselines are fitted to

Scores = dict[str, Any]
"""The content of scores.json (docs/evaluation.md)."""


def prepare_subject(
    model: WorldModel | None,
    store: PackedStore,
    splits: Splits,
    split: str,
    config: Config,
    *,
    thresholds: TrackThresholds | None = None,
    fitted: FittedBaselines | None = None,
    tri_state: TriState | None = None,
    max_windows: int = 0,
    device: str | torch.device = "cpu",
    on_fit: OnWindow | None = None,
) -> Subject:
    """Return windows, prior and scorer of a split.

    Args:
        fitted: parameters of the baselines; None: fitted here to train and validation windows.
        tri_state: the same of those of an observed past.
        on_fit: called with (validation windows done, all) while they are fitted.

    Raises:
        DataError: the split holds no window.
    """
    windows = windows_of(store, splits, split, config.window_frames)
    chosen = [windows[i] for i in evenly(len(windows), max_windows)]
    prior = train_prior(store, splits)
    if fitted is None and not config.data.observed:  # an observed past has tri-state baselines
        fitted = fit_baselines(
            store, splits, _shape(config), torch.device(device), on_window=on_fit
        )
    tri_state = tri_state or _tri_state(store, splits, config, prior)
    scorer = WindowScorer(
        store.grid, prior.layers, config.history_frames, config.future_frames,
        config.frame_dt_s, model, thresholds, fitted, tri_state,
        config.tokenizer.num_classes - 1 if config.semantic else None,
    )  # fmt: skip
    observed = config.data.observed
    return Subject(store, chosen, len(windows), prior, scorer, torch.device(device), observed)


def _tri_state(
    store: PackedStore, splits: Splits, config: Config, prior: ColumnPrior
) -> TriState | None:
    """Return the baselines of an observed past, fitted to validation windows; None without one.

    The motion of their predicted track is the strongest one without learning, as everywhere.
    """
    if not config.data.observed:
        return None
    shape = _shape(config)
    train, windows = (
        split_windows(store, splits, name, shape) for name in (Split.TRAIN, Split.VAL)
    )
    motions, best = fit_motions(store, train, windows, shape)
    if not windows:  # the parameters of OctoMap
        return TriState(prior.layers, store.grid, motion_name=best, motion=motions[best])
    history, grid = config.history_frames, store.grid
    # Several variants are swept over whole frames: fewer windows of large grids.
    most = max(4, min(_FIT_WINDOWS, _FIT_CELLS // grid.num_cells))
    chosen = [windows[i] for i in evenly(len(windows), most)]
    data = WindowDataset(store, chosen, history, observed=True, layers=KNOWN)
    batches = [collate([data[0, index]]) for index in range(len(data))]
    inputs = []
    for batch in batches:
        window = next(windows_in(batch, history, grid))
        assert window.seen is not None
        inputs.append(ValidationWindow(window.seen, window.truth, window.future_ego))
    fitted = fit_tri_state(inputs, prior.layers, grid, history, config.future_frames)
    fitted = replace(fitted, motion_name=best, motion=motions[best])
    return replace(fitted, merits=validation_merits(fitted, batches, config))


def _shape(config: Config) -> WindowShape:
    return WindowShape(
        config.history_frames, config.future_frames, config.frame_dt_s, config.data.observed
    )


def validation_merits(
    tri_state: TriState, batches: Sequence[Batch], config: Config
) -> dict[str, float]:
    """Return the sum of IoU and structure IoU of every method without learning on some windows."""
    scorer = WindowScorer(
        tri_state.grid, tri_state.layers, config.history_frames, config.future_frames,
        config.frame_dt_s, tri_state=tri_state,
    )  # fmt: skip
    tally = scorer.new_tally()
    for index, batch in enumerate(batches):
        scorer.add(batch, [index], tally)
    scores = {method: tally.total.scores(method) for method in scorer.methods}
    return {
        method: sum(v or 0.0 for key in ("iou", "iou_structure") for v in block[key])
        for method, block in scores.items()
    }


def evaluate(
    model: WorldModel | None,
    checkpoint: str | None,
    store: PackedStore,
    splits: Splits,
    split: str,
    config: Config,
    *,
    thresholds: TrackThresholds | None = None,
    fitted: FittedBaselines | None = None,
    max_windows: int = 0,
    batch_size: int = 1,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Scores:
    """Return the scores of a model and of every method without learning on one split.

    Args:
        model: a world model in evaluation mode on `device`; None for the baselines alone.
        checkpoint: its name for the sheet.
        store, splits: the data.
        split: 'train', 'val', 'test' or 'all'.
        config: history, future and time step of a window.
        thresholds: where the model's probabilities are cut (from its checkpoint).
        fitted: parameters of the baselines (from its checkpoint); None: fitted here.
        max_windows: windows at most, evenly spaced over the split; 0 takes all.
        batch_size: windows that the model sees at once.
        progress: called after every batch.

    Raises:
        DataError: the split holds no window.
        MachineError: the device's memory does not hold a batch.
    """
    subject = prepare_subject(
        model, store, splits, split, config,
        thresholds=thresholds, fitted=fitted, max_windows=max_windows, device=device,
    )  # fmt: skip
    return score_subject(subject, split, checkpoint, batch_size=batch_size, progress=progress)


def score_subject(
    subject: Subject,
    split: str,
    checkpoint: str | None,
    *,
    batch_size: int = 1,
    progress: Progress | None = None,
    engine: Engine | None = None,
    work: WindowWork | None = None,
) -> Scores:
    """Return the score sheet of a prepared subject; see `evaluate` and `tally_windows`."""
    scorer = subject.scorer
    tally = tally_windows(subject, batch_size, progress, engine, work)
    sheet: Scores = {
        "split": split,
        "checkpoint": checkpoint,
        "threshold": scorer.thresholds.model.threshold if scorer.model is not None else None,
        "thresholds": _thresholds(scorer),
        "cuts": _thresholds(scorer),  # the name that earlier readers know
        "horizons_s": [float(s) for s in scorer.horizons_s],
        **score_sheet(tally, scorer.baseline),
    }
    if tally.classes is not None:
        sheet["classes"] = tally.classes.summary(scorer.horizons_s)
    if scorer.tri_state is not None:
        chosen = scorer.tri_state.parameters
        sheet["tri_state"] = {name: values.content() for name, values in chosen.items()}
        sheet["baseline_parameters"] = {
            "validation_merit": dict(scorer.tri_state.merits),
            "motion": scorer.tri_state.motion_name,
        }
    if scorer.fitted is not None:
        sheet["baseline_parameters"] = scorer.fitted.summary()
    if scorer.model is not None:
        sheet["reliability"] = tally.probabilities.reliability()
    return sheet | _provenance(subject)


def _thresholds(scorer: WindowScorer) -> dict[str, Any] | None:
    if scorer.model is None:
        return None
    return {name: getattr(scorer.thresholds, name).content() for name in LEARNED}


def _provenance(subject: Subject) -> dict[str, Any]:
    """Return the origin of the frames, for readers of the sheet."""
    store = subject.store
    return {
        "procedural": store.procedural,
        "attribution": store.attribution,
        "data": {
            "root": str(store.root),
            "sessions": len(np.unique([w.session for w in subject.windows])),
            "windows_in_split": subject.available,
            "grid": {
                "lower_m": list(store.grid.lower_m),
                "cell_m": list(store.grid.cell_m),
                "shape": list(store.grid.shape),
            },
            "column_prior": subject.prior.source,
            "damaged_frames": len(store.damaged),
            "hash": store.data_hash,
        },
    }
