"""Name the options of `vlwm eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_WHAT, _OUT, _HOW = "What to evaluate", "Results", "How to run"

Run = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Run folder (best.pth, else last.pth), checkpoint file, exported folder or "
        "user/name on the Hub; several with --compare.  [default: checkpoints]",
        show_default=False,
    ),
]
Split = Annotated[str, typer.Option(help="train, val, test or all.", rich_help_panel=_WHAT)]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|URL",
        help="Evaluate on the sessions of this folder or store instead of the run's own.",
        rich_help_panel=_WHAT,
    ),
]
BaselinesOnly = Annotated[
    bool,
    typer.Option(
        "--baselines-only",
        rich_help_panel=_WHAT,
        help="Score only the non-learned baselines: needs --config, no checkpoint.",
    ),
]
Config = Annotated[
    str | None,
    typer.Option(help="Preset or config file, with --baselines-only.", rich_help_panel=_WHAT),
]
MaxWindows = Annotated[
    int,
    typer.Option(help="Windows at most, evenly spaced; 0 takes all.", min=0, rich_help_panel=_WHAT),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=_OUT)
]
Output = Annotated[
    Path | None,
    typer.Option(
        help="Folder of scores.json and charts (else the run folder).", rich_help_panel=_OUT
    ),
]
Picture = Annotated[
    Path | None,
    typer.Option(
        help="Draw one window as PNG here (else window.png next to scores.json).",
        rich_help_panel=_OUT,
    ),
]
Video = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Save a video of sample windows (.webm plays in browsers; .mp4).",
        rich_help_panel=_OUT,
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        help="Write report.html into this folder: one page with a 3-D view of windows.",
        rich_help_panel=_OUT,
    ),
]
Mcap = Annotated[
    Path | None,
    typer.Option(
        help="Write some windows as MCAP for Foxglove; needs vlwm[mcap].",
        rich_help_panel=_OUT,
    ),
]
Compare = Annotated[
    bool,
    typer.Option(
        "--compare",
        help="Compare several runs on the same windows with the first of them.",
        rich_help_panel=_WHAT,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(help="Windows that the model sees at once.", min=1, rich_help_panel=_HOW),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        help="Who scores windows: local, dask (workers here), dask://HOST:8786, dask+tls://HOST.",
        rich_help_panel=_HOW,
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        help="Processes that --engine dask starts here; 0 = one per core.",
        min=0,
        rich_help_panel=_HOW,
    ),
]
