"""`vlwm train --auto`: look at the machine, choose, and report the choice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlwm.core.cloud.checklist import Findings
    from vlwm.core.config.schema import Config
    from vlwm.core.training.options import TrainOptions
    from vlwm.core.training.startup.auto_config import Choice, Fixed

_SAID = ("gpu", "cpu", "shm", "disk")


def choose_for_this_machine(
    config: Config, options: TrainOptions, gpus: tuple[int, ...], fixed: Fixed, *, writes: bool
) -> Choice:
    """Choose what to train with on this machine.

    Args:
        gpus: numbers asked for by `--gpu-ids`.
        fixed: settings that the operator gave explicitly.
        writes: False for a dry run.

    Raises:
        MachineError: the machine cannot train.
        DataError: there is nothing to train on.
    """
    from vlwm.core.cloud.checklist import Question, quick_look
    from vlwm.core.errors import UsageError
    from vlwm.core.hardware.machine import Machine
    from vlwm.core.training.startup.auto_config import choose

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not fixed.batch:
        raise UsageError(
            "--auto chooses once for all processes",
            remedy="start them with --gpu-ids 0,1,… instead of a launcher, or give --batch-size",
        )
    question = Question(
        Machine(),
        Path(config.data_root),
        options.work_dir,
        offline=True,
        probe=writes,
        gpus=gpus,
    )
    found = quick_look(question)
    _refuse_an_unfit_machine(found)
    checks = tuple(f"{c.name}: {c.detail}" for c in found.checks if c.name in _SAID)
    return choose(config, options, found.advice, checks, fixed)


def _refuse_an_unfit_machine(found: Findings) -> None:
    """Raise on a broken driver, a full disk, or a torch that does not see the GPU."""
    from vlwm.commands.shared.output import mark, note
    from vlwm.core.errors import MachineError

    for check in found.checks:
        if check.status == "fail":
            raise MachineError(f"{check.name}: {check.detail}", remedy=check.fix)
        if check.status == "warn" and check.name not in ("gpu", "session"):
            note(
                f"{mark('warn')} {check.name}: {check.detail}"
                + (f": {check.fix}" if check.fix else "")
            )
    if found.advice.device == "cuda" and not _torch_reaches_a_gpu():
        raise MachineError(
            f"the {found.advice.gpu} is here, and torch does not reach it",
            remedy="vlwm setup tells why; CUDA_VISIBLE_DEVICES= vlwm train --auto uses the CPU",
        )


def _torch_reaches_a_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
