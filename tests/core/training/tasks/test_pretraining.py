"""What stage 2 learns before its first step goes on where it was stopped, to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.core.training.conftest import TINY
from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config
from vlwm.core.model.world_model import WorldModel
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.loop.checkpointer import Checkpointer
from vlwm.core.training.options import TrainOptions
from vlwm.core.training.run_context import Run
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.runtime.stop_signal import StopRequested, StopSignal
from vlwm.core.training.startup.train_data import TrainData, open_data
from vlwm.core.training.tasks.pretraining import PretrainingProgress, run_phase
from vlwm.core.training.tasks.world_task import WorldTask
from vlwm.core.training.telemetry.status_writer import StatusWriter

CPU = torch.device("cpu")
STEPS = 6
NAMES = ("motion", "fusion")


@pytest.fixture(scope="module")
def config(tiny_data: Path) -> Config:
    names = (f"data_root={str(tiny_data)!r}", "model.use_tokens=False",
             f"data.motion_steps={STEPS}", f"data.fusion_steps={STEPS}")  # fmt: skip
    return load_config("test_local", (*TINY, *names))


@pytest.fixture(scope="module")
def data(config: Config) -> TrainData:
    return open_data(config, lambda: None)


class Stop(StopSignal):
    """Raised after so many steps of a phase."""

    def __init__(self, run: Callable[[], Run], name: str, step: int) -> None:
        super().__init__()
        self.run, self.at = run, (name, step)

    def __bool__(self) -> bool:
        values = self.run().status.values
        return (values["phase"], values["step"]) == self.at


def learnt(
    config: Config,
    data: TrainData,
    path: Path,
    stop: tuple[str, int] = ("", 0),
    how: type[Stop] = Stop,
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights after all phases, and which steps this process made."""
    folder = RunFolder(path).create()
    made: list[str] = []

    def this() -> Run:
        return run

    status = StatusWriter(folder, writes=True)
    run = Run(config, TrainOptions(path), folder, CPU, status, how(this, *stop), (), Ranks())
    torch.manual_seed(0)
    task = WorldTask(WorldModel(config, data.grid), data, config, CPU, 0, Ranks())
    progress = PretrainingProgress(run, data)
    for phase in task.phases():
        steps = run_phase(phase, config, CPU, progress)
        made.extend(f"{phase.name} {step}" for step in steps)
    return task.module.state_dict(), made


@pytest.fixture(scope="module")
def whole(config: Config, data: TrainData, tmp_path_factory: Any) -> dict[str, Tensor]:
    return learnt(config, data, tmp_path_factory.mktemp("whole"))[0]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("step", [1, 4, STEPS])
def test_stopped_anywhere_it_goes_on_to_the_same_bits(
    name: str, step: int, config: Config, data: TrainData, whole: dict[str, Tensor], tmp_path: Path
) -> None:
    with pytest.raises(StopRequested):
        learnt(config, data, tmp_path, (name, step))
    found, made = learnt(config, data, tmp_path)
    assert same(found, whole)
    left = [f"{name} {k}" for k in range(step, STEPS)]
    assert made == (left if name == "fusion" else left + [f"fusion {k}" for k in range(STEPS)])


class Gone(Stop):
    """The process ends there, with no signal before."""

    def __bool__(self) -> bool:
        if super().__bool__():
            raise ZeroDivisionError
        return False


class Between(Stop):
    """The signal comes right after the loop has asked for it in that step."""

    asked = False
    seen = False

    def __bool__(self) -> bool:
        self.seen = self.seen or self.asked
        self.asked = self.asked or super().__bool__()
        return self.seen


def test_a_signal_between_two_looks_loses_no_step(
    config: Config, data: TrainData, whole: dict[str, Tensor], tmp_path: Path
) -> None:
    """Whatever step the status names when the run has stopped, the next process resumes there."""
    with pytest.raises(StopRequested):
        learnt(config, data, tmp_path, ("fusion", 2), Between)
    found, made = learnt(config, data, tmp_path)
    assert same(found, whole) and made == [f"fusion {k}" for k in range(3, STEPS)]


def test_a_killed_process_has_lost_minutes_at_most(
    config: Config, data: TrainData, whole: dict[str, Tensor], tmp_path: Path
) -> None:
    often = replace(config, checkpoint_config=replace(config.checkpoint_config, minutes=0.0))
    with pytest.raises(ZeroDivisionError):
        learnt(often, data, tmp_path, ("fusion", 4), Gone)
    found, made = learnt(often, data, tmp_path)
    assert same(found, whole) and made == [f"fusion {k}" for k in range(3, STEPS)]


@pytest.mark.parametrize("how", ["damaged", "other config", "other network"])
def test_what_does_not_fit_is_passed_over_and_named(
    how: str, config: Config, data: TrainData, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    with pytest.raises(StopRequested):
        learnt(config, data, tmp_path, ("motion", 3))
    path = RunFolder(tmp_path).opening
    if how == "damaged":
        path.write_bytes(path.read_bytes()[:-500])
    elif how == "other config":
        config = replace(config, seed=config.seed + 1)
    else:
        monkeypatch.setattr("vlwm.core.model.motion.motion_head._COMPONENTS", 7)
    _, made = learnt(config, data, tmp_path)
    assert made[0] == "motion 0" and len(made) == 2 * STEPS
    assert "passed over: " in caplog.text and str(path) in caplog.text


def test_it_makes_a_run_to_go_on_with_and_ends_with_the_first_checkpoint(
    config: Config, data: TrainData, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.holds_a_run()
    learnt(config, data, tmp_path)
    assert folder.holds_a_run() and not folder.checkpoints()
    Checkpointer(folder, config.checkpoint_config).save_last({"stage": "world", "step": 0})
    assert not folder.opening.exists() and folder.checkpoints() == [folder.last]
