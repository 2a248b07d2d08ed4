"""The command line as typed: help, mistakes, exit codes, and bugs that are called bugs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def vlwm(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlwm", *args]
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env)


def test_help_lists_the_six_commands() -> None:
    out = vlwm("--help")
    assert out.returncode == 0
    for name in ("setup", "download", "prepare", "train", "eval", "monitor"):
        assert name in out.stdout


def test_version() -> None:
    assert vlwm("--version").stdout.startswith("vlwm 0.")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["trian"], "train"),
        (["train", "--epocs", "3"], "--epochs"),
        (["prepare", "--ouput", "x"], "--output"),
    ],
)
def test_a_misspelling_names_the_nearest(args: list[str], words: str) -> None:
    out = vlwm(*args)
    assert out.returncode == 2 and words in out.stderr


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["prepare", "--input", "absent"], 4, "no such file or folder"),
        (["prepare", "--config", "finetune_tokio"], 2, "did you mean finetune_tokyo"),
        (["prepare", "--set", "optimizer.lrr=1"], 2, "did you mean optimizer.lr"),
        (["prepare", "--agents", "boat"], 2, "drone, rover or both"),
        (["train", "--config", "tokyo_small", "--data", "absent"], 4, "absent"),
        (["train", "--config", "finetune_nuscenes", "--from-scratch"], 4, "nuScenes"),
        (["train", "--config", "finetune_tokyo"], 4, "vlwm prepare"),
        (["eval", "absent"], 4, "absent"),
        (["monitor", "absent", "--once"], 4, "absent"),
        (["download", "--format", "objj"], 2, "did you mean obj"),
    ],
)
def test_mistakes_are_one_sentence_with_their_code(
    args: list[str], code: int, words: str, tmp_path: Path
) -> None:
    out = vlwm(*args, cwd=tmp_path)
    assert out.returncode == code, out.stderr
    assert words in out.stderr and "Traceback" not in out.stderr
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_bug_is_called_one_and_its_traceback_is_kept(tmp_path: Path) -> None:
    script = (
        "import sys, vlwm.core.config.load as c\n"
        "def broken(*a, **k): raise ZeroDivisionError('oops')\n"
        "c.load_config = broken\n"
        "sys.argv = ['vlwm', 'prepare', *sys.argv[1:]]\n"
        "from vlwm.cli import main; main()"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    for extra in ([], ["--debug"]):
        command = [sys.executable, "-c", script, *extra]
        out = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        assert out.returncode == 1
        if extra:
            assert "Traceback" in out.stderr
        else:
            assert "bug in vlwm" in out.stderr and "Traceback" not in out.stderr
            (log,) = tmp_path.glob("vlwm-error-*.log")
            assert "ZeroDivisionError" in log.read_text()
            assert log.stat().st_mode & 0o077 == 0 and str(os.getpid()) not in log.name


def test_help_leaves_out_what_it_never_uses_and_puts_nothing_in_its_place() -> None:
    """rich's Markdown and traceback highlighter cost a fifth of the start."""
    script = (
        "import sys, contextlib, io\n"
        "from vlwm.cli import main\n"
        "sys.argv = ['vlwm', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "assert not {'rich.markdown', 'rich.traceback', 'torch', 'numpy'} & set(sys.modules)\n"
        "from rich.markdown import Markdown\n"
        "assert Markdown('x').parsed\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_both_words_for_help_are_answered() -> None:
    short, long = vlwm("monitor", "-h"), vlwm("monitor", "--help")
    assert short.returncode == long.returncode == 0
    assert short.stdout == long.stdout and "--once" in long.stdout


def test_a_deleted_working_folder_is_one_sentence(tmp_path: Path) -> None:
    place = tmp_path / "gone"
    script = f"cd {place} && rmdir {place} && {sys.executable} -m vlwm prepare --config test_local"
    place.mkdir()
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environ)
    assert done.returncode == 4 and "this is a bug" not in done.stderr
    assert "the folder that this shell is in no longer exists: cd to another one" in done.stderr
