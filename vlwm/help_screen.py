"""Render `--help` in less time than Typer does by itself; nothing else here knows Typer's inside.

Two short cuts, each worth about a fifth of a start (docs/decisions.md):

- rich's Markdown and traceback highlighter, which Typer imports and this help never uses, are
  replaced while Typer's help is imported, and are themselves again afterwards;
- `vlwm COMMAND --help` is answered by that command alone: parsing the options of the group costs
  Typer an import of pydantic.

What is relied on is checked by tests/commands/test_help_screen.py, which fails when Typer moves it.
With another Typer the help still works, more slowly or with Typer's own names of types.
"""

from __future__ import annotations

import os
import re
import sys
from types import ModuleType
from typing import Any

import typer

_SPARED = {"rich.markdown": "Markdown", "rich.traceback": "Traceback"}
_TYPED = {"path": "PATH", "str": "TEXT", "int": "N", "float": "NUMBER"}


def import_renderer() -> None:
    """Import Typer's help without the modules of rich that it does not use here."""
    spared = {module: name for module, name in _SPARED.items() if module not in sys.modules}
    for module, name in spared.items():
        sys.modules[module] = placeholder = ModuleType(module)
        setattr(placeholder, name, type(name, (), {}))
    try:
        import typer.core
        import typer.rich_utils

        _show_what_to_type(typer.core.TyperOption)
    finally:
        for module in spared:
            del sys.modules[module]


def answer(app: typer.Typer, words: list[str]) -> bool:
    """Answer `vlwm COMMAND --help`; return False where something else was typed."""
    if len(words) != 2 or words[1] not in ("-h", "--help") or "_VLWM_COMPLETE" in os.environ:
        return False
    callback = {info.name: info.callback for info in app.registered_commands}.get(words[0])
    if callback is None:
        return False
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(words[0])(callback)
    typer.main.get_command(alone).main(["--help"], prog_name=f"vlwm {words[0]}")
    return True


def _show_what_to_type(option: Any) -> None:
    """Let help name what is typed after an option, not its Python type; flags take nothing."""
    if not hasattr(option, "display_type_rich"):  # another version of Typer
        return

    original = option.display_type_rich

    def typed(self: Any, ctx: Any) -> str | None:
        shown = original(self, ctx)
        if self.metavar is not None or shown is None:
            return self.metavar
        name = re.sub(r"^list\[(.*)\]$", r"\1", shown.strip("<>. ").lower()).split()[0]
        return None if name == "bool" else _TYPED.get(name, name.upper())

    option.display_type_rich = typed
    option._get_number_range_help_str = lambda self: None
