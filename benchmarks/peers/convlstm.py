"""ConvLSTM: a stack of convolutional recurrent cells, frame by frame into the future.

Shi et al., "Convolutional LSTM Network", NeurIPS 2015, with the encoder and decoder by which
PredRNN (Wang et al., NeurIPS 2017) works on patches: frames are folded 4×4 into channels. Each step
reads the frame (in the future its own last answer) and the ego motion to the next frame as constant
planes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from peers.frames import motion_planes, own_planes
from peers.interface import Peer, PeerInput, PeerShape

_PATCH = 4


class Cell(nn.Module):
    """One ConvLSTM cell with a kernel of 5."""

    def __init__(self, source: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(source + hidden, 4 * hidden, 5, padding=2)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the hidden map and the memory, each (B, hidden, x, y)."""
        hidden, memory = state
        let_in, forget, out, new = self.gates(torch.cat([x, hidden], dim=1)).chunk(4, dim=1)
        memory = torch.sigmoid(forget + 1.0) * memory + torch.sigmoid(let_in) * torch.tanh(new)
        return torch.sigmoid(out) * torch.tanh(memory), memory


class ConvLstm(Peer):
    def __init__(self, shape: PeerShape, width: int = 48, depth: int = 2) -> None:
        super().__init__(shape, width)
        layers = shape.layers
        self.encode = nn.Conv2d(2 * layers, width, _PATCH, stride=_PATCH)
        self.cells = nn.ModuleList(
            Cell(width + 4 if k == 0 else width, width) for k in range(depth)
        )
        self.decode = nn.ConvTranspose2d(width, layers, _PATCH, stride=_PATCH)

    def forward(self, given: PeerInput) -> Tensor:
        planes = own_planes(given)  # (B, P, 2Z, X, Y)
        ego = torch.cat([given.past_ego, given.plan], dim=1)  # (B, P + H, 4)
        size = planes.shape[-2:]
        pad = [-n % _PATCH for n in size]
        frame, found = planes[:, 0], []
        state: list[tuple[Tensor, Tensor]] = []
        for k in range(self.shape.history + self.shape.future - 1):
            x = self.encode(functional.pad(frame, (0, pad[1], 0, pad[0])))
            step = (ego[:, k + 1] - ego[:, k])[:, None]
            x = torch.cat([x, motion_planes(step, x.shape[-2:])], dim=1)
            if not state:
                none = x.new_zeros(len(x), self.width, *x.shape[-2:])
                state = [(none, none)] * len(self.cells)
            for i, cell in enumerate(self.cells):
                state[i] = cell(x, state[i])
                x = state[i][0]
            logits = self.decode(x)[..., : size[0], : size[1]]  # (B, Z, X, Y)
            if k + 1 < self.shape.history:
                frame = planes[:, k + 1]
            else:
                found.append(logits.permute(0, 2, 3, 1))
                probability = torch.sigmoid(logits)
                frame = torch.cat([probability, 1 - probability], dim=1)
        frames = torch.stack(found, dim=1)  # (B, H, X, Y, Z)
        return frames[torch.arange(len(frames), device=frames.device)[:, None], given.horizons]
