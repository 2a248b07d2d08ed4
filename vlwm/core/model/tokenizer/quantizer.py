"""Quantise tokens: nearest code, straight-through gradient, and upkeep of the codebook.

With `ema_decay` 0 the codes are trained by gradient, as OccWorld's are; otherwise they follow
moving means of the encoder outputs that chose them (van den Oord et al. 2017, appendix A.1), start
from encoder outputs, and a code that is never chosen is restarted from one (Dhariwal et al. 2020).
The moving sums and counts are not parameters: checkpoints hold them under "codebook".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.model.losses import wide

_START_ROWS = 4096
"""encoder outputs from which the first codes are chosen"""


@dataclass(frozen=True)
class Quantized:
    """Result of a quantisation.

    Attributes:
        z_q: (N, C, h, w), codes, with the encoder's gradient passed straight through.
        indices: int64 (N, h, w).
        vq_loss: scalar: commitment, plus the codebook's own term if it is trained by gradient.
    """

    z_q: Tensor
    indices: Tensor
    vq_loss: Tensor


class VectorQuantizer(nn.Module):
    """OccWorld's quantizer: `quant_conv` → nearest of `embedding` → `post_quant_conv`.

    Args:
        codes, width: size of the codebook.
        commitment: weight of the term that pulls the encoder towards its code.
        by_gradient: give the codes a loss term of their own.
    """

    def __init__(self, codes: int, width: int, commitment: float, by_gradient: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, width)
        nn.init.uniform_(self.embedding.weight, -1.0 / codes, 1.0 / codes)
        self.quant_conv = nn.Conv2d(width, width, 1)
        self.post_quant_conv = nn.Conv2d(width, width, 1)
        self.commitment, self.by_gradient = commitment, by_gradient
        self.embedding.weight.requires_grad_(by_gradient)

    def nearest(self, flat: Tensor) -> Tensor:
        """Return indices int64 (M,) of the codes nearest to rows (M, C)."""
        rows, codes = wide(flat), wide(self.embedding.weight)
        # |row − code|² less |row|², which is the same for every code
        # (M, K)
        distance = codes.pow(2).sum(1) - 2 * rows @ codes.T
        return distance.argmin(dim=1)

    def forward(self, z: Tensor) -> Quantized:
        """Quantise the output of `quant_conv`, (N, C, h, w)."""
        flat = z.movedim(1, -1).reshape(-1, z.shape[1])  # (N · h · w, C)
        indices = self.nearest(flat).view(len(z), *z.shape[2:])
        codes = self.embed(indices)
        loss = self.commitment * functional.mse_loss(wide(z), wide(codes.detach()))
        if self.by_gradient:
            loss = loss + functional.mse_loss(wide(codes), wide(z.detach()))
        # the value of the codes, the gradient of z: straight through
        return Quantized(z + (codes - z).detach(), indices, loss)

    def embed(self, indices: Tensor) -> Tensor:
        """Return codes (N, C, h, w) of indices (N, h, w)."""
        return self.embedding(indices).permute(0, 3, 1, 2)


class CodebookHealth:
    """Keeps moving counts and sums of the codes, restarts unused ones, and reports their use.

    Args:
        quantizer: its codes are updated.
        decay: of the moving sums; 0 reports and never changes a code.
        revive_below: a code whose moving count (per step) falls below this is restarted.
        seed: of the choice of restarts; the state of the generator is part of the state.
    """

    def __init__(
        self, quantizer: VectorQuantizer, decay: float, revive_below: float, seed: int = 0
    ) -> None:
        self.quantizer, self.decay, self.revive_below = quantizer, decay, revive_below
        codes, width = quantizer.embedding.weight.shape
        device = quantizer.embedding.weight.device
        self.counts = torch.zeros(codes, device=device)
        self.sums = torch.zeros(codes, width, device=device)
        self.started = False
        self.revived = 0
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def adopt(self) -> None:
        """Continue from loaded codes instead of choosing first ones."""
        self.sums.copy_(self.quantizer.embedding.weight)
        self.counts.fill_(1.0)
        self.started = True

    @torch.no_grad()
    def update(self, flat: Tensor, indices: Tensor) -> None:
        """Update after one step: encoder outputs (M, C) and the codes (M,) they chose."""
        flat, indices = flat.float(), indices.reshape(-1)
        if self.decay and not self.started:
            self._start(flat)
            indices = self.quantizer.nearest(flat)
        # counts (K,) and sums (K, C) of this step, by code
        codes = len(self.counts)
        counts = torch.zeros_like(self.counts).index_add_(0, indices, torch.ones_like(flat[:, 0]))
        sums = torch.zeros_like(self.sums).index_add_(0, indices, flat)
        # without a decay the counts are only reported, over about twenty steps
        keep = self.decay or 0.95
        self.counts.mul_(keep).add_(counts, alpha=1 - keep)
        self.sums.mul_(keep).add_(sums, alpha=1 - keep)
        if self.decay:
            total = self.counts.sum()
            # smoothed counts keep a rare code from a division by almost nothing
            smooth = (self.counts + 1e-5) / (total + codes * 1e-5) * total
            moved = self.sums / smooth[:, None]
            alive = self.counts > 1e-4
            weight = self.quantizer.embedding.weight
            weight.copy_(torch.where(alive[:, None], moved.to(weight), weight))
            self._revive(flat)

    def _start(self, flat: Tensor) -> None:
        """Choose first codes among encoder outputs far apart (Arthur and Vassilvitskii 2007)."""
        # a sample of the outputs (S, C) is enough to choose from
        rows = flat[self._pick(len(flat), min(len(flat), _START_ROWS))]
        chosen = [rows[0]]
        nearest = (rows - chosen[0]).pow(2).sum(dim=1)
        for _ in range(len(self.counts) - 1):
            # k-means++: the next one with a probability by its distance to those chosen
            weights = nearest.cpu().double() + 1e-12
            at = int(torch.multinomial(weights, 1, generator=self.generator))
            chosen.append(rows[at])
            nearest = torch.minimum(nearest, (rows - rows[at]).pow(2).sum(dim=1))
        weight = self.quantizer.embedding.weight
        weight.copy_(torch.stack(chosen).to(weight))
        self.adopt()

    def _pick(self, available: int, wanted: int) -> Tensor:
        if available >= wanted:
            order = torch.randperm(available, generator=self.generator)[:wanted]
        else:
            order = torch.randint(available, (wanted,), generator=self.generator)
        return order.to(self.counts.device)

    def _revive(self, flat: Tensor) -> None:
        # codes that nearly nobody chooses, (R,)
        dead = torch.nonzero(self.counts < self.revive_below).reshape(-1)
        if not len(dead):
            return
        chosen = flat[self._pick(len(flat), len(dead))]
        weight = self.quantizer.embedding.weight
        weight[dead] = chosen.to(weight)
        # restarted with one vote, so that the next update does not move it away
        self.counts[dead] = 1.0
        self.sums[dead] = chosen
        self.revived += len(dead)

    def numbers(self) -> dict[str, float]:
        """Return used codes (moving count above 1 % of an even share) and perplexity."""
        share = self.counts / self.counts.sum().clamp(min=1e-9)
        used = int((share > 0.01 / len(share)).sum())
        # perplexity: the number of codes that an even use would have
        entropy = -(share * share.clamp(min=1e-12).log()).sum()
        return {"codebook/used": float(used), "codebook/perplexity": float(entropy.exp())}

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values for a checkpoint."""
        return {
            "counts": self.counts.clone(),
            "sums": self.sums.clone(),
            "started": self.started,
            "revived": self.revived,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.counts.copy_(state["counts"])
        self.sums.copy_(state["sums"])
        self.started, self.revived = bool(state["started"]), int(state["revived"])
        self.generator.set_state(state["generator"])
