"""Describe where a checkpoint came from: versions, git revision, seed, data."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy
import torch

from vlwm.version import __version__


def identity(seed: int, data_hash: str, attribution: str = "") -> dict[str, Any]:
    """Return plain values for every checkpoint of a run.

    Args:
        attribution: of the training data, with its licence; it travels with the weights.
    """
    return {
        "seed": seed,
        "data_hash": data_hash,
        "attribution": attribution,
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


def git_revision() -> str | None:
    """Revision of the checkout that vlwm runs from; None where it is an installed copy."""
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
