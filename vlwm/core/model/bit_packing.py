"""Unpack bits to voxels on the device, ordered as by `VoxelGrid.pack`: z fastest, low bit first."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@lru_cache(maxsize=8)
def _table(device: torch.device) -> Tensor:
    """Return int64 (256,): the eight bits of each byte as eight bytes, low bit first."""
    # (256, 8) of 0 and 1; eight of them are the bytes of one int64
    rows = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return torch.from_numpy(rows).view(torch.int64).reshape(256).to(device)


def unpack_bits(bits: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return voxels uint8 (..., X, Y, Z) of 0 and 1 from bits uint8 (..., packed_bytes).

    Raises:
        ValueError: the number of bytes does not fit the shape.
    """
    cells = shape[0] * shape[1] * shape[2]
    if bits.shape[-1] != (cells + 7) // 8:
        raise ValueError(f"{bits.shape[-1]} bytes do not hold {cells} cells")
    lead = bits.shape[:-1]
    if bits.device.type == "cpu":  # NumPy is faster there than any gather
        flat = np.unpackbits(bits.numpy(), axis=-1, count=cells, bitorder="little")
        return torch.from_numpy(flat).view(*lead, *shape)
    # one gather writes the eight cells of a byte at once
    wide = _table(bits.device)[bits.reshape(-1).int()].view(torch.uint8)
    return wide.view(*lead, -1)[..., :cells].reshape(*lead, *shape)


def pack_bits(voxels: Tensor) -> Tensor:
    """Return bits uint8 (..., packed_bytes) of voxels (..., X, Y, Z), on the host."""
    flat = voxels.reshape(*voxels.shape[:-3], -1).bool().cpu().numpy()
    return torch.from_numpy(np.packbits(flat, axis=-1, bitorder="little"))
