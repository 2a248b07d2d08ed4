"""Define the Triton kernels of `kernels`, which documents them; imported on a GPU only."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def mean_over_draws(
    table, places, found, x_cells, y_cells, depth,
    N: tl.constexpr, DEPTH: tl.constexpr, COLUMNS: tl.constexpr, DRAWS: tl.constexpr,
):  # fmt: skip
    """Write means (R, C, depth) of the columns of `table` (R, C, DEPTH) at `places` (R, 6, N)."""
    # one program per target frame and group of columns; pointers move to the frame's part
    frame = tl.program_id(1)
    columns = x_cells * y_cells
    layers = tl.arange(0, DEPTH)
    table += frame.to(tl.int64) * columns * DEPTH
    found += frame.to(tl.int64) * columns * depth
    places += frame * 6 * N
    for step in range(COLUMNS):
        column = tl.minimum(tl.program_id(0) * COLUMNS + step, columns - 1)
        i, j = (column // y_cells).to(tl.float32), (column % y_cells).to(tl.float32)
        total = tl.zeros((DRAWS, DEPTH), tl.float32)
        for first in range(0, N, DRAWS):
            n = first + tl.arange(0, DRAWS)
            # the last step may be short: loads beyond N are masked
            known = n < N
            a = tl.load(places + n, mask=known, other=0.0)
            b = tl.load(places + N + n, mask=known, other=0.0)
            c = tl.load(places + 2 * N + n, mask=known, other=0.0)
            d = tl.load(places + 3 * N + n, mask=known, other=0.0)
            e = tl.load(places + 4 * N + n, mask=known, other=0.0)
            f = tl.load(places + 5 * N + n, mask=known, other=0.0)
            # nearest column of each draw, at the border the outermost one
            x = tl.minimum(tl.maximum(tl.floor(a * i + b * j + c), 0.0), x_cells - 1.0)
            y = tl.minimum(tl.maximum(tl.floor(d * i + e * j + f), 0.0), y_cells - 1.0)
            row = x.to(tl.int32) * y_cells + y.to(tl.int32)
            at = table + row[:, None] * DEPTH + layers[None, :]
            total += tl.load(at, mask=known[:, None], other=0.0).to(tl.float32)
        # (DRAWS, DEPTH) summed over the draws
        mean = tl.sum(total, axis=0) / N
        tl.store(found + column * depth + layers, mean, mask=layers < depth)


@triton.jit
def _read_column(frame, place, i, j, layers, x_cells, y_cells, depth):
    """Return the layers of column i, j in a past frame, and 1 where its grid contains them."""
    # the column's place in the past frame, by its six factors
    x = tl.load(place) * i + tl.load(place + 1) * j + tl.load(place + 2)
    y = tl.load(place + 3) * i + tl.load(place + 4) * j + tl.load(place + 5)
    within = (x >= 0) & (x < x_cells) & (y >= 0) & (y < y_cells)
    # the seventh number is the lift: layers by which the target is higher
    centre = layers.to(tl.float32) + 0.5 + tl.load(place + 6)
    reached = (centre >= 0) & (centre < tl.where(within, depth, 0))
    # places between cell centres; the outermost centres extend to the border
    x = tl.minimum(tl.maximum(x - 0.5, 0.0), x_cells - 1.0)
    y = tl.minimum(tl.maximum(y - 0.5, 0.0), y_cells - 1.0)
    # bilinear: four columns and their shares
    x0, y0 = tl.floor(x), tl.floor(y)
    part_x, part_y = x - x0, y - y0
    x0, y0 = x0.to(tl.int32), y0.to(tl.int32)
    x1, y1 = tl.minimum(x0 + 1, x_cells - 1), tl.minimum(y0 + 1, y_cells - 1)
    # linear in height: two layers and their shares
    below = tl.floor(centre - 0.5)
    part_z = centre - 0.5 - below
    z0 = tl.minimum(tl.maximum(below.to(tl.int32), 0), depth - 1)
    z1 = tl.minimum(tl.maximum(below.to(tl.int32) + 1, 0), depth - 1)
    a, b = frame + (x0 * y_cells + y0) * depth, frame + (x0 * y_cells + y1) * depth
    c, d = frame + (x1 * y_cells + y0) * depth, frame + (x1 * y_cells + y1) * depth
    value = tl.zeros_like(part_z)
    for top in tl.static_range(2):
        z = z1 if top else z0
        near = tl.load(a + z, mask=reached, other=0).to(tl.float32) * (1 - part_y)
        near += tl.load(b + z, mask=reached, other=0).to(tl.float32) * part_y
        far = tl.load(c + z, mask=reached, other=0).to(tl.float32) * (1 - part_y)
        far += tl.load(d + z, mask=reached, other=0).to(tl.float32) * part_y
        share = part_z if top else 1 - part_z
        value += share * (near * (1 - part_x) + far * part_x)
    return value, reached.to(tl.float32)


@triton.jit
def _mean(frames, place, i, j, layers, x_cells, y_cells, depth, PAST: tl.constexpr):
    """Return the mean over the past frames that contain the cells, and their number."""
    total = tl.zeros_like(layers.to(tl.float32))
    count = tl.zeros_like(total)
    for p in tl.static_range(PAST):
        frame = frames + p * x_cells * y_cells * depth
        value, reached = _read_column(frame, place + 7 * p, i, j, layers, x_cells, y_cells, depth)
        total += value
        count += reached
    return total / tl.maximum(count, 1.0), count


@triton.jit
def read_past(
    voxels, window, places, planes, means, reach, x_cells, y_cells, held,
    PAST: tl.constexpr, depth, DEPTH: tl.constexpr, CHANNELS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write planes, means and reach of the future frames (see `kernels.read_past`)."""
    row = tl.program_id(1)
    columns = x_cells * y_cells
    layers, channel = tl.arange(0, DEPTH), tl.arange(0, CHANNELS)
    kept = layers < depth
    frames = voxels + tl.load(window + row).to(tl.int64) * held * columns * depth
    place = places + row * PAST * 7
    planes += row.to(tl.int64) * depth * columns * CHANNELS
    means += row.to(tl.int64) * depth * columns
    for step in range(COLUMNS):
        column = tl.minimum(tl.program_id(0) * COLUMNS + step, columns - 1)
        i, j = (column // y_cells).to(tl.float32), (column % y_cells).to(tl.float32)
        # one channel for each past frame, and the mean over those that reach the cell
        tile = tl.zeros((DEPTH, CHANNELS), tl.float32)
        total = tl.zeros((DEPTH,), tl.float32)
        count = tl.zeros((DEPTH,), tl.float32)
        for p in tl.static_range(PAST):
            frame = frames + p * columns * depth
            value, reached = _read_column(
                frame, place + 7 * p, i, j, layers, x_cells, y_cells, depth
            )
            # +1 occupied, −1 empty, 0 beyond the frame
            plane = 2 * value - reached
            tile = tl.where(channel[None, :] == p, plane[:, None], tile)
            total += value
            count += reached
        mean = total / tl.maximum(count, 1.0)
        # the layers below and above are computed again: cheaper than exchanging them
        below, _ = _mean(
            frames, place, i, j, tl.maximum(layers - 1, 0), x_cells, y_cells, depth, PAST
        )
        above, _ = _mean(
            frames, place, i, j, tl.minimum(layers + 1, depth - 1), x_cells, y_cells, depth, PAST
        )
        tile = tl.where(channel[None, :] == PAST, (2 * below - 1)[:, None], tile)
        tile = tl.where(channel[None, :] == PAST + 1, (2 * above - 1)[:, None], tile)
        # layer-major in memory: (R, Z, X, Y, CHANNELS)
        cell = layers.to(tl.int64) * columns + column
        at = planes + cell[:, None] * CHANNELS + channel[None, :]
        tl.store(at, tile.to(planes.dtype.element_ty), mask=kept[:, None])
        tl.store(means + cell, tl.where(count > 0, mean, -1.0), mask=kept)
        lowest = tl.sum(tl.where(layers == 0, count, 0.0), axis=0)
        tl.store(reach + row * columns + column, lowest / PAST)


@triton.jit
def fused_logits(
    maps, means, weights, bias, otherwise, logits, factor, cells, columns, depth,
    CHANNELS: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """Write logits of cells from their means and the eight channels of the last maps."""
    cell = tl.program_id(0).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    channel, kept = tl.arange(0, CHANNELS), cell < cells
    weight = tl.load(weights + channel)
    at = maps + cell[:, None] * CHANNELS + channel[None, :]
    state = tl.load(at, mask=kept[:, None], other=0.0).to(tl.float32)
    # the 1 × 1 convolution to one channel
    residual = tl.sum(state * weight[None, :], axis=1)
    mean = tl.load(means + cell, mask=kept, other=0.0)
    # no frame contains the cell (mean −1): the prior of its layer
    layer = (cell // columns) % depth
    unseen = tl.load(otherwise + layer, mask=kept, other=0.0)
    seen = factor * mean + tl.load(bias) + residual
    tl.store(logits + cell, tl.where(mean >= 0, seen, unseen), mask=kept)
