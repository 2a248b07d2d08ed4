"""Turn voxels into tokens: OccWorld's VQ-VAE over the ground plane (arXiv 2311.16038, 3.2).

Each height slice of a voxel column is a class embedding of `expansion` numbers; the slices are
folded into channels, and everything after is two-dimensional. In the binary configuration (empty,
occupied) the embedding is linear in the voxel, so it is folded into the first and last convolution
exactly: the eightfold expansion is never computed. `literal=True` computes it as published, for
tests.

Axes: N frames, X, Y, Z cells, C token channels, h, w the token map.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.config.schema import TokenizerConfig
from vlwm.core.model.semantic import occupancy_logit
from vlwm.core.model.tokenizer.conv_blocks import (
    Decoder,
    Encoder,
    bias_of,
    conv_of_constant,
    map_sizes,
)
from vlwm.core.model.tokenizer.quantizer import Quantized, VectorQuantizer


class Tokenizer(nn.Module):
    """Voxels to tokens and back.

    Args:
        config: its size.
        shape: cells X, Y, Z of a frame.
    """

    def __init__(self, config: TokenizerConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.config, self.shape = config, tuple(shape)
        channels = shape[2] * config.expansion
        sizes = (config.base_channels, config.channel_mult, config.num_res_blocks, config.embed_dim)
        self.encoder = Encoder(channels, *sizes)
        self.decoder = Decoder(channels, *sizes)
        self.class_embeds = nn.Embedding(config.num_classes, config.expansion)
        self.vqvae = VectorQuantizer(
            config.codebook_size,
            config.embed_dim,
            config.commitment,
            by_gradient=config.ema_decay == 0.0,
        )
        self.map_sizes = map_sizes((shape[0], shape[1]), len(config.channel_mult))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """C, h, w of a token map."""
        return (self.config.embed_dim, *self.map_sizes[-1])

    def encode(self, voxels: Tensor, *, literal: bool = False) -> Tensor:
        """Return features (N, C, h, w), not quantised, of voxels (N, X, Y, Z): 0/1 or classes."""
        folded = self.config.num_classes == 2 and not literal
        hidden = self._fold_in(voxels) if folded else self._conv_in(voxels)
        return self.vqvae.quant_conv(self.encoder(hidden))

    def _conv_in(self, voxels: Tensor) -> Tensor:
        embedded = self.class_embeds(voxels.long())  # (N, X, Y, Z, expansion)
        return self.encoder.conv_in(embedded.flatten(3).permute(0, 3, 1, 2))

    def _fold_in(self, voxels: Tensor) -> Tensor:
        conv = self.encoder.conv_in
        weight = conv.weight.unflatten(1, (self.shape[2], -1))  # (O, Z, expansion, 3, 3)
        # embedding(voxel) = empty + voxel · (occupied − empty): linear, so it folds into conv_in
        empty, occupied = self.class_embeds.weight
        step = torch.einsum("ozekl,e->ozkl", weight, occupied - empty)
        level = torch.einsum("ozekl,e->okl", weight, empty)[:, None]
        # height layers as channels: (N, Z, X, Y)
        planes = voxels.permute(0, 3, 1, 2).to(step.dtype)
        # the constant part, whose zero padding is felt at the border
        ground = conv_of_constant((self.shape[0], self.shape[1]), level)
        return functional.conv2d(planes, step, conv.bias, padding=1) + ground

    def quantize(self, z: Tensor) -> Quantized:
        """Return the nearest codes of (N, C, h, w)."""
        return self.vqvae(z)

    def decode(self, z_q: Tensor, *, literal: bool = False) -> Tensor:
        """Return logits (N, X, Y, Z) of codes (N, C, h, w); (…, classes) for more than two."""
        hidden = self.decoder(self.vqvae.post_quant_conv(z_q), self.map_sizes)
        conv = self.decoder.conv_out
        if self.config.num_classes == 2 and not literal:
            return self._fold_out(hidden).permute(0, 2, 3, 1)
        slices = conv(hidden).unflatten(1, (self.shape[2], -1))  # (N, Z, expansion, X, Y)
        logits = torch.einsum("nzexy,ce->nxyzc", slices, self.class_embeds.weight)
        return logits[..., 1] - logits[..., 0] if self.config.num_classes == 2 else logits

    def decode_occupancy(self, z_q: Tensor) -> Tensor:
        """Return logits (N, X, Y, Z) that a cell is occupied, with classes or without."""
        logits = self.decode(z_q)
        return logits if self.config.num_classes == 2 else occupancy_logit(logits)

    def _fold_out(self, hidden: Tensor) -> Tensor:
        conv = self.decoder.conv_out
        # the logit is a difference of two classes: only that difference is convolved
        apart = self.class_embeds.weight[1] - self.class_embeds.weight[0]
        weight = torch.einsum("zeikl,e->zikl", conv.weight.unflatten(0, (self.shape[2], -1)), apart)
        bias = bias_of(conv).unflatten(0, (self.shape[2], -1)) @ apart
        return functional.conv2d(hidden, weight, bias, padding=1)

    def tokenise(self, voxels: Tensor) -> Tensor:
        """Return code indices int64 (N, h, w) of voxels (N, X, Y, Z)."""
        z = self.encode(voxels)
        flat = z.movedim(1, -1).reshape(-1, z.shape[1])
        return self.vqvae.nearest(flat).view(len(z), *z.shape[2:])

    def embed(self, indices: Tensor) -> Tensor:
        """Return codes (N, C, h, w) of indices (N, h, w)."""
        return self.vqvae.embed(indices)

    @torch.no_grad()
    def init_output_rate(self, rate: float | Tensor) -> None:
        """Start the decoder at the logit of the train split's rate of occupied cells.

        Args:
            rate: share of occupied cells, one number or (Z,), kept within 1e-5 of 0 and 1.
        """
        embeds = self.class_embeds.weight
        rates = torch.as_tensor(rate, dtype=torch.float32, device=embeds.device)
        logits = torch.logit(rates.expand(self.shape[2]).clamp(1e-5, 1 - 1e-5))  # (Z,)
        if self.config.num_classes == 2:
            apart = embeds[1] - embeds[0]
            bias = logits[:, None] * apart / apart.pow(2).sum().clamp(min=1e-6)
        else:
            bias = _bias_of_classes(embeds, logits)
        bias_of(self.decoder.conv_out).copy_(bias.reshape(-1))
        # smaller weights, so that the bias decides at first
        self.decoder.conv_out.weight.mul_(1.0 / math.sqrt(2.0))


def _bias_of_classes(embeds: Tensor, logits: Tensor) -> Tensor:
    """Return features (Z, E) whose class logits give a cell's occupancy the logit `logits` (Z,).

    Args:
        embeds: (C + 1, E), of the classes, free space last.
    """
    wanted = torch.zeros(len(embeds), 1, device=embeds.device)
    wanted[-1] = 1.0
    along = torch.linalg.lstsq(embeds.float(), wanted).solution[:, 0]  # (E,), raises free space
    response = embeds.float() @ along  # (C + 1,)
    low = torch.full_like(logits, -400.0)
    high = -low
    for _ in range(50):  # the logit falls along this direction: bisect for its length
        middle = (low + high) / 2
        too_high = occupancy_logit(middle[:, None] * response) > logits
        low = torch.where(too_high, middle, low)
        high = torch.where(too_high, high, middle)
    return high[:, None] * along
