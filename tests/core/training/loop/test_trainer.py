"""The loop wastes nothing and survives everything, shown on a toy task and on real processes."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.core.training import toy
from tests.core.training.comparing import same
from tests.core.training.forge import Child, forge
from vlwm.core.config.schema import CheckpointConfig
from vlwm.core.errors import MachineError, TrainingError
from vlwm.core.model.checkpoint import load_checkpoint, newest_valid
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.runtime.rng import seed_everything
from vlwm.core.training.runtime.stop_signal import StopRequested, StopSignal

_TOY = Path(__file__).parents[1] / "toy.py"
_TIMES = ("time", "windows_per_s", "loader_share", "memory_gb")


def lines(folder: Path) -> list[dict[str, Any]]:
    """Metric lines without what the clock decides."""
    records, _ = RunFolder(folder).read_metrics()
    return [{k: v for k, v in r.items() if k not in _TIMES} for r in records]


def assert_same_run(a: Path, b: Path) -> None:
    """Every tensor, every random state and every logged number of two runs is the same."""
    left, right = (load_checkpoint(folder / "last.pth") for folder in (a, b))
    for content in (left, right):
        del content["metrics_offset"], content["config"]
    for key in left:
        assert same(left[key], right[key]), f"{key} differs"
    assert lines(a) == lines(b)


def run(folder: Path, cfg: Any = None, **task: Any) -> Any:
    seed_everything(1)
    trainer = toy.start(folder, cfg or toy.config(), toy.ToyTask(**task))
    trainer.fit()
    return trainer


def test_a_run_leaves_the_files_of_the_run_folder(tmp_path: Path) -> None:
    run(tmp_path)
    names = {p.name for p in tmp_path.iterdir()}
    assert {"epoch_2.pth", "epoch_3.pth", "best.pth", "last.pth", "metrics.jsonl", "status.json",
            "logs"} <= names  # fmt: skip
    assert "epoch_1.pth" not in names and not [n for n in names if n.endswith(".tmp")]
    records = lines(tmp_path)
    assert [r["kind"] for r in records].count("val") == 3
    assert len([r for r in records if r["kind"] == "train"]) == 18
    best = min(r["epoch/val_loss"] for r in records if r["kind"] == "val")
    assert load_checkpoint(tmp_path / "best.pth")["best"] == -best


def test_the_learning_rate_follows_the_schedule(tmp_path: Path) -> None:
    run(tmp_path)
    rates = [r["lr"] for r in lines(tmp_path) if r["kind"] == "train"]
    assert rates[:3] == pytest.approx([0.01 / 3, 0.02 / 3, 0.01])
    assert rates[-1] == pytest.approx(1e-6)
    assert all(a >= b for a, b in itertools.pairwise(rates[2:]))


@pytest.mark.parametrize("interval", [1, 4])
def test_stopping_anywhere_and_going_on_changes_no_bit(tmp_path: Path, interval: int) -> None:
    """Stops in steps (the end of an epoch too) and in validations, several in one run."""
    cfg = toy.config(interval=interval)
    whole = tmp_path / "whole"
    run(whole, cfg)
    total = 3 * (6 + 2 * 6)  # calls of the hook: steps, and twice a validation batch
    rng = random.Random(interval)
    for stops in [[6], [7], [9], sorted(rng.sample(range(1, total), 4))]:
        folder = tmp_path / "-".join(map(str, stops))
        interrupted = 0
        for number, at in enumerate([*stops, None]):
            seed_everything(1 if number == 0 else 99)  # a new process has other random states
            task, stop, calls = toy.ToyTask(), StopSignal(), [0]
            before = stops[number - 1] if number else 0

            def hook(phase: str, calls=calls, stop=stop, at=at, before=before) -> None:
                calls[0] += 1
                if at is not None and calls[0] == at - before:
                    stop.received = signal.SIGTERM

            task.hook = hook
            trainer = toy.start(folder, cfg, task, stop=stop)
            try:
                trainer.fit()
            except StopRequested:
                interrupted += 1
            trainer.metrics.close()
        assert interrupted >= 1
        assert_same_run(whole, folder)


def test_lines_after_the_checkpoint_are_set_aside(tmp_path: Path) -> None:
    run(tmp_path, toy.config(epochs=2))
    whole = (tmp_path / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "last.pth").unlink()
    (tmp_path / "best.pth").unlink()
    cfg = toy.config(epochs=2)
    with open(tmp_path / "metrics.jsonl", "a") as handle:
        handle.write('{"kind": "train", "step": 13}\n')
    trainer = toy.start(tmp_path, cfg, toy.ToyTask())
    trainer.fit()
    lost = (tmp_path / "metrics.lost.jsonl").read_text().splitlines()
    assert lost == ['{"kind": "train", "step": 13}']
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == whole


def test_microbatches_add_up_to_the_batch(tmp_path: Path) -> None:
    """Without dropout, gradients of parts weighted by their share are the whole's."""
    states = []
    for microbatch in (4, 3, 1):
        seed_everything(1)
        task = toy.ToyTask()
        task.module[1].p = 0.0
        trainer = toy.build(tmp_path / str(microbatch), toy.config(), task, microbatch=microbatch)
        trainer.begin()
        trainer.fit()
        states.append(torch.cat([p.flatten() for p in task.module.parameters()]).detach())
    assert torch.allclose(states[0], states[1], atol=2e-5)
    assert torch.allclose(states[0], states[2], atol=2e-5)


def test_out_of_memory_goes_on_as_if_begun_with_the_smaller_microbatch(tmp_path: Path) -> None:
    runs = {}
    for name, microbatch, memory in (("small", 2, 10**9), ("shrunk", 4, 2)):
        seed_everything(1)
        task = toy.ToyTask()
        trainer = toy.build(tmp_path / name, toy.config(), task, microbatch=microbatch)
        task.memory = memory
        trainer.begin()
        task.validate = lambda pause, size: {"epoch/val_loss": 0.0}
        trainer.fit()
        runs[name] = trainer
    assert runs["shrunk"].state.stepper.microbatch == 2
    assert_same_run(tmp_path / "small", tmp_path / "shrunk")


@pytest.mark.parametrize("at", ["step:1", "step:14", "validate:1", "validate:8"])
def test_out_of_memory_anywhere_halves_the_microbatch_and_the_run_goes_on(
    tmp_path: Path, at: str
) -> None:
    """First step, a later epoch's, first and later validation; as if shrunk from there on."""
    phase, number = at.split(":")
    asked: dict[str, Any] = {}
    runs = {}
    for name in ("short", "planned"):
        seed_everything(1)
        task = toy.ToyTask()
        trainer = toy.build(tmp_path / name, toy.config(), task, microbatch=4)
        calls = {"step": 0, "validate": 0}

        def hook(here: str, name=name, calls=calls, task=task, trainer=trainer) -> None:
            calls[here] += 1
            validating = not task.module.training
            if here != ("validate" if phase == "validate" else "step"):
                return
            if calls[here] == int(number) and name == "short":
                task.memory = 2
                asked.update(step=trainer.state.at.step, validating=validating)

        task.hook = hook
        trainer.begin()
        if name == "planned":  # the microbatch is two from the step on that ran out of memory
            plain = trainer.state.stepper

            def step(batch: Any, at: int, samples: int, plain=plain) -> Any:
                if at >= asked["step"]:
                    plain.microbatch = 2
                return plain(batch, at, samples)

            trainer.state.stepper = Wrapped(plain, step)
        trainer.fit()
        runs[name] = trainer
    assert asked["validating"] == (phase == "validate")
    assert runs["short"].state.at.epoch == 3
    assert runs["short"].state.stepper.microbatch == 2
    short, planned = (r.task.module.state_dict() for r in runs.values())
    assert same(dict(short), dict(planned))
    losses = [[r["train/loss"] for r in lines(tmp_path / n) if r["kind"] == "train"] for n in runs]
    assert losses[0] == losses[1]


class Wrapped:
    """A stepper with another `__call__`."""

    def __init__(self, stepper: Any, call: Any) -> None:
        self.__dict__["stepper"], self.__dict__["call"] = stepper, call

    def __call__(self, *words: Any) -> Any:
        return self.call(*words)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stepper, name)


def test_out_of_memory_at_one_sample_saves_activations_then_ends_in_a_sentence(
    tmp_path: Path,
) -> None:
    for saves in (True, False):
        task = toy.ToyTask()
        task.memory, task.saves_memory = 0, saves
        task.validate = lambda pause, size: {"epoch/val_loss": 0.0}
        trainer = toy.build(tmp_path / str(saves), toy.config(epochs=1), task)
        if saves:
            trainer.fit()
        else:
            with pytest.raises(TrainingError, match="one sample does not fit"):
                trainer.fit()


def test_a_poisoned_step_is_skipped_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, spoil=lambda step: step == 7)
    records = [r for r in lines(tmp_path) if r["kind"] == "train"]
    assert [r["step"] for r in records if r["skipped_steps"]] == [8]
    assert "steps 7" in caplog.text
    content = load_checkpoint(tmp_path / "last.pth")
    assert content["health"]["skipped"] == 1
    assert all(torch.isfinite(v).all() for v in content["model"].values())
    assert RunFolder(tmp_path).read_status()["skipped_steps"] == 1


def test_bad_steps_in_a_row_go_back_at_a_lower_rate(tmp_path: Path) -> None:
    """The poison is gone at the second try, as when a high rate was its cause."""
    tries = [0]

    def spoil(step: int) -> bool:
        tries[0] += step == 8
        return 8 <= step < 12 and tries[0] < 2

    trainer = run(tmp_path, toy.config(bad_steps=3, spike_factor=1e9), spoil=spoil)
    assert trainer.state.at.rollbacks == 1 and trainer.state.at.lr_factor == 0.5
    records = [r for r in lines(tmp_path) if r["kind"] == "train"]
    assert [r["step"] for r in records] == list(range(1, 19))
    plain = [trainer.schedule.lr(step) for step in range(18)]
    assert [r["lr"] for r in records[6:]] == pytest.approx([0.5 * lr for lr in plain[6:]])
    assert (tmp_path / "metrics.lost.jsonl").exists()


def test_when_going_back_does_not_help_the_run_ends_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not finite.*2 returns.*lower --lr to 1e-5"):
        run(tmp_path, toy.config(bad_steps=3, max_rollbacks=2), spoil=lambda step: step > 2)


def test_a_slow_loader_and_a_filling_disk_are_told_everywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(toy.ToyTask):
        def batches(self, epoch: int, first_sample: int) -> Any:
            for batch in super().batches(epoch, first_sample):
                time.sleep(0.02)
                yield batch

    health = {"starving_share": 0.3, "disk_free_gb": 1e9}
    trainer = toy.build(tmp_path, toy.config(epochs=1, **health), Slow())
    trainer.begin()
    trainer.fit()
    records = [r for r in lines(tmp_path) if r["kind"] == "train"]
    assert records[-1]["health/starving"] == records[-1]["health/disk"] == 1.0
    status = RunFolder(tmp_path).read_status()
    assert status is not None
    told = {sign["name"]: sign["remedy"] for sign in status["health"]}
    assert "--workers" in told["starving"] and "free some space" in told["disk"]
    assert caplog.text.count("raise --workers") == 1  # once, while it lasts


def test_a_loss_that_runs_away_goes_back_too(tmp_path: Path) -> None:
    class Runaway(toy.ToyTask):
        def loss_terms(self, batch: Any, step: int) -> Any:
            for term in super().loss_terms(batch, step):
                factor = 1000.0 if self.step > 8 else 1.0
                yield dataclasses.replace(term, value=term.value * factor)

    trainer = toy.build(
        tmp_path, toy.config(bad_steps=3, max_rollbacks=1, spike_factor=20.0), Runaway()
    )
    trainer.begin()
    with pytest.raises(TrainingError, match="stayed above 20 times its mean"):
        trainer.fit()


def test_tensorboard_reads_the_numbers_back(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = run(tmp_path)
    trainer.metrics.close()
    board = EventAccumulator(str(tmp_path / "logs"))
    board.Reload()
    records = [r for r in lines(tmp_path) if r["kind"] == "train"]
    points = board.Scalars("train/loss")
    assert [p.step for p in points] == [r["step"] for r in records]
    assert [p.value for p in points] == pytest.approx([r["train/loss"] for r in records])
    assert {"epoch/val_loss", "epoch/lr", "lr", "grad_norm"} <= set(board.Tags()["scalars"])


# Real processes


def process(folder: Path, *options: str) -> Child:
    return forge().start([str(_TOY), str(folder), *options])


def finish(folder: Path, *options: str) -> int:
    child = process(folder, *options)
    child.communicate(timeout=120)
    assert child.returncode is not None
    return child.returncode


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert finish(folder) == 0
    return folder


@pytest.mark.parametrize(
    ("name", "at", "code"),
    [("SIGTERM", "step:4", 75), ("SIGTERM", "validate:9", 75), ("SIGINT", "step:20", 130)],
)
def test_a_signal_writes_a_checkpoint_and_the_run_goes_on_exactly(
    tmp_path: Path, whole: Path, name: str, at: str, code: int
) -> None:
    child = process(tmp_path, f"signal={name}", f"signal_at={at}")
    _, err = child.communicate(timeout=120)
    assert child.returncode == code
    assert "progress is saved: resume with" in err
    assert finish(tmp_path) == 0
    assert_same_run(whole, tmp_path)


def test_work_that_never_asks_is_left_at_once_where_it_would_lose_nothing() -> None:
    """As while compiling: after a moment of grace another thread ends the process."""
    program = (
        "import os, time; from vlwm.core.training.runtime import stop_signal as signals\n"
        "signals.GRACE_S = 0.2\n"
        "with signals.StopSignal() as stop, stop.leaving_at_once(lambda: os._exit(75)):\n"
        "    print('here', flush=True)\n"
        "    while True: sum(range(10**6))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "here\n"
    child.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    child.communicate(timeout=60)
    assert child.returncode == 75 and time.monotonic() - sent < 5
    stop = StopSignal()
    stop.received = signal.SIGTERM
    with pytest.raises(StopRequested), stop.leaving_at_once(lambda: None):
        raise AssertionError("not entered")


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    child = process(tmp_path, "pause_s=20")
    assert child.stdout is not None and child.stdout.readline() == "training\n"
    time.sleep(0.5)
    child.send_signal(signal.SIGTERM)
    time.sleep(1.0)
    child.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    child.communicate(timeout=60)
    assert child.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - sent < 5


def test_the_same_signal_sent_twice_at_once_is_one_signal(tmp_path: Path) -> None:
    child = process(tmp_path, "pause_s=0.5")
    assert child.stdout is not None and child.stdout.readline() == "training\n"
    child.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode == 75


def kill_until_done(folder: Path, kills: int, seed: int) -> None:
    """`kill -9` at random moments, half of them inside stretched saves; then run to the end."""
    rng = random.Random(seed)
    for _ in range(kills):
        child = process(folder, "pause_s=0.02", "save_s=0.05", "minutes=0.0005")
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(rng.uniform(0.0, 1.0))
        child.kill()
        child.communicate(timeout=60)
        for path in folder.glob("*.pth"):
            load_checkpoint(path)  # nothing half stands under a final name
        status = folder / "status.json"
        if status.exists():
            json.loads(status.read_text())
    assert finish(folder) == 0
    assert not list(folder.glob(".*.pth.*.tmp"))


def test_kill_9_at_random_moments_loses_nothing_but_time(tmp_path: Path, whole: Path) -> None:
    kill_until_done(tmp_path, 1, seed=0)
    assert_same_run(whole, tmp_path)


@pytest.mark.endurance
@pytest.mark.timeout(3600)
def test_kill_9_thirty_times(tmp_path: Path, whole: Path) -> None:
    kill_until_done(tmp_path, 30, seed=1)
    assert_same_run(whole, tmp_path)


def test_a_damaged_last_checkpoint_falls_back_to_an_older_one(tmp_path: Path, whole: Path) -> None:
    assert finish(tmp_path, "signal=SIGTERM", "signal_at=step:30") == 75
    last = tmp_path / "last.pth"
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 16
    last.write_bytes(data)
    found = newest_valid(tmp_path)
    assert found is not None and found.path.name != "last.pth"
    assert "damaged" in found.refused[0]
    assert finish(tmp_path) == 0
    assert_same_run(whole, tmp_path)


def test_random_states_survive_a_checkpoint() -> None:
    from vlwm.core.training.runtime.rng import random_state, restore_random_state

    seed_everything(5)
    np.random.standard_normal()  # leaves a cached second draw behind
    state = random_state()
    drawn = (random.random(), np.random.standard_normal(3).tolist(), torch.rand(3).tolist())
    seed_everything(6)
    restore_random_state(state)
    again = (random.random(), np.random.standard_normal(3).tolist(), torch.rand(3).tolist())
    assert drawn == again


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_at_a_checkpoint_keeps_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    trainer = toy.start(tmp_path, toy.config(epochs=2), toy.ToyTask())
    before = trainer.checkpointer.folder.last.read_bytes()

    def full(value: Any, handle: Any) -> None:
        handle.write(b"half of a checkpoint")
        raise OSError(code, "no room")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(MachineError) as error:
        trainer.fit()
    assert error.value.remedy and error.value.exit_code == 3
    assert trainer.checkpointer.folder.last.read_bytes() == before
    monkeypatch.undo()
    again = toy.start(tmp_path, toy.config(epochs=2), toy.ToyTask())
    assert again.fit().epoch == 2 and not list(tmp_path.glob(".*.tmp"))


def test_after_a_full_disk_keep_makes_room_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --keep nothing is removed, and the sentence names it; with it, the oldest go."""
    cfg = replace(toy.config(epochs=4), checkpoint_config=CheckpointConfig(1))
    run(tmp_path, cfg).metrics.close()
    longer = replace(cfg, max_epochs=5)
    plain, real = torch.save, sorted(tmp_path.glob("epoch_*.pth"))

    def full_with_three(value: Any, handle: Any) -> None:
        if len(list(tmp_path.glob("epoch_*.pth"))) > 2:
            raise OSError(errno.ENOSPC, "no room")
        plain(value, handle)

    monkeypatch.setattr(torch, "save", full_with_three)
    trainer = toy.start(tmp_path, longer, toy.ToyTask())
    with pytest.raises(MachineError, match="--keep 2"):
        trainer.fit()
    trainer.metrics.close()
    assert sorted(tmp_path.glob("epoch_*.pth")) == real
    kept = replace(longer, checkpoint_config=CheckpointConfig(1, max_keep_ckpts=2))
    assert toy.start(tmp_path, kept, toy.ToyTask()).fit().epoch == 5
    names = sorted(path.name for path in tmp_path.glob("epoch_*.pth"))
    assert names == ["epoch_4.pth", "epoch_5.pth"]


def test_a_disk_that_takes_no_checkpoint_shows_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(value: Any, handle: Any) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(torch, "save", refuse)
    with pytest.raises(MachineError, match="read-only"):
        toy.start(tmp_path, toy.config(), toy.ToyTask())


def test_only_the_newest_periodic_checkpoints_are_kept(tmp_path: Path) -> None:
    cfg = toy.config(epochs=5)
    cfg = replace(cfg, checkpoint_config=CheckpointConfig(1, max_keep_ckpts=2))
    run(tmp_path, cfg)
    names = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert names == ["best.pth", "epoch_4.pth", "epoch_5.pth", "last.pth"]
