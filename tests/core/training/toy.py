"""A tiny task for the loop, and a program that trains it: `python toy.py FOLDER [key=value …]`.

The net draws dropout from torch's generator and each sample from (seed, epoch, index), so that
any slip in a resume shows in the weights.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlwm.core.config.schema import (
    CheckpointConfig,
    Config,
    EvaluationConfig,
    HealthConfig,
    LogConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from vlwm.core.model.checkpoint import newest_valid
from vlwm.core.model.checkpoint_content import CheckpointContent
from vlwm.core.model.loss_report import LossReport, LossTerm
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.loop.optimizer import build_optimizer
from vlwm.core.training.loop.progress import StageSettings
from vlwm.core.training.loop.stepper import Stepper
from vlwm.core.training.loop.task import microbatches, validate_all
from vlwm.core.training.loop.train_state import RunState
from vlwm.core.training.loop.trainer import Trainer
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.runtime.rng import seed_everything
from vlwm.core.training.runtime.stop_signal import StopRequested, StopSignal
from vlwm.core.training.telemetry.health import Watch
from vlwm.core.training.telemetry.metric_log import MetricLog
from vlwm.core.training.telemetry.status_writer import StatusWriter
from vlwm.core.vocabulary import Stage


@dataclass
class ToyBatch:
    """x (N, 6), index (N,)."""

    x: Tensor
    index: Tensor

    def to(self, device: torch.device) -> ToyBatch:
        return self


class ToyTask:
    """Learn the mean of six numbers through a net with dropout."""

    stage = Stage.WORLD
    unit = "windows"

    def __init__(self, size: int = 22, batch: int = 4, spoil: Callable[[int], bool] | None = None):
        self.module = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.GELU(), nn.Linear(8, 1))
        self.size, self.batch = size, batch
        self.spoil = spoil or (lambda step: False)
        self.step = 0
        self.drawn = torch.zeros(())  # like a codebook: moves with each step, beside the weights
        self.hook: Callable[[str], None] = lambda phase: None
        self.memory = 10**9
        self.saves_memory = False

    def samples(self) -> int:
        return self.size

    def batches(self, epoch: int, first_sample: int) -> Iterator[ToyBatch]:
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(epoch))
        for start in range(first_sample, self.size, self.batch):
            index = order[start : start + self.batch]
            rows = [
                torch.randn(6, generator=torch.Generator().manual_seed(1000 * epoch + int(i)))
                for i in index
            ]
            yield ToyBatch(torch.stack(rows), index)

    def begin_step(self, step: int) -> None:
        self.step = step

    def loss_terms(self, batch: ToyBatch, step: int) -> Iterator[LossTerm]:
        self.hook("step")
        if len(batch.x) > self.memory:
            raise torch.OutOfMemoryError("injected")
        x = batch.x * float("nan") if self.spoil(self.step) else batch.x
        error = (self.module(x)[:, 0] - batch.x.mean(1)) ** 2
        loss = error.mean()
        yield LossTerm("focal", loss, numbers={"loss/focal": loss, "pred/max": error.max()})

    def exchange(self) -> None:
        pass

    def end_step(self, bad: Tensor) -> None:
        self.drawn = torch.where(bad, self.drawn, self.drawn + torch.rand(()))

    def validate(self, pause: Callable[[bool], None], size: int) -> dict[str, float]:
        total = [0.0]

        def score(batch: ToyBatch) -> None:
            self.hook("validate")
            total[0] += (
                float(LossReport.of(self.loss_terms(batch, self.step)).total)
                + float(torch.rand(())) * 0
            )

        shares = (part for batch in self.batches(999, 0) for part in microbatches(batch, size))
        validate_all(shares, score, pause)
        return {"epoch/val_loss": total[0]}

    def merit(self, numbers: dict[str, float]) -> float:
        return -numbers["epoch/val_loss"]

    def numbers(self) -> dict[str, float]:
        return {"codebook/used": float(self.drawn)}

    def state(self) -> dict[str, Any]:
        return {"codebook": {"drawn": self.drawn.clone()}, "threshold": 0.5}

    def load_state(self, content: CheckpointContent) -> None:
        assert content.codebook is not None
        self.drawn = content.codebook["drawn"].clone()

    def save_memory(self) -> bool:
        if self.saves_memory:
            self.memory = 10**9
        return self.saves_memory


def config(epochs: int = 3, interval: int = 1, **health: Any) -> Config:
    return Config(
        optimizer=OptimizerConfig(lr=0.01),
        lr_config=ScheduleConfig(warmup_iters=3),
        max_epochs=epochs,
        checkpoint_config=CheckpointConfig(interval=2),
        evaluation=EvaluationConfig(interval=1),
        log_config=LogConfig(interval=interval),
        health=HealthConfig(
            **{"disk_free_gb": 0.0, "starving_share": 1.0, "spike_factor": 50.0, **health}
        ),
    )


def build(
    folder: Path, cfg: Config, task: ToyTask, *, microbatch: int = 4,
    stop: StopSignal | None = None, ranks: Ranks | None = None,
) -> Trainer:  # fmt: skip
    """A trainer of the toy task in `folder`, on the CPU."""
    ranks = ranks or Ranks()
    run = RunFolder(folder).create()
    settings = replace(StageSettings.of(cfg, Stage.WORLD), batch_size=task.batch)
    stepper = Stepper(
        task,
        build_optimizer(task.module, cfg.optimizer, settings.lr),
        cfg.grad_clip,
        torch.device("cpu"),
        None,
        microbatch,
        ranks,
    )
    state = RunState(task, stepper, cfg, Watch(cfg.health))
    metrics = MetricLog(run, "world", writes=ranks.lead)
    status = StatusWriter(run, writes=ranks.lead, device="cpu")
    return Trainer(
        state, settings, cfg, run, metrics, status, StopSignal() if stop is None else stop
    )


def start(folder: Path, cfg: Config, task: ToyTask, **options: Any) -> Trainer:
    """A trainer that goes on where the folder's newest checkpoint stands, or begins."""
    trainer = build(folder, cfg, task, **options)
    found = newest_valid(folder)
    if found is None:
        trainer.begin()
    else:
        trainer.resume(found.content, found.path)
    return trainer


def main(folder: Path, **options: str) -> int:
    """Train; keys: pause_s (per step), save_s (pause inside each save), signal_at, minutes."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    torch.set_num_threads(1)
    seed_everything(1)
    cfg = config(epochs=int(options.get("epochs", 3)))
    cfg = replace(cfg, checkpoint_config=CheckpointConfig(2, float(options.get("minutes", 5.0))))
    task = ToyTask()
    calls = [0]

    def hook(phase: str) -> None:
        calls[0] += 1
        time.sleep(float(options.get("pause_s", 0.0)))
        if options.get("signal_at") == f"{phase}:{calls[0]}":
            os.kill(os.getpid(), getattr(signal, options.get("signal", "SIGTERM")))

    task.hook = hook
    _slow_saves(float(options.get("save_s", 0.0)))
    with StopSignal() as stop:
        try:
            trainer = start(folder, cfg, task, stop=stop)
            print("training", flush=True)
            trainer.fit()
        except StopRequested:
            error = stop.error("again")
            print(error, file=sys.stderr)
            return error.exit_code
    return 0


def _slow_saves(seconds: float) -> None:
    """Stretch the moment in which a checkpoint is half-written."""
    plain = torch.save

    def slow(value: Any, handle: Any) -> None:
        plain(value, handle)
        handle.flush()
        time.sleep(seconds)

    torch.save = slow


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), **dict(a.split("=") for a in sys.argv[2:])))
