"""Name the options of `vlwm download`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_WHAT, _PART, _FROM, _HOW = "What to download", "Only a part of it", "From where", "How to run"

Store = Annotated[
    str | None,
    typer.Argument(
        metavar="[URL]", help="A store of vlwm prepare --store: brought to --data-dir/NAME."
    ),
]
Everything = Annotated[
    bool,
    typer.Option(
        "--all",
        help="All that needs no registration, has a known size and fits the disk.",
        rich_help_panel=_WHAT,
    ),
]
Plateau = Annotated[
    bool, typer.Option("--plateau", help="PLATEAU city models.", rich_help_panel=_WHAT)
]
Models = Annotated[
    bool, typer.Option("--models", help="OccWorld's pretrained weights.", rich_help_panel=_WHAT)
]
Nuscenes = Annotated[
    bool,
    typer.Option("--nuscenes", help="nuScenes mini; trainval with --links.", rich_help_panel=_WHAT),
]
Uavscenes = Annotated[bool, typer.Option("--uavscenes", help="UAVScenes.", rich_help_panel=_WHAT)]
Tartanair = Annotated[bool, typer.Option("--tartanair", help="TartanAir.", rich_help_panel=_WHAT)]
Midair = Annotated[
    bool, typer.Option("--midair", help="Mid-Air, with --links.", rich_help_panel=_WHAT)
]
Ward = Annotated[
    list[str] | None,
    typer.Option(
        "--ward",
        metavar="CODE",
        help="Only these wards or cities, such as 13101.",
        rich_help_panel=_PART,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="FORMAT", help="obj, citygml or 3dtiles.", rich_help_panel=_PART
    ),
]
Scene = Annotated[
    list[str] | None,
    typer.Option("--scene", metavar="NAME", help="Only these of UAVScenes.", rich_help_panel=_PART),
]
Env = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME", help="Only these of TartanAir.", rich_help_panel=_PART),
]
Links = Annotated[
    Path | None,
    typer.Option(
        "--links",
        metavar="FILE",
        help="Text file with the links from a registration form, or an archive you have.",
        rich_help_panel=_FROM,
    ),
]
Catalog = Annotated[
    Path | None,
    typer.Option(
        "--catalog",
        metavar="FILE",
        help="Use another catalogue file (JSON, same format).",
        rich_help_panel=_FROM,
    ),
]
DataDir = Annotated[
    Path,
    typer.Option("--data-dir", metavar="DIR", help="Folder of all data.", rich_help_panel=_HOW),
]
List = Annotated[
    bool,
    typer.Option(
        "--list",
        help="List available datasets and exit.",
        rich_help_panel=_HOW,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Show sizes, disk space and time; download nothing.",
        rich_help_panel=_HOW,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=_HOW)
]
