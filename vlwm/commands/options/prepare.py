"""Name the options of `vlwm prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_CITY, _MADE, _RUN = "City models", "What is made", "How to run"

Input = Annotated[
    list[Path] | None,
    typer.Option(
        "--input",
        help="Folder or file of city models; may be given several times.",
        rich_help_panel=_CITY,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        help="Data folder; the config's data_root by default.",
        rich_help_panel=_MADE,
    ),
]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Write shards to file:// or s3:// instead; any number of machines may run this.",
        rich_help_panel=_MADE,
    ),
]
Npz = Annotated[
    bool | None,
    typer.Option(
        "--npz/--no-npz",
        help="Write npz and pose files as well as shards; by default up to 5 GB of them.",
        rich_help_panel=_MADE,
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="With --store: only every N-th session, from I = 0 to N-1.",
        rich_help_panel=_RUN,
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        help="With --store: local, dask (workers here), dask://HOST:8786 or dask+tls://HOST.",
        rich_help_panel=_RUN,
    ),
]
Config = Annotated[
    str,
    typer.Option("--config", help="Preset or file with the grid.", rich_help_panel=_MADE),
]
Frames = Annotated[
    int | None,
    typer.Option(
        "--frames", min=2, help="Frames of a session; default 500.", rich_help_panel=_MADE
    ),
]
Sessions = Annotated[
    int | None,
    typer.Option("--sessions", min=1, help="Sessions in all; default 10.", rich_help_panel=_MADE),
]
Agents = Annotated[
    str | None,
    typer.Option("--agents", help="drone, rover or both; default both.", rich_help_panel=_MADE),
]
Pattern = Annotated[
    list[str] | None,
    typer.Option(
        "--pattern",
        metavar="NAME,...",
        help="Routes, in rotation: random, survey, orbit, canyon, patrol, revisit; mix = all.",
        rich_help_panel=_MADE,
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Seed; default 42.", rich_help_panel=_MADE)
]
Fill = Annotated[
    str | None,
    typer.Option("--fill", help="surface or solid; default surface.", rich_help_panel=_CITY),
]
Lidar = Annotated[
    bool | None,
    typer.Option(
        "--lidar/--no-lidar",
        help="Write lidar scans, 1 MB a frame; default off.",
        rich_help_panel=_MADE,
    ),
]
Camera = Annotated[
    bool | None,
    typer.Option(
        "--camera/--no-camera",
        help="Write pictures, 900 x 1600; default off.",
        rich_help_panel=_MADE,
    ),
]
Observe = Annotated[
    str | None,
    typer.Option(
        "--observe",
        metavar="SENSOR",
        help="Write the cells that a sensor saw: lidar, HDL-32E, VLP-16, Livox, depth, none.",
        rich_help_panel=_MADE,
    ),
]
PoseNoise = Annotated[
    str | None,
    typer.Option(
        "--pose-noise",
        metavar="LEVEL",
        help="Errors of the believed poses: none, 5cm (0.1 degrees), 15cm (0.3 degrees).",
        rich_help_panel=_MADE,
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers", min=0, help="Number of processes (0 = all cores).", rich_help_panel=_RUN
    ),
]
Area = Annotated[
    str | None,
    typer.Option(
        "--area",
        metavar="MESH|LAT,LON,RADIUS",
        help="Only this part of the city.",
        rich_help_panel=_CITY,
    ),
]
Up = Annotated[
    str | None,
    typer.Option(
        "--up",
        metavar="AXIS",
        help="Axis of OBJ files that points up: x, y, z. Default: as their buildings show.",
        rich_help_panel=_CITY,
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(
        "--scale",
        metavar="METRES",
        help="Metres of one unit of OBJ files. Default: as their buildings show.",
        rich_help_panel=_CITY,
    ),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Stop at the first broken building.", rich_help_panel=_CITY),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a config key.", rich_help_panel=_MADE
    ),
]
Preview = Annotated[
    bool,
    typer.Option(
        "--preview",
        help="Draw a map and a contact sheet into the data folder.",
        rich_help_panel=_RUN,
    ),
]
PreviewFile = Annotated[
    Path | None,
    typer.Option(
        "--preview-file",
        metavar="FILE",
        help="Save the preview to this PNG file.",
        rich_help_panel=_RUN,
    ),
]
Card = Annotated[
    bool,
    typer.Option(
        "--card", help="Write README.md, a data set card for the Hub.", rich_help_panel=_RUN
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Read the input and print what would be made.", rich_help_panel=_RUN
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=_RUN)
]
