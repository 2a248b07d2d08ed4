"""Load the batches of an epoch from any sample on, the same for any number of workers.

The order and each sample are functions of (seed, epoch, index), so workers hold no state and a
resumed run asks for the rest of its epoch. The loader draws from its own generator, so building one
leaves the run's random states as they are.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from vlwm.core.data.batch import D, collate
from vlwm.core.data.sampler import EpochSampler
from vlwm.core.signals import STOPPING
from vlwm.core.training.runtime.distributed import Ranks

Sample = TypeVar("Sample")
"""an item of a data set: a dataclass of tensors"""


def make_loader(
    dataset: Dataset[Sample], sampler: EpochSampler, *, workers: int, pin: bool
) -> DataLoader[Sample]:
    """Return batches of a data set in the sampler's order.

    Args:
        dataset: items by (epoch, index).
        sampler: global batches, or one process's share of them; the last one may be smaller, and
            a share without a sample is None.
        workers: processes that load ahead; 0 loads in the training process.
        pin: page-locked memory, for a GPU.
    """
    # a generator of its own: else building a loader would draw from the run's
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        worker_init_fn=_quiet_worker,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator().manual_seed(0),
    )


def _collate(samples: Sequence[D]) -> D | None:
    return collate(samples) if samples else None


def _quiet_worker(worker: int) -> None:
    """Ignore signals to the process group: the trainer answers them and ends its workers."""
    # Ctrl-C reaches the whole process group: a worker that died of it would look like a crash
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def epoch_batches(
    dataset: Dataset[Sample],
    batch: int,
    seed: int,
    place: tuple[int, int],
    ranks: Ranks,
    workers: int,
    most: int = 0,
    weights: NDArray[np.float64] | None = None,
) -> DataLoader[Sample]:
    """Return this process's share of the global batches of an epoch.

    Args:
        batch: samples of a global batch.
        place: epoch, and samples of it that are done.
        most: samples of an epoch; 0 takes all.
        weights: float64 (N,), how often each sample is taken in an epoch; None: once.
    """
    epoch, first = place
    # every process gets its contiguous share of each global batch
    sampler = EpochSampler(
        len(dataset),  # type: ignore[arg-type]  # torch's base class has no length, ours have
        batch,
        seed=seed,
        epoch=epoch,
        first=first,
        rank=ranks.rank,
        world_size=ranks.size,
        most=most,
        weights=weights,
    )
    return make_loader(dataset, sampler, workers=workers, pin=torch.cuda.is_available())


def share_of(dataset: Dataset[Sample], size: int, ranks: Ranks) -> DataLoader[Sample]:
    """Return this process's share of a whole data set in order, at most `size` samples at once."""
    sampler = EpochSampler(
        len(dataset),  # type: ignore[arg-type]  # as above
        size * ranks.size,
        shuffle=False,
        rank=ranks.rank,
        world_size=ranks.size,
    )
    return make_loader(dataset, sampler, workers=0, pin=False)
