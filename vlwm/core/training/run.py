"""Run `train`: data, tokenizer, world model, scores, in one run folder.

open data                 a procedural city is made first where there is none
stage 1 → tokenizer/      skipped where it is complete, or where weights cover all its tensors
stage 2 → the run folder
best.pth on the test split → scores.json
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from vlwm.core.config.schema import Config
from vlwm.core.errors import DataError, UsageError
from vlwm.core.evaluation.evaluator import Scores, evaluate
from vlwm.core.evaluation.load import baselines_of, find_checkpoint, thresholds_of
from vlwm.core.files import write_json
from vlwm.core.folder_lock import folder_lock
from vlwm.core.model.checkpoint import load_world_model
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.options import TrainOptions, TrainResult
from vlwm.core.training.run_context import Run, choose_device, open_run_context
from vlwm.core.training.runtime.distributed import join_ranks
from vlwm.core.training.runtime.stop_signal import StopSignal
from vlwm.core.training.stages import train_tokenizer, train_world
from vlwm.core.training.startup.data_on_demand import refuse_what_is_missing
from vlwm.core.training.startup.initial_weights import (
    refuse_a_missing_checkpoint,
    refuse_missing_weights,
)
from vlwm.core.training.startup.planned_work import amounts_of, planned_work
from vlwm.core.training.startup.resume import (
    comparable,
    is_finished,
    locate_data,
    processes_of_run,
    resumes_run,
    set_aside,
)
from vlwm.core.training.startup.train_data import TrainData, open_data
from vlwm.core.training.telemetry.provenance import attribution_with, non_commercial
from vlwm.core.vocabulary import Phase, Split, Stage

log = logging.getLogger("vlwm.training")

_REPEAT_OF_RANKS_S = 30.0  # a launcher repeats a signal that its workers have had already


def train(config: Config, options: TrainOptions, stop: StopSignal | None = None) -> TrainResult:
    """Train the stages that the options ask for, and evaluate the result on the test split.

    Args:
        config: what to train on what.
        options: where and how.
        stop: the signal flag where it is raised already while the program starts.

    Raises:
        StoppedError, InterruptedRunError: a signal came; the same command resumes the run.
        DataError: data or weights are missing; the sentence names the command to type.
        MachineError: there is no such GPU.
        UsageError: another process works in the run folder.
        TrainingError: training diverged, or one sample does not fit into memory.
    """
    if stop is None:
        with StopSignal() as stop:
            return train(config, options, stop)
    with join_ranks() as ranks:
        ranks.lead_does(lambda: refuse_a_missing_checkpoint(options))
        config = ranks.all_do(lambda: _with_data(config, options))
        # the launcher passes one signal on to all: a second copy of it must not end the run
        stop.repeat_s = _REPEAT_OF_RANKS_S if ranks.size > 1 else stop.repeat_s
        device = choose_device(options.gpu_id) if ranks.size == 1 else ranks.device()
        with ExitStack() as held:
            # only the lead locks and moves files; the others wait for it and fail with it
            lock = folder_lock(options.work_dir, "vlwm train", log.warning)
            ranks.lead_does(lambda: held.enter_context(lock))
            ranks = replace(ranks, begun_with=ranks.from_lead(lambda: _make_way(config, options)))
            if ranks.batch_shares != ranks.size:
                log.info(
                    "the run was begun with %d processes: its global batch stays the same with %d",
                    ranks.batch_shares, ranks.size,
                )  # fmt: skip
            with open_run_context(config, options, device, stop, ranks) as run:
                return _train(run)


def _train(run: Run) -> TrainResult:
    if run.options.auto is not None:
        log.info("%s", run.options.auto.paragraph)
    data = _open_data(run)
    if not run.options.eval_only:
        if run.options.trains(Stage.TOKENIZER):
            train_tokenizer(run, data)
        if not run.options.trains(Stage.WORLD):
            return TrainResult(run.folder.path, find_checkpoint(run.folder.tokenizer.path), None)
        train_world(run, data)
    # all processes leave stage 2 before the lead evaluates alone
    run.ranks.wait()
    if run.ranks.lead:
        return _evaluate(run, data)
    return TrainResult(run.folder.path, run.folder.best, None)


def _with_data(config: Config, options: TrainOptions) -> Config:
    """Return the config with its data where they are on this machine."""
    config = locate_data(config, options)
    refuse_what_is_missing(config, raw_will_do=options.auto is not None)
    return config


def _make_way(config: Config, options: TrainOptions) -> int:
    """Resume the run in the folder, refuse another one, or move it aside where that is asked.

    Returns:
        the processes that the run was begun with; 0 for those of now.
    """
    if options.eval_only:
        return 0
    folder = RunFolder(options.work_dir)
    if resumes_run(folder, config, options):
        if is_finished(folder):
            log.info("the run in %s is finished: only its test split is evaluated", folder.path)
        elif not options.resume and options.resume_from is None:
            log.info("resuming the unfinished run in %s", folder.path)
        return processes_of_run(folder, config, options)
    refuse_missing_weights(config, options)
    set_aside(folder, tokenizer_too=options.trains(Stage.TOKENIZER))
    return 0


def _open_data(run: Run) -> TrainData:
    """Open the data; missing data are made by the lead, then once on each machine without them.

    Raises:
        DataError: a process found other data than the lead.
    """
    run.status.update(phase=Phase.PREPARE)
    auto = run.options.auto is not None

    def opened() -> TrainData:
        return open_data(
            run.config,
            run.tick,
            from_raw=auto,
            on_frames=lambda done, total: run.tick(step=done, steps=total),
        )

    data = run.ranks.lead_does(opened)
    # machines need no common disk: the first process of each makes what is missing there
    data = run.ranks.machine_lead_does(lambda: data or opened())
    data = run.ranks.all_do(lambda: data or opened())
    _refuse_different(run, data)
    if run.status.plan is not None:
        amounts = amounts_of(data, run.config)
        run.status.plan.expect(*planned_work(run.config, run.ranks.batch_shares, amounts))
    if run.ranks.lead and not run.options.eval_only:
        write_json(run.folder.config_json, run.config.to_dict())
        run.folder.remember_data(run.config.data_root, data.data_hash)
        data.splits.write(run.folder.splits_json)
    return data


def _refuse_different(run: Run, data: TrainData) -> None:
    """Compare data and settings of all processes with those of the lead.

    Raises:
        DataError, UsageError: they differ; the same sentence in all processes.
    """
    ranks = run.ranks
    other = ranks.others(data.data_hash)
    if other:
        raise DataError(
            f"{_processes(other)} read other data than the first one",
            where=run.config.data_root,
            remedy="give all machines the same --data (s3://... fetches it), or copy the folder",
        )
    settings = {k: v for k, v in comparable(run.config).items() if k != "data_root"}
    other = ranks.others(f"{settings} {run.options.stage} {run.options.from_scratch}")
    if other:
        raise UsageError(
            f"{_processes(other)} of the run have other settings than the first one",
            remedy="start the same command with the same version of vlwm on all machines",
        )


def _processes(ranks: list[int]) -> str:
    """Return numbers of processes in words."""
    return f"process{'' if len(ranks) == 1 else 'es'} {', '.join(map(str, ranks))}"


def _evaluate(run: Run, data: TrainData) -> TrainResult:
    """Evaluate the best checkpoint on the test split, and write scores.json."""
    run.status.update(phase=Phase.EVAL, stage=Stage.WORLD, step=0, steps=0, eta_s=None)
    checkpoint = find_checkpoint(run.folder.path)
    try:
        scores = _scores(run, data, checkpoint)
    except DataError as error:
        # a test split without a frame is a small data set, not a fault
        if data.splits.counts(data.store)[Split.TEST]:
            raise
        note = f"not evaluated: {error}"
        log.warning("%s", note)
        return TrainResult(run.folder.path, checkpoint, None, (note, *_licence_notes(run, data)))
    write_json(run.folder.scores_json, scores)
    return TrainResult(run.folder.path, checkpoint, scores, _licence_notes(run, data))


def _licence_notes(run: Run, data: TrainData) -> tuple[str, ...]:
    """Return a sentence where the licence of data or initial weights restricts the weights."""
    attribution = attribution_with(
        data.store.attribution, run.config, from_scratch=run.options.from_scratch
    )
    if not non_commercial(attribution):
        return ()
    return (
        "what the weights were made of is for non-commercial use, and so are the weights: "
        f"{attribution}",
    )


def _scores(run: Run, data: TrainData, checkpoint: Path) -> Scores:
    model, content = load_world_model(checkpoint, run.device)
    return evaluate(
        model,
        checkpoint.name,
        data.store,
        data.splits,
        Split.TEST,
        run.config,
        thresholds=thresholds_of(content),
        fitted=baselines_of(content),
        max_windows=run.config.evaluation.final_max_windows,
        batch_size=run.config.data.samples_per_gpu,
        device=run.device,
        progress=lambda done, total: run.tick(step=done, steps=total),
    )
