"""Our OccWorld is OccWorld, and a comparison with its outputs sees what is wrong.

The cheap part of benchmarks/occworld_parity.py: one frame through the encoder, one or two through
the transformer, against the golden outputs of three (a frame's own are those of the frames before
it). Each wrong variant is put in and has to be seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.occworld_parity import Golden, Recipe, inputs
from vlwm.core.model import occworld
from vlwm.core.model.occworld import SHAPE, TOKENIZER, OccWorld
from vlwm.core.model.tokenizer import conv_blocks
from vlwm.core.model.tokenizer.vqvae import Tokenizer
from vlwm.core.model.transformer import token_transformer
from vlwm.core.model.transformer.token_transformer import TokenTransformer
from vlwm.core.model.transformer.two_stream import Streams

Z, LOGITS, POSES = "z_after_quant_conv", "train/ce_inputs", "train/pose_decoded"
LIMIT, Z_LIMIT = 1e-4, 1e-3
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "occworld"


@pytest.fixture(scope="module")
def golden(folder: Path) -> Golden:
    return Golden(folder, "randn", 3)


@pytest.fixture(scope="module")
def world(golden: Golden) -> OccWorld:
    """All but the tokenizer, of which it needs the codebook alone."""
    model = OccWorld(3).eval().requires_grad_(False)
    for name in ("transformer", "pose_encoder", "pose_decoder"):
        golden.fill(getattr(model, name), f"{name}.")
    golden.fill(model.vae.vqvae, "vae.vqvae.")
    return model


@pytest.fixture(scope="module")
def tokenizers(golden: Golden, folder: Path) -> dict[str, Tokenizer]:
    """Encoder and codebook in both recipes."""
    found = {}
    for recipe in ("sin", "randn"):
        tokenizer = Tokenizer(TOKENIZER, SHAPE).eval().requires_grad_(False)
        for name in ("encoder", "vqvae", "class_embeds"):
            Golden(folder, recipe, 3).fill(getattr(tokenizer, name), f"vae.{name}.")
        found[recipe] = tokenizer
    return found


def away(golden: Golden, name: str, first: Tensor) -> float:
    """Largest deviation, in standard deviations, of an output's first frames at the samples."""
    values = golden.values
    inside = values[f"{name}/sample_idx"] < first.numel()
    ours = first.numpy().flat[values[f"{name}/sample_idx"][inside]]
    assert inside.sum() >= 10
    return float(np.abs(ours - values[f"{name}/sample"][inside]).max() / values[f"{name}/std"])


def encoded(golden: Golden, tokenizer: Tokenizer) -> tuple[float, int]:
    """Of the first frame: deviation before quantisation, and how many codes differ."""
    with torch.no_grad():
        z = tokenizer.encode(inputs(3)[0][:, 0])
        indices = tokenizer.quantize(z).indices
    return away(golden, Z, z), int((indices != golden.codes[:1]).sum())


def told(golden: Golden, world: OccWorld, frames: int) -> tuple[float, float]:
    """Teacher-forced on golden codes: deviations of code logits and poses of the first frames."""
    _, steps, modes = inputs(3)
    with torch.no_grad():
        tokens = world.vae.embed(golden.codes[:frames])[None]
        found = world.predict(tokens, steps[:, :frames].float(), modes[:, :frames])
    full, std = golden.values[f"{POSES}/full"], golden.values[f"{POSES}/std"]
    poses = np.abs(found.poses.numpy() - full[:, :frames]).max() / std
    return away(golden, LOGITS, found.logits[0]), float(poses)


def test_names_and_shapes_are_those_of_the_original(folder: Path) -> None:
    facts = json.loads((folder / "occworld_state_dict.json").read_text())
    with torch.device("meta"):
        state = OccWorld(15).state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == {
        name: fact["shape"] for name, fact in facts.items()
    }


@pytest.mark.parametrize("recipe", ["sin", "randn"])
def test_the_encoder_finds_the_codes(
    folder: Path, tokenizers: dict[str, Tokenizer], recipe: str
) -> None:
    z, differing = encoded(Golden(folder, recipe, 3), tokenizers[recipe])
    assert z <= Z_LIMIT and differing == 0


def test_the_transformer_says_what_the_original_says(golden: Golden, world: OccWorld) -> None:
    logits, poses = told(golden, world, 2)
    assert logits <= LIMIT and poses <= LIMIT


def test_a_roll_out_begins_as_that_of_the_original(golden: Golden, world: OccWorld) -> None:
    _, steps, modes = inputs(3)
    found = world.roll_out(world.vae.embed(golden.codes[:2])[None], steps.float(), modes, 1)
    assert away(golden, "autoreg/ce_inputs", found.logits[0]) <= LIMIT
    for name, ours in (("pose_decoded", found.poses), ("poses_", found.chosen)):
        full, std = (golden.values[f"autoreg/{name}/{part}"] for part in ("full", "std"))
        assert np.abs(ours.numpy() - full[:, :1]).max() <= LIMIT * std


@pytest.mark.endurance
@pytest.mark.parametrize("recipe", ["sin", "randn"])
def test_three_frames_agree_in_every_output(folder: Path, recipe: str) -> None:
    compared = Recipe(folder, recipe, print)
    compared.compare(3)
    assert all(row["within"] for row in compared.rows)


# Wrong variants of the tokenizer


def pad_far_side(patch: Patch) -> None:
    def forward(self: conv_blocks.Down, x: Tensor) -> Tensor:
        padded = functional.pad(x, (0, 1, 0, 1))
        return functional.conv2d(padded, self.conv.weight, self.conv.bias, stride=2)

    patch.setattr(conv_blocks.Down, "forward", forward)


def leave_middle_attention_out(patch: Patch) -> None:
    patch.setattr(conv_blocks.Middle, "forward", lambda self, x: self.block_2(self.block_1(x)))


def forget_the_shortcut(patch: Patch) -> None:
    whole = conv_blocks.ResBlock.forward

    def forward(self: conv_blocks.ResBlock, x: Tensor) -> Tensor:
        return whole(self, x) - (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)

    patch.setattr(conv_blocks.ResBlock, "forward", forward)


@pytest.mark.parametrize("fault", [pad_far_side, leave_middle_attention_out, forget_the_shortcut])
def test_a_wrong_encoder_is_seen(
    golden: Golden, tokenizers: dict[str, Tokenizer], monkeypatch: Patch, fault: Callable[..., None]
) -> None:
    fault(monkeypatch)
    z, differing = encoded(golden, tokenizers["randn"])
    assert z > Z_LIMIT and differing > 0


def test_the_epsilon_of_the_norms_is_seen(
    folder: Path, tokenizers: dict[str, Tokenizer], monkeypatch: Patch
) -> None:
    for module in tokenizers["sin"].modules():
        if isinstance(module, nn.GroupNorm):
            monkeypatch.setattr(module, "eps", 1e-5)
    assert encoded(Golden(folder, "sin", 3), tokenizers["sin"])[0] > Z_LIMIT


# Wrong variants of the transformer


def look_ahead(patch: Patch, _: OccWorld) -> None:
    whole = token_transformer.Attention.forward

    def forward(self: Any, x: Tensor, other: Tensor, *, causal: bool) -> Tensor:
        return whole(self, x, other, causal=False)

    patch.setattr(token_transformer.Attention, "forward", forward)


def halve_the_heads(patch: Patch, world: OccWorld) -> None:
    for module in world.modules():
        if isinstance(module, token_transformer.Attention):
            patch.setattr(module, "heads", module.heads // 2)


def ask_for_the_frame_itself(patch: Patch, _: OccWorld) -> None:
    def over_time(cls: type[Streams], x: Tensor, times: Tensor) -> Streams:
        return cls(x + times[: x.shape[1]], x + times[: x.shape[1]])

    patch.setattr(Streams, "over_time", classmethod(over_time))


def use_relu(patch: Patch, _: OccWorld) -> None:
    patch.setattr(
        token_transformer.FeedForward, "forward", lambda self, x: self.fc2(self.fc1(x).relu())
    )


def forget_what_came_in(patch: Patch, _: OccWorld) -> None:
    def over_time(block: nn.ModuleList, asked: Tensor, known: Tensor) -> Tensor:
        attention, norm1, forward, norm2 = block
        asked = norm1(attention(asked, known, causal=True))
        return norm2(asked + forward(asked))

    patch.setattr(token_transformer, "_over_time", over_time)


def take_another_command(patch: Patch, world: OccWorld) -> None:
    whole = world.pose_encoder.forward
    patch.setattr(world.pose_encoder, "forward", lambda s, m: whole(s, m.roll(1, dims=-1)))


@pytest.mark.parametrize(
    ("fault", "frames"),
    [(look_ahead, 2), (halve_the_heads, 2), (ask_for_the_frame_itself, 1), (use_relu, 1),
     (forget_what_came_in, 1), (take_another_command, 1)],
)  # fmt: skip
def test_a_wrong_transformer_is_seen(
    golden: Golden, world: OccWorld, monkeypatch: Patch, fault: Callable[..., None], frames: int
) -> None:
    fault(monkeypatch, world)
    logits, poses = told(golden, world, frames)
    assert max(logits, poses) > LIMIT


# The fault of the original that is not repeated: a roll-out knows the past's commands alone


def rolled(world: OccWorld, modes: Tensor) -> Tensor:
    """Steps of a roll-out, two frames after two."""
    codes = torch.arange(2 * 100).reshape(2, 10, 10)
    tokens = world.vae.embed(codes)[None]
    return world.roll_out(tokens, inputs(3)[1].float(), modes, 2).chosen


@pytest.fixture(scope="module")
def narrow() -> OccWorld:
    """The same on small maps."""
    torch.manual_seed(0)
    with torch.device("meta"):
        model = OccWorld(3)
    model.vae.vqvae.embedding = nn.Embedding(512, 128)
    model.transformer = TokenTransformer((128, 16, 16), 512, (10, 10), 4, 2, 1, 1)
    model.pose_encoder, model.pose_decoder = occworld.PoseEncoder(128), occworld.PoseDecoder(128)
    return model.eval()


def poisoned(kind: float) -> Tensor:
    modes = inputs(3)[2]
    modes[:, 2:] = kind
    return modes


@pytest.mark.parametrize("kind", [float("nan"), 7.0])
def test_a_roll_out_never_reads_a_future_command(narrow: OccWorld, kind: float) -> None:
    assert torch.equal(rolled(narrow, poisoned(kind)), rolled(narrow, inputs(3)[2]))


def test_a_future_command_that_is_read_is_seen(narrow: OccWorld, monkeypatch: Patch) -> None:
    monkeypatch.setattr(occworld, "commands", lambda modes, past, frames: modes[:, :frames])
    assert not torch.equal(rolled(narrow, poisoned(7.0)), rolled(narrow, inputs(3)[2]))
