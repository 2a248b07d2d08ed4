"""Carry two streams through the transformer: the frames so far, and queries for the next.

Axes: B batch, F frames, C channels, h, w the token map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Streams:
    """Known frames and the queries for the next ones, with the same axes.

    Attributes:
        known, queries: (B, F, C, h, w) of places, or (B, F, C) of the pose.
    """

    known: Tensor
    queries: Tensor

    @classmethod
    def over_time(cls, x: Tensor, times: Tensor) -> Streams:
        """Return frames with their own time and queries with the next; times (frames + 1, C, …)."""
        # times are indexed from 0: frame f has time f, its query f + 1
        count = x.shape[1]
        return cls(x + times[:count], x + times[1 : count + 1])

    def each(self, module: nn.Module) -> Streams:
        """Apply a module of maps to every frame of both."""
        return Streams(each(module, self.known), each(module, self.queries))

    def through(self, module: nn.Module) -> Streams:
        """Apply a module of vectors to both."""
        return Streams(module(self.known), module(self.queries))

    def joined(self, skip: Streams) -> Streams:
        """Concatenate the channels of a skip; maps are padded to its size."""
        # poses are vectors, places are maps
        if self.known.ndim == 3:
            return Streams(*(torch.cat(pair, dim=-1) for pair in self._pairs(skip)))
        size = skip.known.shape[-2:]
        return Streams(*(torch.cat([_fitted(x, size), y], 2) for x, y in self._pairs(skip)))

    def _pairs(self, skip: Streams) -> list[tuple[Tensor, Tensor]]:
        return [(self.known, skip.known), (self.queries, skip.queries)]


def by_place(x: Tensor) -> Tensor:
    """Return (B, F, C, h, w) as sequences (B · h · w, F, C)."""
    return x.permute(0, 3, 4, 1, 2).flatten(0, 2)


def each(module: nn.Module, x: Tensor) -> Tensor:
    """Apply a module of maps to every frame, (B, F, C, h, w)."""
    return module(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _fitted(x: Tensor, size: torch.Size) -> Tensor:
    """Pad with zeros at the far side, where halving an odd size lost a row."""
    # rows and columns that are missing
    down, right = size[0] - x.shape[-2], size[1] - x.shape[-1]
    return functional.pad(x, (0, right, 0, down)) if down or right else x
