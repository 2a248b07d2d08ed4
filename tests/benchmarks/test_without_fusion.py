"""A run without its fusion reads what no network has changed."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from vlwm.core.model.memory.fusion import FrameFusion
from vlwm.core.model.memory.warp import Resampled

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import without_fusion


def test_a_silent_fusion_is_the_reading_without_learning() -> None:
    torch.manual_seed(0)
    fusion = FrameFusion(4, 6)
    torch.nn.init.normal_(fusion.conv_out.weight)
    torch.nn.init.normal_(fusion.conv_out.bias)
    memory = Resampled(torch.rand(1, 4, 5, 6, 7), torch.ones(1, 4, 5, 6, 7, dtype=torch.uint8))
    plain = FrameFusion(4, 6)(memory)
    assert not torch.allclose(fusion(memory), plain)
    without_fusion.silence(fusion)
    assert torch.equal(fusion(memory), plain)
