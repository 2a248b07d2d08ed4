"""Count what a run is going to do: frames, optimizer steps, windows; for its estimated end."""

from __future__ import annotations

from dataclasses import dataclass

from vlwm.core.config.schema import Config
from vlwm.core.data.windows import windows_of
from vlwm.core.errors import DataError
from vlwm.core.training.loop.progress import StageSettings
from vlwm.core.training.startup.train_data import TrainData
from vlwm.core.training.telemetry.expected_paces import FIRST, VALIDATE
from vlwm.core.vocabulary import Phase, Split, Stage

_TRAIN, _VAL, _TEST = 0.75, 0.125, 0.125  # of the sessions, before the split by place is made


@dataclass(frozen=True)
class Amounts:
    """Samples of a run's data."""

    frames: int
    """all that are prepared"""
    train_frames: int
    train_windows: int
    val_frames: int
    """of one validation of stage 1"""
    val_windows: int
    """of one validation of stage 2"""
    test_windows: int


def amounts_before(config: Config) -> Amounts:
    """Estimate the samples of data that `config.prepare` is still to make."""
    wanted = config.prepare
    frames = wanted.frames * wanted.sessions
    windows = max(1, wanted.frames - config.window_frames + 1) * wanted.sessions
    most, most_test = config.evaluation.max_windows, config.evaluation.final_max_windows
    return Amounts(
        frames=frames,
        train_frames=round(_TRAIN * frames),
        train_windows=round(_TRAIN * windows),
        val_frames=_at_most(round(_VAL * frames), most),
        val_windows=_at_most(round(_VAL * windows), most),
        test_windows=_at_most(round(_TEST * windows), most_test),
    )


def amounts_of(data: TrainData, config: Config) -> Amounts:
    """Count the samples of data that are there."""
    try:
        test = len(windows_of(data.store, data.splits, Split.TEST, config.window_frames))
    except DataError:  # no test split
        test = 0
    return Amounts(
        frames=len(data.store),
        train_frames=data.samples_of(Stage.TOKENIZER),
        train_windows=data.samples_of(Stage.WORLD),
        val_frames=len(data.val_rows),
        val_windows=len(data.val),
        test_windows=_at_most(test, config.evaluation.final_max_windows),
    )


def planned_work(
    config: Config, processes: int, amounts: Amounts
) -> tuple[dict[str, float], dict[str, tuple[float, ...]]]:
    """Return the units of each kind of work, and when each stage validates.

    Returns:
        kind -> units: prepared frames, optimizer steps, samples of one validation, test windows;
        stage -> shares of its steps at which it validates.
    """
    units: dict[str, float] = {
        Phase.PREPARE: amounts.frames,
        Phase.MOTION: config.data.motion_steps,
        Phase.FUSION: config.data.fusion_steps,
        Phase.COMPLETION: config.data.completion_steps,
        Phase.EVAL: amounts.test_windows,
        Stage.TOKENIZER + VALIDATE: amounts.val_frames / processes,
        Stage.WORLD + VALIDATE: amounts.val_windows / processes,
        Stage.WORLD + FIRST: amounts.val_windows,
    }
    due: dict[str, tuple[float, ...]] = {}
    samples = {
        Stage.TOKENIZER: (amounts.train_frames, config.tokenizer.epoch_samples),
        Stage.WORLD: (amounts.train_windows, config.data.epoch_samples),
    }
    every = config.evaluation.interval
    for stage, (whole, chosen) in samples.items():
        settings = StageSettings.of(config, stage, processes)
        an_epoch = -(-min(whole, chosen or whole) // settings.batch_size)  # rounded up
        units[stage] = settings.epochs * an_epoch
        last = settings.epochs
        validated = [e for e in range(1, last + 1) if e % every == 0 or e == last]
        due[stage] = tuple(epoch / last for epoch in validated)
    return units, due


def _at_most(count: int, most: int) -> int:
    """Return a count under a limit; 0 means unlimited."""
    return min(count, most) if most else count
