"""A forecast made column by column on a CPU equals the general path."""

from __future__ import annotations

import pytest
import torch

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.branch import MotionSpread, TargetFrames
from vlwm.core.model.memory.completion_net import CompletionNet
from vlwm.core.model.memory.cpu.completion import CompletionOnCpu
from vlwm.core.model.memory.cpu.draws import averaged_rows
from vlwm.core.model.memory.observed_fusion import ObservedBranch
from vlwm.core.model.memory.warp import affine_places

GRID = VoxelGrid((-15.0, -12.0, -2.0), (1.0, 1.0, 1.0), (30, 24, 7))
EGO = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.7, -0.6, 0.4, 0.3], [3.2, -1.4, -1.3, 0.5]])


def branch_of(grid: VoxelGrid) -> ObservedBranch:
    """A branch whose completion answers something."""
    torch.manual_seed(0)
    branch = ObservedBranch(2, 0, grid, completion=16)
    assert branch.completion is not None
    for module in branch.completion.modules():
        if isinstance(module, torch.nn.GroupNorm):
            torch.nn.init.normal_(module.weight, 1.0, 0.3)
            torch.nn.init.normal_(module.bias, 0.0, 0.3)
    torch.nn.init.normal_(branch.completion.out.weight, std=0.05)
    return branch


@pytest.mark.parametrize("threads", [1, 2])
def test_it_equals_the_general_path(threads: int) -> None:
    """Two windows, of which one target frame is planned and the others have a spread."""
    branch = branch_of(GRID)
    rng = torch.Generator().manual_seed(1)
    state = torch.randint(0, 8, (2, 2, *GRID.shape), generator=rng)
    occupied, free = (state == 1).to(torch.uint8), (state == 2).to(torch.uint8)
    window = torch.tensor([0, 0, 1])
    target = TargetFrames(window, torch.tensor([0, 1, 0]), EGO[None, :2].expand(3, -1, -1), EGO)
    moves = torch.randn(2, 16, 3, generator=rng) * torch.tensor([1.0, 0.5, 0.1])
    spread = MotionSpread(torch.tensor([0, 2]), moves)
    prior = torch.linspace(-1.0, -4.0, GRID.shape[2])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = branch.read(occupied, free, target, prior, spread)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    with torch.no_grad():
        logits, evidence = branch.completed(
            occupied[window], free[window], target.past_ego, EGO, prior
        )
        logits = branch._averaged(logits, EGO, spread)
    torch.testing.assert_close(found.logits.sigmoid(), logits.sigmoid(), atol=2e-6, rtol=0)
    torch.testing.assert_close(found.reach, evidence)


@pytest.mark.parametrize("blocks", [0, 2])
@pytest.mark.parametrize("size", [(48, 64), (45, 50), (29, 33)])
def test_the_completion_of_even_and_odd_maps_equals_the_network(
    size: tuple[int, int], blocks: int
) -> None:
    """A map of an odd size ends in half a coarse cell."""
    layers, depth = 5, 64
    torch.manual_seed(0)
    net = CompletionNet(layers, 16, blocks)
    torch.nn.init.normal_(net.out.weight)
    if net.attention is not None:
        for weight in net.attention.parameters():
            torch.nn.init.normal_(weight, std=0.2)
    logits, evidence = torch.randn(1, layers, *size), torch.rand(1, layers, *size)
    block = torch.randn(*size, 2, depth)  # what is in the padding does not matter
    block[..., 0, :layers] = torch.sigmoid(logits / 2)[0].permute(1, 2, 0)
    block[..., 1, :layers] = evidence[0].permute(1, 2, 0)
    with torch.no_grad():
        fast = CompletionOnCpu(net, layers, depth)
        found = fast.residual(fast.map_of(fast.entered(block.flatten(2)).contiguous()))
        expected = net(logits, evidence)[0].permute(1, 2, 0)
    assert (found - expected).abs().max() < 1e-4 * expected.std()


def test_a_mean_over_draws_counts_each_draw_once() -> None:
    """Draws that meet the same cell, and draws beyond the border."""
    table = torch.rand(*GRID.shape)
    moves = torch.tensor([[0.0, 0, 0, 0], [0.1, 0, 0, 0], [0.0, 1, 0, 0], [99.0, 0, 0, 0]])
    places = affine_places(moves, GRID).float()
    mean = torch.cat(list(averaged_rows(table, places)))
    aside = table[:, [*range(1, GRID.shape[1]), GRID.shape[1] - 1]]
    expected = (2 * table + aside + table[-1:]) / 4
    torch.testing.assert_close(mean, expected, atol=1e-6, rtol=0)
