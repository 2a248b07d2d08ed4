"""Name the options of `vlwm export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_HUB, _HOW = "On the Hub", "How to run"

Run = Annotated[
    Path, typer.Argument(help="Run folder (best.pth, else last.pth) or a checkpoint file.")
]
Out = Annotated[Path, typer.Argument(help="New folder of the exported model.")]
Licence = Annotated[
    str | None,
    typer.Option(
        help="Licence of the weights, where data or initial weights do not name theirs.",
        rich_help_panel=_HOW,
    ),
]
Onnx = Annotated[
    bool,
    typer.Option(
        "--onnx", help="Write ONNX graphs and their Python into OUT/onnx.", rich_help_panel=_HOW
    ),
]
Benchmark = Annotated[
    bool,
    typer.Option(
        "--benchmark",
        help="Add the run's data, splits, baselines and protocol.",
        rich_help_panel=_HOW,
    ),
]
PushToHub = Annotated[
    str | None,
    typer.Option(
        "--push-to-hub",
        help="Upload to this repository, user/name; created private where missing.",
        rich_help_panel=_HUB,
    ),
]
Public = Annotated[
    bool, typer.Option("--public", help="Create the repository public.", rich_help_panel=_HUB)
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Write the folder, show what would be uploaded.", rich_help_panel=_HUB
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=_HOW)
]
