"""Read the past and average over motions on a GPU, in a few fused kernels.

The plain operations of `warp` and `fusion` write every step to the GPU's memory, tens of gigabytes
for six frames of the full grid; a kernel keeps them in registers (docs/decisions.md has the times).
The kernels are used where Triton works, which comes with every CUDA build of torch on Linux, and
where no gradient is needed; otherwise, and on a CPU, the plain operations compute the same.

A frame is read by columns: the cells of a column are neighbours in memory, so one program reads and
writes whole columns. The place of a target column in another frame is an affine function of its
numbers i and j, with the six factors of `warp.affine_places`.

Axes: R rows (future frames of windows), P past frames, N draws, X, Y, Z cells, C = X * Y columns,
D layers padded to a power of two.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.model.tokenizer.conv_blocks import bias_of

log = logging.getLogger("vlwm.model")

CHANNELS = 8
"""input channels of the fusion for each cell: past frames, two neighbouring layers, zeros"""
FOLD = 4
"""cells of a row that the convolutions treat as one"""

_COLUMNS = 8
"""columns of one program"""
_DRAWS = 16
"""draws of one step of a program"""
_CELLS = 512
"""cells of one program of `fused_logits`"""


def usable(device: torch.device) -> bool:
    """Return True if kernels can run on a device now; no gradient goes through them."""
    return device.type == "cuda" and not torch.is_grad_enabled() and _works(device)


@lru_cache(maxsize=8)
def _works(device: torch.device) -> bool:
    """Return True if a kernel can be built for a GPU and runs.

    Triton needs SM 8.0, a C compiler and Python's headers, which small images lack.
    """
    if find_spec("triton") is None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        one = torch.zeros(1, 1, 1, 1, device=device)
        mean_over_draws(one, torch.zeros(1, 1, 6, device=device)).item()
    except torch.OutOfMemoryError:  # temporary: the next call tries again
        raise
    except Exception as error:  # noqa: BLE001 - a compiler may raise anything; the plain operations remain
        what = str(error).strip().partition("\n")[0] or type(error).__name__
        log.warning("no kernels on this GPU, forecasts take three times as long: %s", what)
        return False
    return True


def mean_over_draws(probability: Tensor, places: Tensor) -> Tensor:
    """Return the mean of the columns that each target column meets, over all draws.

    Args:
        probability: (R, Z, X, Y); read as float16, 11 bits.
        places: float32 (R, N, 6).

    Returns:
        float32 (R, Z, X, Y), a view of columns.
    """
    frames, depth, x, y = probability.shape
    # a program loads whole columns, whose length must be a power of two
    padded = _padded(depth)
    # float16 halves the traffic; the bins of a threshold are coarser than its 11 bits
    table = probability.new_zeros(frames, x * y, padded, dtype=torch.float16)
    table[..., :depth] = probability.flatten(2).transpose(1, 2)
    mean = torch.empty(frames, x * y, depth, device=table.device)
    # a grid of programs: groups of columns by frames, rounded up
    launch = (-(-x * y // _COLUMNS), frames)
    with _current(table.device):
        _kernels().mean_over_draws[launch](
            table, places.transpose(1, 2).contiguous(), mean, x, y, depth, places.shape[1],
            padded, _COLUMNS, _DRAWS, num_warps=4,
        )  # fmt: skip
    return mean.transpose(1, 2).unflatten(2, (x, y))


def read_past(
    voxels: Tensor, window: Tensor, places: Tensor, lift: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the fusion's input, as `warp.resampled_memory` and `FrameFusion` prepare it.

    Args:
        voxels: uint8 (B, F, X, Y, Z), the past frames first.
        window: int64 (R,), row of the window of each future frame.
        places: float32 (R, P, 6), of the target in each past frame.
        lift: (R, P), cells by which it is higher.
        dtype: of the planes.

    Returns:
        planes (R * Z, X, Y, 8): each past frame (1 occupied, −1 empty, 0 beyond its grid), then the
        means of the layers below and above, from −1 to 1, then zeros;
        means float32 (R, Z, X, Y) over the frames that contain the cell, −1 where none does;
        reach float32 (R, 1, X, Y), the share of past frames that reach the lowest layer.
    """
    rows, past = lift.shape
    x, y, depth = voxels.shape[2:]
    device = voxels.device
    planes = torch.empty(rows * depth, x, y, CHANNELS, dtype=dtype, device=device)
    means = torch.empty(rows, depth, x, y, device=device)
    reach = torch.empty(rows, 1, x, y, device=device)
    # six factors and the lift of each past frame, one row of seven
    where = torch.cat([places, lift[..., None].float()], dim=-1).contiguous()
    launch = (-(-x * y // _COLUMNS), rows)
    with _current(voxels.device):
        _kernels().read_past[launch](
            voxels.contiguous(), window.int(), where, planes, means, reach, x, y, voxels.shape[1],
            past, depth, _padded(depth), CHANNELS, _COLUMNS, num_warps=4,
        )  # fmt: skip
    return planes, means, reach


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Make a device current: Triton launches on the current GPU, not on that of the tensors."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _padded(depth: int) -> int:
    return 1 << max(4, (depth - 1).bit_length())


def folded_maps(planes: Tensor, first: nn.Conv2d, hidden: Iterable[nn.Conv2d]) -> Tensor:
    """Return the fusion's hidden state of planes (N, X, Y, 8) before its last layer: same shape.

    Eight channels leave most of a tensor core idle; four cells of a row, treated as one cell of 32
    channels, do not. In channels-last maps the channels of a cell are neighbours, so this is a
    view.

    Args:
        first, hidden: its layers: x = relu(first), x + relu(layer) for each hidden one.
    """
    maps = planes.unflatten(2, (-1, FOLD)).flatten(3).permute(0, 3, 1, 2)
    # (N, 32, X, Y / 4), and back at the end
    state = _conv_relu(maps, first)
    for layer in hidden:
        state = state.add_(_conv_relu(state, layer))
    return state.permute(0, 2, 3, 1).unflatten(3, (FOLD, -1)).flatten(2, 3)


def fused_logits(
    maps: Tensor, means: Tensor, last: nn.Conv2d, scale: tuple[float, float], otherwise: Tensor
) -> Tensor:
    """Return logits float32 (R, Z, X, Y): the scaled means plus the last layer's residual.

    Args:
        maps: (R * Z, X, Y, 8), of `folded_maps`.
        means: float32 (R, Z, X, Y), −1 where no frame contains the cell.
        last: 1 x 1, to one channel.
        scale: factor and offset of a mean.
        otherwise: (Z,), logits where no frame contains the cell.
    """
    logits, (depth, columns) = torch.empty_like(means), (means.shape[1], means[0, 0].numel())
    launch = (-(-means.numel() // _CELLS),)
    # the offset of the mean joins the bias: one addition less for each cell
    bias = bias_of(last).float() + scale[1]
    with _current(means.device):
        _kernels().fused_logits[launch](
            maps.contiguous(), means, last.weight.float().contiguous(), bias, otherwise.float(),
            logits, scale[0], means.numel(), columns, depth, CHANNELS, _CELLS,
        )  # fmt: skip
    return logits


def _conv_relu(maps: Tensor, conv: nn.Conv2d) -> Tensor:
    """Return ReLU of a 3 × 3 convolution of folded maps, dilated by at most `FOLD` cells."""
    dilation = int(conv.dilation[0])
    # the same convolution on folded cells: each tap of a row moves to a block and a cell in it
    # weights (O, 8, 3, 3); the fusion's first layer has fewer input channels
    weight = functional.pad(conv.weight, (0, 0, 0, 0, 0, CHANNELS - conv.weight.shape[1]))
    # (O · FOLD, I · FOLD, 3, 3): output cell q reads input cell p of a neighbouring block
    folded = torch.einsum("oitw,wqpb->qopitb", weight, _taps(dilation, maps.device))
    folded = folded.flatten(2, 3).flatten(0, 1).to(maps.dtype, memory_format=torch.channels_last)
    bias = bias_of(conv).repeat(FOLD).to(maps.dtype)
    apart = (dilation, 1)
    if maps.is_cuda:  # the three in one
        return torch.cudnn_convolution_relu(maps, folded, bias, (1, 1), apart, apart, 1)
    return functional.relu(functional.conv2d(maps, folded, bias, 1, apart, apart))


@lru_cache(maxsize=16)
def _taps(dilation: int, device: torch.device) -> Tensor:
    """Return (3, q, p, 3) of 0 and 1: tap w leads from cell p of block b to cell q of the middle.

    Indexed [w, q, p, b].
    """
    taps = torch.zeros(3, FOLD, FOLD, 3)
    for q in range(FOLD):
        for w in range(3):
            # tap w is `dilation · (w − 1)` cells away: in block −1, 0 or 1
            block, p = divmod(q + dilation * (w - 1), FOLD)
            taps[w, q, p, block + 1] = 1.0
    return taps.to(device)


@lru_cache(maxsize=1)
def _kernels() -> ModuleType:
    from vlwm.core.model.memory import _triton

    return _triton
