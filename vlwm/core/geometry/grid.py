"""Convert metres to the cell indices and bits of the voxel grid.

A grid is a box of equal cells in some frame, usually the ego frame of `frames`. Cells are half
open, [lower, upper) along each axis; index [ix, iy, iz] has its centre at (i + 0.5) cells from the
lower corner. A remainder at the upper end of the range that fills no whole cell is cut off.

Bits: C order (z fastest), least significant bit first, the last byte padded with zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlwm.core.errors import ConfigError

_WHOLE_CELL_TOLERANCE = 1e-6  # of a cell: 80 m / 0.4 m is 200 cells whatever the rounding


@dataclass(frozen=True)
class VoxelGrid:
    """A box of `shape` half-open cells of `cell_m` metres whose lower corner is `lower_m`.

    Attributes:
        lower_m: (x, y, z) of the lower corner, metres.
        cell_m: (x, y, z) extent of one cell, metres.
        shape: cells along x, y, z.
    """

    lower_m: tuple[float, float, float]
    cell_m: tuple[float, float, float]
    shape: tuple[int, int, int]

    @classmethod
    def from_range(cls, range_m: Sequence[float], cell_m: Sequence[float]) -> VoxelGrid:
        """Return the grid of a config: `point_cloud_range` (lower and upper x, y, z), `voxel_size`.

        Raises:
            ConfigError: not six and three finite numbers, or not one whole cell along each axis.
        """
        numbers = [float(value) for value in (*range_m, *cell_m)]
        if len(range_m) != 6 or len(cell_m) != 3 or not all(map(math.isfinite, numbers)):
            raise ConfigError(
                f"a grid needs 6 and 3 finite numbers, not {list(range_m)} and {list(cell_m)}",
                where="point_cloud_range, voxel_size",
                remedy="such as [-40, -40, -2, 40, 40, 150] and [0.4, 0.4, 1.25]",
            )
        # x, y, z each
        lower, upper, cell = numbers[:3], numbers[3:6], numbers[6:]
        if min(cell) <= 0:
            raise ConfigError(
                f"cells must be larger than 0 m, not {cell}",
                where="voxel_size",
                remedy="such as [0.4, 0.4, 1.25]",
            )
        # whole cells only: the rest of the range is cut off
        shape = [
            math.floor((hi - lo) / size + _WHOLE_CELL_TOLERANCE)
            for lo, hi, size in zip(lower, upper, cell, strict=True)
        ]
        if min(shape) < 1:
            raise ConfigError(
                f"the range {list(range_m)} holds no whole cell of {cell} m",
                where="point_cloud_range",
                remedy="give it x, y, z from and then x, y, z to, in metres, or smaller cells",
            )
        return cls(
            lower_m=(lower[0], lower[1], lower[2]),
            cell_m=(cell[0], cell[1], cell[2]),
            shape=(shape[0], shape[1], shape[2]),
        )

    @property
    def upper_m(self) -> tuple[float, float, float]:
        """Return (x, y, z) of the upper corner of the last whole cell, metres; outside the grid."""
        x, y, z = (
            lo + count * size
            for lo, count, size in zip(self.lower_m, self.shape, self.cell_m, strict=True)
        )
        return x, y, z

    @property
    def num_cells(self) -> int:
        """Return cells in the grid."""
        return math.prod(self.shape)

    @property
    def packed_bytes(self) -> int:
        """Return bytes of one packed frame."""
        return (self.num_cells + 7) // 8

    @property
    def horizontal_half_diagonal_m(self) -> float:
        """Return the distance in plan from the frame's origin to the farthest corner, metres.

        Half the horizontal diagonal for a grid centred on its vehicle (56.57 m at full size):
        nothing farther away than this can be seen, whatever the heading.
        """
        x, y = (max(abs(self.lower_m[axis]), abs(self.upper_m[axis])) for axis in (0, 1))
        return math.hypot(x, y)

    @property
    def ground_slice(self) -> int:
        """Return iz of the cells that contain z = 0; outside [0, shape[2]) if the grid does not."""
        return math.floor(-self.lower_m[2] / self.cell_m[2])

    def index_of(self, points: ArrayLike) -> NDArray[np.int64]:
        """Return cell indices (..., 3) of finite points (..., 3), metres; maybe outside."""
        offset = np.asarray(points, dtype=np.float64) - np.asarray(self.lower_m)
        return np.floor(offset / np.asarray(self.cell_m)).astype(np.int64)

    def contains(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Return which points (..., 3), metres, are in a cell of the grid: bool (...)."""
        index = self.index_of(points)
        return np.all((index >= 0) & (index < np.asarray(self.shape)), axis=-1)

    def axis_centers(
        self,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return centres along x (X,), y (Y,) and z (Z,), metres."""
        x, y, z = (self._centers_along(axis) for axis in range(3))
        return x, y, z

    def _centers_along(self, axis: int) -> NDArray[np.float64]:
        cells = np.arange(self.shape[axis], dtype=np.float64) + 0.5
        return self.lower_m[axis] + cells * self.cell_m[axis]

    def centers(self) -> NDArray[np.float64]:
        """Return centres of all cells (X, Y, Z, 3), metres: 116 MB at 200×200×121."""
        return np.stack(np.meshgrid(*self.axis_centers(), indexing="ij"), axis=-1)

    def pack(self, occupancy: NDArray[np.uint8] | NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return bits (packed_bytes,) of an occupancy (X, Y, Z) of 0/1 or bool.

        Raises:
            ValueError: another shape than the grid's.
        """
        if occupancy.shape != self.shape:
            raise ValueError(f"occupancy of shape {occupancy.shape} on a grid of {self.shape}")
        return np.packbits(occupancy.reshape(-1), bitorder="little")

    def unpack(self, bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return occupancy (X, Y, Z) of 0/1 from bits (packed_bytes,).

        Raises:
            ValueError: another number of bytes than the grid's.
        """
        if bits.shape != (self.packed_bytes,):
            raise ValueError(f"bits of shape {bits.shape}, not ({self.packed_bytes},)")
        # `count` drops the padding bits of the last byte
        cells = np.unpackbits(bits, count=self.num_cells, bitorder="little")
        return cells.reshape(self.shape)
