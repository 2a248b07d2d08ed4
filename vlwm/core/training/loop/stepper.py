"""Take one optimizer step over a global batch, in as many microbatches as memory needs.

Losses are means over samples, so the gradients of microbatches, and of the shares of several
processes, add up to the global batch's. A process that replaces several of the run's start adds up
their gradients piece by piece, in the same order. When memory runs out in any process, all halve
the microbatch and repeat the whole step from the same random state, so the run is the same as one
that started with the smaller microbatch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from vlwm.core.config.schema import GradClipConfig
from vlwm.core.data.sampler import share_cuts
from vlwm.core.errors import TrainingError
from vlwm.core.model.loss_report import LossReport
from vlwm.core.training.loop.optimizer import clip_gradients, guarded_step
from vlwm.core.training.loop.task import B, Samples, StepTask, batch_part, batch_size, microbatches
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.telemetry.meter import Numbers, merge

log = logging.getLogger("vlwm.training")

_CELLS_AT_ONCE = 5_000_000
"""cells of one frame of the full grid"""


@dataclass(frozen=True)
class StepResult:
    """Result of one step, on the device."""

    numbers: Numbers
    """loss, its parts, statistics and gradient norm"""
    skipped: Tensor
    """boolean scalar: loss or gradients were not finite, nothing was changed"""
    fault: Tensor
    """boolean scalar: skipped, and not only because fp16 was looking for its scale"""


def autocast_type(amp: bool, device: torch.device) -> torch.dtype | None:
    """Return bf16 from compute capability 8.0, else fp16; None on a CPU or without `amp`."""
    if not amp or device.type != "cuda":
        return None
    major, _ = torch.cuda.get_device_capability(device)
    return torch.bfloat16 if major >= 8 else torch.float16


def first_microbatch(device: torch.device, share: int, cells: int) -> int:
    """Return the samples of a backward pass to start with.

    A GPU takes all at once. A CPU gains nothing from more samples than keep its cores busy, and
    one sample at a time needs the memory of one.

    Args:
        share: of a global batch, that this process has.
        cells: of a frame.
    """
    if device.type != "cpu":
        return max(1, share)
    return max(1, min(share, _CELLS_AT_ONCE // cells))


class Stepper:
    """Runs steps of a task.

    Args:
        task: what is trained.
        optimizer: over the task's trainable parameters.
        clip: gradient clipping.
        device: where the batches go.
        precision: autocast type, or None for float32.
        microbatch: samples per backward pass at most; halved when memory runs out.
        ranks: the processes that share each batch.
        parameters: those of the optimizer, in the order in which the norm of their gradients is
            summed; None takes the order of the optimizer's groups.
    """

    def __init__(
        self,
        task: StepTask,
        optimizer: AdamW,
        clip: GradClipConfig,
        device: torch.device,
        precision: torch.dtype | None,
        microbatch: int,
        ranks: Ranks | None = None,
        parameters: Sequence[nn.Parameter] | None = None,
    ) -> None:
        self.task = task
        self.optimizer = optimizer
        self.clip = clip
        self.device = device
        self.precision = precision
        self.microbatch = microbatch
        self.ranks = Ranks() if ranks is None else ranks
        self._names: tuple[str, ...] = ()
        grouped = [p for group in optimizer.param_groups for p in group["params"]]
        self.parameters = grouped if parameters is None else list(parameters)
        # only fp16 needs a scaler: bf16 has the exponents of float32
        half = precision == torch.float16
        self.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**13, enabled=half)

    def __call__(self, batch: Samples, step: int, samples: int) -> StepResult:
        """Take one step.

        Args:
            batch: this process's share, a dataclass of tensors with `.to(device)`; None where
                there are fewer samples than processes.
            step: its number.
            samples: of the global batch.

        Raises:
            TrainingError: a single sample does not fit into memory.
        """
        # a repeated step must draw the same numbers as one that fits at once
        before = _device_random_state(self.device)
        while True:
            numbers, full = self._accumulate(batch, step, samples)
            # all processes repeat a step that did not fit in one of them
            if not self.ranks.any(full)[0]:
                return self._apply(numbers)
            self.shrink(self.ranks.largest_piece(samples))
            _restore_device_random_state(before, self.device)

    def _accumulate(self, batch: Samples, step: int, samples: int) -> tuple[Numbers, bool]:
        """Add up the gradients of this process's share; return True if memory ran out."""
        self.task.begin_step(step)
        self.optimizer.zero_grad(set_to_none=True)
        numbers: Numbers = {}
        earlier: list[Tensor | None] | None = None
        try:
            for piece in self._pieces(batch, samples):
                if earlier is not None:  # the next piece begins from zero, as its process did
                    self.optimizer.zero_grad(set_to_none=True)
                for part in microbatches(piece, self.microbatch):
                    # weighted by samples: microbatches add up to the mean over the global batch
                    share = batch_size(part) / samples
                    report = self._backward_by_terms(part.to(self.device), step, share)
                    merge(numbers, report.numbers(), share)
                if self.ranks.pieces > 1:
                    earlier = _added(earlier, [p.grad for p in self.parameters])
        except torch.OutOfMemoryError:
            return {}, True
        for parameter, grad in zip(self.parameters, earlier or (), strict=False):
            parameter.grad = grad
        return numbers, False

    def _pieces(self, batch: B, samples: int) -> Iterator[B]:
        """Yield this process's share in the pieces of the processes that it replaces."""
        if batch is None:
            return
        count, rank = self.ranks.pieces, self.ranks.rank
        if count == 1:
            yield batch
            return
        cuts = share_cuts(samples, self.ranks.batch_shares)[rank * count : (rank + 1) * count + 1]
        for start, end in pairwise(cuts):
            if end > start:
                yield batch_part(batch, start - cuts[0], end - cuts[0])

    def _backward_by_terms(self, part: Samples, step: int, share: float) -> LossReport:
        """Back-propagate a microbatch term by term, so that one term's graph is alive at a time.

        Args:
            share: of the global batch's samples.
        """
        report = LossReport()
        with self._autocast():
            for term in self.task.loss_terms(part, step):
                contribution = term.contribution()
                if contribution.requires_grad:  # not where all that it depends on is frozen
                    # backward runs in the types of the forward pass
                    with torch.autocast(self.device.type, enabled=False):
                        self.scaler.scale(contribution * share).backward()
                report.add(term, contribution.detach())
                del term, contribution  # else they live while the next term is made
        return report

    def _apply(self, numbers: Numbers) -> StepResult:
        """Add up over processes, clip, and step unless something is not finite."""
        # a process without a sample of this batch has no names: it uses those of its last step
        self._names = tuple(sorted(numbers)) or self._names
        numbers = self.ranks.combine(numbers, self._names)
        # before clipping: the norm is that of the whole batch
        self.ranks.sum_gradients(self.parameters)
        self.task.exchange()  # from here on nothing can fail for a lost partner
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.parameters, self.clip)
        # flags stay on the device: reading them would wait for it in every step
        lost = ~torch.isfinite(numbers["train/loss"])
        skipped = lost | ~torch.isfinite(norm)
        guarded_step(self.optimizer, skipped)
        self.task.end_step(skipped)
        self.scaler.update()
        numbers["grad_norm"] = norm.detach()
        return StepResult(numbers, skipped, lost if self.scaler.is_enabled() else skipped)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.precision)

    def shrink(self, samples: int) -> None:
        """Halve the microbatch; at one sample, recompute activations; then give up.

        Args:
            samples: of the pass that ran out of memory.

        Raises:
            TrainingError: there is nothing left to give up.
        """
        self.optimizer.zero_grad(set_to_none=True)
        size = min(self.microbatch, samples)
        if size > 1:
            self.microbatch = (size + 1) // 2
            log.warning("out of memory: microbatch %d from now on, same batch", self.microbatch)
        elif self.task.save_memory():
            log.warning("out of memory at microbatch 1: recomputing activations from now on")
        else:
            raise TrainingError(
                "one sample does not fit into memory, even with recomputed activations",
                remedy="use a GPU with more memory, --amp, or a coarser voxel_size",
            )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _added(total: list[Tensor | None] | None, grads: list[Tensor | None]) -> list[Tensor | None]:
    """Add gradients, of which some may be absent; the first call takes them as they are."""
    if total is None:
        return grads
    pairs = zip(total, grads, strict=True)
    return [b if a is None else a if b is None else a + b for a, b in pairs]


def _device_random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), cuda


def _restore_device_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
