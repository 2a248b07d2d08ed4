"""What `help_screen` relies on inside Typer is there; without it help is slower, not broken."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import typer.core
import typer.main
import typer.rich_utils

ROOT = Path(__file__).parents[2]


def test_typer_has_what_the_help_relies_on() -> None:
    option = typer.core.TyperOption
    assert callable(option.display_type_rich), "Typer moved: see vlwm/help_screen.py"
    assert callable(option._get_number_range_help_str), "Typer moved: see vlwm/help_screen.py"
    assert callable(typer.main.get_command)
    (command,) = typer.Typer().registered_commands or [typer.models.CommandInfo()]
    assert hasattr(command, "name") and hasattr(command, "callback")


def test_the_renderer_imports_no_other_name_of_the_spared_modules() -> None:
    """Each is replaced by a module with one name; another would be an ImportError of help."""
    script = (
        "import sys, vlwm.help_screen as h\n"
        "h.import_renderer()\n"
        "assert not set(h._SPARED) & set(sys.modules), 'Typer keeps them: see help_screen'\n"
        "import typer.rich_utils as r\n"
        "assert {'Markdown'} <= set(vars(r)), 'Typer moved: see vlwm/help_screen.py'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("missing", ["display_type_rich", ""])
def test_help_works_with_a_typer_that_moved(missing: str) -> None:
    script = (
        "import sys, typer.core\n"
        f"missing = {missing!r}\n"
        "if missing: delattr(typer.core.TyperOption, missing)\n"
        "else: import rich.markdown, rich.traceback\n"
        "import vlwm.help_screen as h\n"
        "h.import_renderer()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("place", ["TMUX", "STY"])
@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_help_in_tmux_without_a_utf8_locale_is_plain(place: str, words: list[str]) -> None:
    lead, follow = pty.openpty()
    env = {"PATH": os.environ["PATH"], place: "x", "TERM": "screen", "PYTHONPATH": str(ROOT)}
    done = subprocess.Popen(
        [sys.executable, "-m", "vlwm", *words], stdout=follow, stderr=follow, stdin=follow, env=env
    )
    os.close(follow)
    shown = bytearray()
    with contextlib.suppress(OSError):
        while part := os.read(lead, 65536):
            shown += part
    assert done.wait() == 0 and b"Usage: " in shown and shown.isascii()
    os.close(lead)
