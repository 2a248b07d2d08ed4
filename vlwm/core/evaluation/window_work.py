"""Score windows as the tasks of an engine: some windows at a time, in any process.

`WindowWork` can be pickled: a worker opens the run and its data once, and counts come back. Counts
are added up in the order of the windows, so the engine changes no score.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from vlwm.core.data.batch import Batch, collate
from vlwm.core.data.datasets import WindowDataset, layers_of_task
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.windows import Window
from vlwm.core.engines import Engine, LocalEngine, in_order
from vlwm.core.errors import DataError, MachineError
from vlwm.core.evaluation.accumulators import Tally
from vlwm.core.evaluation.clusters import cluster_of
from vlwm.core.evaluation.column_prior import ColumnPrior
from vlwm.core.evaluation.window_scorer import WindowScorer
from vlwm.core.files import sha256_file

Part = tuple[int, int]
"""first window, and the one after the last"""
Progress = Callable[[int, int], None]
"""Called with (windows scored, windows in all) after every batch; may raise to stop."""


@dataclass(frozen=True)
class Subject:
    """A model or the baselines alone, the windows they are scored on, and the data.

    Attributes:
        store: packed frames.
        windows: the windows of the split, evenly thinned where a limit was given.
        available: windows of the split before thinning.
        prior: column prior of the train split.
        scorer: every method on this grid.
        device: where it computes.
        observed: the past is what a sensor saw.
    """

    store: PackedStore
    windows: list[Window]
    available: int
    prior: ColumnPrior
    scorer: WindowScorer
    device: torch.device
    observed: bool = False

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the windows in order, on the device, never mirrored."""
        for start in range(0, len(self.windows), size):
            yield self.batch(range(start, min(start + size, len(self.windows))))

    def batch(self, indices: Sequence[int]) -> Batch:
        """Return some windows on the device."""
        history = self.scorer.history
        layers = layers_of_task(self.store, semantic=self.scorer.free_class is not None)
        data = WindowDataset(
            self.store, self.windows, history, observed=self.observed, layers=layers
        )
        return collate([data[0, i] for i in indices]).to(self.device)

    def cluster_of(self, index: int) -> Hashable:
        """Return the cluster of a window (`clusters.cluster_of`)."""
        return cluster_of(self.store, self.windows[index], self.scorer.history)


class OpenedRun(Protocol):
    """A run that is open with its data (`load.Opened`)."""

    @property
    def subject(self) -> Subject:
        """The windows and the model that are scored."""

    @property
    def checkpoint(self) -> Path | None:
        """Its file; None for the baselines alone."""


_held: dict[str, Subject] = {}
_holding = threading.Lock()


@dataclass(frozen=True)
class Scored:
    """Counts of some windows.

    Attributes:
        part: the windows.
        tally: their counts.
    """

    part: Part
    tally: Tally


def score_part(subject: Subject, part: Part) -> Scored:
    """Count some windows of a subject, all in one batch.

    Raises:
        MachineError: the memory of the device does not hold them.
    """
    tally, indices = subject.scorer.new_tally(), range(*part)
    try:
        clusters = [subject.cluster_of(i) for i in indices]
        subject.scorer.add(subject.batch(indices), clusters, tally)
    except torch.OutOfMemoryError as error:
        raise MachineError(
            f"the memory of {subject.device} does not hold {len(indices)} windows",
            remedy="use a smaller --batch-size" if len(indices) > 1 else "use a smaller grid",
        ) from error
    return Scored(part, tally)


@dataclass(frozen=True)
class WindowWork:
    """Counts windows in any process that reaches the run and its data.

    Attributes:
        name: of the run, as the operator gave it.
        open: opens the run with its data.
        windows: number of windows that the first process chose.
        data_hash: of its data.
        checkpoint: SHA-256 of its checkpoint; None without one.
    """

    name: str
    open: Callable[[], OpenedRun]
    windows: int
    data_hash: str
    checkpoint: str | None

    def __call__(self, part: Part) -> Scored:
        """Count some windows."""
        return score_part(self._subject(), part)

    def _subject(self) -> Subject:
        """Return what this process has opened; it is opened once.

        Raises:
            DataError: the run or its data differ from those of the first process.
        """
        key = f"{self.name} {self.data_hash} {self.checkpoint} {self.windows}"
        with _holding:
            if key not in _held:
                _held.clear()  # one run at a time: models are large
                opened = self.open()
                mine = fingerprint(opened)
                if mine != (self.windows, self.data_hash, self.checkpoint):
                    raise DataError(
                        f"a worker has another run or other data under the name {self.name}",
                        remedy="put the run and its data at the same paths on all machines, or "
                        "give --data URL",
                    )
                _held[key] = opened.subject
            return _held[key]


def fingerprint(opened: OpenedRun) -> tuple[int, str, str | None]:
    """Return (windows, hash of the data, SHA-256 of the checkpoint), which tell runs apart."""
    file = opened.checkpoint
    subject = opened.subject
    digest = None if file is None else sha256_file(file)
    return len(subject.windows), subject.store.data_hash, digest


def tally_windows(
    subject: Subject,
    batch_size: int = 1,
    progress: Progress | None = None,
    engine: Engine | None = None,
    work: Callable[[Part], Scored] | None = None,
) -> Tally:
    """Return the counts of every window of a subject.

    Args:
        batch_size: windows that the model sees at once.
        engine: runs the batches; None: this process.
        work: counts a batch where the engine has other processes; None: with this subject.

    Raises:
        MachineError: the device's memory does not hold a batch, or the engine was lost.
    """
    total, tally, done = len(subject.windows), subject.scorer.new_tally(), 0
    parts = [(start, min(start + batch_size, total)) for start in range(0, total, batch_size)]
    results = (engine or LocalEngine()).run(work or partial(score_part, subject), parts)
    for scored in in_order(results, parts, lambda found: found.part):
        tally.merge(scored.tally)
        done = scored.part[1]
        if progress is not None:
            progress(done, total)
    return tally
