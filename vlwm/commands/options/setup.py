"""Name the options of `vlwm setup`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_LOOK, _MEND, _OUT = "What to look at", "Fixes", "Results"

DataDir = Annotated[
    Path,
    typer.Option(metavar="DIR", help="Where datasets will be stored.", rich_help_panel=_LOOK),
]
WorkDir = Annotated[
    Path, typer.Option(metavar="DIR", help="Run folder of vlwm train.", rich_help_panel=_LOOK)
]
Offline = Annotated[
    bool,
    typer.Option("--offline", help="Skip network checks.", rich_help_panel=_LOOK),
]
Fix = Annotated[
    bool,
    typer.Option(
        "--fix", help="Fix problems automatically; asks before each one.", rich_help_panel=_MEND
    ),
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="With --fix: do not ask.", rich_help_panel=_MEND)
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Show what --fix would run, without running it.",
        rich_help_panel=_MEND,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=_OUT)
]
Ascii = Annotated[
    bool,
    typer.Option(
        "--ascii", help="Plain characters. [if the locale is not UTF-8]", rich_help_panel=_OUT
    ),
]
Root = Annotated[Path, typer.Option("--root", hidden=True, help="Folder used as /.")]
