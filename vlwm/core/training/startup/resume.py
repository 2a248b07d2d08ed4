"""Decide from the run folder and the command whether a run begins, resumes, or is refused.

The same command in the folder of a run resumes it; a finished one is only evaluated again. The same
data are the same run however they are reached. A command that asks for another run in the folder is
refused, with the keys that differ and the two ways on: `--resume` and `--no-resume`. Nothing is
ever written over: `--no-resume` first moves the run to `previous_YYYYMMDD_HHMMSS/`.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlwm.core.config.schema import Config
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.errors import CheckpointError, DataError, UsageError
from vlwm.core.files import make_folder, read_json
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.checkpoint import newest_valid, peek_checkpoint
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.options import TrainOptions
from vlwm.core.training.startup.data_on_demand import holds_sessions
from vlwm.core.vocabulary import Stage

log = logging.getLogger("vlwm.training")

_FILES = (
    "epoch_*.pth", "best.pth", "last.pth", "opening.pth", "logs", "train_*.log", "config.json",
    "data.json", "splits.json", "metrics.jsonl", "metrics.lost.jsonl", "status.json", "scores.json",
    "*.png", "report.html", "wandb", "tokens",
)  # fmt: skip
_SAME_RUN = (
    "point_cloud_range", "voxel_size", "history_frames", "future_frames", "frame_dt_s",
)  # fmt: skip
_LOOSE = {
    "model": ("checkpoint_activations",),
    "tokenizer": ("max_epochs", "lr", "samples_per_gpu", "warmup_fresh_iters"),
}
_MOST_KEYS = 5
_WAYS = (
    "--resume continues it with the new values, --no-resume starts a new run here (the old one is "
    "kept in previous_...), another --work-dir leaves it alone"
)


def resumes_run(folder: RunFolder, config: Config, options: TrainOptions) -> bool:
    """Return whether this command resumes the run in the folder; False where a run begins.

    Raises:
        UsageError: the folder holds another run, or one that failed, and the command does not state
            whether to resume it.
        CheckpointError: neither `config.json` nor any checkpoint of the run can be read.
    """
    if options.new_run:
        return False
    if options.resume or options.resume_from is not None:
        return True
    if not folder.holds_a_run():
        return False
    other = _differences(folder, config)
    if other:
        if not _work(folder, tokenizer_too=options.stage != Stage.WORLD):
            return False  # a tokenizer alone, and stage 2 asks for other settings of its own
        raise UsageError(
            f"the run here was started with other settings: {_words(other)}",
            where=folder.path,
            remedy=_WAYS,
        )
    if _failed(folder):
        raise UsageError("the run here has failed", where=folder.path, remedy=_WAYS)
    return True


def _words(other: dict[str, tuple[object, object]]) -> str:
    """Return keys with their two values; a changed flag is read at a glance."""
    words = [f"{key} {_short(old)} (now {_short(new)})" for key, (old, new) in other.items()]
    more = len(words) - _MOST_KEYS
    return ", ".join(words[:_MOST_KEYS]) + (f" and {more} more" if more > 0 else "")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _failed(folder: RunFolder) -> bool:
    """Return whether training itself failed, as it would again."""
    status = _status(folder)
    return status.get("state") == "failed" and status.get("exit_code") == 1


def is_finished(folder: RunFolder) -> bool:
    """Return whether the run in the folder has come to its end."""
    return _status(folder).get("state") == "done"


def _status(folder: RunFolder) -> dict[str, Any]:
    try:
        status = folder.read_status()
    except DataError:
        return {}
    return status if isinstance(status, dict) else {}


def _differences(folder: RunFolder, config: Config) -> dict[str, tuple[object, object]]:
    """Return the keys, with dots, in which a config differs from that of the run in the folder.

    `config.json` may be damaged: where it is not the same, the checkpoint's own config answers.
    """
    wanted = _flat(comparable(config))
    written = _stored(folder.config_json)
    if written is not None and not _unlike(folder, _flat(written), wanted, config):
        return {}
    own = _config_of_checkpoint(folder)
    if own is None and written is None:
        raise CheckpointError(
            "neither config.json nor a checkpoint of this run can be read",
            where=folder.path,
            remedy="--no-resume starts a new run here and keeps the old files in previous_...",
        )
    if own is None:
        return _unlike(folder, _flat(written or {}), wanted, config)
    other = _unlike(folder, _flat(own), wanted, config)
    if not other:
        log.warning(
            "%s is damaged or was edited; the config in the checkpoint is used", folder.config_json
        )
    return other


def _unlike(
    folder: RunFolder, old: dict[str, Any], new: dict[str, Any], config: Config
) -> dict[str, tuple[object, object]]:
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if "data_root" in keys and _same_data(folder, str(old.get("data_root")), config):
        keys.remove("data_root")
    return {key: (old.get(key), new.get(key)) for key in keys}


def _same_data(folder: RunFolder, old_root: str, config: Config) -> bool:
    """Return whether the config's data folder holds the data of the run, wherever it is now."""
    root, remembered = Path(config.data_root), folder.read_data()
    places = {Path(old_root).resolve(), Path(remembered.get("absolute") or old_root)}
    if root.resolve() in places:
        return True
    # a folder that was moved or copied: the same data by their hash
    hashed = remembered.get("data_hash")
    if not hashed or not holds_sessions(root):
        return False
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    try:
        return PackedStore.open(root, grid).data_hash == hashed
    except DataError:
        return False


def _config_of_checkpoint(folder: RunFolder) -> dict[str, Any] | None:
    """Return the config in the newest checkpoint of either stage, or None."""
    for place in (folder, folder.tokenizer):
        try:
            found = newest_valid(place.path)
        except CheckpointError:
            continue
        if found is not None and isinstance(found.content.get("config"), dict):
            return _comparable(found.content["config"])
    return None


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested values under keys with dots; tuples are lists, as in JSON."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[before + name] = list(value) if isinstance(value, tuple) else value
    return flat


def _stored(path: Path) -> dict[str, Any] | None:
    try:
        values = read_json(path)
    except DataError:
        return None
    return _comparable(values) if isinstance(values, dict) else None


def _filled(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return values with the default of every key that the version which wrote them did not have.

    A new key's default is what the code did before the key came.
    """
    filled = {**defaults, **values}
    for name, default in defaults.items():
        if isinstance(default, dict) and isinstance(filled[name], dict):
            filled[name] = _filled(filled[name], default)
    return filled


def comparable(config: Config) -> dict[str, Any]:
    """Return the config without what changes no number."""
    return _comparable(config.to_dict())


def continues(folder: RunFolder, config: Config) -> bool:
    """Return whether the run in the folder is of the same data and the same network.

    Epochs, rates, batches and precision may differ: such a run can resume under this config.
    """
    stored = stored_config(folder)
    if stored is None or not folder.holds_a_run():
        return False
    wanted = comparable(config)
    if stored.get("data_root") != config.data_root and not _same_data(
        folder, str(stored.get("data_root")), config
    ):
        return False
    # grid and window decide whether weights fit; `_LOOSE` may change within a run
    same = all(_listed(stored.get(key)) == _listed(wanted[key]) for key in _SAME_RUN)
    return same and all(
        _flat(_without(_dict(stored.get(key)), loose)) == _flat(_without(wanted[key], loose))
        for key, loose in _LOOSE.items()
    )


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def refuse_another_run(folder: RunFolder, config: Config) -> None:
    """Refuse to move aside a run of other data or another network.

    Raises:
        UsageError: with the keys that differ and the ways on.
    """
    other = _differences(folder, config)
    raise UsageError(
        f"the run here is of other data or another network: {_words(other)}",
        where=folder.path,
        remedy="--no-resume starts a new run here (the old one is kept in previous_...), another "
        "--work-dir leaves it alone",
    )


def processes_of_run(folder: RunFolder, config: Config, options: TrainOptions) -> int:
    """Return the processes that the run began with; 0 where no checkpoint names them.

    A global batch has the `samples_per_gpu` of each of them, whatever number of processes resumes
    the run. A command with another `samples_per_gpu` chooses a batch, and it counts per process of
    now: 0.
    """
    if options.new_run:
        return 0
    chosen = [] if options.resume_from is None else [options.resume_from]
    kept = [*folder.checkpoints()[::-1], folder.opening, *folder.tokenizer.checkpoints()[::-1]]
    for path in chosen or kept:
        content = peek_checkpoint(path) if path.exists() else None
        processes = _dict((content or {}).get("sampler")).get("processes")
        if content is None or not isinstance(processes, int) or processes < 1:
            continue
        return processes if _batches(content["config"]) == _batches(config.to_dict()) else 0
    return 0


def _batches(config: dict[str, Any]) -> list[Any]:
    """Return the batch of one process in each stage."""
    return [_dict(config.get(part)).get("samples_per_gpu") for part in ("tokenizer", "data")]


def locate_data(config: Config, options: TrainOptions) -> Config:
    """Return the config with its data where the run in the folder last found them.

    A run that is resumed or evaluated from another folder does not see its relative path.
    """
    if not (options.resume or options.eval_only) or holds_sessions(Path(config.data_root)):
        return config
    folder = RunFolder(options.work_dir).find_data(config.data_root)
    return replace(config, data_root=str(folder)) if holds_sessions(folder) else config


def stored_config(folder: RunFolder) -> dict[str, Any] | None:
    """Return the config of the run in the folder as plain values; None where none can be read."""
    return _stored(folder.config_json) or _config_of_checkpoint(folder)


def _without(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _comparable(values: dict[str, Any]) -> dict[str, Any]:
    values = _filled(values, Config().to_dict())
    data = _without(_dict(values.get("data")), ("workers_per_gpu", "cache_tokens"))
    return {**values, "data": data}


def set_aside(folder: RunFolder, *, tokenizer_too: bool) -> Path | None:
    """Move the run in the folder into `previous_.../`; return that folder, or None without one.

    What a process leaves that was killed before its first checkpoint is not a run.
    """
    files = _work(folder, tokenizer_too=tokenizer_too)
    if not files:
        return None
    target = make_folder(folder.path / time.strftime("previous_%Y%m%d_%H%M%S"))
    for path in files:
        path.rename(target / path.name)
    log.warning("the run that was here is kept in %s; a NEW run starts", target)
    return target


def _work(folder: RunFolder, *, tokenizer_too: bool) -> list[Path]:
    """Return the files of a run that holds something made by training; else none."""
    patterns = (*_FILES, Stage.TOKENIZER.value) if tokenizer_too else _FILES
    files = sorted({path for pattern in patterns for path in folder.path.glob(pattern)})
    return files if any(_is_work(path) for path in files) else []


def _is_work(path: Path) -> bool:
    """Return whether a file or folder of a run holds something that training has made."""
    if path.name == Stage.TOKENIZER:
        return any(path.glob("*.pth")) or any(p.stat().st_size for p in path.glob("metrics.jsonl"))
    return path.suffix == ".pth"
