"""Define one network of the motion head's ensemble."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class Member(nn.Module):
    """One network of the ensemble: features (B, F) to outputs (B, S), zero at the start.

    Attributes:
        gelu: the activation; an ONNX export replaces it by what its runtime has in float64.
    """

    def __init__(self, size_in: int, width: int, size_out: int) -> None:
        super().__init__()
        self.gelu: Callable[[Tensor], Tensor] = functional.gelu
        self.features = nn.Linear(size_in, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.out = nn.Linear(width, size_out)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor) -> Tensor:
        hidden = _linear(self.features, features)
        for norm, layer in zip(self.norms, self.hidden, strict=True):
            # pre-norm residual block
            normed = _norm(cast("nn.LayerNorm", norm), hidden)
            hidden = hidden + _linear(layer, self.gelu(normed))
        return _linear(self.out, self.gelu(hidden))


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Return the layer's output, in float64 for an input in float64."""
    if x.dtype != torch.float64:
        return cast("Tensor", layer(x))
    given = cast("nn.Linear", layer)
    return functional.linear(x, given.weight.double(), given.bias.double())


def _norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    """Return the layer's output, in float64 for an input in float64.

    In float64 written out: ONNX has a layer norm whose epsilon is a float32, which moves motions of
    an export by 1e-10 and, where a draw then meets the next cell, a probability by 1 / 256.
    """
    if x.dtype != torch.float64:
        return cast("Tensor", layer(x))
    centred = x - x.mean(dim=-1, keepdim=True)
    deviation = ((centred * centred).mean(dim=-1, keepdim=True) + layer.eps).sqrt()
    return centred / deviation * layer.weight.double() + layer.bias.double()
