"""The fusion learns from single windows first: more than the mean of frames, the same each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.core.training.conftest import TINY
from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config
from vlwm.core.data.batch import collate
from vlwm.core.model.world_loss import WorldLoss
from vlwm.core.model.world_model import WorldModel
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.startup.train_data import TrainData, open_data
from vlwm.core.training.tasks.pretraining import Course, whole_course
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


def loss_on_validation(task: WorldTask) -> float:
    """Mean over windows; the same layers of the same frames each time."""
    objective = WorldLoss(task.module.eval())
    with torch.no_grad():
        each = [objective.fusion(collate([task.val_set[0, i]])) for i in range(len(task.val_set))]
    return float(torch.stack(each).mean())


def test_it_reads_new_windows_better_than_their_mean(config: Config, data: TrainData) -> None:
    task = task_of(config, data, 60)
    before = loss_on_validation(task)
    task.learn_fusion(whole_course)
    assert loss_on_validation(task) < 0.95 * before


def test_only_the_fusion_learns_the_same_each_time(config: Config, data: TrainData) -> None:
    """Also for more steps than there are windows."""
    found, ticks = [], []
    steps = len(task_of(config, data, 0).train_set) + 3
    for _ in range(2):
        task = task_of(config, data, steps)
        before = state_of(task)
        task.learn_fusion(lambda *_: Course(0, steps, ticks.append))
        found.append(state_of(task))
        names = {name for name, _ in task.module.named_parameters() if name.startswith("fusion.")}
        assert changed(before, found[-1]) == names
        assert all(parameter.grad is None for parameter in task.module.fusion.parameters())
    assert len(ticks) == 2 * steps
    assert not changed(*found)


def test_none_are_wanted(config: Config, data: TrainData) -> None:
    task = task_of(config, data, 0)
    before = state_of(task)
    task.learn_fusion(whole_course)
    assert not changed(before, state_of(task))


def test_without_memory_there_is_nothing_to_fuse(tiny_data: Path, data: TrainData) -> None:
    config = load_config(
        "test_local", (*TINY, f"data_root={str(tiny_data)!r}", "model.use_memory=False")
    )
    task = task_of(config, data, 2)
    before = state_of(task)
    task.learn_fusion(whole_course)
    assert not changed(before, state_of(task))


def test_a_stop_between_its_steps_is_heeded(config: Config, data: TrainData) -> None:
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        task_of(config, data, 5).learn_fusion(lambda *_: Course(0, 5, stop))


def test_a_loss_that_is_no_number_changes_nothing(
    config: Config, data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(config, data, 2)
    before, honest = state_of(task), task.objective.fusion
    monkeypatch.setattr(task.objective, "fusion", lambda batch: honest(batch) * torch.nan)
    task.learn_fusion(whole_course)
    assert not changed(before, state_of(task))
