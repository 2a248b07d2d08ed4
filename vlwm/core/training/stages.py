"""Run the two stages: their initial weights or checkpoint, and the fit that both share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vlwm.core.errors import DataError
from vlwm.core.evaluation.calibration.thresholds import Thresholds
from vlwm.core.files import write_json
from vlwm.core.model.checkpoint import FoundCheckpoint, load_checkpoint, load_weights, newest_valid
from vlwm.core.model.pretrained import LoadedWeights
from vlwm.core.model.tokenizer.vqvae import Tokenizer
from vlwm.core.model.world_model import WorldModel
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.loop.batch_probe import probe
from vlwm.core.training.loop.optimizer import build_optimizer
from vlwm.core.training.loop.progress import StageSettings
from vlwm.core.training.loop.stepper import Stepper, autocast_type, first_microbatch
from vlwm.core.training.loop.task import Task
from vlwm.core.training.loop.train_state import RunState
from vlwm.core.training.loop.trainer import Trainer
from vlwm.core.training.run_context import Run
from vlwm.core.training.runtime.rng import seed_everything
from vlwm.core.training.runtime.torch_compile import compile_networks
from vlwm.core.training.startup.initial_weights import initial_weights
from vlwm.core.training.startup.train_data import TrainData
from vlwm.core.training.tasks.pretraining import PretrainingProgress, run_phase
from vlwm.core.training.tasks.tokenizer_task import TokenizerTask
from vlwm.core.training.tasks.world_task import WorldTask
from vlwm.core.training.telemetry.health import Watch
from vlwm.core.training.telemetry.metric_log import MetricLog, close_log_file, open_log_file
from vlwm.core.training.telemetry.provenance import attribution_with, identity
from vlwm.core.vocabulary import Phase, Stage

log = logging.getLogger("vlwm.training")


def train_tokenizer(run: Run, data: TrainData) -> Path:
    """Run stage 1, unless it is complete; return its best checkpoint.

    Raises:
        CheckpointError: the checkpoint to resume from does not fit.
    """
    folder = run.folder.tokenizer
    source = _source(run, data, folder, Stage.TOKENIZER)
    if source is None and _source(run, data, run.folder, Stage.WORLD) is not None:
        return folder.best  # stage 2 has begun: its checkpoints hold the tokenizer
    if source is not None and source.content["epoch"] >= run.config.tokenizer.max_epochs:
        log.info("tokenizer: complete in %s", folder.path)
        return folder.best
    seed_everything(run.config.seed)
    model = Tokenizer(run.config.tokenizer, data.grid.shape).to(run.device)
    initial = _initial(run, model, Stage.TOKENIZER)
    if initial.covers_all and source is None and run.options.trains(Stage.WORLD):
        log.info("tokenizer: all of it is in %s, so stage 1 is left out", run.config.load_from)
        return folder.best
    if "decoder.conv_out.bias" in initial.fresh:
        # start from the data's rate of occupancy: from one half, the first epochs unlearn it
        model.init_output_rate(torch.from_numpy(data.column))
    fresh = () if initial.none else initial.fresh
    task = TokenizerTask(model, data, run.config, run.device, run.workers(), run.ranks, fresh)
    begun = _begun_from(run, initial)
    with _own_tree(run, data, folder):
        _fit(run, data, task, folder, source, begun)
    return folder.best


@contextmanager
def _own_tree(run: Run, data: TrainData, folder: RunFolder) -> Iterator[None]:
    """Write config, splits, log and status of stage 1 into its own folder too."""
    if not run.ranks.lead:
        yield
        return
    folder.create()
    write_json(folder.config_json, run.config.to_dict())
    data.splits.write(folder.splits_json)
    handler = open_log_file(folder.path)
    run.status.copy = folder
    try:
        yield
        run.status.copy = None  # else the run's own end is copied
        done = {"state": "done", "phase": Phase.DONE, "exit_code": 0, "eta_s": 0.0}
        folder.write_status({**run.status.values, **done})
    finally:
        close_log_file(handler)


def train_world(run: Run, data: TrainData) -> Path:
    """Run stage 2; return its best checkpoint.

    Raises:
        DataError: there is no trained tokenizer.
        CheckpointError: the checkpoint to resume from does not fit.
    """
    source = _source(run, data, run.folder, Stage.WORLD)
    # before the model: its initial weights are drawn here
    seed_everything(run.config.seed)
    model = WorldModel(run.config, data.grid).to(run.device)
    tokens = run.folder.path / "tokens"
    task = WorldTask(model, data, run.config, run.device, run.workers(), run.ranks, tokens)
    begun = ""
    if source is None:
        initial = _initial(run, model, Stage.WORLD)
        begun = _begun_from(run, initial)
        learned = _pretrain(run, data, task, initial)
        task.prefer_motion()
        if not initial.covers("vae."):
            # loaded weights without a tokenizer: take the one that stage 1 trained
            threshold, tokenizer_begun = _take_tokenizer(run, model)
            task.thresholds["tokenizer_round_trip"] = threshold
            begun = begun or tokenizer_begun
        # what a phase has just trained may be frozen as loaded weights are
        task.train_fresh([name for name in initial.fresh if not name.startswith(learned)])
    else:
        task.train_fresh(source.content.get("fresh", ()))
    if task.fresh:
        log.info("world: %d tensors of frozen parts begin fresh: they are trained", len(task.fresh))
    _fit(run, data, task, run.folder, source, begun)
    return run.folder.best


def _begun_from(run: Run, initial: LoadedWeights) -> str:
    """Return the file that a stage began from; "" where all of it began fresh."""
    return "" if initial.none else str(run.config.load_from)


def _pretrain(
    run: Run, data: TrainData, task: WorldTask, weights: LoadedWeights
) -> tuple[str, ...]:
    """Run the phases before the first step, but for those that loaded weights replace.

    Returns:
        how the names of the parameters begin that the phases trained by steps.
    """
    progress = PretrainingProgress(run, data)
    learned = []
    for phase in task.phases():
        if phase.is_covered_by(weights):
            continue
        log.info("world: %s", phase.describe())
        run_phase(phase, run.config, run.device, progress)
        if phase.steps:  # rounding may differ between GPUs
            run.ranks.follow_lead(phase.module)
            learned.append(phase.prefix)
    return tuple(learned)


def _take_tokenizer(run: Run, model: WorldModel) -> tuple[Thresholds, str]:
    """Load the trained tokenizer; return its threshold, and the file that it began from."""
    folder = run.folder.tokenizer
    path = folder.best if folder.best.exists() else folder.last

    def load() -> dict[str, Any] | None:
        if not path.exists():
            return None
        return load_checkpoint(path, expect_grid=model.grid, stage=Stage.TOKENIZER)

    content = run.ranks.from_lead(load)
    if content is None or content["step"] == 0:  # written before its first step
        raise DataError(
            "there is no trained tokenizer to build on",
            where=folder.path,
            remedy="train it first: --stage tokenizer, or --stage both",
        )
    load_weights(model.vae, content["model"], path)
    log.info("world: tokenizer of epoch %d from %s", content["epoch"], path)
    single = content["threshold"]
    threshold = Thresholds() if single is None else Thresholds(single)
    return threshold, str(content.get("initial_weights") or "")


def _initial(run: Run, model: torch.nn.Module, stage: Stage) -> LoadedWeights:
    """Load initial weights in the lead, and send them to the other processes."""

    def load() -> tuple[tuple[str, ...], ...]:
        initial = initial_weights(run.config, run.options, model, stage)
        return initial.taken, initial.fresh, initial.left_over

    initial = LoadedWeights(*run.ranks.from_lead(load))
    if not initial.none:
        run.ranks.follow_lead(model)
    return initial


def _source(run: Run, data: TrainData, folder: RunFolder, stage: Stage) -> FoundCheckpoint | None:
    """Return the checkpoint from which a stage resumes, or None if it starts.

    The lead reads it; the others get its content from the lead, whatever disk they have.
    """

    def load() -> tuple[str, dict[str, Any]] | None:
        found = _newest(run, data, folder, stage)
        return None if found is None else (str(found.path), found.content)

    found = run.ranks.from_lead(load)
    return None if found is None else FoundCheckpoint(Path(found[0]), found[1])


def _newest(run: Run, data: TrainData, folder: RunFolder, stage: Stage) -> FoundCheckpoint | None:
    chosen = run.options.resume_from
    if chosen is not None:
        content = load_checkpoint(chosen, expect_grid=data.grid)
        if content["stage"] == stage:
            return FoundCheckpoint(chosen, content)
        if stage == Stage.WORLD:  # a tokenizer's checkpoint goes before all of stage 2
            return None
    found = newest_valid(folder.path, expect_grid=data.grid)
    for sentence in found.refused if found is not None else ():
        log.warning("passed over: %s", sentence)
    return found


def _fit(
    run: Run,
    data: TrainData,
    task: Task,
    folder: RunFolder,
    source: FoundCheckpoint | None,
    begun: str,
) -> None:
    config = run.config
    settings = StageSettings.of(config, task.stage, run.ranks.batch_shares)
    if run.options.compile:
        compile_networks(task.module)
    stepper = Stepper(
        task,
        build_optimizer(task.module, config.optimizer, settings.lr),
        config.grad_clip,
        run.device,
        autocast_type(config.amp, run.device),
        first_microbatch(
            run.device, run.ranks.largest_piece(settings.batch_size), data.grid.num_cells
        ),
        run.ranks,
    )
    if source is not None:  # a resumed run keeps the beginning that its first checkpoint names
        begun = str(source.content.get("initial_weights", config.load_from) or "")
    attribution = attribution_with(
        data.store.attribution, config, from_scratch=run.options.from_scratch
    )
    origin = identity(
        config.seed, data.data_hash, attribution, begun, unknown_cells=data.store.has_unknown
    )
    state = RunState(task, stepper, config, Watch(config.health), origin)
    metrics = MetricLog(folder, task.stage, run.sinks, writes=run.ranks.lead)
    trainer = Trainer(state, settings, config, folder, metrics, run.status, run.stop)
    try:
        if source is None:
            # before the first checkpoint, so that it holds the microbatch that fits
            _probe(run, state, settings, grow=True)
            trainer.begin()
        else:
            trainer.resume(source.content, source.path)
            log.info("%s: resuming at step %d from %s", task.stage, state.at.step, source.path)
            _note_other_data(source, data)
            # a resumed run keeps its microbatch if it still fits
            _probe(run, state, settings, grow=False)
        if run.options.compile:
            _compile(run, state, settings)
        trainer.fit()
    finally:
        metrics.close()


def _probe(run: Run, state: RunState, settings: StageSettings, *, grow: bool) -> None:
    """Try the batch with `--auto`, and log the result."""
    auto, stage = run.options.auto, state.task.stage
    if auto is None or state.at.epoch >= settings.epochs:
        return
    run.status.update(phase=Phase.PROBE, stage=stage)
    stepper = state.stepper
    first = stepper.microbatch
    if grow and stage == Stage.WORLD and auto.microbatch is not None:
        first = min(first, auto.microbatch)
    with run.stop.leaving_at_once(run.leave):
        found = probe(state, settings, run.stop, first, grow=grow)
    steps = settings.epochs * -(-state.task.samples() // settings.batch_size) - state.at.step
    log.info(
        "%s: the probe ran batches of %d as microbatches of %d in %.3g s a step and at most "
        "%.1f GB; %d steps are about %.1f h, validation apart",
        stage, settings.batch_size, found.microbatch, found.step_s, found.memory_gb, steps,
        steps * found.step_s / 3600,
    )  # fmt: skip


def _compile(run: Run, state: RunState, settings: StageSettings) -> None:
    """Run every shape of the stage once before training, while a signal loses nothing."""
    if state.at.epoch >= settings.epochs:
        return
    run.status.update(phase=Phase.COMPILE, stage=state.task.stage)
    with run.stop.leaving_at_once(run.leave):
        micro = state.stepper.microbatch
        probe(state, settings, run.stop, micro, grow=False, every_shape=True)


def _note_other_data(source: FoundCheckpoint, data: TrainData) -> None:
    if source.content["data_hash"] != data.data_hash:
        log.warning("the data have changed since %s was written", source.path)
