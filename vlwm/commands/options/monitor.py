"""Name the options of `vlwm monitor`."""

from __future__ import annotations

from typing import Annotated

import typer

Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN]...",
        help="Run folders (--work-dir of vlwm train), or folders that hold some. "
        "[./checkpoints, else the newest run below this folder]. The URL of a store that "
        "vlwm prepare fills shows its progress; that of a --backup shows the run.",
        show_default=False,
    ),
]
Once = Annotated[bool, typer.Option("--once", help="Print one snapshot and exit.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and exit.")]
Interval = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Refresh interval. [2; 10 without a terminal]",
        min=0.1,
        max=3600.0,
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for a run to begin.")]
AlertCmd = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND",
        help="Run this when the run turns bad, stalls or ends; it gets $VLWM_RUN, "
        "$VLWM_EVENT and $VLWM_MESSAGE.",
    ),
]
Ascii = Annotated[
    bool,
    typer.Option("--ascii", help="Use plain characters only. [if the locale is not UTF-8]"),
]
