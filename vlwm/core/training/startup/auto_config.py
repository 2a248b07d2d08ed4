"""`--auto`: what to train with on this machine, chosen before anything is loaded, and why.

A choice is never made over the operator's own flag. What the VRAM table grants is the global batch
of a new run; a resumed run keeps its own, on whatever GPU, and only the microbatch follows
the memory. The probe (`vlwm.core.training.loop.batch_probe`) has the last word on that.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlwm.core.config.schema import Config
from vlwm.core.errors import DataError
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.hardware.advice import FULL_GRID_CELLS, Advice
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.options import Auto, TrainOptions
from vlwm.core.training.startup.data_on_demand import (
    holds_sessions,
    is_to_be_prepared,
    refuse_what_is_missing,
)
from vlwm.core.training.startup.resume import continues, refuse_another_run, stored_config
from vlwm.core.vocabulary import Stage


@dataclass(frozen=True)
class Fixed:
    """Settings that the operator gave explicitly."""

    batch: bool = False
    workers: bool = False
    amp: bool = False


@dataclass(frozen=True)
class Choice:
    """Result of `--auto`."""

    config: Config
    options: TrainOptions
    flags: tuple[str, ...]
    """the choices as flags, for the other processes of the run"""


def choose(
    config: Config, options: TrainOptions, advice: Advice, found: tuple[str, ...], fixed: Fixed
) -> Choice:
    """Return config and options of a run on this machine.

    Args:
        config: with the operator's flags over it.
        options: with the operator's flags.
        advice: the tables' advice for this machine.
        found: what was seen of it, as phrases.
        fixed: which flags the operator gave.

    Raises:
        DataError: there is nothing to train on, nor to make it from.
    """
    refuse_what_is_missing(config, raw_will_do=True)
    # a run that is resumed keeps its own batch: only a new one takes the table's
    options, begins, stored = _beginning(config, options)
    config, batch = _batch(config, advice, stored, fixed)
    if advice.device == "cuda" and not fixed.amp:
        amp = True if stored is None else bool(stored.get("amp", True))
        config = dataclasses.replace(config, amp=amp)
    if _table_applies(config, advice) and advice.checkpoint_activations:
        model = dataclasses.replace(config.model, checkpoint_activations=True)
        config = dataclasses.replace(config, model=model)
    if not fixed.workers:
        data = dataclasses.replace(config.data, workers_per_gpu=advice.workers)
        config = dataclasses.replace(config, data=data)
    options, weights = _weights(config, options)
    lines = (
        *(("machine" if i == 0 else "", phrase) for i, phrase in enumerate(found)),
        ("settings", f"{batch}, {_precision(config, advice)}, {_workers(config)}"),
        *_other_gpus(advice, options),
        ("data", _data(config)),
        ("weights", weights),
        ("run", begins),
        ("", "a probe tries the batch before training starts"),
    )
    # the table's batch is where the probe starts
    first = advice.batch_size if _table_applies(config, advice) else None
    words = "\n".join(f"  {name:<9} {_capital(text)}" for name, text in lines)
    auto = Auto(f"auto:\n{words}", first)
    return Choice(config, dataclasses.replace(options, auto=auto), _flags(config, options))


def _other_gpus(advice: Advice, options: TrainOptions) -> tuple[tuple[str, str], ...]:
    """Return what to type where several GPUs are paid for and one would train."""
    if advice.gpus < 2 or options.gpu_id is not None:
        return ()
    ids = ",".join(map(str, range(advice.gpus)))
    return (("gpus", f"one of {advice.gpus} trains: --gpu-ids {ids} takes all of them"),)


def _capital(sentence: str) -> str:
    short = sentence[:3] in ("gpu", "cpu", "ram")
    return sentence[: 3 if short else 1].upper() + sentence[3 if short else 1 :]


def _table_applies(config: Config, advice: Advice) -> bool:
    """Return whether the VRAM table applies: a GPU, and the full grid."""
    return advice.device == "cuda" and _cells(config) >= FULL_GRID_CELLS


def _cells(config: Config) -> int:
    return VoxelGrid.from_range(config.point_cloud_range, config.voxel_size).num_cells


def _beginning(
    config: Config, options: TrainOptions
) -> tuple[TrainOptions, str, dict[str, Any] | None]:
    """Return whether the run resumes, the sentence about it, and the config it resumes with."""
    folder = RunFolder(options.work_dir)
    if options.eval_only:
        return options, f"the best checkpoint in {folder.path} is evaluated", stored_config(folder)
    if options.resume or options.resume_from is not None:
        return options, f"the run in {folder.path} is resumed, as asked", stored_config(folder)
    if not folder.holds_a_run():
        return options, f"a new run begins in {folder.path}", None
    if options.new_run:
        return options, f"the run in {folder.path} is moved aside, a new one starts", None
    if not continues(folder, config):
        refuse_another_run(folder, config)
    return (
        dataclasses.replace(options, resume=True),
        f"{_state(folder)}; to start a new run instead, add --no-resume or another --work-dir",
        stored_config(folder),
    )


def _state(folder: RunFolder) -> str:
    """Return the progress of the run in a folder, as a sentence."""
    try:
        status = folder.read_status() or {}
    except DataError:
        status = {}
    if status.get("state") == "done":
        return f"the run in {folder.path} is finished and only evaluated again (--epochs for more)"
    return f"the unfinished run in {folder.path} is resumed"


def _batch(
    config: Config, advice: Advice, stored: dict[str, Any] | None, fixed: Fixed
) -> tuple[Config, str]:
    """Return the config with its batch, and the reason for it."""
    known = None if stored is None else stored.get("data", {}).get("samples_per_gpu")
    if fixed.batch:
        why = "as asked"
    elif known is not None:
        config, why = _with_batch(config, known), "as this run began"
    elif advice.device == "cpu":
        why = "the config's, on the CPU"
    elif not _table_applies(config, advice):
        why = "the config's; the VRAM table is about the full grid"
    else:
        config, why = _with_batch(config, advice.batch_size or 1), advice.why
    if advice.device == "cpu" and _cells(config) >= FULL_GRID_CELLS:
        why += ": slow at full size, --config tokyo_small is made for CPUs"
    return config, f"batch {config.data.samples_per_gpu} ({why})"


def _with_batch(config: Config, batch: int) -> Config:
    data = dataclasses.replace(config.data, samples_per_gpu=batch)
    return dataclasses.replace(config, data=data)


def _precision(config: Config, advice: Advice) -> str:
    if advice.device == "cpu" or not config.amp:
        return "float32"
    if advice.precision == "bf16":
        return "bf16 (SM 8.0 or newer)"
    return "fp16 with a loss scaler (older than SM 8.0)"


def _workers(config: Config) -> str:
    count = config.data.workers_per_gpu
    return f"{count} loader worker{'' if count == 1 else 's'}"


def _data(config: Config) -> str:
    root = Path(config.data_root)
    if not is_to_be_prepared(config, from_raw=True):
        return f"data are in {root}"
    resuming = " (resumed)" if holds_sessions(root) else ""
    if config.prepare.source == "procedural":
        return f"a made-up city is prepared in {root} first{resuming}"
    return f"the city models in {config.prepare.input} are prepared in {root} first{resuming}"


def _weights(config: Config, options: TrainOptions) -> tuple[TrainOptions, str]:
    path = config.load_from
    if path is None or options.from_scratch:
        return options, "trained from scratch"
    if Path(path).exists():
        return options, f"weights from {path}"
    return (
        dataclasses.replace(options, from_scratch=True),
        f"trained from scratch, since the weights {path} do not exist (vlwm download --models)",
    )


def _flags(config: Config, options: TrainOptions) -> tuple[str, ...]:
    """Return flags that make the same choices again, whatever is free by then."""
    words = ["--batch-size", str(config.data.samples_per_gpu)]
    if not options.trains(Stage.WORLD):
        words = ["--batch-size", str(config.tokenizer.samples_per_gpu)]
    words += ["--workers", str(config.data.workers_per_gpu)]
    words += ["--amp" if config.amp else "--no-amp"]
    if config.model.checkpoint_activations:
        words += ["--set", "model.checkpoint_activations=True"]
    words += ["--from-scratch"] if options.from_scratch else []
    words += ["--resume"] if options.resume else []
    return tuple(words)
