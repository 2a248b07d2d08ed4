"""Try a few real steps for `--auto`: a stage runs here, and how large may a microbatch be?

Two steps (forward, backward, optimizer) on the first batch and one batch of validation, then
everything is put back: weights, moments, random states, counters. A probed run is bit for bit the
one that starts with the microbatch found. The global batch never changes.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlwm.core.training.loop.progress import StageSettings
from vlwm.core.training.loop.reporter import memory_gb
from vlwm.core.training.loop.stepper import Stepper
from vlwm.core.training.loop.task import MemoryShort, Samples
from vlwm.core.training.loop.train_state import RunState
from vlwm.core.training.runtime.stop_signal import StopRequested, StopSignal

log = logging.getLogger("vlwm.training")


class _Enough(Exception):
    """One batch of validation was evaluated: enough for a probe."""


@dataclass(frozen=True)
class Probed:
    """Result of a probe."""

    microbatch: int
    """samples in a backward pass that fit"""
    step_s: float
    """seconds of one step"""
    memory_gb: float
    """largest memory use"""


def probe(
    state: RunState,
    settings: StageSettings,
    stop: StopSignal,
    first: int,
    *,
    grow: bool,
    every_shape: bool = False,
) -> Probed:
    """Try the stage; only the stepper's microbatch is different afterwards.

    Args:
        state: of a stage that has not begun its next step.
        settings: of the stage.
        stop: leave when a signal comes.
        first: first microbatch to try.
        grow: double it while it fits; a resumed run keeps its own if it fits.
        every_shape: try the last batch of an epoch and the whole validation too, so that every
            shape is compiled.

    Raises:
        StopRequested: a signal came; nothing is changed.
        TrainingError: a single sample does not fit into memory.
    """
    # a copy on the host: the steps below change the tensors that the state dict refers to
    before = _on_host(state.content())
    device = state.stepper.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    microbatch = first
    try:
        step_s = _try_steps(state, settings, stop, first, grow=grow)
        if every_shape:
            _try_last_batch(state, settings, stop)
        _try_validation(state, stop, whole=every_shape)
        microbatch = state.stepper.microbatch
    finally:
        state.stepper.optimizer.zero_grad(set_to_none=True)
        # weights, moments, counters and random states as before the probe
        state.restore(before, "the probe's own copy")
        state.stepper.microbatch = microbatch
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return Probed(microbatch, step_s, memory_gb(device))


def _try_steps(
    state: RunState, settings: StageSettings, stop: StopSignal, first: int, *, grow: bool
) -> float:
    """Step on one batch, with a larger microbatch while it fits; return the last step's seconds."""
    stepper, at = state.stepper, state.at
    batch = next(iter(state.task.batches(at.epoch, at.sample)))
    # the share of this process decides: it is the most that one pass can hold
    samples = min(settings.batch_size, state.task.samples() - at.sample)
    share = stepper.ranks.largest_piece(samples)
    stepper.microbatch = max(1, min(first, share))
    state.task.module.train()
    _step(stepper, batch, at.step, samples, stop)
    # double while it fits: the stepper halves by itself where memory runs out
    while grow and stepper.microbatch < share:
        proven = stepper.microbatch
        stepper.microbatch = min(2 * proven, share)
        _step(stepper, batch, at.step, samples, stop)
        if stepper.microbatch <= proven:
            stepper.microbatch = proven
            break
    return _step(stepper, batch, at.step, samples, stop)


def _try_last_batch(state: RunState, settings: StageSettings, stop: StopSignal) -> None:
    """Take a step of the few samples that are left at the end of an epoch."""
    at, samples = state.at, state.task.samples()
    # samples of the short last batch
    left = samples % settings.batch_size
    if left:
        batch = next(iter(state.task.batches(at.epoch, samples - left)))
        _step(state.stepper, batch, at.step, left, stop)


def _step(stepper: Stepper, batch: Samples, number: int, samples: int, stop: StopSignal) -> float:
    """Take one step with all of its waiting; return its seconds."""
    started = time.perf_counter()
    stepper(batch, number, samples)
    # steps are asynchronous: without waiting only the launch would be timed
    if stepper.device.type == "cuda":
        torch.cuda.synchronize(stepper.device)
    if stepper.ranks.any(bool(stop))[0]:
        raise StopRequested
    return time.perf_counter() - started


def _try_validation(state: RunState, stop: StopSignal, *, whole: bool) -> None:
    """Evaluate one batch, or all; halve a microbatch that is too large for it."""
    stepper = state.stepper

    def pause(full: bool) -> None:
        stopped, short = stepper.ranks.any(bool(stop), full)
        if stopped:
            raise StopRequested
        if short:
            raise MemoryShort
        if not whole:
            raise _Enough

    state.task.module.eval()
    with torch.no_grad():
        while True:
            try:
                state.task.validate(pause, stepper.microbatch)
                return
            except _Enough:
                return
            except MemoryShort:
                # validation needs more memory than a step: halve and try again
                stepper.shrink(stepper.microbatch)


def _on_host(value: Any) -> Any:
    """Return a deep copy with every tensor on the host."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _on_host(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_on_host(part) for part in value)
    return value
