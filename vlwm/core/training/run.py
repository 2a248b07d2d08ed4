"""`train`: data, tokenizer, world model, scores, in one run folder.

open data                 a procedural city is made first where there is none
stage 1 → tokenizer/      skipped where it is complete, or where weights cover all its tensors
stage 2 → the run folder
best.pth on the test split → scores.json
"""

from __future__ import annotations

import logging
from pathlib import Path

from vlwm.core.config import Config
from vlwm.core.errors import DataError
from vlwm.core.evaluation.evaluator import Scores, evaluate
from vlwm.core.evaluation.opening import find_checkpoint, thresholds_of
from vlwm.core.files import write_json
from vlwm.core.model.checkpoint import load_world_model
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.begin import goes_on, set_aside
from vlwm.core.training.data import TrainData, open_data, refuse_what_is_missing
from vlwm.core.training.options import TrainOptions, TrainResult
from vlwm.core.training.run_context import Run, open_run_context
from vlwm.core.training.signals import StopSignal
from vlwm.core.training.stages import train_tokenizer, train_world
from vlwm.core.training.weights import refuse_missing_weights

log = logging.getLogger("vlwm.training")


def train(config: Config, options: TrainOptions, stop: StopSignal | None = None) -> TrainResult:
    """Train what the options ask for, and judge it on the test split.

    Args:
        config: what to train on what.
        options: where and how.
        stop: the signal flag where it is raised already while the program starts.

    Raises:
        StoppedError, InterruptedRunError: a signal came; the same command goes on.
        DataError: data or weights are missing; the sentence says what to type.
        TrainingError: training diverged, or one sample does not fit into memory.
    """
    if stop is None:
        with StopSignal() as stop:
            return train(config, options, stop)
    refuse_what_is_missing(config)
    if not options.eval_only:
        _make_way(config, options)
    with open_run_context(config, options, stop) as run:
        data = _open_data(run)
        if options.eval_only:
            return _judge(run, data)
        if options.stage != "world":
            tokenizer = train_tokenizer(run, data)
            if options.stage == "tokenizer":
                return TrainResult(run.folder.path, tokenizer, None)
        train_world(run, data)
        return _judge(run, data)


def _make_way(config: Config, options: TrainOptions) -> None:
    """Go on with an unfinished run of the same config, and move any other run aside."""
    folder = RunFolder(options.work_dir)
    if goes_on(folder, config, options):
        if not options.resume and options.resume_from is None:
            log.info("going on with the unfinished run in %s", folder.path)
        return
    refuse_missing_weights(config, options)
    set_aside(folder, tokenizer_too=options.stage != "world")


def _open_data(run: Run) -> TrainData:
    run.status.update(phase="prepare")
    data = open_data(run.config, run.tick)
    if not run.options.eval_only:
        write_json(run.folder.config_json, run.config.to_dict())
        data.splits.write(run.folder.splits_json)
    return data


def _judge(run: Run, data: TrainData) -> TrainResult:
    """The best checkpoint on the test split; scores.json."""
    run.status.update(phase="eval", stage="world")
    checkpoint = find_checkpoint(run.folder.path)
    try:
        scores = _scores(run, data, checkpoint)
    except DataError as error:
        if data.splits.counts(data.store)["test"]:
            raise
        note = f"not judged: {error}"
        log.warning("%s", note)
        return TrainResult(run.folder.path, checkpoint, None, (note,))
    write_json(run.folder.scores_json, scores)
    return TrainResult(run.folder.path, checkpoint, scores)


def _scores(run: Run, data: TrainData, checkpoint: Path) -> Scores:
    model, content = load_world_model(checkpoint, run.device)
    return evaluate(
        model,
        checkpoint.name,
        data.store,
        data.splits,
        "test",
        run.config,
        thresholds=thresholds_of(content),
        max_windows=run.config.evaluation.final_max_windows,
        batch_size=run.config.data.samples_per_gpu,
        device=run.device,
        progress=lambda done, total: run.tick(),
    )
