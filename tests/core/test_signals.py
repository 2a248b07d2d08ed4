"""A stopped command answers at once, ends with its code, and leaves nothing of its own behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORK = """
import os, sys, time
from pathlib import Path
import typer
sys.argv = ["vlwm", "prepare"]
from vlwm import cli
from vlwm.core.files import atomic_path
from vlwm.core.parallel import each
os.chdir({folder!r})

def make(item):
    with atomic_path(Path("frames") / str(item)) as temporary:
        temporary.write_text("half")
        time.sleep({item_s})

def work():
    with atomic_path(Path("whole")) as temporary:
        temporary.write_text("half")
        print("here", flush=True)
        list(each(make, range(8), {workers}, chunk=4))

cli.app = typer.Typer()
cli.app.callback()(lambda: None)
cli.app.command("prepare")(work)
cli.main()
"""


def start(folder: Path, workers: int, item_s: float, *before: str) -> subprocess.Popen[str]:
    (folder / "frames").mkdir()
    program = WORK.format(folder=str(folder), workers=workers, item_s=item_s)
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        [*before, sys.executable, "-c", program], stdout=pipe, stderr=pipe, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "here\n"
    while not list((folder / "frames").iterdir()):
        time.sleep(0.02)
    return child


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", 130), ("SIGTERM", 75), ("SIGHUP", 75), ("SIGQUIT", 75)]
)
def test_the_first_signal_is_answered_and_leaves_no_temporary_file(
    tmp_path: Path, workers: int, name: str, code: int
) -> None:
    child = start(tmp_path, workers, 0.4)
    child.send_signal(getattr(signal, name))
    _, err = child.communicate(timeout=30)
    assert child.returncode == code, err
    first, last = err.strip().splitlines()
    assert first.startswith("stopping ...") and "run the same command again" in last
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]
    assert not (tmp_path / "whole").exists() and len(list((tmp_path / "frames").iterdir())) < 8


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_signal_ends_at_once_with_its_workers(tmp_path: Path, workers: int) -> None:
    child = start(tmp_path, workers, 60.0)
    child.send_signal(signal.SIGINT)
    if workers == 2:  # the first waits for the frames at hand, and one process has none
        time.sleep(0.4)
        child.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130 and time.monotonic() - sent < 10
    assert workers == 1 or "ended at once by a second signal" in err
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(tmp_path: Path) -> None:
    child = start(tmp_path, 1, 0.2, "nohup")
    child.send_signal(signal.SIGHUP)
    child.communicate(timeout=30)
    assert child.returncode == 0 and (tmp_path / "whole").exists()


def test_a_whole_process_group_may_get_the_signal(tmp_path: Path) -> None:
    """As from a scheduler: workers that end by it are no crash."""
    child = start(tmp_path, 2, 0.5, "setsid")
    os.killpg(child.pid, signal.SIGTERM)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 75 and "memory" not in err, err


_EARLY = """
import builtins, os, runpy, signal, sys
real = builtins.__import__
def imports(name, *rest, **more):
    if name == "typer":
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *rest, **more)
builtins.__import__ = imports
sys.argv = ["vlwm", "--help"]
runpy.run_module("vlwm", run_name="__main__")
"""
_SLOW_END = """
import os, signal, sys, threading, time
from vlwm import cli
@cli.app.command("wait")
def wait() -> None:
    threading.Thread(target=time.sleep, args=(20,)).start()  # Python's end would wait for it
    os.kill(os.getpid(), signal.{0})
    time.sleep(20)
sys.argv = ["vlwm", "wait"]
cli.main()
"""
_LATE = """
import os, signal, time
from vlwm.core.signals import Stoppable
with Stoppable() as stop:
    try:
        os.kill(os.getpid(), signal.{0})
        time.sleep(9)
    except KeyboardInterrupt:
        stop.leave_with(75)
os.kill(os.getpid(), signal.{0})
time.sleep(9)
"""


def test_ctrl_c_before_the_command_listens_has_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", _EARLY], capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT and done.stderr == "" == done.stdout


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_after_the_last_word_changes_neither_code_nor_word(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LATE.format(name)], capture_output=True, text=True
    )
    assert done.returncode == 75 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 75), ("SIGHUP", 75)])
def test_a_stopped_command_waits_for_no_thread(name: str, code: int) -> None:
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _SLOW_END.format(name)], capture_output=True, text=True
    )
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert time.monotonic() - start < 15
