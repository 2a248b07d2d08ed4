"""Write the reference parts from the code: options, config keys, errors, files, rooms.

    python docs/generate.py            rewrites the parts between the markers
    python docs/generate.py --check    exit 1 where they have drifted

`tests/test_docs.py` runs the check, so the reference cannot say what the code does not do.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from error_table import table as error_table

from vlwm.cli import app
from vlwm.core.config.schema import Config
from vlwm.core.model.checkpoint_content import CheckpointContent
from vlwm.core.run_status import Status

CORE = Path(__file__).parents[1] / "vlwm/core"
FOUNDATION = {path.stem for path in CORE.glob("*.py")} | {"config"}
PAGES = {
    Path(__file__).with_name("data_format.md"): ("status", "checkpoint"),
    Path(__file__).with_name("commands.md"): ("options",),
    Path(__file__).with_name("training.md"): ("config",),
    Path(__file__).with_name("errors.md"): ("errors",),
    Path(__file__).with_name("architecture.md"): ("rooms",),
}


def meanings(cls: type) -> dict[str, str]:
    """The text below each field of a dataclass."""
    tree = ast.parse(inspect.getsource(cls))
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    found = {}
    for field, text in itertools.pairwise(body):
        named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        described = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if named and described:
            # a line break would end the row of a table
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def keys(cls: type, value: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Every key of a config with its default and meaning."""
    texts = meanings(cls)
    for field in dataclasses.fields(cls):
        default = getattr(value, field.name)
        if dataclasses.is_dataclass(default):
            yield from keys(type(default), default, f"{prefix}{field.name}.")
        else:
            shown = list(default) if isinstance(default, tuple) else default
            yield f"{prefix}{field.name}", repr(shown), texts[field.name]


def config_table() -> str:
    rows = [f"| `{k}` | `{d}` | {m} |" for k, d, m in keys(Config, Config())]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def field_table(cls: type) -> str:
    """Return the keys of a file with their meaning, from the dataclass that writes it."""
    texts = meanings(cls)
    rows = [f"| `{f.name}` | {texts[f.name]} |" for f in dataclasses.fields(cls)]
    return "\n".join(["| key | meaning |", "|---|---|", *rows])


def option_tables() -> str:
    """One table per command; the command line's own description is the source."""
    group = typer.main.get_command(app)
    parts = []
    for name, command in group.commands.items():
        help_text = (command.help or "").split("\n\n")[0].replace("\n", " ").strip()
        rows = [_option(p) for p in command.params if not getattr(p, "hidden", False)]
        table = ["| option | default | meaning |", "|---|---|---|", *rows]
        parts.append(f"### vlwm {name}\n\n{help_text}\n\n" + "\n".join(table))
    return "\n\n".join(parts)


def _option(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = f"`{(parameter.metavar or parameter.name.upper())}`"
    else:
        both = [*parameter.opts, *parameter.secondary_opts]
        names = ", ".join(f"`{n}`" for n in both)
    default = parameter.default
    plain = default is None or default is False or callable(default) or default == ""
    shown = "" if plain else f"`{default}`"
    text = (getattr(parameter, "help", None) or "").replace("|", "\\|").replace("\n", " ")
    return f"| {names} | {shown} | {text} |"


def room_table() -> str:
    """Every room of vlwm/core with its purpose, its files and what it imports."""
    rows = ["| room | purpose | holds | imports |", "|---|---|---|---|"]
    for folder in sorted(p for p in CORE.rglob("*") if (p / "__init__.py").is_file()):
        purpose = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
        names = sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__")
        below = {name.split(".")[2] for path in folder.glob("*.py") for name in _core_imports(path)}
        room = folder.relative_to(CORE).parts[0]
        arrows = sorted(below - {room} - FOUNDATION)
        first = purpose.split("\n\n")[0].replace("\n", " ")
        rows.append(
            f"| `{folder.relative_to(CORE)}/` | {first} | {', '.join(names)} "
            f"| {', '.join(arrows) or '–'} |"
        )
    return "\n".join(rows)


def _core_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vlwm.core."):
            yield node.module or ""


def filled(text: str, markers: tuple[str, ...]) -> str:
    """A page with its generated parts replaced."""
    bodies = {
        "options": option_tables,
        "config": config_table,
        "errors": error_table,
        "rooms": room_table,
        "status": lambda: field_table(Status),
        "checkpoint": lambda: field_table(CheckpointContent),
    }
    for marker in markers:
        start, end = f"<!-- generated: {marker} -->", f"<!-- end: {marker} -->"
        before, rest = text.split(start)
        after = rest.split(end)[1]
        text = f"{before}{start}\n\n{bodies[marker]()}\n\n{end}{after}"
    return text


def main() -> int:
    drifted = False
    for page, markers in PAGES.items():
        old = page.read_text(encoding="utf-8")
        new = filled(old, markers)
        drifted |= old != new
        if "--check" not in sys.argv:
            page.write_text(new, encoding="utf-8")
    return int(drifted and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
