"""Compile the networks: faster steps, the same results up to rounding."""

from __future__ import annotations

import logging

import torch
from torch import nn

log = logging.getLogger("vlwm.training")

_NETWORKS = ("encoder", "decoder", "transformer", "refinement_net")
_SHAPES = 64
"""shapes for which a network may be compiled"""


def compile_networks(module: nn.Module) -> list[str]:
    """Compile the networks inside a model in place; names in the state dict stay as they are.

    Each shape is compiled for itself: a full batch, the last one of an epoch, and each length of
    the roll-out. Where a network cannot be compiled, torch runs it as it is.
    """
    # process-wide, since dynamo has no other settings; nothing else here compiles
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.cache_size_limit = _SHAPES
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    found = [name for name, _ in module.named_modules() if name.rpartition(".")[2] in _NETWORKS]
    for name in found:
        module.get_submodule(name).compile(dynamic=False)
    log.info("compiling %s; the first steps take longer", ", ".join(found))
    return found
