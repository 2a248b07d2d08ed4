"""The kernels say what the plain operations say; those of Triton where there is a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from tests.small_world import batch_of, model_of, small
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory import kernels
from vlwm.core.model.memory.fusion import FrameFusion
from vlwm.core.model.memory.warp import under_spread

GRID = VoxelGrid.from_range((-8, -10, -2, 8, 10, 16.75), (0.5, 1.0, 1.25))
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def fusion_of(past: int = 4, channels: int = 8) -> FrameFusion:
    torch.manual_seed(0)
    fusion = FrameFusion(past, channels)
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.3)
    return fusion


@pytest.mark.parametrize("past", [1, 4, 6])
@torch.no_grad()
def test_four_cells_as_one_make_the_same_residual(past: int) -> None:
    """Also at the borders, for every dilation of the network."""
    fusion = fusion_of(past)
    planes = torch.randn(3, 9, 12, kernels.CHANNELS)
    planes[..., past + 2 :] = 0.0
    maps = kernels.folded_maps(planes, fusion.conv_in, fusion.hidden)
    found = fusion.conv_out(maps.permute(0, 3, 1, 2))
    known = fusion._residual(planes[..., : past + 2].permute(0, 3, 1, 2))
    torch.testing.assert_close(found, known, rtol=1e-4, atol=1e-4)


def test_a_cpu_and_a_gradient_get_the_plain_operations() -> None:
    with torch.no_grad():
        assert not kernels.usable(torch.device("cpu"))
    assert not kernels.usable(torch.device("cuda"))


@pytest.fixture
def some_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A GPU with Triton, as far as `kernels` asks."""
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, device=None: zeros(*size))
    monkeypatch.setattr(kernels, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    kernels._works.cache_clear()
    yield torch.device("cuda")
    kernels._works.cache_clear()


def fails(error: Exception) -> Callable[..., torch.Tensor]:
    def kernel(probability: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        raise error

    return kernel


@torch.no_grad()
def test_a_machine_without_a_compiler_goes_the_other_way(
    some_gpu: torch.device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error = RuntimeError("Failed to find C compiler.\nSet CC.")
    monkeypatch.setattr(kernels, "mean_over_draws", fails(error))
    assert not kernels.usable(some_gpu)
    assert "Failed to find C compiler." in caplog.text and "Set CC" not in caplog.text


@torch.no_grad()
def test_a_moment_without_memory_takes_no_kernels_away(
    some_gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step halves its batch and asks again."""
    monkeypatch.setattr(kernels, "mean_over_draws", fails(torch.OutOfMemoryError("full")))
    with pytest.raises(torch.OutOfMemoryError):
        kernels.usable(some_gpu)
    monkeypatch.setattr(kernels, "mean_over_draws", lambda probability, places: probability)
    assert kernels.usable(some_gpu)


def rows(seed: int = 0) -> dict[str, torch.Tensor]:
    """Past frames of two windows, and seven future frames of them, some far away."""
    random = torch.Generator().manual_seed(seed)
    size = torch.tensor([4.0, 4.0, 2.0, 0.7])
    return {
        "voxels": (torch.rand(2, 6, *GRID.shape, generator=random) < 0.3).to(torch.uint8),
        "window": torch.tensor([0, 1, 1, 0, 1, 0, 0]),
        "past_ego": torch.randn(7, 4, 4, generator=random) * size,
        "ego": torch.randn(7, 4, generator=random) * size,
        "otherwise": torch.randn(GRID.shape[2], generator=random),
    }


@ON_GPU
@torch.no_grad()
def test_the_past_is_read_as_by_the_plain_operations() -> None:
    fusion, given = fusion_of(), rows()
    logits, reach = fusion.read(**given, grid=GRID)
    there = {name: value.cuda() for name, value in given.items()}
    with torch.backends.cudnn.flags(allow_tf32=False):
        found, share = fusion.cuda().read(**there, grid=GRID)
    torch.testing.assert_close(found.cpu(), logits, rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(share.cpu(), reach)


@ON_GPU
@torch.no_grad()
def test_draws_are_averaged_as_by_the_plain_operations() -> None:
    random = torch.Generator().manual_seed(1)
    probability = torch.rand(3, GRID.shape[2], *GRID.shape[:2], generator=random)
    ego, moves = torch.randn(3, 4, generator=random), torch.randn(3, 100, 3, generator=random)
    known = under_spread(probability, ego, moves * 0.5, GRID)
    found = under_spread(probability.cuda(), ego.cuda(), moves.cuda() * 0.5, GRID)
    assert float((found.cpu() - known).abs().mean()) < 2e-4  # a draw on a border may go either way
    torch.testing.assert_close(found.cpu(), known, rtol=0, atol=0.03)


@ON_GPU
def test_a_forecast_on_a_gpu_is_that_of_a_cpu() -> None:
    config = small()
    model, batch = model_of(config).eval(), batch_of(config, size=2)
    for plan in (None, batch.plan(4)):
        known = model.cpu().forecast(batch.past(4), plan)
        there = None if plan is None else batch.to(torch.device("cuda")).plan(4)
        found = model.cuda().forecast(batch.to(torch.device("cuda")).past(4), there)
        gap = (found.logits.cpu().sigmoid() - known.logits.sigmoid()).abs()
        assert float(gap.mean()) < 5e-3
        torch.testing.assert_close(found.poses.cpu(), known.poses, rtol=1e-3, atol=1e-3)


@ON_GPU
def test_a_step_trains_on_a_gpu() -> None:
    from vlwm.core.model.world_loss import WorldLoss

    config = small()
    model = model_of(config).cuda().train()
    model.vae.init_output_rate(torch.linspace(0.5, 0.01, model.grid.shape[2]))
    loss = WorldLoss(model)(batch_of(config).to(torch.device("cuda"))).total
    loss.backward()
    assert bool(torch.isfinite(loss))
