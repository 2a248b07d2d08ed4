"""Windows: runs of past and future frames without a gap, each in one split or in none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.packed import PackedStore
from vlwm.core.data.splits import Splits
from vlwm.core.errors import DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Window:
    """Rows of the store that follow each other in time.

    Attributes:
        session: name of the session.
        start: number of the first frame in its session.
        rows: int64 (F,), rows of the store.
    """

    session: str
    start: int
    rows: NDArray[np.int64]


def windows_of(
    store: PackedStore, splits: Splits, split: str, frames: int, *, stride: int = 1
) -> list[Window]:
    """Every window of `frames` frames that belongs to a split ('all': to any).

    A window belongs to a split only if each of its poses does; across a missing frame there is
    none.

    Raises:
        DataError: the split holds no window.
    """
    found: list[Window] = []
    labels = splits.labels(store)
    wanted = SPLITS if split == "all" else (split,)
    for name, rows in store.session_rows():
        numbers = store.frame[rows]
        for i in range(0, len(rows) - frames + 1, stride):
            part = slice(i, i + frames)
            whole = numbers[i + frames - 1] - numbers[i] == frames - 1
            inside = labels[rows[i]] in wanted and (labels[rows[part]] == labels[rows[i]]).all()
            if whole and inside:
                found.append(Window(name, int(numbers[i]), rows[part]))
    if not found:
        raise DataError(
            f"the split {split!r} holds no window of {frames} frames",
            where=store.root,
            remedy="prepare more sessions or longer ones (vlwm prepare --sessions --frames)",
        )
    return found


def frame_rows(store: PackedStore, splits: Splits, split: str) -> NDArray[np.int64]:
    """Rows of all frames of a split, for the tokenizer."""
    labels = splits.labels(store)
    chosen = np.isin(labels, SPLITS) if split == "all" else labels == split
    return np.flatnonzero(chosen)
