"""Processes without the seconds of importing torch: `python forge.py` imports once, then forks.

Each command runs in a process of its own, as `python -m vlwm …` or `python toy.py …` would: its own
number, signals, exit code and files. Only its imports are those of the parent, which has done
nothing else: no operation of torch, no thread.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_PRELOADED = (
    "torch._dynamo", "torch.utils.tensorboard", "vlwm.cli", "vlwm.core.training.run",
    "vlwm.core.evaluation.scores.score_table", "vlwm.core.city.procedural",
    "vlwm.core.data.generation.prepare",
)  # fmt: skip


class Child:
    """A forked process, with what the tests use of `subprocess.Popen`."""

    def __init__(self, forge: Forge, pid: int, files: tuple[Path, Path]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._forge, self._files = forge, files
        self.stdout = _Lines(self, files[0])

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._forge.ask({"poll": self.pid})
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 300.0) -> tuple[str, str]:
        """Everything it has said, once it has ended."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                self.kill()
                raise subprocess.TimeoutExpired("a forked command", timeout)
            time.sleep(0.005)
        out, err = (path.read_text(encoding="utf-8") for path in self._files)
        return out, err


class _Lines:
    """The lines of a file that a process is writing."""

    def __init__(self, child: Child, path: Path) -> None:
        self._child, self._path, self._read = child, path, 0

    def readline(self) -> str:
        """The next whole line; what is left where the process has ended."""
        while True:
            ended = self._child.poll() is not None
            rest = self._path.read_text(encoding="utf-8")[self._read :]
            line, newline, _ = rest.partition("\n")
            if newline or ended:
                self._read += len(line + newline)
                return line + newline
            time.sleep(0.005)


class Forge:
    """The parent of such processes; ends with the tests.

    Args:
        environ: of all of them.
    """

    def __init__(self, environ: dict[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._count = 0
        pipe = subprocess.PIPE
        self._parent = subprocess.Popen(
            [sys.executable, __file__], env=environ, stdin=pipe, stdout=pipe, text=True
        )

    def ask(self, question: dict[str, Any]) -> Any:
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(question) + "\n")
        self._parent.stdin.flush()
        return json.loads(self._parent.stdout.readline())

    def start(self, words: list[str]) -> Child:
        """Run a module ("-m", name, …) or a file (path, …) with its arguments."""
        self._count += 1
        out, err = (Path(self._folder.name) / f"{self._count}.{name}" for name in ("out", "err"))
        out.touch()
        err.touch()
        return Child(self, self.ask({"words": words, "files": [str(out), str(err)]}), (out, err))

    def close(self) -> None:
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.close()
        self._parent.wait(timeout=30)
        self._parent.stdout.close()
        self._folder.cleanup()


SECRETS = {
    "WANDB_API_KEY": "sesame" + "0" * 34, "HF_TOKEN": "hf_sesame", "AWS_SESSION_TOKEN": "sesame",
    "AWS_SECRET_ACCESS_KEY": "sesame",
}  # fmt: skip
"""in the environment of every process of a training test; no run prints or writes one"""


def environment() -> dict[str, str]:
    """What the processes of these tests see: one thread, and secrets to keep."""
    return {**os.environ, **SECRETS, "OMP_NUM_THREADS": "1"}


@functools.cache
def forge() -> Forge:
    """The one forge of a test session, started when it is first asked for."""
    made = Forge(environment())
    atexit.register(made.close)
    return made


def _serve() -> dict[str, Any] | None:
    """Answer questions; in a child, the command that it is to run."""
    ended: dict[int, int] = {}
    while line := sys.stdin.readline():
        question = json.loads(line)
        if "words" in question:
            pid = os.fork()
            if pid == 0:
                return question
            answer: int | None = pid
        else:
            pid = question["poll"]
            if pid not in ended:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    ended[pid] = os.waitstatus_to_exitcode(status)
            answer = ended.get(pid)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return None


def _become(command: dict[str, Any]) -> None:
    """Run the command in this process, with its own files."""
    streams = [os.open(os.devnull, os.O_RDONLY)]
    streams += [os.open(path, os.O_WRONLY) for path in command["files"]]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    words = command["words"]
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path[0] = str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    for name in _PRELOADED:
        __import__(name)
    found = _serve()
    if found is not None:
        _become(found)
