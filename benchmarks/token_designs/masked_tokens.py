"""Complete a fused observation by predicting the codes of the true frame: masked token modelling.

    true frame ─► tokenizer ─► codes, some of them masked ─┐
    fused log-odds, evidence ─► encoder ─► map of tokens ──┴─► transformer ─► code probabilities
    code probabilities ─► mean code ─► tokenizer's decoder ─► log-odds ─► mixed with the fused ones

The tokenizer learns alone in the first third of the time (van den Oord et al., NeurIPS 2017, with
moving means for codes). Then its codes are the targets of a transformer that sees the partial
evidence and any share of the true codes, drawn by the cosine of MaskGIT (Chang et al., CVPR 2022),
and predicts the masked ones all at once.

It departs from MaskGIT where the scores ask for the probability of each cell and not for one sharp
picture: the decoder gets the mean code under the predicted probabilities, it learns on with such
means, and the occupancy loss reaches the transformer through them.

Axes: B windows, Z height layers, X, Y cells of a frame, X', Y' with a margin, h, w the token map,
K codes, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from token_designs.attention import TokenBlocks
from token_designs.interface import FusedFrame, TokenDesign, evidence_planes, inner
from vlwm.core.config.schema import Config, TokenizerConfig
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.losses import token_weight
from vlwm.core.model.memory.completion_net import completion_loss
from vlwm.core.model.memory.observed_fusion import MARGIN
from vlwm.core.model.tokenizer.conv_blocks import Encoder
from vlwm.core.model.tokenizer.quantizer import CodebookHealth, VectorQuantizer
from vlwm.core.model.tokenizer.vqvae import Tokenizer

_WIDTH = 3
"""channels of the transformer for one of the tokenizer's at full resolution"""
_BLOCKS = 3
_TOKENIZER_SHARE = 1 / 3
"""of the training time"""
_SMOOTHING = 0.1
"""of the labels, as in MaskGIT"""
_PASSES = 1
"""of the prediction; more of them keep the most certain codes of the pass before"""


class Codebook(nn.Module):
    """The moving means of a codebook, as part of a module's state."""

    def __init__(self, quantizer: VectorQuantizer, config: TokenizerConfig) -> None:
        super().__init__()
        self.health = CodebookHealth(quantizer, config.ema_decay, config.revive_below)

    def get_extra_state(self) -> dict[str, Any]:
        return self.health.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.health.load_state_dict(state)


class EvidenceMix(nn.Module):
    """Mixes fused and decoded log-odds, with weights by height and evidence.

    At first the observation decides where there is evidence, and the tokens elsewhere.
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        unknown, seen = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
        self.unknown = nn.Parameter(unknown.repeat(layers, 1))  # (Z, 2): fused, decoded
        self.seen = nn.Parameter(seen.repeat(layers, 1))
        self.bias = nn.Parameter(torch.zeros(layers))

    def forward(self, fused: Tensor, decoded: Tensor, evidence: Tensor) -> Tensor:
        """Return log-odds (B, Z, X, Y) of log-odds and evidence of that shape."""
        known = evidence[..., None]
        weight = self.unknown[:, None, None] + known * (self.seen - self.unknown)[:, None, None]
        return weight[..., 0] * fused + weight[..., 1] * decoded + self.bias[:, None, None]


class MaskedTokens(TokenDesign):
    """Tokenizer, masked prediction of its codes from the evidence, mix with the evidence.

    Args:
        config: whose tokenizer is built.
        grid: of all frames.
        passes: of the prediction in a forecast.
    """

    stages = (_TOKENIZER_SHARE, 1.0)

    def __init__(self, config: Config, grid: VoxelGrid, passes: int = _PASSES) -> None:
        super().__init__()
        shape, layers = config.tokenizer, grid.shape[2]
        width = _WIDTH * shape.base_channels
        self.codes, self.passes, self.vq_weight = shape.codebook_size, passes, shape.vq_weight
        self.tokenizer = Tokenizer(shape, grid.shape)
        self.codebook = Codebook(self.tokenizer.vqvae, shape)
        self.margin = MARGIN >> (len(shape.channel_mult) - 1)  # tokens
        sizes = (shape.base_channels, shape.channel_mult, shape.num_res_blocks, width)
        self.encoder = Encoder(2 * layers, *sizes)
        self.code_in = nn.Embedding(self.codes + 1, width)  # the last one is the mask
        self.blocks = TokenBlocks(width, _BLOCKS)
        self.norm = nn.LayerNorm(width)
        self.code_out = nn.Linear(width, self.codes)
        self.mix = EvidenceMix(layers)
        nn.init.normal_(self.code_in.weight, std=0.02)

    def prepare(self, column: np.ndarray) -> None:
        self.tokenizer.init_output_rate(torch.as_tensor(column))

    def loss(self, frame: FusedFrame, progress: float, rng: np.random.Generator) -> Tensor:
        number, _ = self.stage(progress)
        return self.prediction_loss(frame, rng) if number else self.tokenizer_loss(frame)

    def tokenizer_loss(self, frame: FusedFrame) -> Tensor:
        """Return the loss of the round trip of the true frame, and move the codes."""
        z = self.tokenizer.encode(frame.truth)  # (B, C, h, w)
        found = self.tokenizer.quantize(z)
        logits = self.tokenizer.decode(found.z_q)
        flat = z.detach().movedim(1, -1).flatten(0, 2)  # (B · h · w, C)
        if self.training:
            self.codebook.health.update(flat, found.indices)
        counted = None if frame.known is None else frame.known > 0
        return completion_loss(logits, frame.truth, counted) + self.vq_weight * found.vq_loss

    def prediction_loss(self, frame: FusedFrame, rng: np.random.Generator) -> Tensor:
        """Return the cross-entropy of masked codes plus the loss of the occupancy."""
        with torch.no_grad():
            codes = self.tokenizer.tokenise(frame.truth)  # (B, h, w)
        # a row with all codes masked, as a forecast begins, and one with a share by the cosine
        share = np.cos(rng.random(len(codes)) * np.pi / 2)  # (B,)
        drawn = rng.random(tuple(codes.shape)) < share[:, None, None]
        hidden = torch.from_numpy(drawn).to(codes.device)
        masks = torch.cat([torch.ones_like(hidden), hidden])  # (2B, h, w)
        twice = codes.repeat(2, 1, 1)
        features = self._features(frame.logits, frame.evidence)
        logits = self._predicted(features.repeat(2, 1, 1, 1), twice.masked_fill(masks, self.codes))
        each = functional.cross_entropy(
            logits.float(), twice, reduction="none", label_smoothing=_SMOOTHING
        )
        weight = masks.float()
        if frame.known is not None:
            known = token_weight(frame.known[:, None], (codes.shape[1], codes.shape[2]))[:, 0]
            weight = weight * known.repeat(2, 1, 1)
        tokens = (each * weight).sum() / weight.sum().clamp(min=1e-6)
        # the occupancy is learned from rows that no true code was shown to
        probabilities = logits[: len(codes)].float().softmax(dim=1)
        return tokens + frame.loss(self._residual(frame.logits, frame.evidence, probabilities))

    def forward(self, logits: Tensor, evidence: Tensor) -> Tensor:
        features = self._features(logits, evidence)
        h, w = self.tokenizer.map_sizes[-1]
        codes = torch.full((len(logits), h, w), self.codes, device=logits.device)
        probabilities = self._predicted(features, codes).float().softmax(dim=1)
        for done in range(1, self.passes):
            sure, best = probabilities.flatten(2).max(dim=1)  # (B, h · w)
            count = sure.shape[1] * done // self.passes
            kept = torch.zeros_like(sure, dtype=torch.bool)
            kept.scatter_(1, sure.topk(count, dim=1).indices, True)
            given = best.masked_fill(~kept, self.codes).view(codes.shape)
            again = self._predicted(features, given).float().softmax(dim=1)
            # what was kept keeps the probabilities it was kept by
            probabilities = torch.where(kept.view(codes.shape)[:, None], probabilities, again)
        return self._residual(logits, evidence, probabilities)

    def _features(self, logits: Tensor, evidence: Tensor) -> Tensor:
        """Return the evidence as tokens (B, C, h, w); the encoder has read the margin."""
        planes = evidence_planes(logits, evidence)
        features = self.encoder(self.encoder.conv_in(planes))
        return features[..., self.margin : -self.margin, self.margin : -self.margin]

    def _predicted(self, features: Tensor, codes: Tensor) -> Tensor:
        """Return code logits (B, K, h, w) of codes (B, h, w), K where masked."""
        x = self.blocks(features + self.code_in(codes).permute(0, 3, 1, 2))
        logits: Tensor = self.code_out(self.norm(x.permute(0, 2, 3, 1)))
        return logits.permute(0, 3, 1, 2)

    def _residual(self, logits: Tensor, evidence: Tensor, probabilities: Tensor) -> Tensor:
        """Return the residual (B, Z, X', Y') of code probabilities (B, K, h, w)."""
        book = self.tokenizer.vqvae.embedding.weight.detach()  # (K, C)
        mean = torch.einsum("bkhw,kc->bchw", probabilities, book)
        decoded = self.tokenizer.decode(mean).permute(0, 3, 1, 2).float()  # (B, Z, X, Y)
        fused = inner(logits)
        residual = self.mix(fused, decoded, inner(evidence)) - fused
        return functional.pad(residual, (MARGIN,) * 4)
