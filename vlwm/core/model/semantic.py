"""Forecast the class of occupied cells: the 18-class task of Occ3D-nuScenes.

That a cell is occupied is forecast as without classes. Which class it has if it is occupied is a
second question, with three sources: the classes of the past frames at its place, the classes that
the predicted tokens decode to, and its height. `ClassHead` weighs them and adds the residual of a
small convolutional network, the same for every height layer.

The last class is free space. A cell whose class is unknown (`UNLABELLED`) counts in no loss.

Axes: R target frames, N frames, P past frames, X, Y, Z cells, C classes without free space.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.warp import layer_slices, source_columns
from vlwm.core.model.tokenizer.conv_blocks import bias_of
from vlwm.core.model.torch_frames import relative_ego
from vlwm.core.vocabulary import UNLABELLED

_LAYERS_AT_ONCE = 4
"""height layers of a pass: their maps have 2 C channels"""
_VOTE = 2.0
"""log-odds that the class of one past frame adds before training"""


def cells_with_class(voxels: Tensor, classes: Tensor, free: int) -> Tensor:
    """Return the classes uint8 (...) that the tokenizer reads.

    A cell without a label is free where it is empty, and class 0 ('others') where it is occupied.

    Args:
        voxels: uint8 (...), 0 or 1.
        classes: uint8 of the same shape.
        free: the class of free space.
    """
    otherwise = torch.where(voxels > 0, 0, free).to(torch.uint8)
    return torch.where(classes == UNLABELLED, otherwise, classes)


def occupancy_logit(logits: Tensor) -> Tensor:
    """Return the logit (...) that a cell is occupied, of logits (..., C + 1), the last one free."""
    return torch.logsumexp(logits[..., :-1], dim=-1) - logits[..., -1]


def class_loss(logits: Tensor, classes: Tensor, free: int, known: Tensor | None = None) -> Tensor:
    """Return the mean over frames of the cross-entropy of the classes of occupied cells.

    Args:
        logits: (N, X, Y, Z, C), of the classes of an occupied cell.
        classes: uint8 (N, X, Y, Z); free and unlabelled cells do not count.
        free: the class of free space.
        known: uint8 (N, X, Y, Z), cells whose truth is known; None: all of them.
    """
    counted = classes < free
    if known is not None:
        counted = counted & (known > 0)
    frames = []
    for frame, truth, mask in zip(logits, classes, counted, strict=True):
        # a frame without a labelled cell has loss 0 and still counts in the mean
        wanted = truth[mask].long()  # (K,)
        each = functional.cross_entropy(frame[mask].float(), wanted, reduction="sum")
        frames.append(each / max(1, len(wanted)))
    return torch.stack(frames).mean()


@torch.no_grad()
def warped_classes(
    past: Tensor, past_ego: Tensor, target_ego: Tensor, grid: VoxelGrid, free: int
) -> Tensor:
    """Return the past frames at the cell centres of target frames, nearest cell.

    Args:
        past: uint8 (R, P, X, Y, Z), classes.
        past_ego: (R, P, 4), in any common frame.
        target_ego: (R, 4), in the same frame.
        grid: the grid of all frames.
        free: the class where a past frame does not reach.

    Returns:
        uint8 (R, P, X, Y, Z).
    """
    rows, frames, x, y, z = past.shape
    columns = past.reshape(rows, frames, x * y, z)
    outside = columns.new_full((1, z), free)  # one more column, read where no column is
    out = columns.new_full(columns.shape, free)
    here = relative_ego(past_ego.double(), target_ego.double()[:, None])  # (R, P, 4)
    for r in range(rows):
        places, _ = source_columns(here[r], grid)  # (P, X · Y)
        # whole layers by which the target is higher; beyond ±z nothing is left to read
        shifts = torch.floor(0.5 + here[r, :, 2] / grid.cell_m[2]).clamp(-z, z).tolist()
        for p, shift in enumerate(shifts):
            to, of = layer_slices(int(shift), z)
            moved = torch.cat([columns[r, p], outside]).index_select(0, places[p])
            out[r, p, :, to] = moved[:, of]
    return out.view(past.shape)


class ClassHead(nn.Module):
    """Computes logits of the class of a cell that is occupied.

    Args:
        frames: past frames.
        classes: C.
        layers: Z.
        channels: width of the residual network.
    """

    def __init__(self, frames: int, classes: int, layers: int, channels: int = 32) -> None:
        super().__init__()
        self.classes = classes
        self.votes = nn.Parameter(torch.full((frames,), _VOTE))
        self.decoded = nn.Parameter(torch.ones(()))
        self.height = nn.Parameter(torch.zeros(layers, classes))
        self.conv_in = nn.Conv2d(2 * classes, channels, 3, padding=1)
        self.conv_out = nn.Conv2d(channels, classes, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(bias_of(self.conv_out))

    def forward(self, past: Tensor, decoded: Tensor | None) -> Tensor:
        """Return logits (R, X, Y, Z, C).

        Args:
            past: uint8 (R, P, X, Y, Z), of `warped_classes`.
            decoded: (R, X, Y, Z, C), logits of the predicted tokens; None without tokens.
        """
        depth = past.shape[-1]
        parts = []
        for first in range(0, depth, _LAYERS_AT_ONCE):
            part = slice(first, min(first + _LAYERS_AT_ONCE, depth))
            parts.append(self._layers(past[..., part], decoded, part))
        return torch.cat(parts, dim=1).permute(0, 3, 4, 1, 2)

    def _layers(self, past: Tensor, decoded: Tensor | None, part: slice) -> Tensor:
        """Return logits (R, L, C, X, Y) of the L layers of `part`."""
        planes = past.permute(0, 1, 4, 2, 3).long()  # (R, P, L, X, Y)
        rows, frames, layers, x, y = planes.shape
        # one map for each class, free space included: (R, L, C + 1, X, Y)
        votes = self.votes.new_zeros(rows, layers, self.classes + 1, x, y)
        for p in range(frames):
            weight = self.votes[p].expand(rows, layers, 1, x, y)
            votes = votes.scatter_add(2, planes[:, p].unsqueeze(2), weight)
        votes = votes[:, :, : self.classes]  # a vote for free space tells nothing about the class
        # prior by height, the same everywhere in the plane
        logits = votes + self.height[part][None, :, :, None, None]
        tokens = torch.zeros_like(votes)
        if decoded is not None:
            of_tokens = decoded[..., part, :].permute(0, 3, 4, 1, 2)  # (R, L, C, X, Y)
            tokens = torch.log_softmax(of_tokens.float(), dim=2)
            logits = logits + self.decoded * tokens
        entered = torch.cat([votes, tokens / 4.0], dim=2).flatten(0, 1)  # (R · L, 2 C, X, Y)
        # each layer is an image of its own
        residual = self.conv_out(self.conv_in(entered).relu())
        return logits + residual.unflatten(0, (rows, layers))
