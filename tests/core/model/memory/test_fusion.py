"""The fusion is the mean at first, the same for every layer, and learns where a surface stands."""

from __future__ import annotations

import numpy as np
import torch

from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.fusion import FrameFusion, fusion_loss
from vlwm.core.model.memory.warp import Resampled, resampled_memory

GRID = VoxelGrid.from_range((-8.0, -8.0, 0.0, 8.0, 8.0, 1.0), (0.5, 0.5, 1.0))


def memory_of(seed: int = 0, layers: int = 20) -> Resampled:
    random = torch.Generator().manual_seed(seed)
    inside = (torch.rand(2, 4, layers, 12, 10, generator=random) < 0.8).to(torch.uint8)
    occupied = torch.rand(2, 4, layers, 12, 10, generator=random) * inside
    return Resampled(occupied, inside)


def trained() -> FrameFusion:
    torch.manual_seed(0)
    fusion = FrameFusion(4, 6)
    torch.nn.init.normal_(fusion.conv_out.weight)
    return fusion


def test_untrained_it_decides_as_the_mean() -> None:
    memory = memory_of()
    logits = FrameFusion(4, 6)(memory)
    assert torch.equal(logits >= 0, memory.mean() >= 0.5 - 1e-3)


def test_layers_at_once_and_one_by_one_say_the_same() -> None:
    fusion, memory = trained(), memory_of(layers=37)
    whole = fusion(memory)
    with torch.no_grad():
        parts = fusion(memory)
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-5)


def test_some_layers_say_what_they_say_in_the_whole() -> None:
    fusion, memory = trained(), memory_of()
    whole, mean = fusion(memory), memory.mean()
    wanted = torch.tensor([3, 11, 4])
    some = Resampled(memory.occupied[:, :, wanted], memory.inside[:, :, wanted])
    beside = (mean[:, wanted - 1], mean[:, wanted + 1])
    torch.testing.assert_close(fusion(some, beside), whole[:, wanted], rtol=1e-5, atol=1e-5)


def test_what_was_never_seen_does_not_count() -> None:
    logits = torch.randn(2, 3, 4, 5)
    truth = (torch.rand(2, 3, 4, 5) < 0.5).to(torch.uint8)
    seen = torch.rand(2, 3, 4, 5) < 0.7
    other = torch.where(seen, truth, 1 - truth)
    assert torch.equal(fusion_loss(logits, truth, seen), fusion_loss(logits, other, seen))
    assert fusion_loss(logits, truth, torch.zeros_like(seen)) == 0


def walls(random: np.random.Generator, windows: int) -> tuple[Resampled, torch.Tensor]:
    """Long straight walls, each seen on four rasters; the truth is on a fifth."""
    angles, places = random.uniform(0, np.pi, windows), random.uniform(-4, 4, windows)
    ego = random.uniform([-2, -2, 0, -np.pi], [2, 2, 0, np.pi], (windows, 5, 4))
    cells = np.zeros((windows, 5, *GRID.shape), np.uint8)
    along = np.linspace(-30, 30, 6000)
    for w in range(windows):
        normal = np.array([np.cos(angles[w]), np.sin(angles[w])])
        points = places[w] * normal + along[:, None] * normal[::-1] * [-1, 1]
        for f in range(5):
            cos, sin = np.cos(ego[w, f, 3]), np.sin(ego[w, f, 3])
            here = (points - ego[w, f, :2]) @ np.array([[cos, -sin], [sin, cos]])
            index = np.floor((here + 8.0) / 0.5).astype(int)
            index = index[((index >= 0) & (index < 32)).all(1)]
            cells[w, f, index[:, 0], index[:, 1]] = 1
    past, frames = torch.from_numpy(cells), torch.from_numpy(ego)
    memory = resampled_memory(past[:, :4], frames[:, :4], frames[:, 4], GRID)
    return memory, past[:, 4].permute(0, 3, 1, 2)


def iou(fusion: FrameFusion, memory: Resampled, truth: torch.Tensor) -> float:
    with torch.no_grad():
        said = (fusion(memory) >= 0) & memory.seen()
    true = (truth > 0) & memory.seen()
    return float((said & true).sum() / (said | true).sum())


def test_it_learns_where_a_wall_stands_between_the_cells() -> None:
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    fusion = FrameFusion(4, 8)
    unseen, truth = walls(random, 12)
    before = iou(fusion, unseen, truth)
    optimizer = torch.optim.AdamW(fusion.parameters(), 5e-3)
    for _ in range(250):
        memory, true = walls(random, 8)
        optimizer.zero_grad()
        fusion_loss(fusion(memory), true, memory.seen()).backward()
        optimizer.step()
    assert iou(fusion, unseen, truth) > before + 0.03
