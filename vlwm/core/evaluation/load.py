"""Open a run or a config with its data for scoring: checkpoint, packed frames, splits.

A run is scored on its own data with its own `splits.json`; other data bring theirs. A checkpoint is
scored with the grid it was trained on: data of another grid raise an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vlwm.core.config.load import config_from_dict
from vlwm.core.config.schema import Config
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.source_splits import open_splits
from vlwm.core.data.splits import Splits
from vlwm.core.errors import CheckpointError
from vlwm.core.evaluation.baselines.fit import OnWindow
from vlwm.core.evaluation.baselines.fitted import FittedBaselines
from vlwm.core.evaluation.baselines.tri_state import TriState
from vlwm.core.evaluation.calibration.thresholds import Thresholds
from vlwm.core.evaluation.evaluator import Subject, prepare_subject
from vlwm.core.evaluation.model_forecasts import LEARNED, TrackThresholds
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.checkpoint import load_world_model
from vlwm.core.run_folder import RunFolder
from vlwm.core.vocabulary import Track

OnSession = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Opened:
    """A subject with where it came from.

    Attributes:
        subject: what is scored.
        checkpoint: the file; None for the baselines alone.
        folder: the run folder; None for the baselines alone.
        fitted_here: True where the baselines were fitted to these data now.
    """

    subject: Subject
    checkpoint: Path | None
    folder: Path | None
    fitted_here: bool = False


def _quiet(name: str, done: int, total: int) -> None:
    pass


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint file of a run folder (best.pth, else last.pth), or the file itself.

    Raises:
        CheckpointError: there is none.
    """
    if path.is_file():
        return path
    run = RunFolder(path)
    for found in (run.best, run.last):
        if found.is_file():
            return found
    what = "no checkpoint in this run folder" if path.is_dir() else "no such run or checkpoint"
    raise CheckpointError(what, where=path, remedy="train one with vlwm train, or give its path")


def thresholds_of(content: Mapping[str, Any]) -> TrackThresholds:
    """Return the thresholds of a checkpoint; 0.5 if it was never calibrated.

    Without `thresholds` both tracks use the single `threshold`. Weights that earlier versions
    exported have the key `cuts`.
    """
    single = content.get("threshold")
    by_track = content.get("thresholds") or content.get("cuts") or {}
    plain = Thresholds() if single is None else Thresholds(float(single))
    calibrated = {name: Thresholds.of(by_track[name]) for name in LEARNED if name in by_track}
    return TrackThresholds(**{**{str(track): plain for track in Track}, **calibrated})


@dataclass(frozen=True)
class EvalData:
    """The windows to score, and callbacks for the work before.

    Attributes:
        split: 'train', 'val', 'test' or 'all'.
        root: a data folder; None: the config's own.
        max_windows: windows at most; 0 takes all.
        on_session: called for each session that has to be packed first.
        on_fit: called with (validation windows done, all) while baselines are fitted.
        fitted, tri_state: parameters of the baselines, where another process has fitted them.
    """

    split: str
    root: Path | None = None
    max_windows: int = 0
    on_session: OnSession = _quiet
    on_fit: OnWindow | None = None
    fitted: FittedBaselines | None = None
    tri_state: TriState | None = None


def open_run(path: Path, data: EvalData) -> Opened:
    """Return a trained model and the data it is evaluated on.

    Args:
        path: run folder or checkpoint file.

    Raises:
        CheckpointError: no checkpoint, a damaged one, or a tokenizer's.
        DataError: no data, data of another grid, or a split without windows.
    """
    checkpoint = find_checkpoint(path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, content = load_world_model(checkpoint, device)
    config = config_from_dict(content["config"], where=str(checkpoint))
    run = RunFolder(checkpoint.parent)
    own_splits = run.splits_json if data.root is None else None
    if data.root is None and not config.data.train:
        data = replace(data, root=run.find_data(config.data_root))
    store, splits = open_splits_of(config, data, own_splits)
    fitted = baselines_of(content) or data.fitted
    subject = prepare_subject(
        model, store, splits, data.split, config, thresholds=thresholds_of(content),
        fitted=fitted, tri_state=data.tri_state, max_windows=data.max_windows, device=device,
        on_fit=data.on_fit,
    )  # fmt: skip
    return Opened(subject, checkpoint, checkpoint.parent, fitted_here=fitted is None)


def baselines_of(content: Mapping[str, Any]) -> FittedBaselines | None:
    """Return the baselines of a checkpoint; None where it was written before they were kept."""
    baselines = content.get("baselines")
    return None if baselines is None else FittedBaselines.of(baselines)


def open_baselines(config: Config, data: EvalData, fitted: FittedBaselines | None = None) -> Opened:
    """Return the methods without learning on the data of a config; see `open_run`.

    Args:
        fitted: their parameters, where they are known; None: fitted here.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    store, splits = open_splits_of(config, data)
    fitted = fitted or data.fitted
    subject = prepare_subject(
        None, store, splits, data.split, config, fitted=fitted, tri_state=data.tri_state,
        max_windows=data.max_windows, device=device, on_fit=data.on_fit,
    )  # fmt: skip
    return Opened(subject, None, None, fitted_here=fitted is None)


def open_splits_of(
    config: Config, data: EvalData, own_splits: Path | None = None
) -> tuple[PackedStore, Splits]:
    """Return the packed frames, and the run's own splits or else those of their folder."""
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    roots = config.data_roots if data.root is None else (str(data.root),)
    store = PackedStore.open(roots, grid, on_session=data.on_session)
    if own_splits is not None and own_splits.exists():
        return store, Splits.read(own_splits)
    return store, open_splits(store, grid.horizontal_half_diagonal_m, config.seed)
