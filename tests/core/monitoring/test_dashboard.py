"""The live dashboard in a real terminal, beside a process that writes a run."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import fake_run
from vlwm.core.monitoring.dashboard import follow_in_lines

ROOT = Path(__file__).parents[3]
COMMAND = (
    "import sys, typer; from vlwm.commands.monitor import monitor; "
    "app = typer.Typer(); app.command()(monitor); app()"
)


class Terminal:
    """A tmux server of its own."""

    def __init__(self, folder: Path, command: str, **environ: str) -> None:
        self._tmux = ["tmux", "-S", str(folder / "s"), "-f", "/dev/null"]
        words = [f"{k}={shlex.quote(v)}" for k, v in {"LANG": "C.UTF-8", **environ}.items()]
        line = f"env {' '.join(words)} {command}; echo LEFT $?; sleep 60"
        self.run("-u", "new-session", "-d", "-x", "80", "-y", "24", line)

    def run(self, *words: str) -> str:
        done = subprocess.run([*self._tmux, *words], capture_output=True, text=True, check=True,
                              cwd=ROOT, timeout=20)  # fmt: skip
        return done.stdout

    def screen(self) -> str:
        return self.run("capture-pane", "-p")

    def until(self, good: Callable[[str], bool], seconds: float = 20.0) -> str:
        end, text = time.monotonic() + seconds, ""
        while time.monotonic() < end:
            text = self.screen()
            if good(text):
                return self._whole(text)
            time.sleep(0.1)
        raise AssertionError(f"the screen never showed it:\n{text}")

    def _whole(self, text: str, looks: int = 20) -> str:
        """Return the first picture that two looks in a row agree on: a single look may meet a
        picture of which tmux has read only the first lines."""
        for _ in range(looks):
            time.sleep(0.05)
            before, text = text, self.screen()
            if text == before:
                break
        return text


@contextlib.contextmanager
def terminal(folder: Path, command: str, **environ: str) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        pytest.skip("needs tmux for a real terminal, which is not installed")
    window = Terminal(folder, command, **environ)
    try:
        yield window
    finally:
        window.run("kill-server")


def monitor(run: Path, *words: str) -> str:
    return shlex.join([sys.executable, "-c", COMMAND, str(run), *words])


@contextlib.contextmanager
def growing(folder: Path, steps: int, pause_s: float) -> Iterator[subprocess.Popen[bytes]]:
    """A second process that writes a run."""
    command = [sys.executable, str(ROOT / "tests/fake_run.py"), str(folder), "--steps", str(steps),
               "--pause", str(pause_s)]  # fmt: skip
    writer = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        yield writer
    finally:
        writer.kill()
        writer.wait()


def test_it_follows_a_run_to_its_end(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with (
        growing(run, 80, 0.035),
        terminal(tmp_path, monitor(run, "--wait", "--interval", "0.2")) as window,
    ):
        text = window.until(lambda t: "tokenizer · training" in t and "⠒" in t and "GPU" in t)
        assert "running" in text and "q quit (run continues)" in text
        window.run("resize-window", "-x", "140", "-y", "40")
        window.until(lambda t: "parts of the loss" in t and "checkpoints" in t)
        window.run("resize-window", "-x", "80", "-y", "24")
        done = window.until(lambda t: "✔ done" in t and "next: vlwm eval" in t)
        assert len(done.rstrip("\n").split("\n")) == 24
        window.run("send-keys", "q")
        window.until(lambda t: "LEFT 0" in t)


def test_a_killed_run_shows_and_ctrl_c_leaves(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with growing(run, 1000, 0.05) as writer:
        folder = fake_run.RunFolder(run)
        while not folder.status_json.exists():
            time.sleep(0.05)
        writer.kill()
        writer.wait()
    status = folder.read_status() or {}
    folder.write_status({**status, "heartbeat": time.time() - 30, "next": "vlwm train --resume"})
    with terminal(tmp_path, monitor(run), NO_COLOR="1") as window:
        text = window.until(lambda t: "process gone" in t)
        assert "next: vlwm train --resume" in text
        assert not re.search(r"\x1b\[[39][0-7]", window.run("capture-pane", "-p", "-e"))
        window.run("send-keys", "C-c")
        window.until(lambda t: "LEFT 0" in t)


def test_ascii_where_the_locale_is_not_utf8(tmp_path: Path) -> None:
    run = fake_run.write_run(tmp_path / "run", steps=200).path
    with terminal(tmp_path, monitor(run), LC_ALL="C") as window:
        text = window.until(lambda t: "windows/s" in t)
        assert text.isascii() and "+- loss" in text and "**" in text


def test_lines_without_a_terminal(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with growing(run, 40, 0.02):
        while not (run / "status.json").exists():
            time.sleep(0.02)
        lines: list[str] = []
        follow_in_lines(fake_run.RunFolder(run), lines.append, 0.3)
    assert len(lines) >= 4 and "tokenizer training" in lines[0]
    assert "done" in lines[-2] and lines[-1].startswith("next: vlwm eval")
