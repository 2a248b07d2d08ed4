"""Count a run's progress, hold its stage's settings, and time it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from vlwm.core.config.schema import Config
from vlwm.core.vocabulary import Stage

T = TypeVar("T")


@dataclass
class Progress:
    """Counters of the run; part of every checkpoint."""

    epoch: int = 0
    """epochs finished, validation included"""
    sample: int = 0
    """samples of the running epoch that are done"""
    step: int = 0
    """steps done in all"""
    best: float | None = None
    """the task's merit of the best validation so far"""
    lr_factor: float = 1.0
    """product of the factors of all roll-backs"""
    rollbacks: int = 0
    """roll-backs so far"""


@dataclass(frozen=True)
class StageSettings:
    """Settings of one stage."""

    epochs: int
    batch_size: int
    """samples of a global batch, all processes together"""
    lr: float

    @classmethod
    def of(cls, config: Config, stage: Stage, processes: int = 1) -> StageSettings:
        """Return the settings of a stage; stage 1 has its own epochs, rate and batch."""
        # a batch is of one process; the loop counts global ones
        own = config.tokenizer
        if stage == Stage.TOKENIZER:
            return cls(own.max_epochs, own.samples_per_gpu * processes, own.lr)
        batch = config.data.samples_per_gpu * processes
        return cls(config.max_epochs, batch, config.optimizer.lr)


class Clock:
    """Measures throughput and the loader's share, and estimates the time left."""

    def __init__(self) -> None:
        now = time.perf_counter()
        self._since, self._waited, self._samples = now, 0.0, 0
        self._saved = now
        self._steps = 0
        self._first: float | None = None
        self._validating: float | None = None
        self._validation_s = 0.0  # of the last one
        self._validated_s = 0.0  # of all

    def waits(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches, timing the wait for each.

        The first one of an epoch starts the workers and is not counted.
        """
        iterator = iter(batches)
        first = True
        while True:
            asked = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            waited = time.perf_counter() - asked
            # the start of workers does not mean a slow loader
            if first:
                self._since += waited
            else:
                self._waited += waited
            first = False
            yield batch

    def step_done(self, samples: int) -> None:
        """Count one step."""
        self._samples += samples
        if self._first is None:  # compilation and warm-up belong to the first step
            self._first = time.perf_counter()
        else:
            self._steps += 1

    def rates(self) -> tuple[float, float]:
        """Return samples per second and the loader's share of the time, since the last call."""
        now = time.perf_counter()
        # never zero: two log lines may follow at once
        elapsed = max(now - self._since, 1e-9)
        rates = self._samples / elapsed, self._waited / elapsed
        self._since, self._waited, self._samples = now, 0.0, 0
        return rates

    @contextmanager
    def validation(self) -> Iterator[None]:
        """Time a validation, and keep it out of the pace of training."""
        self._validating = begun = time.perf_counter()
        try:
            yield
        finally:
            self._validating, self._validation_s = None, time.perf_counter() - begun
            self._validated_s += self._validation_s
            # moves the start of the running interval: samples per second are of training alone
            self._since += self._validation_s

    def eta_s(self, steps_left: int, validations_left: int) -> float | None:
        """Return the estimated seconds left, or None.

        None before the second step, and when only the first validation remains: its duration is
        unknown. Later validations are assumed to last as long as the last one.
        """
        if self._first is None or self._steps == 0:
            return None
        if not steps_left and validations_left and not self._validation_s:
            return None
        # a running validation is left out of the pace, and its elapsed part out of the rest
        now = time.perf_counter()
        running_s = 0.0 if self._validating is None else now - self._validating
        pace_s = (now - self._first - self._validated_s - running_s) / self._steps
        validating_s = validations_left * self._validation_s - running_s
        return steps_left * pace_s + max(0.0, validating_s)

    def saved(self) -> None:
        """Note that a checkpoint was written now."""
        self._saved = time.perf_counter()

    def since_save_s(self) -> float:
        """Return the seconds since the last checkpoint."""
        return time.perf_counter() - self._saved
