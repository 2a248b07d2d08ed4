"""Commands that are shown to an operator parse as typed.

tests/core/training/test_pages.py runs them, on a desk with data and finished runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from vlwm.cli import app

ROOT = Path(__file__).parents[2]
COMMANDS = typer.main.get_command(app).commands


def shown() -> list[str]:
    """Every `vlwm COMMAND …` of the pages' blocks and of the help texts, once."""
    found: list[str] = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            found += block.splitlines()
    for command in COMMANDS.values():
        text = " ".join((command.help or "").split())
        found += re.findall(r"\[cyan\](.*?)\[/\]", text)
    parts = [re.split(r"&&|\||#", line) for line in found]
    lines = [piece.strip() for pieces in parts for piece in pieces]
    return sorted({line for line in lines if line.startswith("vlwm ")})


@pytest.mark.parametrize("line", shown())
def test_an_example_parses_as_typed(line: str) -> None:
    name, *words = shlex.split(line)[1:]
    if name.startswith("-"):
        name, words = "setup", []
    with COMMANDS[name].make_context(name, words) as context:
        assert not context.args


def test_each_help_has_an_example_and_its_options_in_groups() -> None:
    for name, command in COMMANDS.items():
        assert f"vlwm {name}" in " ".join((command.help or "").split()), name
    for name in ("setup", "download", "prepare", "train", "eval"):
        groups = {getattr(p, "rich_help_panel", None) for p in COMMANDS[name].params}
        assert len(groups - {None}) >= 3, name
