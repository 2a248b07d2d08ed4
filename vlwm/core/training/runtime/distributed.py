"""Coordinate the processes of one run: votes, sums, and the one process that writes.

Every process (rank) takes its contiguous share of each global batch; gradients are sums over all
shares, weighted by samples, so that any number of processes gives the steps of one. Only the first
rank (the lead) writes. Votes use a separate group on the host: asking for a signal or for memory
that ran out never waits for the GPU.

The machines need no common disk: the lead reads checkpoints and weights and sends them to all.
A process that is lost is noticed within `VLWM_RANK_TIMEOUT_S` seconds (`liveness`).

A single process needs no communication: `Ranks()` returns at once.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from vlwm.core.errors import MachineError, StoppedError, TrainingError
from vlwm.core.metric_names import is_extreme, is_minimum
from vlwm.core.training.runtime.liveness import Lifeline, PeerLost, lost_reason, rank_timeout_s
from vlwm.core.training.telemetry.meter import Numbers

__all__ = ["PeerLost", "Ranks", "device_is_idle", "join_ranks"]

_BUCKET = 8_000_000
"""gradient elements of one all-reduce"""
_CHUNK = 1 << 25
"""bytes of one broadcast of a checkpoint: 32 MB take 3 s at 100 Mbit/s"""
_LEAVE_S = 30.0
"""seconds that a process may take to leave after another one was lost"""

T = TypeVar("T")
Kind = TypeVar("Kind", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank: number of this process; 0 leads.
        size: processes in all.
        local_rank: number of this process on its machine; its GPU.
        votes: group of host-side votes; None for a single process.
        lifeline: shows who works while others wait; None for a single process.
        begun_with: processes that the run was begun with; 0: those of now.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    votes: dist.ProcessGroup | None = None
    lifeline: Lifeline | None = None
    begun_with: int = 0

    @property
    def batch_shares(self) -> int:
        """Shares of a global batch, `samples_per_gpu` each: the run keeps those of its start."""
        return self.begun_with or self.size

    @property
    def pieces(self) -> int:
        """Pieces that this process computes one after the other in place of processes of the start.

        Their gradients are added as those of processes are, so the sums have the same bits.
        """
        whole = self.batch_shares % self.size == 0
        return self.batch_shares // self.size if whole else 1

    def largest_piece(self, samples: int) -> int:
        """Return the samples of the largest piece of a global batch."""
        return -(-samples // (self.size * self.pieces))

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
        """Let the lead work while the others wait, however long it takes; if it fails, all fail.

        Raises:
            TrainingError: on the others, where the lead failed.
            PeerLost: the lead gave no sign of life for the rank timeout.
        """
        return self._one_does(work, "lead", works=self.lead)

    def machine_lead_does(self, work: Callable[[], T]) -> T | None:
        """Let the first process of each machine work while the others of that machine wait.

        Raises:
            TrainingError: on the others, where their machine's first process failed.
            PeerLost: that process gave no sign of life for the rank timeout.
        """
        # torchrun numbers the machines; another launcher may not
        machine = os.environ.get("GROUP_RANK", os.uname().nodename)
        return self._one_does(work, f"machine {machine}", works=self.local_rank == 0)

    def _one_does(self, work: Callable[[], T], who: str, *, works: bool) -> T | None:
        if self.lifeline is None:
            return work()
        topic = self.lifeline.next_topic(who)
        if works:
            with self.lifeline.working(topic):
                return work()
        if not self.lifeline.wait_for(topic):
            raise TrainingError(
                f"the first process of the {'run' if who == 'lead' else 'machine'} has failed",
                remedy="its own line above gives the reason; so does status.json in the run folder",
            )
        return None

    def from_lead(self, work: Callable[[], T]) -> T:
        """Return in every process what `work` returns in the lead: tensors and plain values.

        Raises:
            TrainingError: on the others, where the lead failed.
        """
        own = self.lead_does(work)
        if self.size == 1:
            return cast("T", own)
        raw = io.BytesIO()
        if self.lead:
            torch.save(own, raw)
        raw = io.BytesIO(self._broadcast(raw.getvalue()))
        if self.lead:
            return cast("T", own)
        of_lead: T = torch.load(raw, map_location="cpu", weights_only=True)
        return of_lead

    def _broadcast(self, raw: bytes) -> bytes:
        """Return the lead's bytes, sent in pieces that a slow network passes within the timeout."""
        length = torch.tensor([len(raw)], dtype=torch.int64)
        _watched(dist.broadcast, length, 0, self.votes)
        sent = torch.zeros(int(length), dtype=torch.uint8)
        if self.lead and raw:
            sent = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
        for piece in sent.split(_CHUNK):
            _watched(dist.broadcast, piece, 0, self.votes)
        return sent.numpy().tobytes()

    def others(self, text: str) -> list[int]:
        """Return the processes whose `text` differs from the lead's, the same list in all."""
        if self.size == 1:
            return []
        own = torch.frombuffer(bytearray(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8)
        every = [torch.empty_like(own) for _ in range(self.size)]
        _watched(dist.all_gather, every, own, self.votes)
        return [rank for rank, found in enumerate(every) if not torch.equal(found, every[0])]

    def all_do(self, work: Callable[[], T]) -> T:
        """Let every process work, however long each takes; if one fails, all fail.

        Raises:
            TrainingError: on the others, where one failed.
            PeerLost: one gave no sign of life for the rank timeout.
        """
        lifeline = self.lifeline
        if lifeline is None:
            return work()
        topics = [lifeline.next_topic(f"process {rank}") for rank in range(self.size)]
        with lifeline.working(topics.pop(self.rank)):
            result = work()
        if not all(lifeline.wait_for(topic) for topic in topics):
            raise TrainingError(
                "another process of the run has failed",
                remedy="its own line above gives the reason",
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

    def sum_array(self, values: NDArray[Kind]) -> NDArray[Kind]:
        """Add up an array over all processes, in place (float64 or int64)."""
        if self.size > 1:
            _watched(dist.all_reduce, torch.from_numpy(values), dist.ReduceOp.SUM, self.votes)
        return values


def _watched(collective: Callable[..., object], *arguments: object) -> None:
    """Run a collective; report a lost process as such.

    Raises:
        PeerLost: another process is gone.
    """
    try:
        collective(*arguments)
    except RuntimeError as error:  # gloo and NCCL know no closer type
        logging.getLogger("vlwm.training").debug("a collective failed: %s", error)
        raise PeerLost(f"another process of the run was lost: {lost_reason(error)}") from error


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
    """Join the processes that torchrun started; without it, a single one.

    After a lost process the others leave within half a minute, whatever still waits for it.

    Raises:
        UsageError: `VLWM_RANK_TIMEOUT_S` is not a number of seconds.
        MachineError: the port where they meet is in use.
        StoppedError: another process was lost.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    patience_s = rank_timeout_s()
    patience = timedelta(seconds=patience_s)
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(local)
    # votes go over gloo on the host, whatever carries the gradients. They fail first: NCCL ends the
    # process at once
    backend, most = ("nccl", 2 * patience) if gpu else ("gloo", patience)
    try:
        _watched(lambda: dist.init_process_group(backend, timeout=most))
    except PeerLost as lost:
        if "in use" in str(lost.__cause__).lower():
            raise MachineError(
                f"port {os.environ.get('MASTER_PORT', 29500)} is in use on this machine, so the "
                "processes of the run cannot meet",
                remedy="end the run that holds it, or give torchrun another --master-port",
            ) from lost
        raise StoppedError(lost.what, remedy="start the same command again") from lost
    votes = dist.new_group(backend="gloo", timeout=patience)
    rank = dist.get_rank()
    lifeline = Lifeline(dist.distributed_c10d._get_default_store(), patience_s)
    try:
        yield Ranks(rank, size, local, votes, lifeline)
    except PeerLost as lost:
        _leave_in_time(StoppedError.exit_code)
        raise StoppedError(lost.what, remedy="start the same command again") from lost
    except StoppedError as error:
        # closing the groups, or the interpreter, may wait for the lost one
        if isinstance(error.__cause__, PeerLost):
            _leave_in_time(StoppedError.exit_code)
        raise
    finally:
        dist.destroy_process_group()


def device_is_idle(device: torch.device, within_s: float) -> bool:
    """Return True if a device ends all that is queued within some seconds; a CPU has no queue."""
    if device.type != "cuda":
        return True
    end = torch.cuda.Event()
    end.record(torch.cuda.current_stream(device))
    until = time.monotonic() + within_s
    while not end.query():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def _leave_in_time(code: int) -> None:
    """End this process in `_LEAVE_S` seconds, unless it has ended by then."""
    timer = threading.Timer(_LEAVE_S, os._exit, (code,))
    timer.daemon = True
    timer.start()
