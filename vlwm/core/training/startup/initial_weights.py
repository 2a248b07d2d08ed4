"""Load what a stage starts from: the weights that the config names, where there are any."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from vlwm.core.config.schema import Config
from vlwm.core.errors import CheckpointError, DataError
from vlwm.core.evaluation.load import find_checkpoint
from vlwm.core.model.pretrained import LoadedWeights, take_weights
from vlwm.core.training.options import TrainOptions
from vlwm.core.vocabulary import Stage

log = logging.getLogger("vlwm.training")


def refuse_a_missing_checkpoint(options: TrainOptions) -> None:
    """Look for the checkpoint that the options ask for, before any data are prepared.

    Raises:
        CheckpointError: it is missing.
    """
    if options.resume_from is not None and not options.resume_from.is_file():
        raise CheckpointError(
            "no such checkpoint file", where=options.resume_from, remedy="see ls WORK_DIR/*.pth"
        )
    if options.eval_only:
        find_checkpoint(options.work_dir)


def refuse_missing_weights(config: Config, options: TrainOptions) -> None:
    """Look for the weights that the config names, unless they are given up on purpose.

    Raises:
        DataError: they are missing, naming both remedies.
    """
    path = config.load_from
    if path is None or options.from_scratch or options.eval_only or Path(path).exists():
        return
    raise DataError(
        "the pretrained weights that the config names are missing",
        where=path,
        remedy="download them with `vlwm download --models`, or train without: --from-scratch",
    )


def initial_weights(
    config: Config, options: TrainOptions, model: nn.Module, stage: Stage
) -> LoadedWeights:
    """Copy into a model what fits of the weights that the config names, and log the table.

    Args:
        model: a `Tokenizer` for stage "tokenizer", a `WorldModel` for "world"; changed in place.

    Raises:
        CheckpointError: the file is damaged or foreign, or lacks a whole part.
    """
    if config.load_from is None or options.from_scratch or not Path(config.load_from).exists():
        return LoadedWeights((), tuple(model.state_dict()))
    loaded = take_weights(model, Path(config.load_from), stage)
    log.info("%s: weights from %s", stage, config.load_from)
    for line in loaded.table():
        log.info("  %s", line)
    return loaded
