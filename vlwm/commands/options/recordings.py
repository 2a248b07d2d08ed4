"""The options of `vlwm prepare` for recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_PANEL = "Recordings"

Points = Annotated[
    Path | None,
    typer.Option(
        "--points",
        metavar="DIR|CSV|BAG",
        help="Point files named by time, a CSV file time,file, or a ROS bag.",
        rich_help_panel=_PANEL,
    ),
]
Poses = Annotated[
    Path | None,
    typer.Option("--poses", help="Poses: TUM, KITTI, CSV or PX4 .ulg.", rich_help_panel=_PANEL),
]
Extrinsic = Annotated[
    Path | None,
    typer.Option(
        "--extrinsic", help="Sensor to body: YAML, JSON or a 4x4 matrix.", rich_help_panel=_PANEL
    ),
]
PosesOf = Annotated[
    str,
    typer.Option(
        "--poses-of", metavar="body|sensor", help="Whose poses they are.", rich_help_panel=_PANEL
    ),
]
AxesOption = Annotated[
    str | None,
    typer.Option(
        "--axes",
        metavar="enu|ned|camera",
        help="Axes of the poses; default enu, z up.",
        rich_help_panel=_PANEL,
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="Read the data set in --input: rosbag, nuscenes, tartanair, uavscenes, kitti, "
        "midair, argoverse2.",
        rich_help_panel=_PANEL,
    ),
]
Rate = Annotated[
    float,
    typer.Option(
        "--rate",
        min=0.1,
        metavar="HZ",
        help="Frames a second of a recorded session.",
        rich_help_panel=_PANEL,
    ),
]
Window = Annotated[
    float,
    typer.Option(
        "--window",
        min=0.0,
        max=10.0,
        metavar="SECONDS",
        help="Scans this long before and after a frame are accumulated.",
        rich_help_panel=_PANEL,
    ),
]
Delay = Annotated[
    float,
    typer.Option(
        "--lidar-delay",
        metavar="SECONDS",
        help="Added to the times of the scans.",
        rich_help_panel=_PANEL,
    ),
]
KeepMoving = Annotated[
    bool,
    typer.Option(
        "--keep-moving",
        help="Keep points that later scans look through.",
        rich_help_panel=_PANEL,
    ),
]
TopicPoints = Annotated[
    str | None,
    typer.Option(
        "--topic-points", metavar="TOPIC", help="Points of a bag.", rich_help_panel=_PANEL
    ),
]
TopicPose = Annotated[
    str | None,
    typer.Option("--topic-pose", metavar="TOPIC", help="Poses of a bag.", rich_help_panel=_PANEL),
]
BodyFrame = Annotated[
    str | None,
    typer.Option(
        "--body-frame",
        metavar="FRAME",
        help="Body of the vehicle in the TF tree of a bag.",
        rich_help_panel=_PANEL,
    ),
]

Check = Annotated[
    Path | None,
    typer.Option(
        "--check",
        metavar="DIR",
        help="Check the sessions of a data folder, or one session; --strict exits with 4.",
        rich_help_panel=_PANEL,
    ),
]
