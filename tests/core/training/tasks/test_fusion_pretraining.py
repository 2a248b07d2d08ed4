"""The fusion learns from single windows first: more than the mean of frames, the same each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.core.training.conftest import TINY
from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config
from vlwm.core.data.batch import collate
from vlwm.core.model.loss_report import LossTerm
from vlwm.core.model.world_loss import WorldLoss
from vlwm.core.model.world_model import WorldModel
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.startup.train_data import TrainData, open_data
from vlwm.core.training.tasks.pretraining import PhaseProgress, run_phase
from vlwm.core.training.tasks.world_task import WorldTask

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tiny_data: Path) -> Config:
    names = (
        f"data_root={str(tiny_data)!r}",
        "model.use_tokens=False",
    )
    return load_config("test_local", (*TINY, *names))


@pytest.fixture(scope="module")
def data(config: Config) -> TrainData:
    return open_data(config, lambda: None)


def task_of(config: Config, data: TrainData, steps: int) -> WorldTask:
    config = replace(config, data=replace(config.data, fusion_steps=steps))
    torch.manual_seed(0)
    return WorldTask(WorldModel(config, data.grid), data, config, CPU, 0, Ranks())


def state_of(task: WorldTask) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in task.module.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def learn_fusion(task: WorldTask, progress: PhaseProgress | None = None) -> None:
    for phase in task.phases():
        if phase.name == "fusion":
            run_phase(phase, task.config, CPU, progress or PhaseProgress())


class Counted(PhaseProgress):
    """Counts the steps, and stops after the first one if asked to."""

    def __init__(self, stop: bool = False) -> None:
        self.done: list[int] = []
        self.stop = stop

    def after(self, phase: Any, optimizer: Any, done: int) -> None:
        self.done.append(done)
        if self.stop:
            raise KeyboardInterrupt


def loss_on_validation(task: WorldTask) -> float:
    """Mean over windows; the same layers of the same frames each time."""
    objective = WorldLoss(task.module.eval())
    with torch.no_grad():
        each = [
            objective.fusion_term(collate([task.val_set[0, i]]), 0).value
            for i in range(len(task.val_set))
        ]
    return float(torch.stack(each).mean())


def test_it_reads_new_windows_better_than_their_mean(config: Config, data: TrainData) -> None:
    task = task_of(config, data, 60)
    before = loss_on_validation(task)
    learn_fusion(task)
    assert loss_on_validation(task) < 0.95 * before


def test_only_the_fusion_learns_the_same_each_time(config: Config, data: TrainData) -> None:
    """Also for more steps than there are windows."""
    found, counted = [], Counted()
    steps = len(task_of(config, data, 0).train_set) + 3
    for _ in range(2):
        task = task_of(config, data, steps)
        before = state_of(task)
        learn_fusion(task, counted)
        found.append(state_of(task))
        names = {
            name for name, _ in task.module.named_parameters() if name.startswith("memory.fusion.")
        }
        assert changed(before, found[-1]) == names
        assert all(parameter.grad is None for parameter in task.module.memory.fusion.parameters())
    assert counted.done == 2 * list(range(1, steps + 1))
    assert not changed(*found)


def test_none_are_wanted(config: Config, data: TrainData) -> None:
    task = task_of(config, data, 0)
    before = state_of(task)
    learn_fusion(task)
    assert not changed(before, state_of(task))


def test_without_memory_there_is_nothing_to_fuse(tiny_data: Path, data: TrainData) -> None:
    config = load_config(
        "test_local", (*TINY, f"data_root={str(tiny_data)!r}", "model.use_memory=False")
    )
    task = task_of(config, data, 2)
    before = state_of(task)
    learn_fusion(task)
    assert not changed(before, state_of(task))


def test_a_stop_between_its_steps_is_heeded(config: Config, data: TrainData) -> None:
    with pytest.raises(KeyboardInterrupt):
        learn_fusion(task_of(config, data, 5), Counted(stop=True))


def test_a_loss_that_is_no_number_changes_nothing(
    config: Config, data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(config, data, 2)
    before, honest = state_of(task), task.objective.fusion_term

    def spoiled(batch: Any, step: int) -> LossTerm:
        return LossTerm("fusion", honest(batch, step).value * torch.nan)

    monkeypatch.setattr(task.objective, "fusion_term", spoiled)
    learn_fusion(task)
    assert not changed(before, state_of(task))
