"""Batches of an epoch from a sample on, with any number of workers the same ones.

The order and each sample are functions of (seed, epoch, index), so workers hold no state and a
resumed run asks for the rest of its epoch. The loader draws from a generator of its own: building
one leaves the run's random states alone.
"""

from __future__ import annotations

import signal
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from vlwm.core.data.dataset import EpochSampler, collate


def make_loader(
    dataset: Dataset[Any], sampler: EpochSampler, *, workers: int, pin: bool
) -> DataLoader[Any]:
    """Batches of a data set in the sampler's order.

    Args:
        dataset: items by (epoch, index).
        sampler: global batches; the last one may be smaller.
        workers: processes that load ahead; 0 loads in the training process.
        pin: page-locked memory, for a GPU.
    """
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=_quiet_worker,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator().manual_seed(0),
    )


def _quiet_worker(worker: int) -> None:
    """A signal to the whole process group is the trainer's to answer, not its workers'."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
