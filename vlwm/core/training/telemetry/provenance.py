"""Describe where a checkpoint came from: versions, git revision, seed, data."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy
import torch

from vlwm.core.config.schema import Config
from vlwm.core.errors import CheckpointError
from vlwm.core.model.checkpoint import load_checkpoint
from vlwm.version import __version__

_OCCWORLD = "initial weights of OccWorld, trained on nuScenes, CC BY-NC-SA 4.0"


def identity(
    seed: int,
    data_hash: str,
    attribution: str = "",
    initial_weights: str = "",
    *,
    unknown_cells: bool = False,
) -> dict[str, Any]:
    """Return plain values for every checkpoint of a run.

    Args:
        attribution: of the training data, with its licence; it travels with the weights.
        initial_weights: file that the weights began from; "" where they began fresh.
        unknown_cells: frames of the training data say which of their cells are known.
    """
    return {
        "seed": seed,
        "data_hash": data_hash,
        "attribution": attribution,
        "initial_weights": initial_weights,
        "unknown_cells": unknown_cells,
        "versions": {
            "vlwm": __version__,
            "git": git_revision(),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": str(numpy.__version__),
            "cuda": torch.version.cuda,
        },
    }


def non_commercial(attribution: str) -> bool:
    """Return True where the training data, and so the weights, are for non-commercial use."""
    return "-NC" in attribution.upper() or "non-commercial" in attribution.lower()


def attribution_with(data: str, config: Config, *, from_scratch: bool) -> str:
    """Return the attribution of the training data and of the initial weights, if there are any."""
    path = config.load_from
    if path is None or from_scratch or not Path(path).exists():
        return data
    weights = _OCCWORLD if "occworld" in path.lower() else _attribution_of(Path(path))
    return "; ".join(dict.fromkeys(part for part in (data, weights) if part))


def _attribution_of(checkpoint: Path) -> str:
    """Return what a checkpoint of ours was trained on; nothing for other files."""
    try:
        return str(load_checkpoint(checkpoint).get("attribution") or "")
    except CheckpointError:
        return ""


def git_revision() -> str | None:
    """Return the revision of the checkout that vlwm runs from; None for an installed copy."""
    # the repository, if vlwm was installed with `pip install -e`
    root = Path(__file__).parents[4]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=root, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
