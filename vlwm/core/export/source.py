"""Find out what a caller names: a run folder, a checkpoint, an exported folder, or the Hub."""

from __future__ import annotations

import tempfile
from os import PathLike, fspath
from pathlib import Path

from vlwm.core.errors import UsageError
from vlwm.core.export.exported_folder import export_folder, is_exported, open_exported
from vlwm.core.export.hub import Upload, fetch_folder, is_hub_name, plan_upload, push_folder
from vlwm.core.export.trained_model import TrainedModel, open_checkpoint


def open_source(
    source: str | PathLike[str], revision: str | None = None, device: str | None = None
) -> TrainedModel:
    """Open a trained model by the name that a caller gives; a path that exists goes first.

    Raises:
        VlwmError: nothing is there, it is damaged, or a revision was given for a path.
    """
    path = Path(source)
    if path.exists():
        if revision is not None:
            raise UsageError(
                "a revision belongs to a repository on the Hub, and this is a path",
                where=path,
                remedy="leave revision out",
            )
        return open_exported(path, device) if is_exported(path) else open_checkpoint(path, device)
    if is_hub_name(fspath(source)):
        return open_exported(fetch_folder(fspath(source), revision), device)
    return open_checkpoint(path, device)  # names what is missing


def push_model(
    trained: TrainedModel, repo: str, *, private: bool, dry_run: bool, licence: str | None
) -> Upload:
    """Export a model into a temporary folder and upload it; with `dry_run` only list the files."""
    with tempfile.TemporaryDirectory(prefix="vlwm-export-") as folder:
        export_folder(trained, Path(folder), licence=licence)
        if dry_run:
            return plan_upload(Path(folder), repo, private=private)
        return push_folder(Path(folder), repo, private=private)
