"""Write a trained model as a folder that leaves the run folder, and read it back strictly.

    model.safetensors   every tensor of the model, nothing else; no code
    config.json         the training config
    forecast.json       thresholds, horizons, grid, attribution, licence, data hash, splits
    scores.json         the score sheet of `vlwm eval`
    forecast.png        a window, or the curves of the score sheet
    README.md           the model card

Loading is strict: a missing, surplus or reshaped tensor is an error that names it, and the weights
must have the SHA-256 that forecast.json states.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from vlwm.core.config.load import config_from_dict
from vlwm.core.errors import CheckpointError, ConfigError, DataError
from vlwm.core.evaluation.load import thresholds_of
from vlwm.core.export.file_names import CARD, CONFIG, FILES, FORECAST, PICTURE, SCORES, WEIGHTS
from vlwm.core.export.licence import Licence, licence_of
from vlwm.core.export.model_card import model_card
from vlwm.core.export.trained_model import Provenance, TrainedModel, chosen_device
from vlwm.core.files import (
    atomic_path,
    explain_os_error,
    make_folder,
    read_json,
    sha256_file,
    write_json,
)  # fmt: skip
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model import checkpoint
from vlwm.core.model.checkpoint_upgrade import names_of_today
from vlwm.core.model.world_model import WorldModel
from vlwm.core.run_folder import RunFolder
from vlwm.version import __version__

FORMAT, VERSION = "vlwm-export", 1
_AGAIN = "run vlwm export again, or download the folder again"


def is_exported(folder: Path) -> bool:
    """Return True for a folder that `export_folder` wrote."""
    return (folder / FORECAST).is_file() or (folder / WEIGHTS).is_file()


def export_folder(trained: TrainedModel, out: Path, *, licence: str | None = None) -> list[Path]:
    """Write a trained model into `out`; returns the files.

    Args:
        trained: the model.
        out: a new folder, or one that an export wrote before.
        licence: the operator's word where the sources do not name a licence.

    Raises:
        DataError: `out` holds something else, the run was never evaluated, or its licence is
            unknown.
        UsageError: the stated licence is weaker than that of a source.
    """
    run, origin = Path(trained.provenance.source).parent, trained.provenance
    if out.exists() and any(out.iterdir()) and not is_exported(out):
        raise DataError("the folder holds something else", where=out, remedy="give a new folder")
    sheet = _scores(run)
    terms = licence_of(
        origin.attribution,
        procedural=origin.procedural,
        initial_weights=origin.load_from,
        stated=licence,
    )
    make_folder(out)
    state = {
        k: v.detach().cpu().clone().contiguous() for k, v in trained.model.state_dict().items()
    }
    with atomic_path(out / WEIGHTS) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})  # one key: the same bytes each time
    write_json(out / CONFIG, {"library_name": "vlwm", **asdict(trained.config)})
    write_json(out / SCORES, sheet)
    _write_picture(run, sheet, out / PICTURE)
    about = _forecast_json(trained, terms, run, sha256_file(out / WEIGHTS))
    with atomic_path(out / CARD) as temporary:
        temporary.write_text(model_card(about, sheet, terms), encoding="utf-8")
    write_json(out / FORECAST, about)  # last: without it the folder is not finished
    return [out / name for name in FILES]


def _scores(run: Path) -> dict[str, Any]:
    path = RunFolder(run).scores_json
    if not path.is_file():
        raise DataError(
            "this run has no scores.json, and a model without scores helps nobody",
            where=run,
            remedy=f"run: vlwm eval {run}",
        )
    return dict(read_json(path))


def _write_picture(run: Path, sheet: dict[str, Any], path: Path) -> None:
    """Copy the picture of a window that `vlwm eval` drew, or draw the curves of the sheet."""
    for drawn in (run / "window.png", run / PICTURE):
        if drawn.is_file():
            with atomic_path(path) as temporary:
                shutil.copyfile(drawn, temporary)
            return
    from vlwm.core.figures.score_curves import write_curves

    write_curves(path, sheet)


def _forecast_json(
    trained: TrainedModel, terms: Licence, run: Path, weights_sha256: str
) -> dict[str, Any]:
    """Return all that a forecast needs in addition to weights and config."""
    model, origin, grid = trained.model, trained.provenance, trained.grid
    splits = RunFolder(run).splits_json
    return {
        "format": FORMAT,
        "version": VERSION,
        "vlwm": __version__,
        "weights_sha256": weights_sha256,
        "weights_version": checkpoint.VERSION,
        "threshold": trained.thresholds.model.threshold,
        "thresholds": {track: found.content() for track, found in vars(trained.thresholds).items()},
        "column_prior": [float(v) for v in torch.sigmoid(model.column_logit)],
        "horizons_s": [float(v) for v in trained.horizons_s],
        "history_frames": trained.config.history_frames,
        "frame_dt_s": trained.config.frame_dt_s,
        "grid": {"lower_m": grid.lower_m, "cell_m": grid.cell_m, "shape": grid.shape},
        "attribution": origin.attribution,
        "procedural": origin.procedural,
        "licence": {"id": terms.identifier, "sources": terms.sources, "why": terms.why},
        "initial_weights": origin.load_from,
        "unknown_cells": origin.unknown_cells,
        "data_hash": origin.data_hash,
        "epoch": origin.epoch,
        "versions": dict(origin.versions),
        "splits": read_json(splits) if splits.is_file() else origin.splits,
    }


def open_exported(folder: Path, device: str | torch.device | None = None) -> TrainedModel:
    """Open a folder that `export_folder` wrote.

    Raises:
        CheckpointError: a file is missing or damaged, or a tensor is missing, surplus or reshaped.
        MachineError: the device is missing.
    """
    about = _about(folder)
    values = {k: v for k, v in read_json(folder / CONFIG).items() if k != "library_name"}
    try:
        config = config_from_dict(values, where=str(folder / CONFIG))
    except ConfigError as error:
        raise CheckpointError(
            f"its config cannot be used, {error.what}",
            where=folder / CONFIG,
            remedy="use the version of vlwm that wrote it",
        ) from error
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    model = WorldModel(config, grid)
    state = _weights(folder / WEIGHTS, about["weights_sha256"])
    if about.get("weights_version", 1) < 2:
        state = names_of_today(state)
    checkpoint.load_weights(model, state, folder / WEIGHTS)
    origin = Provenance(
        attribution=about.get("attribution") or "",
        procedural=about.get("procedural"),
        data_hash=about.get("data_hash"),
        load_from=about.get("initial_weights"),
        epoch=about.get("epoch"),
        versions=about.get("versions") or {},
        source=str(folder / WEIGHTS),
        splits=about.get("splits"),
        unknown_cells=bool(about.get("unknown_cells")),
    )
    return TrainedModel(
        model.to(chosen_device(device)).eval(), config, thresholds_of(about), origin
    )


def _about(folder: Path) -> dict[str, Any]:
    for name in (FORECAST, CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(f"the exported folder lacks {name}", where=folder, remedy=_AGAIN)
    about = read_json(folder / FORECAST)
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise CheckpointError(
            "forecast.json was not written by vlwm export", where=folder, remedy=_AGAIN
        )
    if about["version"] > VERSION:
        raise CheckpointError(
            f"the exported folder has format {about['version']}, newer than this vlwm",
            where=folder,
            remedy="install a newer vlwm",
        )
    return about


def _weights(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    state, found = read_tensors(path)
    if found != sha256:
        raise CheckpointError(
            "the weights are not those that forecast.json was written for",
            where=path,
            remedy=_AGAIN,
        )
    return state


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """Return the tensors of a safetensors file, and the SHA-256 of what was read.

    Raises:
        DataError: the file is missing or may not be read.
        CheckpointError: it is not a safetensors file.
    """
    # not load_file: it maps the file, and one that is cut short later ends the process by a signal
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise explain_os_error(error, path) from error
    try:
        state = load(raw)
    except SafetensorError as error:
        raise CheckpointError(
            "the weights are damaged, they are not a safetensors file", where=path, remedy=_AGAIN
        ) from error
    return state, hashlib.sha256(raw).hexdigest()
