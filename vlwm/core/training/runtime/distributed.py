"""Coordinate the processes of one run: votes, sums, and the one process that writes.

Every process (rank) takes its contiguous share of each global batch; gradients are sums over all
shares, weighted by samples, so that any number of processes gives the steps of one. Only the first
rank (the lead) writes. Votes use a separate group on the host: asking for a signal or for memory
that ran out never waits for the GPU.

A single process needs no communication: `Ranks()` returns at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vlwm.core.errors import TrainingError
from vlwm.core.metric_names import is_extreme, is_minimum
from vlwm.core.training.telemetry.meter import Numbers

_BUCKET = 8_000_000
"""gradient elements of one all-reduce"""
_PATIENCE = timedelta(hours=4)
"""the lead may prepare data while the others wait"""

T = TypeVar("T")


class PeerLost(TrainingError):
    """Another process of the run has died."""


@dataclass(frozen=True, eq=False)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank: number of this process; 0 leads.
        size: processes in all.
        local_rank: number of this process on its machine; its GPU.
        votes: group of host-side votes; None for a single process.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    votes: Any = None

    @property
    def lead(self) -> bool:
        """True for the process that writes."""
        return self.rank == 0

    def device(self) -> torch.device:
        """Return this process's own GPU, or the CPU."""
        gpu = torch.cuda.is_available()
        return torch.device(f"cuda:{self.local_rank}") if gpu else torch.device("cpu")

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return each flag, True if it is True in any process."""
        if self.size == 1:
            return flags
        # one message for all flags: a vote costs a round trip, not bytes
        shared = torch.tensor([float(flag) for flag in flags])
        _watched(dist.all_reduce, shared, dist.ReduceOp.MAX, self.votes)
        return tuple(bool(flag) for flag in shared.tolist())

    def wait(self) -> None:
        """Wait until all processes call this."""
        self.any(False)

    def lead_does(self, work: Callable[[], T]) -> T | None:
        """Let the lead work while the others wait; if it fails, all fail.

        Raises:
            TrainingError: on the others, where the lead failed.
        """
        result, error = None, None
        if self.lead:
            try:
                result = work()
            except BaseException as caught:
                error = caught
                raise
            finally:
                # the others wait for this vote, also after a failure
                self.any(error is not None)
        elif self.any(False)[0]:
            raise TrainingError(
                "the first process of the run has failed",
                remedy="its own line above gives the reason; so does status.json in the run folder",
            )
        return result

    def follow_lead(self, module: nn.Module) -> None:
        """Copy every parameter and buffer from the lead.

        Values that each process computed by itself may differ in the last bit.
        """
        if self.size > 1:
            for values in module.state_dict().values():
                _watched(dist.broadcast, values, 0)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes; absent ones count as zero."""
        if self.size == 1:
            return
        for bucket in _buckets([p for p in parameters if p.requires_grad]):
            # a process may lack a gradient that others have: all must send the same tensors
            for parameter in bucket:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            grads = [p.grad for p in bucket if p.grad is not None]
            # one flat message for each bucket: small ones are dominated by latency
            flat = torch.cat([grad.reshape(-1) for grad in grads])
            _watched(dist.all_reduce, flat)
            for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
                grad.copy_(part.view_as(grad))

    def combine(self, numbers: Numbers, names: tuple[str, ...]) -> Numbers:
        """Return the numbers of a whole step: sums, or extremes for `/min` and `/max`.

        Args:
            numbers: of this process's share, weighted; empty if it had no sample.
            names: of all numbers, in the same order in every process.
        """
        if self.size == 1:
            return numbers
        # sorted into sums and extremes: each kind is one message
        sums = [n for n in names if not is_extreme(n)]
        ends = [n for n in names if is_extreme(n)]
        device = _device_of(numbers)
        total = torch.stack([_or(numbers, n, 0.0, device) for n in sums])
        _watched(dist.all_reduce, total)
        combined = dict(zip(sums, total.unbind(), strict=True))
        if ends:
            # a minimum is a maximum of the opposite: both in one message
            signs = torch.tensor([-1.0 if is_minimum(n) else 1.0 for n in ends])
            signs = signs.to(device)
            # a process without a sample sends the value that never wins
            far = signs * torch.inf * -1
            extremes = torch.stack(
                [_or(numbers, n, float(f), device) for n, f in zip(ends, far, strict=True)]
            )
            extremes = extremes * signs
            _watched(dist.all_reduce, extremes, dist.ReduceOp.MAX)
            combined |= dict(zip(ends, (extremes * signs).unbind(), strict=True))
        return combined

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Return the rows (M, …) of all processes, in the order of their ranks."""
        if self.size == 1:
            return rows
        # how many rows each process has: a sum of one-hot counts
        counts = torch.zeros(self.size, dtype=torch.int64, device=rows.device)
        counts[self.rank] = len(rows)
        _watched(dist.all_reduce, counts)
        # all_gather needs equal shapes: pad to the longest, and cut afterwards
        most = int(counts.max())
        padded = rows.new_zeros((most, *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        _watched(dist.all_gather, parts, padded)
        return torch.cat([p[:n] for p, n in zip(parts, counts.tolist(), strict=True)])

    def sum_array(self, values: Any) -> Any:
        """Add up a NumPy array over all processes, in place (float64 or int64)."""
        if self.size > 1:
            _watched(dist.all_reduce, torch.from_numpy(values), dist.ReduceOp.SUM, self.votes)
        return values


def _watched(collective: Callable[..., Any], *arguments: Any) -> None:
    """Run a collective; report a lost process as such.

    Raises:
        PeerLost: another process is gone.
    """
    try:
        collective(*arguments)
    except RuntimeError as error:  # gloo and NCCL know no closer type
        raise PeerLost(f"another process of the run was lost: {error}") from error


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        bucket.append(parameter)
        if sum(p.numel() for p in bucket) >= _BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


def _device_of(numbers: Numbers) -> torch.device:
    if numbers:
        return next(iter(numbers.values())).device
    return torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")


def _or(numbers: Numbers, name: str, fallback: float, device: torch.device) -> Tensor:
    value = numbers.get(name)
    return torch.tensor(fallback, device=device) if value is None else value


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun started; without it, a single one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if gpu else "gloo", timeout=_PATIENCE)
    # votes go over gloo on the host, whatever carries the gradients
    votes = dist.new_group(backend="gloo", timeout=_PATIENCE)
    try:
        yield Ranks(dist.get_rank(), size, local, votes)
    finally:
        dist.destroy_process_group()
