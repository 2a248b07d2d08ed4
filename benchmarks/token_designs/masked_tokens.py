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
means, and the occupancy loss reaches the transformer through them. And where minutes are few: a
codebook has many codes that mean the same, ground without a house for one, so that a target is
shared by all codes that are near the encoder's output, and the transformer reads and answers codes
by their vectors, starting at how often each one is chosen.

Axes: B windows, Z height layers, X, Y cells of a frame, X', Y' with a margin, h, w the token map,
K codes, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from token_designs.interface import FusedFrame, TokenDesign, evidence_planes, inner
from vlwm.core.config.schema import Config, TokenizerConfig
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.losses import token_weight
from vlwm.core.model.memory.completion_net import completion_loss
from vlwm.core.model.memory.observed_fusion import MARGIN
from vlwm.core.model.tokenizer.conv_blocks import Encoder
from vlwm.core.model.tokenizer.quantizer import CodebookHealth, VectorQuantizer
from vlwm.core.model.tokenizer.vqvae import Tokenizer
from vlwm.core.model.transformer.map_attention import MapAttention

_WIDTH = 3
"""channels of the transformer for one of the tokenizer's at full resolution"""
_BLOCKS = 3
_TOKENIZER_SHARE = 1 / 3
"""of the training time"""
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
        self.code_in = nn.Linear(shape.embed_dim, width)
        self.mask = nn.Parameter(torch.zeros(width))
        self.blocks = MapAttention(width, _BLOCKS)
        self.norm = nn.LayerNorm(width)
        self.code_out = nn.Linear(width, shape.embed_dim)
        self.mix = EvidenceMix(layers)

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
        targets = self._targets(frame.truth)  # (B, K, h, w)
        codes = targets.argmax(dim=1)  # (B, h, w)
        # a row with all codes masked, as a forecast begins, and one with a share by the cosine
        share = np.cos(rng.random(len(codes)) * np.pi / 2)  # (B,)
        drawn = rng.random(tuple(codes.shape)) < share[:, None, None]
        hidden = torch.from_numpy(drawn).to(codes.device)
        masks = torch.cat([torch.ones_like(hidden), hidden])  # (2B, h, w)
        features = self._features(frame.logits, frame.evidence)
        logits = self._predicted(features.repeat(2, 1, 1, 1), codes.repeat(2, 1, 1), masks).float()
        each = functional.cross_entropy(logits, targets.repeat(2, 1, 1, 1), reduction="none")
        weight = masks.float()
        if frame.known is not None:
            known = token_weight(frame.known[:, None], (codes.shape[1], codes.shape[2]))[:, 0]
            weight = weight * known.repeat(2, 1, 1)
        tokens = (each * weight).sum() / weight.sum().clamp(min=1e-6)
        # the occupancy is learned from rows that no true code was shown to
        probabilities = logits[: len(codes)].softmax(dim=1)
        return tokens + frame.loss(self._residual(frame.logits, frame.evidence, probabilities))

    def forward(self, logits: Tensor, evidence: Tensor) -> Tensor:
        features = self._features(logits, evidence)
        h, w = self.tokenizer.map_sizes[-1]
        codes = torch.zeros(len(logits), h, w, dtype=torch.int64, device=logits.device)
        masks = torch.ones_like(codes, dtype=torch.bool)
        probabilities = self._predicted(features, codes, masks).float().softmax(dim=1)
        for done in range(1, self.passes):
            sure, best = probabilities.max(dim=1)  # (B, h, w)
            count = h * w * done // self.passes
            least = sure.flatten(1).topk(count, dim=1).values[:, -1]  # (B,)
            masks = sure < least[:, None, None]
            again = self._predicted(features, best, masks).float().softmax(dim=1)
            # what was kept keeps the probabilities it was kept by
            probabilities = torch.where(masks[:, None], again, probabilities)
        return self._residual(logits, evidence, probabilities)

    def _features(self, logits: Tensor, evidence: Tensor) -> Tensor:
        """Return the evidence as tokens (B, C, h, w); the encoder has read the margin."""
        planes = evidence_planes(logits, evidence)
        features = self.encoder(self.encoder.conv_in(planes))
        return features[..., self.margin : -self.margin, self.margin : -self.margin]

    @torch.no_grad()
    def _targets(self, truth: Tensor) -> Tensor:
        """Return the share (B, K, h, w) of each code in the tokens of true frames.

        Codes share a token by their squared distance to the encoder's output, in units of the mean
        one of the nearest code: codes that differ by less than the quantisation does are one.
        """
        z = self.tokenizer.encode(truth).float()  # (B, C, h, w)
        flat = z.movedim(1, -1).flatten(0, 2)  # (B · h · w, C)
        distance = torch.cdist(flat, self.tokenizer.vqvae.embedding.weight.float()).square()
        unit = distance.amin(dim=1).mean().clamp(min=1e-9)
        share = (-distance / unit).softmax(dim=1)  # (B · h · w, K)
        return share.unflatten(0, (len(z), *z.shape[2:])).permute(0, 3, 1, 2)

    def _book(self) -> Tensor:
        """Return the code vectors (K, C), moved and scaled to a mean of 0 and a deviation of 1."""
        book = self.tokenizer.vqvae.embedding.weight.detach()
        centred = book - book.mean(dim=0)
        return centred / centred.std().clamp(min=1e-9)

    def _predicted(self, features: Tensor, codes: Tensor, masks: Tensor) -> Tensor:
        """Return code logits (B, K, h, w) of codes int64 and masks bool (B, h, w)."""
        book = self._book()
        given = torch.where(masks[..., None], self.mask, self.code_in(book[codes]))
        x = self.blocks(features + given.permute(0, 3, 1, 2))
        answer = self.code_out(self.norm(x.permute(0, 2, 3, 1)))  # (B, h, w, C)
        # untrained, about as likely as each code is in the train split
        often = self.codebook.health.counts.clamp(min=1e-3).log()
        logits: Tensor = answer @ book.T / book.shape[1] ** 0.5 + often
        return logits.permute(0, 3, 1, 2)

    def _residual(self, logits: Tensor, evidence: Tensor, probabilities: Tensor) -> Tensor:
        """Return the residual (B, Z, X', Y') of code probabilities (B, K, h, w)."""
        book = self.tokenizer.vqvae.embedding.weight.detach()  # (K, C)
        mean = torch.einsum("bkhw,kc->bchw", probabilities, book)
        decoded = self.tokenizer.decode(mean).permute(0, 3, 1, 2).float()  # (B, Z, X, Y)
        fused = inner(logits)
        residual = self.mix(fused, decoded, inner(evidence)) - fused
        return functional.pad(residual, (MARGIN,) * 4)
