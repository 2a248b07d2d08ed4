"""Tokens of the fused, partial observation: three designs in the place of the completion network.

    masked_tokens       codes of the true frame, predicted from the evidence by masked modelling
                        (MaskGIT: Chang et al., CVPR 2022; codes: van den Oord et al., NeurIPS 2017)
    continuous_latents  the same grid of tokens without codes, trained end to end by occupancy
    completion_tokens   the default completion network with attention over its coarsest level

Each reads what the completion network reads, the fused log-odds and the evidence of a future frame
with a margin around it, and answers what it answers, a residual on those log-odds.
"""

from __future__ import annotations

from collections.abc import Callable

from token_designs.completion_tokens import CompletionTokens
from token_designs.continuous_latents import ContinuousLatents
from token_designs.interface import FusedFrame, TokenDesign
from token_designs.masked_tokens import MaskedTokens
from vlwm.core.config.schema import Config
from vlwm.core.geometry.grid import VoxelGrid

DESIGNS: dict[str, Callable[[Config, VoxelGrid], TokenDesign]] = {
    "masked_tokens": MaskedTokens,
    "continuous_latents": ContinuousLatents,
    "completion_tokens": CompletionTokens,
}

__all__ = ["DESIGNS", "FusedFrame", "TokenDesign"]
