"""Foresight in a given time: both stages from nothing, then the score table of the test split.

    python benchmarks/forecast.py --data DIR --work-dir DIR [--minutes 40] [--config tokyo_small]
                                  [--set key=value …] [--tokenizer RUN] [--test-windows 0]
                                  [--no-untrained] [--json]

The clock counts processor time: `--minutes` of each core that torch uses, so that other work on the
machine changes nothing (on a GPU it counts wall time). Before each stage a few real steps, one
validation and, for stage 2, some steps of what comes before them (motion, fusion) are timed, and
its epochs get as many samples as fit: stage 1 into half of the minutes, or a twentieth where the
forecast reads no tokens, stage 2 into what they leave. The timing itself, compilation and the fit
of the baselines are on the clock; packing the data folder is not. On the tokenizer of an earlier
run, stage 2 gets all minutes, which compares variants of the forecast alone. The product's own
training runs, in the work folder as any run does, and scores its best checkpoint on the test split,
which is not on the clock. Printed besides the table: minutes on the clock, samples and peak memory,
and what the *untrained* model scores, so that what resampling gives and what learning gives are
told apart.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from score_text import table_text
from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config
from vlwm.core.evaluation.evaluator import evaluate
from vlwm.core.evaluation.scores.score_table import score_table
from vlwm.core.model.tokenizer.vqvae import Tokenizer
from vlwm.core.model.world_model import WorldModel
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.loop.optimizer import build_optimizer
from vlwm.core.training.loop.stepper import Stepper, autocast_type
from vlwm.core.training.loop.task import Task
from vlwm.core.training.options import TrainOptions
from vlwm.core.training.run import train
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.runtime.rng import seed_everything
from vlwm.core.training.startup.train_data import TrainData, open_data
from vlwm.core.training.tasks.pretraining import PhaseProgress, run_phase
from vlwm.core.training.tasks.tokenizer_task import TokenizerTask
from vlwm.core.training.tasks.world_task import WorldTask
from vlwm.core.vocabulary import Stage

EPOCHS = {"tokenizer": 2, "world": 1}
"""each ends in a validation; two minutes of one are a fifth of the world model's steps"""
VALIDATION = 32
"""windows of each validation while training, from the last of which the cuts come"""
PLANNED = 0.93
"""share of what is left that is planned: machines slow down after their pace was taken"""
UNREAD = 0.05
"""share of the minutes for stage 1 where the forecast reads no tokens"""
TIMED_STEPS = 3
TIMED_MOTION_STEPS = 50
TIMED_FUSION_STEPS = 21


@dataclass(frozen=True)
class Pace:
    """What one stage costs on this machine, in seconds of the clock."""

    step_s: float
    """of one batch"""
    validation_s: float
    """of one validation"""
    batch: int
    """samples of a step"""
    before_s: float
    """of what comes before the first step: motion from poses alone, the fusion from windows"""

    def samples(self, seconds: float, epochs: int) -> int:
        """Samples of an epoch so that all epochs and their validations fit."""
        steps = ((seconds - self.before_s) / epochs - self.validation_s) / self.step_s
        return max(1, int(steps)) * self.batch


class Clock:
    """Seconds since it was made: of all cores together, or of the wall where a GPU works.

    Attributes:
        cores: that torch uses; 1 with a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._now = time.monotonic if on_gpu else _processor_s
        self.cores = 1 if on_gpu else torch.get_num_threads()
        self._begun = self._now()

    def __call__(self) -> float:
        """Return the seconds that are gone."""
        return self._now() - self._begun

    def seconds(self, minutes: float) -> float:
        """Return the budget of so many minutes a core."""
        return 60 * minutes * self.cores


def _processor_s() -> float:
    """Return the processor seconds of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def main() -> None:
    options = _arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    overrides = (f"data_root={str(options.data)!r}", *options.set)
    config = replace(load_config(options.config, overrides), load_from=None)
    config = replace(config, evaluation=replace(config.evaluation, max_windows=VALIDATION))
    data = open_data(config, lambda: None)
    clock = Clock(device)
    begun = time.time()
    stages = ("world",) if options.tokenizer else ("tokenizer", "world")
    paces: dict[str, Pace] = {}
    for number, name in enumerate(stages):
        paces[name] = _pace(name, config, data, device, clock)
        left = clock.seconds(options.minutes) - clock()
        few = name == "tokenizer" and not config.model.use_tokens
        share = PLANNED * left * (UNREAD if few else 1 / (len(stages) - number))
        samples = paces[name].samples(share, EPOCHS[name])
        whole = data.samples_of(Stage.WORLD)
        config = _fitted(config, name, samples, whole, options.test_windows)
        result = train(config, _how(options, name))
    spent, trained = clock(), RunFolder(options.work_dir).last.stat().st_mtime
    told = {
        "minutes": options.minutes,
        "cores": clock.cores,
        "trained_wall_min": round((trained - begun) / 60, 1),
        "spent_min": round(spent / 60 / clock.cores, 1),
        "device": _name(device),
        "pace": {name: asdict(pace) for name, pace in paces.items()},
        "samples": {
            "tokenizer": EPOCHS["tokenizer"] * config.tokenizer.epoch_samples * (len(stages) - 1),
            "world": config.max_epochs * config.data.epoch_samples,
        },
        "peak_gb": _peak_gb(device),
        "scores": result.scores,
        "untrained": {},
    }  # fmt: skip
    if options.untrained:
        told["untrained"] = _untrained(config, data, device, options.test_windows)
    print(json.dumps(told)) if options.json else _show(told)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared session folders")
    parser.add_argument("--work-dir", type=Path, required=True, help="the run folder")
    parser.add_argument("--minutes", type=float, default=40.0, help="of each core, both stages")
    parser.add_argument("--config", default="tokyo_small")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--tokenizer", type=Path, metavar="RUN", help="has stage 1 done already")
    parser.add_argument("--test-windows", type=int, default=0, help="of the test split; 0: all")
    parser.add_argument(
        "--no-untrained", dest="untrained", action="store_false", help="judge the trained one alone"
    )
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _how(options: argparse.Namespace, stage: str) -> TrainOptions:
    """One stage; the second on what the first left in the work folder, or on an earlier run's."""
    work = options.work_dir
    if options.tokenizer is None:
        return TrainOptions(work, stage, new_run=stage == "tokenizer", from_scratch=True)
    if work.exists() and any(work.iterdir()):
        sys.exit(f"{work} is not empty: choose another --work-dir")
    shutil.copytree(options.tokenizer / "tokenizer", work / "tokenizer")
    return TrainOptions(work, stage, from_scratch=True)


def _task(name: str, config: Config, data: TrainData, device: torch.device) -> Task:
    seed_everything(config.seed)
    if name == "tokenizer":
        tokenizer = Tokenizer(config.tokenizer, data.grid.shape).to(device)
        return TokenizerTask(tokenizer, data, config, device, 0, Ranks())
    return WorldTask(_fresh(config, data, device), data, config, device, 0, Ranks())


def _fresh(config: Config, data: TrainData, device: torch.device) -> WorldModel:
    seed_everything(config.seed)
    model = WorldModel(config, data.grid).to(device)
    model.set_prior(data.column)
    return model


def _pace(name: str, config: Config, data: TrainData, device: torch.device, clock: Clock) -> Pace:
    """Time a few steps, the first of which warms up, and one validation."""
    task = _task(name, config, data, device)
    rate = config.tokenizer.lr if name == "tokenizer" else config.optimizer.lr
    optimizer = build_optimizer(task.module, config.optimizer, rate)
    batches = iter(task.batches(0, 0))
    first = next(batches)
    size = len(first.index)
    precision = autocast_type(config.amp, device)
    stepper = Stepper(task, optimizer, config.grad_clip, device, precision, size)
    task.module.train()
    stepper(first, 0, size)
    begun = clock()
    for step in range(TIMED_STEPS):
        batch = next(batches)
        stepper(batch, 1 + step, len(batch.index))
    _wait(device)
    step_s = (clock() - begun) / TIMED_STEPS
    begun = clock()
    task.module.eval()
    with torch.no_grad():
        task.validate(lambda short: None, size)
    _wait(device)
    validation_s = clock() - begun
    return Pace(step_s, validation_s, size, _before_s(name, config, data, device, clock))


def _before_s(
    name: str, config: Config, data: TrainData, device: torch.device, clock: Clock
) -> float:
    """Return the seconds of what stage 2 learns before its first step, from a few of its steps."""
    if name == "tokenizer":
        return 0.0

    def spent(motion: int, single: int) -> list[float]:
        steps = {"motion_steps": motion, "fusion_steps": single, "completion_steps": single}
        some = replace(config, data=replace(config.data, **steps))
        task = WorldTask(_fresh(some, data, device), data, some, device, 0, Ranks())
        times = []
        for phase in task.phases()[1:]:
            begun = clock()
            run_phase(phase, some, device, PhaseProgress())
            _wait(device)
            times.append(clock() - begun)
        return times

    none, few = spent(0, 1), spent(TIMED_MOTION_STEPS, TIMED_FUSION_STEPS)
    timed = (TIMED_MOTION_STEPS, *[TIMED_FUSION_STEPS - 1] * 2)  # a GPU's first one takes long
    planned = (config.data.motion_steps, config.data.fusion_steps, config.data.completion_steps)
    total = sum(none)
    for first, some, count, steps in zip(none, few, timed, planned, strict=False):
        total += (some - first) / count * steps
    return total


def _fitted(config: Config, stage: str, samples: int, whole: int, windows: int) -> Config:
    """The config of which a stage has so many samples, and stage 2 one validation, at its end.

    Args:
        samples: of an epoch in stage 1, of all epochs in stage 2.
        whole: windows of the train split, the most that an epoch has.
        windows: of the test split that are scored.
    """
    if stage == "tokenizer":
        tokenizer = replace(config.tokenizer, max_epochs=EPOCHS["tokenizer"], epoch_samples=samples)
        return replace(config, tokenizer=tokenizer)
    epochs = -(-samples // whole)
    return replace(
        config,
        max_epochs=epochs,
        data=replace(config.data, epoch_samples=max(1, samples // epochs)),
        evaluation=replace(config.evaluation, final_max_windows=windows, interval=epochs),
    )


def _untrained(
    config: Config, data: TrainData, device: torch.device, windows: int
) -> dict[str, Any]:
    """Scores of the model before its first step: resampled memory, constant twist, column prior."""
    model = replace(config.model, use_tokens=False, use_memory=True, freeze_vae=True)
    config = replace(config, model=model)
    sheet = evaluate(
        _fresh(config, data, device).eval(), "untrained", data.store, data.splits, "test", config,
        max_windows=windows, batch_size=config.data.samples_per_gpu, device=device,
    )  # fmt: skip
    return {name: sheet["scores"][name] for name in ("model", "model_plan")}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_gb(device: torch.device) -> float:
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _show(told: dict[str, Any]) -> None:
    print(f"{told['device']}: {told['minutes']} minutes of each of {told['cores']} cores, "
          f"{told['spent_min']} with the test, {told['trained_wall_min']} of the wall to train; "
          f"{told['samples']['tokenizer']} frames and "
          f"{told['samples']['world']} windows, peak {told['peak_gb']} GB")  # fmt: skip
    if told["scores"] is None:
        sys.exit("the test split is empty: prepare more sessions, or a larger area")
    print(table_text(score_table(told["scores"], wide=True)))
    for name, scores in told["untrained"].items():
        for score in ("iou", "iou_structure"):
            values = " ".join("  -  " if v is None else f"{v:.3f}" for v in scores[score])
            print(f"untrained {name:10} {score:13} {values}")


if __name__ == "__main__":
    main()
