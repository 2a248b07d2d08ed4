"""Name the options of `vlwm train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_OUT, _LOG, _RUN = "What to train", "Logging", "How to run"

Config = Annotated[str, typer.Option(help="Preset or config file.", rich_help_panel=_OUT)]
WorkDir = Annotated[
    Path, typer.Option(help="Run folder: checkpoints, logs, scores.", rich_help_panel=_OUT)
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|URL",
        help="Folder or store (s3://, hf://) of the sessions, instead of the config's.",
        rich_help_panel=_OUT,
    ),
]
Stage = Annotated[
    str,
    typer.Option(help="tokenizer, world, or both in turn.", rich_help_panel=_OUT),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        help="Batch size per GPU (windows; frames with --stage tokenizer). [config]",
        min=1,
        rich_help_panel=_OUT,
    ),
]
Lr = Annotated[
    float | None, typer.Option(help="Peak learning rate. [config]", rich_help_panel=_OUT)
]
Epochs = Annotated[int | None, typer.Option(help="Epochs. [config]", min=1, rich_help_panel=_OUT)]
Seed = Annotated[int | None, typer.Option(help="Random seed. [config: 42]", rich_help_panel=_OUT)]
FromScratch = Annotated[
    bool,
    typer.Option("--from-scratch", help="Without pretrained weights.", rich_help_panel=_OUT),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        rich_help_panel=_OUT,
        help="Change any key of the config, such as optimizer.lr=5e-5.",
    ),
]
Auto = Annotated[
    bool,
    typer.Option(
        "--auto",
        help="Choose batch size, precision and workers for this machine; prepare data; "
        "resume; explain choices.",
        rich_help_panel=_RUN,
    ),
]
Resume = Annotated[
    bool | None,
    typer.Option(
        "--resume/--no-resume",
        help="Resume from the newest checkpoint, or start over (the old run is kept).",
        rich_help_panel=_RUN,
        show_default=False,
    ),
]
ResumeFrom = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Resume from this checkpoint.", rich_help_panel=_RUN),
]
Keep = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Keep the newest N of epoch_*.pth; -1 keeps all. [config]",
        min=-1,
        rich_help_panel=_RUN,
    ),
]
EvalOnly = Annotated[
    bool,
    typer.Option(
        "--eval-only",
        help="Only evaluate the best checkpoint in --work-dir.",
        rich_help_panel=_RUN,
    ),
]
GpuIds = Annotated[
    str | None,
    typer.Option(
        metavar="IDS",
        help="GPUs, comma-separated; several train together. [0]",
        rich_help_panel=_RUN,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Data-loading processes (results do not change). [config]",
        min=0,
        rich_help_panel=_RUN,
    ),
]
Amp = Annotated[
    bool | None,
    typer.Option("--amp/--no-amp", help="Mixed precision on a GPU. [config]", rich_help_panel=_RUN),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile/--no-compile", help="Compile the networks first.", rich_help_panel=_RUN
    ),
]
Wandb = Annotated[
    bool,
    typer.Option(
        "--wandb",
        help="Log to Weights & Biases; offline without a login.",
        rich_help_panel=_LOG,
    ),
]
WandbProject = Annotated[str, typer.Option(help="W&B project.", rich_help_panel=_LOG)]
WandbRunName = Annotated[str | None, typer.Option(help="W&B run name.", rich_help_panel=_LOG)]
WandbTags = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TAG [TAG]", help="W&B tags: a b, or a,b, or repeated.", rich_help_panel=_LOG
    ),
]
Live = Annotated[
    bool | None,
    typer.Option(
        "--live/--no-live",
        help="Draw the dashboard in this terminal, or print log lines. [live in a terminal]",
        rich_help_panel=_LOG,
        show_default=False,
    ),
]
Price = Annotated[
    float | None,
    typer.Option(
        metavar="DOLLARS",
        help="Price of this machine per hour: shows the cost so far and to the end.",
        min=0.0,
        rich_help_panel=_LOG,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the plan; write nothing.", rich_help_panel=_RUN),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=_RUN)
]
More = Annotated[list[str] | None, typer.Argument(hidden=True, metavar="TAG")]
