"""Learned forecasters of others, written from their papers, for the protocol of `ladder.py`.

    unet       completion of the fused observation by a 2-D U-Net, one future frame at a time
    simvp      SimVP (Gao et al., CVPR 2022): convolutions over space, then over time, then space
    convlstm   stacked ConvLSTM (Shi et al., NeurIPS 2015; the recurrence that PredRNN builds on)
    ff4d       the baseline of 4D Occupancy Forecasting (Khurana et al., CVPR 2023)

All read the same past (two planes a height layer: seen occupied, seen free) and the same future ego
frames, have height in channels, and are trained with the same loss for the same processor minutes.
"""

from __future__ import annotations

from peers.convlstm import ConvLstm
from peers.ff4d import FF4D
from peers.interface import Peer, PeerShape
from peers.simvp import SimVP
from peers.unet import UNetCompletion

PEERS: dict[str, type[Peer]] = {
    "unet": UNetCompletion,
    "simvp": SimVP,
    "convlstm": ConvLstm,
    "ff4d": FF4D,
}

__all__ = ["PEERS", "Peer", "PeerShape"]
