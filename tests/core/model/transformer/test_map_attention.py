"""Attention over a map: untrained it changes nothing, trained each place hears of all others."""

from __future__ import annotations

import pytest
import torch

from vlwm.core.model.transformer.map_attention import MapAttention, position_waves


@pytest.mark.parametrize("size", [(5, 7), (9, 4)])
def test_untrained_attention_changes_nothing_on_a_map_of_any_size(size: tuple[int, int]) -> None:
    tokens = torch.randn(2, 12, *size)
    torch.testing.assert_close(MapAttention(12, 2)(tokens), tokens)


def test_a_far_place_is_heard_by_all_and_places_are_told_apart() -> None:
    torch.manual_seed(0)
    net = MapAttention(12, 1)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    tokens = torch.randn(1, 12, 9, 9)
    other = tokens.clone()
    other[0, :, 0, 0] += 1.0
    moved = (net(other) - net(tokens)).abs().amax(dim=1)[0]
    assert (moved > 0).all()  # a convolution of 3 x 3 reaches one place
    same = net(torch.ones(1, 12, 9, 9))
    assert (same[..., 4, 4] - same[..., 5, 5]).abs().max() > 1e-3
    assert len(torch.unique(position_waves(9, 9, 12), dim=0)) == 81
