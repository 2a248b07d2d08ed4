"""A monitor that watches a real process: killed, frozen, its folder gone, clocks and GPUs lost."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.core.monitoring.test_dashboard import ROOT, Terminal, growing, terminal
from tests.fake_machine import A100_40, A100_80, build_nvml

# the limits of a run that is lost or stalled, made short; a clock that a file moves
CODE = """
import sys, time, typer
from pathlib import Path
real = time.time
time.time = lambda: real() + float(Path({jump!r}).read_text())  # before others keep it
from vlwm.core.monitoring import reader
from vlwm.commands.monitor import monitor
reader._SURELY_GONE_S, reader._STALLED_S = 0.4, 0.8
app = typer.Typer(); app.command()(monitor); app()
"""


@dataclass
class Watched:
    """A run that grows, and a monitor in a terminal."""

    window: Terminal
    run: Path
    pid: int
    jump: Path


@contextlib.contextmanager
def watched(tmp_path: Path, **environ: str) -> Iterator[Watched]:
    run, jump = tmp_path / "run", tmp_path / "jump"
    jump.write_text("0")
    command = [sys.executable, "-c", CODE.format(jump=str(jump)), str(run), "--wait",
               "--interval", "0.1"]  # fmt: skip
    environ = {"PYTHONPATH": str(ROOT), **environ}
    with (
        growing(run, 4000, 0.05) as writer,
        terminal(tmp_path, shlex.join(command), **environ) as window,
    ):
        window.until(lambda t: "● running" in t)
        yield Watched(window, run, writer.pid, jump)


def test_a_killed_trainer_is_told_with_the_command_to_resume(tmp_path: Path) -> None:
    with watched(tmp_path) as it:
        os.kill(it.pid, signal.SIGKILL)
        text = it.window.until(lambda t: "process gone" in t)
        assert "next: vlwm train --resume" in text and f"process {it.pid} died" in text


def test_a_frozen_trainer_is_stalled_until_it_continues(tmp_path: Path) -> None:
    with watched(tmp_path) as it:
        os.kill(it.pid, signal.SIGSTOP)
        it.window.until(lambda t: "▲ stalled" in t and "the process is still there" in t)
        os.kill(it.pid, signal.SIGCONT)
        it.window.until(lambda t: "● running" in t and "▲ stalled" not in t)


def test_a_folder_may_vanish_and_come_back(tmp_path: Path) -> None:
    with watched(tmp_path) as it:
        it.window.until(lambda t: "loss" in t)
        os.kill(it.pid, signal.SIGSTOP)  # else it makes a new folder
        away = it.run.with_name("away")
        it.run.rename(away)
        it.window.until(lambda t: "has vanished" in t)
        away.rename(it.run)
        os.kill(it.pid, signal.SIGCONT)
        it.window.until(lambda t: "● running" in t and "vanished" not in t)


@pytest.mark.parametrize("seconds", [7200, -7200])
def test_a_clock_that_jumps_stalls_nothing(tmp_path: Path, seconds: int) -> None:
    with watched(tmp_path) as it:
        time.sleep(0.3)  # the monitor has seen the heart beat
        moved = it.jump.with_name("moved")
        moved.write_text(str(seconds))
        moved.rename(it.jump)  # the monitor reads it at any time
        hour = time.strftime("%H:", time.localtime(time.time() + seconds))
        text = it.window.until(lambda t: f" {hour}" in t.split("\n")[0])
        assert "● running" in text and "▲ stalled" not in text
        time.sleep(1.2)  # longer than the limit of a stall
        text = it.window.screen()
        assert "● running" in text and re.search(r"heartbeat \d s ", text)


def test_one_of_two_gpus_vanishes(tmp_path: Path) -> None:
    cards = tmp_path / "cards"
    first, second = A100_80 + ";0;0", A100_40 + ";0;0"
    cards.write_text(f"{first}|{second}")
    library = build_nvml(tmp_path)
    with watched(tmp_path, LD_LIBRARY_PATH=str(library), FAKE_GPUS=f"@{cards}") as it:
        text = it.window.until(lambda t: "GPU 1" in t)
        assert "GPU 0" in text and "A100-SXM4-80GB" in text
        cards.write_text(f"lost|{second}")
        text = it.window.until(lambda t: "gpu_lost" in t)
        assert "GPU 0 NVIDIA A100-SXM4-80GB does not answer any more" in text
        assert "GPU 1 A100-SXM4-40GB" in text  # the other keeps its number
