"""Whether a run begins, goes on, or is finished already, decided from its folder alone.

Nothing is ever written over: a new run in a folder that holds another one first moves that one to
`previous_YYYYMMDD_HHMMSS/`. The same command in the folder of an unfinished run goes on with it;
the result is the same bit for bit.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from vlwm.core.config.schema import Config
from vlwm.core.errors import DataError
from vlwm.core.files import make_folder, read_json
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.options import TrainOptions

log = logging.getLogger("vlwm.training")

_FILES = (
    "epoch_*.pth", "best.pth", "last.pth", "opening.pth", "logs", "train_*.log", "config.json",
    "splits.json", "metrics.jsonl", "metrics.lost.jsonl", "status.json", "scores.json", "*.png",
    "wandb", "tokens",
)  # fmt: skip
_SAME_RUN = (
    "data_root", "point_cloud_range", "voxel_size", "history_frames", "future_frames", "frame_dt_s",
)  # fmt: skip
_LOOSE = {
    "model": ("checkpoint_activations",),
    "tokenizer": ("max_epochs", "lr", "samples_per_gpu", "warmup_fresh_iters"),
}


def goes_on(folder: RunFolder, config: Config, options: TrainOptions) -> bool:
    """Whether this command continues the run that lies in the folder."""
    if options.anew:
        return False
    if options.resume or options.resume_from is not None:
        return True
    if not folder.holds_a_run():
        return False
    same = _stored(folder.config_json) == comparable(config)
    return same and not _ended(folder)


def _ended(folder: RunFolder) -> bool:
    """Whether the run is done, or has failed in a way that it would fail again."""
    try:
        status = folder.read_status() or {}
    except DataError:
        return False
    return status.get("state") == "done" or (
        status.get("state") == "failed" and status.get("exit_code") == 1
    )


def _stored(path: Path) -> dict[str, Any] | None:
    try:
        return _comparable(read_json(path))
    except DataError:
        return None


def comparable(config: Config) -> dict[str, Any]:
    """The config without what changes no number."""
    return _comparable(config.to_dict())


def continues(folder: RunFolder, config: Config) -> bool:
    """Whether the run in the folder is of the same data and the same network.

    Epochs, rates, batches and precision may differ: such a run can go on under this config.
    """
    stored = _stored(folder.config_json)
    if stored is None or not folder.holds_a_run():
        return False
    wanted = comparable(config)
    same = all(stored.get(key) == wanted[key] for key in _SAME_RUN)
    return same and all(
        _without(stored.get(key, {}), loose) == _without(wanted[key], loose)
        for key, loose in _LOOSE.items()
    )


def stored_config(folder: RunFolder) -> dict[str, Any] | None:
    """The config of the run in the folder as plain values; None where none can be read."""
    return _stored(folder.config_json)


def _without(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _comparable(values: dict[str, Any]) -> dict[str, Any]:
    data = _without(values.get("data", {}), ("workers_per_gpu", "cache_tokens"))
    return {**values, "data": data}


def set_aside(folder: RunFolder, *, tokenizer_too: bool) -> Path | None:
    """Move the run that lies in the folder into `previous_…/`; None where there is none.

    What a process killed before its first checkpoint has left is no run.
    """
    patterns = (*_FILES, "tokenizer") if tokenizer_too else _FILES
    found = sorted({path for pattern in patterns for path in folder.path.glob(pattern)})
    if not any(_is_work(path) for path in found):
        return None
    target = make_folder(folder.path / time.strftime("previous_%Y%m%d_%H%M%S"))
    for path in found:
        path.rename(target / path.name)
    log.warning("the folder held another run; it is kept in %s", target)
    return target


def _is_work(path: Path) -> bool:
    """Whether a file or folder of a run holds something that training has made."""
    if path.name == "tokenizer":
        return any(path.glob("*.pth")) or any(p.stat().st_size for p in path.glob("metrics.jsonl"))
    return path.suffix == ".pth"
