"""Several processes make the run of one; a lost one or a signal to one ends all, cleanly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from vlwm.core.model.checkpoint import load_checkpoint
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.runtime.multi_gpu_launch import launch

HALF = ("--set", "tokenizer.samples_per_gpu=3", "--batch-size", "2")
"""per process, so that two of them share the batch of one"""
_COMPARED = {"train/loss", "epoch/val_loss", "pred/max", "pred/min", "grad_norm"}


def two_processes(tiny: Any, folder: Path, data: Path, *options: str) -> subprocess.Popen[str]:
    words = tiny.command(folder, data, *HALF, *options)
    words[1:1] = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=env)


def workers_of(launcher: subprocess.Popen[str]) -> list[int]:
    """Process ids of the launcher's workers."""
    path = f"/proc/{launcher.pid}/task/{launcher.pid}/children"
    return [int(word) for word in Path(path).read_text().split()]


def assert_nearly_the_same(tiny: Any, left: Path, right: Path) -> None:
    """Logged losses to 1e-4 of themselves, kernels to 1e-3 of their length: sums in another order.

    Where a gradient is nothing but rounding, Adam still makes whole steps of it. Of a bias in front
    of a norm that is all there is, so biases are compared through the losses alone; of a kernel it
    is a weight here and there, more or fewer by processor, so kernels are compared as vectors.
    The norm of a gradient jumps where the input of a ReLU (of the pose branch) passes through zero:
    of the first step, from equal weights, it is compared as losses are, then to 5e-3.
    """
    for a, b in ((RunFolder(left), RunFolder(right)),
                 (RunFolder(left).tokenizer, RunFolder(right).tokenizer)):  # fmt: skip
        one, other = load_checkpoint(a.last), load_checkpoint(b.last)
        assert (one["step"], one["epoch"]) == (other["step"], other["epoch"])
        for name, value in one["model"].items():
            if value.ndim > 1 and not name.endswith("bias"):  # a norm's bias can be a map
                away = torch.linalg.vector_norm(other["model"][name] - value)
                assert away <= 1e-3 * torch.linalg.vector_norm(value), name
        for x, y in zip(tiny.lines(a), tiny.lines(b), strict=True):
            assert x.keys() == y.keys() and x["step"] == y["step"]
            for name in _COMPARED & x.keys():
                loose = name == "grad_norm" and x["step"] > 1
                assert x[name] == pytest.approx(y[name], rel=5e-3 if loose else 1e-4, abs=1e-6)


def test_two_processes_equal_one_also_after_a_resume_with_another_count(
    tiny: Any, tmp_path: Path, tiny_data: Path, whole_run: Path
) -> None:
    """Two processes, stopped in stage 2 by a signal to one of them; one process ends the run."""
    folder = tmp_path / "run"
    launcher = two_processes(tiny, folder, tiny_data)
    tiny.wait_for(folder, "world", 2, launcher)
    os.kill(workers_of(launcher)[1], signal.SIGTERM)
    _, err = launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    status = RunFolder(folder).read_status()
    assert status is not None and (status["state"], status["exit_code"]) == ("stopped", 75), err
    assert status["processes"] == 2
    assert tiny.finish(folder, tiny_data, "--resume")[0] == 0
    assert_nearly_the_same(tiny, whole_run, folder)


def _stopped(child: Any, tiny: Any, folder: Path, step: int) -> None:
    """Stop a run after a step of stage 2."""
    tiny.wait_for(folder, "world", step, child)
    (child.send_signal if hasattr(child, "stdout") else child.terminate)(signal.SIGTERM)
    child.communicate(timeout=120)


@pytest.mark.ci
def test_two_then_one_then_two_processes_make_the_run_of_two(
    tiny: Any, tmp_path: Path, tiny_data: Path
) -> None:
    """24 steps: weights within 1e-6 of their largest, and the same random state and counters."""
    whole, parts, epochs = tmp_path / "whole", tmp_path / "parts", ("--epochs", "8")
    two_processes(tiny, whole, tiny_data, *epochs).communicate(timeout=200)
    _stopped(two_processes(tiny, parts, tiny_data, *epochs), tiny, parts, 4)
    _stopped(tiny.process(parts, tiny_data, *HALF, *epochs, "--resume"), tiny, parts, 11)
    middle = load_checkpoint(parts / "last.pth")
    two_processes(tiny, parts, tiny_data, *epochs, "--resume").communicate(timeout=200)
    one, other = (load_checkpoint(folder / "last.pth") for folder in (whole, parts))
    assert 11 <= middle["step"] < 20 <= one["step"] and middle["sampler"]["processes"] == 2
    for key in ("step", "epoch", "rng", "sampler", "scheduler"):
        assert tiny.same(one[key], other[key]), key
    far = {
        name: float((other["model"][name] - value).abs().max() / value.abs().max().clamp(min=1e-30))
        for name, value in one["model"].items()
        if value.is_floating_point() and value.numel()
    }
    print("largest relative difference", max(far.values()), "of", max(far, key=lambda n: far[n]))
    assert max(far.values()) <= 1e-6


@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_ends_in_a_checkpoint_and_a_clean_stop(
    tiny: Any, tmp_path: Path, tiny_data: Path, whole_run: Path, lost: int
) -> None:
    folder = tmp_path / "run"
    launcher = two_processes(tiny, folder, tiny_data)
    tiny.wait_for(folder, "world", 3, launcher)
    os.kill(workers_of(launcher)[lost], signal.SIGKILL)
    killed = time.monotonic()
    launcher.communicate(timeout=120)
    assert launcher.returncode != 0 and time.monotonic() - killed < 40
    status = RunFolder(folder).read_status()
    assert status is not None and (status["state"], status["exit_code"]) == ("stopped", 75)
    assert load_checkpoint(folder / "last.pth")["step"] >= 3
    if lost == 0:
        assert tiny.finish(folder, tiny_data, "--resume")[0] == 0
        assert_nearly_the_same(tiny, whole_run, folder)


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(None, 0, marks=pytest.mark.endurance), (signal.SIGINT, 130)],
)
def test_our_launcher_passes_signals_and_exit_codes_on(
    tiny: Any, tmp_path: Path, tiny_data: Path, number: int | None, code: int
) -> None:
    folder = tmp_path / "run"
    words = tiny.command(folder, tiny_data, *HALF, "--stage", "tokenizer")
    program = (
        "import sys; from pathlib import Path; from vlwm.core.run_folder import RunFolder;"
        "from vlwm.core.training.runtime.multi_gpu_launch import launch;"
        f"sys.exit(launch({words[3:]!r}, 2, RunFolder(Path({str(folder)!r})), {{}}))"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    if number is not None:
        tiny.wait_for(folder, "tokenizer", 1, child)
        child.send_signal(number)
    _, err = child.communicate(timeout=120)
    assert child.returncode == code, err


def test_a_launch_that_never_wrote_a_status_has_failed(tmp_path: Path) -> None:
    assert launch(["nonsense"], 1, RunFolder(tmp_path), {}) == 1


def test_one_process_asks_nobody() -> None:
    ranks = Ranks()
    assert ranks.any(True, False) == (True, False) and ranks.lead
    rows = torch.arange(6.0).reshape(3, 2)
    assert ranks.gather_rows(rows) is rows
    assert ranks.lead_does(lambda: 7) == 7
    ranks.follow_lead(torch.nn.Linear(2, 2))
