"""Define the options of a run that are not in its config, and its result."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlwm.core.errors import UsageError
from vlwm.core.vocabulary import Stage

BOTH = "both"
STAGES = (BOTH, *(str(stage) for stage in Stage))
"""choices of `--stage`"""


def from_here() -> str:
    """Return the beginning of a command line that makes its relative paths right anywhere."""
    return f"cd {shlex.quote(os.getcwd())} && "


@dataclass(frozen=True)
class WandbOptions:
    """Options of Weights & Biases."""

    project: str = "occworld-tokyo"
    run_name: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Auto:
    """Choices of `--auto` that the run needs: its reasons, and the first microbatch to try."""

    paragraph: str
    """what was chosen and why"""
    microbatch: int | None = None
    """windows in a backward pass that the VRAM table grants; None for the whole batch"""


@dataclass(frozen=True)
class TrainOptions:
    """Options of a run; the config defines what to train."""

    work_dir: Path = Path("checkpoints")
    """the run folder"""
    stage: str = BOTH
    """'tokenizer', 'world' or 'both'"""
    resume: bool = False
    """resume from the newest checkpoint of the run folder"""
    resume_from: Path | None = None
    """resume from this checkpoint"""
    new_run: bool = False
    """start a new run; what the run folder holds is moved aside"""
    auto: Auto | None = None
    """prepare city models, try the batch before training; None without `--auto`"""
    from_scratch: bool = False
    """do without the weights that the config names"""
    eval_only: bool = False
    """only evaluate the best checkpoint of the run folder"""
    gpu_id: int | None = None
    """GPU asked for; None takes the first one, or the CPU where there is none"""
    compile: bool = False
    """compile the networks before training"""
    wandb: WandbOptions | None = None
    """log to Weights & Biases"""
    price_per_h: float | None = None
    """what an hour of this machine costs, for the cost so far and to come"""
    links: Mapping[str, str] = field(default_factory=dict)
    """name -> address or command of pages about the run, for the dashboard"""
    command: str = "vlwm train"
    """the command line, for the sentence that tells how to resume"""

    def trains(self, stage: Stage) -> bool:
        """Return True if a stage is asked for."""
        return self.stage in (BOTH, stage)

    def after(self, folder: Path) -> str:
        """Return what to type when the run in a folder is done; it works in any folder."""
        path = folder.absolute()
        if self.stage != Stage.TOKENIZER:
            return shlex.join(["vlwm", "eval", str(path), "--video", str(path / "forecast.webm")])
        words = [word for word in shlex.split(self.command) if word != "--resume"]
        text = shlex.join(words).replace("--stage tokenizer", "--stage world")
        return f"{from_here()}{text.replace('--stage=tokenizer', '--stage=world')}"

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise UsageError(
                f"--stage {self.stage} is unknown", remedy=f"use one of {', '.join(STAGES)}"
            )
        if self.new_run and (self.resume or self.resume_from is not None):
            raise UsageError(
                "use either --no-resume or --resume-from (or --resume), not both",
                remedy="leave one of them out",
            )


@dataclass(frozen=True)
class TrainResult:
    """Result of a finished run."""

    work_dir: Path
    checkpoint: Path
    """the one to use: lowest validation loss"""
    scores: dict[str, Any] | None
    """score sheet of the test split; None after --stage tokenizer, or where the split is empty"""
    notes: tuple[str, ...] = ()
    """what an operator should know, a sentence each"""
