"""Peers answer in the right shape, have the size of their papers' designs, and can learn."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from vlwm.core.geometry.grid import VoxelGrid

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from peers import PEERS, PeerShape
from peers.interface import PeerInput

GRID = VoxelGrid((-10.0, -11.0, -2.0), (1.0, 1.0, 2.0), (20, 22, 6))
SHAPE = PeerShape(GRID, history=3, future=4)
PARAMETERS = {"unet": (1e5, 5e6), "simvp": (1e5, 5e6), "convlstm": (1e5, 3e6), "ff4d": (1e5, 5e6)}


def some_input(batch: int = 2) -> tuple[PeerInput, torch.Tensor]:
    torch.manual_seed(1)
    state = torch.randint(0, 3, (batch, 3, *GRID.shape))
    past = torch.zeros(batch, 3, 4)
    past[..., 0] = torch.tensor([-2.0, -1.0, 0.0])
    horizons = torch.tensor([[0, 2]] * batch)
    plan = torch.zeros(batch, 4, 4)
    plan[..., 0] = torch.arange(1.0, 5.0)
    plan[..., 3] = 0.1
    truth = (torch.rand(batch, 2, *GRID.shape) < 0.2).float()
    given = PeerInput((state == 1).byte(), (state == 2).byte(), past, plan, horizons)
    return given, truth


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_answers_each_wanted_frame_and_learns(name: str) -> None:
    torch.manual_seed(0)
    peer = PEERS[name](SHAPE, 16)
    given, truth = some_input()
    optimizer = torch.optim.Adam(peer.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        logits = peer(given)
        assert logits.shape == truth.shape
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.grad is not None for p in peer.parameters())


@pytest.mark.parametrize("name", PEERS)
def test_parameters_are_as_many_as_expected(name: str) -> None:
    low, high = PARAMETERS[name]
    assert low < sum(p.numel() for p in PEERS[name](SHAPE).parameters()) < high


@pytest.mark.parametrize("name", PEERS)
def test_all_frames_at_once_are_those_one_by_one(name: str) -> None:
    peer = PEERS[name](SHAPE, 16).eval()
    given, _ = some_input(1)
    whole = peer(given)
    one = dataclasses.replace(given, horizons=given.horizons[:, 1:])
    torch.testing.assert_close(peer(one)[:, 0], whole[:, 1], rtol=1e-4, atol=1e-5)
