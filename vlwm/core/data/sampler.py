"""Order the samples of an epoch, the same for any number of processes and loader workers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler


def share_cuts(samples: int, shares: int) -> list[int]:
    """Return where contiguous shares of a batch begin and end, sizes differing by one at most."""
    return [int(cut) for cut in np.linspace(0, samples, shares + 1).round()]


class EpochSampler(Sampler):
    """Keys (epoch, index) of one epoch in batches, for one rank.

    The order is a function of (seed, epoch); the global batch does not depend on the number of
    processes: rank r of w takes its contiguous share of every global batch. The last batch may be
    smaller.

    Args:
        count: samples of the data set.
        batch: samples of a global batch.
        first: samples of this epoch that were consumed already; a multiple of `batch`.
        shuffle: False keeps the order of the data set.
        most: samples of an epoch, another part of the data set in each; 0 takes all.
        weights: float64 (count,), how often each sample is taken in an epoch; None: once.
    """

    def __init__(
        self,
        count: int,
        batch: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        first: int = 0,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        most: int = 0,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        self.count, self.batch, self.seed, self.epoch = count, batch, seed, epoch
        self.weights = weights
        whole = count if weights is None else weighted_count(weights)
        self.samples = min(whole, most) if most else whole
        self.first, self.rank, self.world_size, self.shuffle = first, rank, world_size, shuffle

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.arange(self.count)
        if self.shuffle:
            rng = np.random.default_rng([self.seed, self.epoch])
            if self.weights is None:
                order = rng.permutation(self.count)
            else:
                order = _drawn(self.weights, rng)
        for start in range(self.first, self.samples, self.batch):
            whole = order[start : min(start + self.batch, self.samples)]
            cuts = share_cuts(len(whole), self.world_size)
            share = whole[cuts[self.rank] : cuts[self.rank + 1]]
            yield [(self.epoch, int(i)) for i in share]

    def __len__(self) -> int:
        return -(-(self.samples - self.first) // self.batch)


def weighted_count(weights: NDArray[np.float64]) -> int:
    """Return the samples of an epoch in which sample i is taken weights[i] (N,) times."""
    return max(1, round(float(weights.sum())))


def _drawn(weights: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the samples of an epoch in random order, sample i floor or ceil of weights[i] times.

    Systematic sampling over a random order: the number of samples is the same in every epoch.
    """
    order = rng.permutation(len(weights))
    ends = np.cumsum(weights[order])
    count = weighted_count(weights)
    marks = (np.arange(count) + rng.random()) * (ends[-1] / count)
    taken = np.minimum(np.searchsorted(ends, marks, side="right"), len(weights) - 1)
    return np.asarray(rng.permutation(order[taken]))
