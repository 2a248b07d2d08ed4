"""Save and restore every random state of a run, so that a resumed run draws the same numbers.

Loader workers have no state (a sample is a function of seed, epoch and index), so the states of
the training process are complete.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Return the random states of this process as tensors and plain values."""
    version, words, gauss = random.getstate()
    drawn = np.random.get_state(legacy=False)
    assert isinstance(drawn, dict)  # a tuple only where legacy
    # as tensors and numbers: a checkpoint holds no NumPy objects
    key = torch.from_numpy(drawn["state"]["key"].astype(np.int64))
    numpy = [key, int(drawn["state"]["pos"]), int(drawn["has_gauss"]), float(drawn["gauss"])]
    return {
        "python": [version, list(words), gauss],
        "numpy": numpy,
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Continue from `random_state`; with another number of GPUs theirs stay as they are."""
    version, words, cached = state["python"]
    random.setstate((version, tuple(words), cached))
    key, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", key.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    # a run may resume on another number of GPUs
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Restore the random states of the run afterwards, whatever is drawn inside."""
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)
