"""One printer for all commands: results to stdout, notes to stderr, JSON where a machine reads."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from vlwm.core.text import safe_lines, safe_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console


def emit_json(value: object) -> None:
    """Print exactly one JSON object on stdout, escaped where stdout cannot show its characters."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(value, allow_nan=False)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Print a line for people on stderr; what is in it of files and names steers no terminal."""
    print(safe_lines(text), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print a line for people on stderr that asks for a look."""
    note(f"{mark('warn')} {text}")


def console(*, stderr: bool = False) -> Console:
    """Return a rich console on stdout (or stderr); honours NO_COLOR and pipes."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


_NUMBER_WIDTH = 12
"""characters of a cell up to which a column is one of numbers"""


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout, the first column left-aligned, the others right-aligned.

    Numbers are never cut: in a narrow terminal the names of the first column take more lines.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for index, name in enumerate(columns):
        if index == 0:
            table.add_column(name, overflow="fold")
            continue
        widest = max((len(row[index]) for row in rows if index < len(row)), default=0)
        table.add_column(
            name, justify="right", min_width=widest if widest <= _NUMBER_WIDTH else None
        )
    for row in rows:
        table.add_row(*(Text(safe_text(cell)) for cell in row))
    console().print(table)


def mark(kind: str) -> str:
    """Return the mark of a line: a sign in UTF-8, a word elsewhere.

    Args:
        kind: "good", "warn" or "bad".
    """
    from vlwm.core.monitoring.formatting import terminal_glyphs

    glyphs = terminal_glyphs()
    if glyphs.ascii_only:
        return {"good": "ok", "warn": "warn", "bad": "FAIL"}[kind]
    return str(getattr(glyphs, kind))
