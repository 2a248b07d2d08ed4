"""Rebuild OccWorld in its published configuration, to compare checkpoints and results with it.

    classes ─► tokenizer ─► codes ─┐
    relative poses, command ───────┴─► transformer ─► codes and poses of the next frame ─► classes

Only tests and benchmarks/occworld_parity.py use it. Names, shapes and function are those of arXiv
2311.16038, so its released weights load. One fault is not repeated: which output of the pose head
continues a roll-out is chosen by the last driving command of the past, never by a command of the
future.

Axes: B batch, F frames, X, Y, Z cells, C token channels, h, w the token map, K codes, M driving
modes (right, left, straight on).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlwm.core.config.schema import TokenizerConfig
from vlwm.core.model.losses import token_loss
from vlwm.core.model.tokenizer.quantizer import Quantized
from vlwm.core.model.tokenizer.vqvae import Tokenizer
from vlwm.core.model.transformer.token_transformer import TokenTransformer

MODES = 3
"""driving modes: right, left, straight on"""
SHAPE = (200, 200, 16)
FREE = 17
"""the class of Occ3D-nuScenes for empty space"""
TOKENIZER = TokenizerConfig(num_classes=18, ema_decay=0.0, commitment=1.0)
_CHANNELS, _HEADS, _LAYERS = (128, 256, 512), 8, 6


class PoseEncoder(nn.Module):
    """Steps (..., 2) and one-hot commands (..., M) → pose tokens (..., C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pose_encoder = nn.Sequential(
            nn.Linear(2 + MODES, width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self, steps: Tensor, modes: Tensor) -> Tensor:
        features: Tensor = self.pose_encoder(torch.cat([steps, modes], dim=-1))
        return features


class PoseDecoder(nn.Module):
    """Pose features (..., C) → a step for each driving mode (..., M, 2), metres."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pose_decoder = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2 * MODES)
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.pose_decoder(features).unflatten(-1, (MODES, 2))


@dataclass(frozen=True)
class Predicted:
    """Prediction of the frames after the past.

    Attributes:
        logits: (B, F, K, h, w), of the codes.
        poses: (B, F, M, 2), steps in metres, one for each driving mode.
        chosen: (B, F, 2), the steps of the commanded mode.
    """

    logits: Tensor
    poses: Tensor
    chosen: Tensor

    @property
    def codes(self) -> Tensor:
        """Most likely codes, int64 (B, F, h, w)."""
        return self.logits.argmax(dim=2)


class OccWorld(nn.Module):
    """See the module.

    Args:
        frames: known frames in training, 15 as published; one more is predicted.
    """

    def __init__(self, frames: int = 15) -> None:
        super().__init__()
        self.frames = frames
        self.vae = Tokenizer(TOKENIZER, SHAPE)
        width, *size = self.vae.latent_shape
        codes = TOKENIZER.codebook_size
        self.transformer = TokenTransformer(
            _CHANNELS, codes, (size[0], size[1]), frames + 1, _HEADS, _LAYERS
        )
        self.pose_encoder = PoseEncoder(width)
        self.pose_decoder = PoseDecoder(width)

    def quantize(self, classes: Tensor) -> tuple[Tensor, Quantized]:
        """Return classes (B, F, X, Y, Z) encoded (B · F, C, h, w), and quantised."""
        frames = classes.flatten(0, 1)
        # one frame at a time: the published grid of many frames does not fit
        z = torch.cat([self.vae.encode(frame[None]) for frame in frames])
        return z, self.vae.quantize(z)

    def predict(self, tokens: Tensor, steps: Tensor, modes: Tensor) -> Predicted:
        """Predict each frame's next one from it and those before (teacher-forced).

        Args:
            tokens: (B, F, C, h, w), F at most `frames`.
            steps: (B, F, 2), relative poses in metres.
            modes: (B, F, M), one-hot driving commands.
        """
        logits, features = self.transformer(tokens, self.pose_encoder(steps, modes))
        poses = self.pose_decoder(features)
        return Predicted(logits, poses, (poses * modes[..., None]).sum(dim=-2))

    def loss(self, predicted: Predicted, codes: Tensor) -> Tensor:
        """Return the cross-entropy of the true codes int64 (B, F, h, w) of the predicted frames."""
        return token_loss(predicted.logits, codes)

    @torch.no_grad()
    def roll_out(self, tokens: Tensor, steps: Tensor, modes: Tensor, horizon: int) -> Predicted:
        """Predict the frames after the past, each from the past and those predicted before it.

        The last command of the past stays in force: future commands are unknown, and steps and
        modes after the past are not read.

        Args:
            tokens: of the past, as in `predict`; steps and modes as many at least.
            horizon: frames to predict; with the past at most `frames` + 1.
        """
        # tokens (B, past, C, h, w) grow by one frame with each step
        past = tokens.shape[1]
        steps, found = steps[:, :past], list[Predicted]()
        # each predicted frame is tokenised codes again: it joins the past of the next
        for _ in range(horizon):
            every = self.predict(tokens, steps, commands(modes, past, tokens.shape[1]))
            found.append(Predicted(*(x[:, -1:] for x in _parts(every))))
            tokens = torch.cat([tokens, self._embedded(found[-1].codes)], dim=1)
            steps = torch.cat([steps, found[-1].chosen], dim=1)
        return Predicted(*(torch.cat(x, dim=1) for x in zip(*map(_parts, found), strict=True)))

    def _embedded(self, codes: Tensor) -> Tensor:
        return self.vae.embed(codes.flatten(0, 1)).unflatten(0, codes.shape[:2])

    def class_logits(self, codes: Tensor) -> Tensor:
        """Return logits (N, X, Y, Z, classes) of codes int64 (N, h, w)."""
        return self.vae.decode(self.vae.embed(codes))


def commands(modes: Tensor, past: int, frames: int) -> Tensor:
    """Return commands (B, frames, M): those of the past, then its last one repeated."""
    # (B, past, M); later commands are never read
    known = modes[:, :past]
    return torch.cat([known, known[:, -1:].expand(-1, frames - past, -1)], dim=1)


def _parts(predicted: Predicted) -> tuple[Tensor, Tensor, Tensor]:
    return predicted.logits, predicted.poses, predicted.chosen
