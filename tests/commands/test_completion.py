"""Shells complete commands and options: the scripts, their installation, and what they answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = shutil.which("vlwm", path=str(Path(sys.executable).parent))
needs_program = pytest.mark.skipif(PROGRAM is None, reason="needs the console script vlwm")
NAMED = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
"""lets the shell be named instead of found among the parent processes"""


def vlwm(*words: str, **environ: str) -> str:
    done = subprocess.run(
        [str(PROGRAM), *words], env={**os.environ, **environ}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
    return done.stdout


@needs_program
@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("bash", ("complete -o default -F _vlwm_completion vlwm", "_VLWM_COMPLETE=complete_bash")),
        ("zsh", ("#compdef vlwm", "_VLWM_COMPLETE=complete_zsh vlwm")),
        ("fish", ("complete --command vlwm", "_VLWM_COMPLETE=complete_fish")),
    ],
)
def test_the_script_of_each_shell(shell: str, words: tuple[str, ...], tmp_path: Path) -> None:
    script = vlwm("--show-completion", shell, **NAMED)
    assert all(word in script for word in words)
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


@needs_program
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_what_was_installed(tmp_path: Path) -> None:
    """The script that `--install-completion` left, sourced and asked as bash does on Tab."""
    vlwm("--install-completion", "bash", HOME=str(tmp_path), **NAMED)
    script = tmp_path / ".bash_completions" / "vlwm.sh"
    assert f"source '{script}'" in (tmp_path / ".bashrc").read_text()
    ask = f'source "{script}"; COMP_WORDS=({{}}); COMP_CWORD={{}}; _vlwm_completion "{PROGRAM}"; '
    ask += 'echo "${{COMPREPLY[@]}}"'
    for typed, at, wanted in (
        ("vlwm tr", 1, {"train"}),
        ("vlwm train --wandb-", 2, {"--wandb-project", "--wandb-run-name", "--wandb-tags"}),
    ):
        done = subprocess.run(["bash", "-c", ask.format(typed, at)], capture_output=True, text=True)
        assert set(done.stdout.split()) == wanted, done.stderr


@needs_program
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_what_the_other_shells_are_answered(shell: str) -> None:
    answer = vlwm(_VLWM_COMPLETE=f"complete_{shell}", _TYPER_COMPLETE_ARGS="vlwm eval --spl",
                  _TYPER_COMPLETE_FISH_ACTION="get-args")  # fmt: skip
    assert "--split" in answer and "--baselines-only" not in answer
