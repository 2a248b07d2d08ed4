"""Read past frames at the cells of another frame, by operations that ONNX has.

Where the cells are is computed by `runtime`, in float64.

Axes: P past frames, X, Y, Z cells, C columns, U, V cells of a wider plane.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def resampled(
    maps: Tensor, corners: Tensor, within: Tensor, mixing: Tensor, reached: Tensor
) -> tuple[Tensor, Tensor]:
    """Return maps (P, Z, X, Y) read at the cells of another frame, and 1 inside of them.

    As `warp.resampled_memory`: bilinear in the plane, linear in height. `runtime.reading` makes the
    other arguments.

    Args:
        corners: (P, X, Y, 2), places as grid_sample takes them.
        within: (P, X, Y), 1 where a place is within the plane of the map.
        mixing: (P, Z, Z), share of each layer of the map in each layer of the frame.
        reached: (P, Z), 1 where a layer of the frame is within the map.
    """
    flat = functional.grid_sample(maps, corners, padding_mode="border", align_corners=False)
    lifted = torch.bmm(mixing, flat.flatten(2)).reshape(flat.shape)
    inside = within[:, None] * reached[:, :, None, None]
    return lifted * inside, inside


def read_columns(
    values: Tensor, rows: Tensor, shares: Tensor, mixing: Tensor, reached: Tensor
) -> Tensor:
    """Return values (P, X, Y, 2, Z) read at the cells of a wider frame: (2, P, Z, U, V).

    As `memory.cpu.evidence.evidence_columns`: four columns around a place, none outside of a frame.
    Their shares come from float64, where a place in float32 of `grid_sample` is 4e-6 cells off.
    `runtime.column_reading` makes the other arguments.

    Args:
        rows: int32 (4, P, U, V), columns among those of all past frames.
        shares: (4, P, U, V), of each column in the place, 0 outside of its frame.
        mixing: (P, Z, Z), share of each layer of a past frame in each layer of the frame.
        reached: (P, Z), 1 where a layer of the frame is within the past one.
    """
    past, z = values.shape[0], values.shape[-1]
    table = values.flatten(0, 2).flatten(1)  # (P · X · Y, 2 · Z)
    flat = torch.zeros(())
    for row, share in zip(rows.flatten(2), shares.flatten(2), strict=True):  # (P, C) each
        flat = flat + functional.embedding(row, table) * share[..., None]  # (P, C, 2 · Z)
    kinds = flat.unflatten(2, (2, z)).permute(2, 0, 3, 1)  # (2, P, Z, C)
    lifted = torch.matmul(mixing, kinds) * reached[..., None]
    return lifted.reshape(2, past, z, *rows.shape[2:])
