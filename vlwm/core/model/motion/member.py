"""Define one network of the motion head's ensemble."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Member(nn.Module):
    """One network of the ensemble: features (B, F) to outputs (B, S), zero at the start."""

    def __init__(self, size_in: int, width: int, size_out: int) -> None:
        super().__init__()
        self.features = nn.Linear(size_in, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.out = nn.Linear(width, size_out)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.features(features)
        for norm, layer in zip(self.norms, self.hidden, strict=True):
            # pre-norm residual block
            hidden = hidden + layer(functional.gelu(norm(hidden)))
        out: Tensor = self.out(functional.gelu(hidden))
        return out
