"""The folded binary tokenizer is the literal one; names and shapes are OccWorld's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vlwm.core.config.schema import TokenizerConfig
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.bit_packing import pack_bits, unpack_bits
from vlwm.core.model.tokenizer.quantizer import CodebookHealth
from vlwm.core.model.tokenizer.vqvae import Tokenizer

SMALL = TokenizerConfig(
    base_channels=8, channel_mult=(1, 2, 2), num_res_blocks=1, embed_dim=16, codebook_size=32
)


@pytest.mark.parametrize("shape", [(16, 16, 5), (10, 9, 7), (50, 50, 30)])
def test_folded_equals_literal_in_value_and_gradient(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(SMALL, shape).double()
    voxels = (torch.rand(2, *shape) < 0.2).to(torch.uint8)
    results = []
    for literal in (False, True):
        tokenizer.zero_grad()
        z = tokenizer.encode(voxels, literal=literal)
        logits = tokenizer.decode(z, literal=literal)
        logits.pow(2).sum().backward()
        names = ("encoder.conv_in", "decoder.conv_out")
        grads = [tokenizer.get_submodule(n).weight.grad.clone() for n in names]
        results.append([z.detach(), logits.detach(), tokenizer.class_embeds.weight.grad, *grads])
    for folded, plain in zip(*results, strict=True):
        torch.testing.assert_close(folded, plain, rtol=1e-9, atol=1e-9)
    assert results[0][1].shape == (2, *shape)
    assert results[0][0].shape[1:] == tokenizer.latent_shape


def test_names_and_shapes_are_occworlds(shared_data: Path) -> None:
    facts = json.loads((shared_data / "occworld/occworld_state_dict.json").read_text())
    known = {k[4:]: tuple(v["shape"]) for k, v in facts.items() if k.startswith("vae.")}
    tokenizer = Tokenizer(TokenizerConfig(num_classes=18), (200, 200, 16))
    assert {k: tuple(v.shape) for k, v in tokenizer.state_dict().items()} == known


def test_121_slices_change_four_shapes_only(shared_data: Path) -> None:
    a = Tokenizer(TokenizerConfig(num_classes=18), (200, 200, 16)).state_dict()
    b = Tokenizer(TokenizerConfig(), (200, 200, 121)).state_dict()
    assert {k for k in a if a[k].shape != b[k].shape} == {
        "encoder.conv_in.weight", "decoder.conv_out.weight", "decoder.conv_out.bias",
        "class_embeds.weight",
    }  # fmt: skip
    assert b["encoder.conv_in.weight"].shape == (64, 968, 3, 3)


def test_eighteen_classes_decode_to_class_logits() -> None:
    config = TokenizerConfig(base_channels=8, num_classes=18, embed_dim=16, codebook_size=8)
    tokenizer = Tokenizer(config, (8, 8, 4))
    voxels = torch.randint(18, (2, 8, 8, 4))
    assert tokenizer.decode(tokenizer.encode(voxels)).shape == (2, 8, 8, 4, 18)


def test_tokens_round_trip() -> None:
    tokenizer = Tokenizer(SMALL, (16, 16, 5))
    voxels = torch.rand(3, 16, 16, 5) < 0.3
    indices = tokenizer.tokenise(voxels)
    quantized = tokenizer.quantize(tokenizer.encode(voxels))
    assert torch.equal(indices, quantized.indices)
    torch.testing.assert_close(tokenizer.embed(indices), quantized.z_q)
    flat = tokenizer.embed(indices).movedim(1, -1).reshape(-1, 16)
    assert torch.equal(tokenizer.vqvae.nearest(flat), indices.reshape(-1))


def test_the_output_begins_at_the_data_s_rate() -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(SMALL, (16, 16, 5))
    tokenizer.init_output_rate(0.02)
    z = tokenizer.embed(torch.randint(32, (4, *tokenizer.latent_shape[1:])))
    mean = torch.sigmoid(tokenizer.decode(z)).mean()
    assert 0.01 < mean.item() < 0.05


def test_the_straight_through_gradient_reaches_the_encoder() -> None:
    tokenizer = Tokenizer(SMALL, (16, 16, 5))
    quantized = tokenizer.quantize(tokenizer.encode(torch.rand(1, 16, 16, 5) < 0.3))
    (tokenizer.decode(quantized.z_q).sum() + quantized.vq_loss).backward()
    assert tokenizer.encoder.conv_in.weight.grad.abs().sum() > 0
    assert tokenizer.vqvae.embedding.weight.grad is None


def test_the_codebook_follows_and_revives() -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(SMALL, (16, 16, 5))
    health = CodebookHealth(tokenizer.vqvae, 0.8, 0.05, seed=1)
    centres = torch.randn(32, 16) * 5
    for _ in range(60):
        flat = centres[torch.randint(32, (512,))] + 0.01 * torch.randn(512, 16)
        health.update(flat, tokenizer.vqvae.nearest(flat))
    distance = torch.cdist(centres, tokenizer.vqvae.embedding.weight).min(dim=1).values
    assert float(distance.max()) < 0.5
    numbers = health.numbers()
    assert numbers["codebook/used"] == 32 and numbers["codebook/perplexity"] > 25
    names = set(tokenizer.state_dict())
    assert not [n for n in names if "count" in n or "sums" in n]


def test_dead_codes_are_seen_and_restarted() -> None:
    """All encoder outputs choose one code of 32; the others are restarted until all are in use."""
    used, perplexity = {}, {}
    for revive_below in (0.0, 0.05):
        torch.manual_seed(0)
        tokenizer = Tokenizer(SMALL, (16, 16, 5))
        codes = tokenizer.vqvae.embedding.weight
        codes.data[1:] = 1e3  # nobody chooses these
        health = CodebookHealth(tokenizer.vqvae, 0.8, revive_below, seed=1)
        health.adopt()
        for _ in range(60):
            flat = torch.randn(512, 16)
            health.update(flat, tokenizer.vqvae.nearest(flat))
        numbers = health.numbers()
        used[revive_below] = numbers["codebook/used"]
        perplexity[revive_below] = numbers["codebook/perplexity"]
    assert used == {0.0: 1, 0.05: 32}
    assert perplexity[0.0] < 1.1 and perplexity[0.05] > 10


def test_codebook_state_round_trip() -> None:
    tokenizer = Tokenizer(SMALL, (16, 16, 5))
    health = CodebookHealth(tokenizer.vqvae, 0.8, 0.05, seed=1)
    health.update(torch.randn(64, 16), torch.zeros(64, dtype=torch.int64))
    other = CodebookHealth(tokenizer.vqvae, 0.8, 0.05, seed=2)
    other.load_state_dict(health.state_dict())
    flat = torch.randn(64, 16)
    codes = tokenizer.vqvae.nearest(flat)
    before = tokenizer.vqvae.embedding.weight.detach().clone()
    health.update(flat, codes)
    first = tokenizer.vqvae.embedding.weight.detach().clone()
    tokenizer.vqvae.embedding.weight.data.copy_(before)
    other.update(flat, codes)
    assert torch.equal(first, tokenizer.vqvae.embedding.weight.detach())


@pytest.mark.parametrize("shape", [(4, 4, 4), (5, 3, 7), (200, 200, 121)])
def test_bits_are_those_of_the_grid(shape: tuple[int, int, int]) -> None:
    grid = VoxelGrid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), shape)
    voxels = (np.random.default_rng(0).random(shape) < 0.3).astype(np.uint8)
    bits = torch.from_numpy(grid.pack(voxels))[None]
    assert np.array_equal(unpack_bits(bits, shape)[0].numpy(), voxels)
    assert torch.equal(pack_bits(unpack_bits(bits, shape)), bits)
    with pytest.raises(ValueError, match="do not hold"):
        unpack_bits(bits[:, :-1], shape)


def test_blocks_that_make_their_norms_again_have_the_same_gradients() -> None:
    """Saved for the backward pass: the input and one map inside; as it is written, six maps."""
    from vlwm.core.model.tokenizer import conv_blocks

    torch.manual_seed(0)
    block, x = conv_blocks.ResBlock(16, 16), torch.randn(1, 16, 128, 128)
    grads, kept = [], []
    for worth in (conv_blocks._WORTH_IT, 1 << 40):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conv_blocks, "_WORTH_IT", worth)
            saved: dict[int, int] = {}

            def note(value: torch.Tensor, saved: dict[int, int] = saved) -> torch.Tensor:
                saved[value.data_ptr()] = value.numel()
                return value

            with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
                result = block(x)
        block.zero_grad()
        result.square().sum().backward()
        grads.append([p.grad.clone() for p in block.parameters() if p.grad is not None])
        kept.append(sum(saved.values()) / x.numel())
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    assert kept[0] < 3 and kept[1] > 5
