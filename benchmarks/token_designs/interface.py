"""What a token design reads and answers.

Axes: B windows, Z height layers, X, Y cells of a frame, X', Y' the same with a margin around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vlwm.core.data.batch import Batch
from vlwm.core.model.forward import ego_of_past
from vlwm.core.model.memory.completion_net import completion_loss
from vlwm.core.model.memory.observed_fusion import MARGIN
from vlwm.core.model.world_model import WorldModel


@dataclass(frozen=True)
class FusedFrame:
    """One future frame of each window: what was seen of it, and its truth.

    Attributes:
        logits: float32 (B, Z, X', Y'), fused log-odds; those of the column prior where nothing is
            known.
        evidence: float32 (B, Z, X', Y') in [0, 1], how far some past frame knows the cell.
        truth: uint8 (B, X, Y, Z).
        known: uint8 (B, X, Y, Z), cells whose truth is known; None: all of them.
    """

    logits: Tensor
    evidence: Tensor
    truth: Tensor
    known: Tensor | None

    def loss(self, residual: Tensor) -> Tensor:
        """Return the loss of the default completion, of a residual float32 (B, Z, X', Y')."""
        planes = self.truth.permute(0, 3, 1, 2)
        counted = None if self.known is None else self.known.permute(0, 3, 1, 2) > 0
        return completion_loss(inner(self.logits + residual), planes, counted)


def fused_frame(model: WorldModel, batch: Batch, horizons: Tensor) -> FusedFrame:
    """Return the future frame int64 (B,) of each window, fused along the true motion."""
    history, reader = model.history, model.reader
    voxels = reader.voxels(batch.bits, batch.symmetry)  # (B, F, X, Y, Z)
    past = batch.past(history)
    free = reader.free_space(past)
    assert free is not None  # the past is observed
    rows = torch.arange(len(voxels), device=voxels.device)
    logits, evidence = model.observed_branch().fused(
        voxels[:, :history],
        free,
        ego_of_past(past),
        batch.plan(history).ego[rows, horizons],
        model.column_logit,
    )
    known = None if batch.known is None else reader.voxels(batch.known, batch.symmetry)
    mask = None if known is None else known[rows, history + horizons]
    return FusedFrame(logits, evidence, voxels[rows, history + horizons], mask)


class TokenDesign(nn.Module):
    """Predicts a residual on the logits of a fused map, as `CompletionNet` does.

    Attributes:
        stages: ends of the stages of training, as shares of the time; each has a learning rate
            that falls from its peak to 0.
    """

    stages: tuple[float, ...] = (1.0,)

    def forward(self, logits: Tensor, evidence: Tensor) -> Tensor:
        """Return the residual float32 (B, Z, X', Y') of logits and evidence of that shape."""
        raise NotImplementedError

    def prepare(self, column: np.ndarray) -> None:
        """Take the share of occupied cells by height (Z,) of the train split."""

    def loss(self, frame: FusedFrame, progress: float, rng: np.random.Generator) -> Tensor:
        """Return the loss of a step.

        Args:
            progress: share of the training time that is spent.
            rng: of the step's draws.
        """
        return frame.loss(self(frame.logits, frame.evidence))

    def stage(self, progress: float) -> tuple[int, float]:
        """Return the number of the stage and the share of it that is spent."""
        number = sum(progress >= end for end in self.stages[:-1])
        begin = self.stages[number - 1] if number else 0.0
        return number, (progress - begin) / (self.stages[number] - begin)


def evidence_planes(logits: Tensor, evidence: Tensor) -> Tensor:
    """Return input planes (B, 2Z, X', Y') of a fused map, squashed as `CompletionNet` does."""
    planes = torch.cat([torch.tanh(logits / 4.0), evidence], dim=1)
    return planes.contiguous(memory_format=torch.channels_last)


def inner(values: Tensor) -> Tensor:
    """Return values (…, X, Y) of the wide map (…, X', Y') without its margin."""
    return values[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
