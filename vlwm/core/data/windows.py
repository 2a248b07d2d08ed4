"""Windows: runs of past and future frames without a gap, each in one split or in none.

The frames of a window are half a second apart. A session that was recorded faster gives every n-th
frame; from one whose frames do not fall on that step no window is made, which is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.leaks import NOWHERE
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.splits import NAMES, Splits
from vlwm.core.errors import DataError

SPLITS = NAMES
STEP_S = 0.5
_STEP_TOLERANCE = 0.05


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
    store: PackedStore,
    splits: Splits,
    split: str,
    frames: int,
    *,
    stride: int = 1,
    step_s: float = STEP_S,
) -> list[Window]:
    """Return every window of `frames` frames that belongs to a split ('all': to any).

    A window belongs to a split only if each of its poses does; across a missing frame there is
    none.

    Args:
        stride: take every n-th window of a session.
        step_s: seconds between the frames of a window.

    Raises:
        DataError: the split holds no window, or a session's frames do not fall on the step.
    """
    wanted = SPLITS if split == "all" else (split,)
    labels = splits.labels(store)
    every = _whole_windows(store, frames, stride, step_s)
    found = [w for w in every if _split_of(w, labels) in wanted]
    if not found:
        raise DataError(
            f"the split {split!r} holds no window of {frames} frames",
            where=store.root,
            remedy="prepare more sessions or longer ones (vlwm prepare --sessions --frames)",
        )
    return found


def _split_of(window: Window, labels: NDArray[np.str_]) -> str:
    """Return the one split of all frames of a window, or 'none'."""
    label = labels[window.rows]
    return str(label[0]) if (label == label[0]).all() else NOWHERE


def _whole_windows(store: PackedStore, frames: int, stride: int, step_s: float) -> Iterator[Window]:
    """Yield the windows without a missing frame, session by session."""
    for index, (name, rows) in enumerate(store.session_rows()):
        every = _frames_per_step(store, index, step_s)
        numbers = store.frame[rows]
        row_of = np.full(numbers[-1] - numbers[0] + 1, -1)
        row_of[numbers - numbers[0]] = rows
        reach = (frames - 1) * every + 1
        for start in range(0, len(row_of) - reach + 1, stride):
            window = row_of[start : start + reach : every]
            if (window >= 0).all():
                yield Window(name, int(numbers[0]) + start, window)


def _frames_per_step(store: PackedStore, index: int, step_s: float) -> int:
    """Return the number of frames of a session in one step of a window.

    Raises:
        DataError: the frames do not fall on the step.
    """
    dt_s = float(store.meta[index].get("dt_s") or STEP_S)
    every = max(1, round(step_s / dt_s))
    if abs(every * dt_s - step_s) > _STEP_TOLERANCE * step_s:
        raise DataError(
            f"session {store.sessions[index]} has a frame every {dt_s:g} s, and windows step by "
            f"{step_s:g} s",
            where=store.root,
            remedy=f"record it at a whole fraction of {step_s:g} s, or take its folder away",
        )
    return every


def frame_rows(store: PackedStore, splits: Splits, split: str) -> NDArray[np.int64]:
    """Return the rows of all frames of a split, for the tokenizer."""
    labels = splits.labels(store)
    chosen = np.isin(labels, SPLITS) if split == "all" else labels == split
    return np.flatnonzero(chosen)
