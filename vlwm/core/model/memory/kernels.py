"""What a forecast costs on a GPU, in few kernels: reading the past, and averaging over motions.

The plain operations of `memory` write every step to the GPU's memory, tens of gigabytes for six
frames of the full grid; a kernel keeps them in registers (docs/decisions.md has the times). They
are used where Triton works, which comes with every CUDA build of torch on Linux, and no gradient is
wanted; else, and on a CPU, `memory` does the same.

A frame is read by columns: cells of a column lie side by side, so one program reads and writes
whole columns. Where a column of a target frame lies in another frame is an affine function of its
numbers i and j, whose six factors `memory.affine_places` gives.

Axes: R rows (future frames of windows), P past frames, N draws, X, Y, Z cells, C = X * Y columns,
D layers padded to a power of two.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.model.tokenizer.conv_blocks import bias_of

log = logging.getLogger("vlwm.model")

CHANNELS = 8
"""that the fusion is given for each cell: the past frames, the layers beside, and zeros"""
FOLD = 4
"""cells of a row that its convolutions take as one"""

_COLUMNS, _DRAWS = 8, 16  # of a program, of one step of it
_CELLS = 512  # of a program


def usable(device: torch.device) -> bool:
    """Whether kernels run there, now: no gradient goes through them."""
    return device.type == "cuda" and not torch.is_grad_enabled() and _works(device)


@lru_cache(maxsize=8)
def _works(device: torch.device) -> bool:
    """Whether a kernel can be built for that GPU and runs.

    Triton wants SM 8.0, a C compiler and Python's headers, which small images lack.
    """
    if find_spec("triton") is None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        one = torch.zeros(1, 1, 1, 1, device=device)
        mean_over_draws(one, torch.zeros(1, 1, 6, device=device)).item()
    except torch.OutOfMemoryError:  # passes; whoever asks again may be told otherwise
        raise
    except Exception as error:  # noqa: BLE001 - whatever a compiler may say: there is another way
        what = str(error).strip().partition("\n")[0] or type(error).__name__
        log.warning("no kernels on this GPU, forecasts take three times as long: %s", what)
        return False
    return True


def mean_over_draws(probability: Tensor, places: Tensor) -> Tensor:
    """Mean of the columns that each target column meets, over all draws.

    Args:
        probability: (R, Z, X, Y); read with 11 bits.
        places: float32 (R, N, 6).

    Returns:
        float32 (R, Z, X, Y), a view of columns.
    """
    frames, depth, x, y = probability.shape
    padded = _padded(depth)
    table = probability.new_zeros(frames, x * y, padded, dtype=torch.float16)
    table[..., :depth] = probability.flatten(2).transpose(1, 2)
    found = torch.empty(frames, x * y, depth, device=table.device)
    launch = (-(-x * y // _COLUMNS), frames)
    with _current(table.device):
        _kernels().mean_over_draws[launch](
            table, places.transpose(1, 2).contiguous(), found, x, y, depth, places.shape[1],
            padded, _COLUMNS, _DRAWS, num_warps=4,
        )  # fmt: skip
    return found.transpose(1, 2).unflatten(2, (x, y))


def read_past(
    voxels: Tensor, window: Tensor, places: Tensor, lift: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """What `memory.resampled_memory` and the fusion's own preparation make of the past frames.

    Args:
        voxels: uint8 (B, F, X, Y, Z), the past frames first.
        window: int64 (R,), whose future frame each row is.
        places: float32 (R, P, 6), of the target in each past frame.
        lift: (R, P), by how many cells it is higher.
        dtype: of the planes.

    Returns:
        planes (R * Z, X, Y, 8): twice what each past frame says less whether it reaches the cell,
        then the means of the layer below and above, from −1 to 1, then zeros;
        means float32 (R, Z, X, Y) over the frames that contain the cell, −1 where none does;
        reach float32 (R, 1, X, Y), the share of past frames that reach the lowest layer.
    """
    rows, past = lift.shape
    x, y, depth = voxels.shape[2:]
    device = voxels.device
    planes = torch.empty(rows * depth, x, y, CHANNELS, dtype=dtype, device=device)
    means = torch.empty(rows, depth, x, y, device=device)
    reach = torch.empty(rows, 1, x, y, device=device)
    where = torch.cat([places, lift[..., None].float()], dim=-1).contiguous()
    launch = (-(-x * y // _COLUMNS), rows)
    with _current(voxels.device):
        _kernels().read_past[launch](
            voxels.contiguous(), window.int(), where, planes, means, reach, x, y, voxels.shape[1],
            past, depth, _padded(depth), CHANNELS, _COLUMNS, num_warps=4,
        )  # fmt: skip
    return planes, means, reach


def _current(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current GPU, wherever the tensors lie."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _padded(depth: int) -> int:
    return 1 << max(4, (depth - 1).bit_length())


def folded_maps(planes: Tensor, first: nn.Conv2d, hidden: Iterable[nn.Conv2d]) -> Tensor:
    """What the fusion's network makes of planes (N, X, Y, 8) before its last layer: the same shape.

    Eight channels leave most of a tensor core idle; four cells of a row, taken as one of 32
    channels, do not. The channels of channels-last maps lie cell by cell, so that is a view.

    Args:
        first, hidden: its layers: x = relu(first), x + relu(layer) for each hidden one.
    """
    maps = planes.unflatten(2, (-1, FOLD)).flatten(3).permute(0, 3, 1, 2)
    state = _conv_relu(maps, first)
    for layer in hidden:
        state = state.add_(_conv_relu(state, layer))
    return state.permute(0, 2, 3, 1).unflatten(3, (FOLD, -1)).flatten(2, 3)


def fused_logits(
    maps: Tensor, means: Tensor, last: nn.Conv2d, scale: tuple[float, float], otherwise: Tensor
) -> Tensor:
    """Logits float32 (R, Z, X, Y): of the means, `scale` of them, and the last layer's residual.

    Args:
        maps: (R * Z, X, Y, 8), of `folded_maps`.
        means: float32 (R, Z, X, Y), −1 where no frame contains the cell.
        last: 1 x 1, to one channel.
        scale: factor of a mean, and what is added.
        otherwise: (Z,), logits where no frame contains the cell.
    """
    logits, (depth, columns) = torch.empty_like(means), (means.shape[1], means[0, 0].numel())
    launch = (-(-means.numel() // _CELLS),)
    bias = bias_of(last).float() + scale[1]
    with _current(means.device):
        _kernels().fused_logits[launch](
            maps.contiguous(), means, last.weight.float().contiguous(), bias, otherwise.float(),
            logits, scale[0], means.numel(), columns, depth, CHANNELS, _CELLS,
        )  # fmt: skip
    return logits


def _conv_relu(maps: Tensor, conv: nn.Conv2d) -> Tensor:
    """ReLU of a convolution, 3 x 3, padded to keep the size, dilated by at most `FOLD` cells."""
    dilation = int(conv.dilation[0])
    weight = functional.pad(conv.weight, (0, 0, 0, 0, 0, CHANNELS - conv.weight.shape[1]))
    folded = torch.einsum("oitw,wqpb->qopitb", weight, _taps(dilation, maps.device))
    folded = folded.flatten(2, 3).flatten(0, 1).to(maps.dtype, memory_format=torch.channels_last)
    bias = bias_of(conv).repeat(FOLD).to(maps.dtype)
    apart = (dilation, 1)
    if maps.is_cuda:  # the three in one
        return torch.cudnn_convolution_relu(maps, folded, bias, (1, 1), apart, apart, 1)
    return functional.relu(functional.conv2d(maps, folded, bias, 1, apart, apart))


@lru_cache(maxsize=16)
def _taps(dilation: int, device: torch.device) -> Tensor:
    """Which tap w of a row leads from cell p of block b to cell q of the middle one: (3, q, p, 3)
    of 0 and 1."""
    taps = torch.zeros(3, FOLD, FOLD, 3)
    for q in range(FOLD):
        for w in range(3):
            block, p = divmod(q + dilation * (w - 1), FOLD)
            taps[w, q, p, block + 1] = 1.0
    return taps.to(device)


@lru_cache(maxsize=1)
def _kernels() -> Any:
    from vlwm.core.model.memory import _triton

    return _triton
