"""Turn depth pictures into points of a camera that looks along x, with y right and z down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DepthCamera:
    """A pinhole camera that measures depth along its axis.

    Attributes:
        shape: (V, U) of its pictures; one of another size has another focal length.
        focal_px: focal length.
        centre_px: (u, v) of the axis; the centre of the first pixel is at `first_px`.
        first_px: 0 or 0.5.
        farthest_m: greater depths are sky.
        step: each `step`-th pixel along both axes becomes a point.
    """

    shape: tuple[int, int]
    focal_px: float
    centre_px: tuple[float, float]
    first_px: float = 0.0
    farthest_m: float = 100.0
    step: int = 3

    def points(self, depth: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return points (N, 3), forward, right, down in metres, of a depth picture (V, U).

        Raises:
            ValueError: the picture has another size.
        """
        if depth.shape != self.shape:
            sizes = [" x ".join(map(str, reversed(shape))) for shape in (depth.shape, self.shape)]
            raise ValueError(f"a picture of {sizes[0]} pixels, not of {sizes[1]}")
        rows = np.arange(self.step // 2, depth.shape[0], self.step)
        columns = np.arange(self.step // 2, depth.shape[1], self.step)
        along = depth[np.ix_(rows, columns)].astype(np.float64)  # (V', U')
        right = (columns + self.first_px - self.centre_px[0]) / self.focal_px  # (U',)
        down = (rows + self.first_px - self.centre_px[1]) / self.focal_px  # (V',)
        valid = np.isfinite(along) & (along > 0.0) & (along < self.farthest_m)
        points = np.stack([along, along * right[None, :], along * down[:, None]], axis=-1)
        return points[valid].astype(np.float32)


def numbered(files: Iterable[Path]) -> tuple[list[tuple[int, Path]], list[tuple[str, str]]]:
    """Return pictures by the number that their names begin with, and the files left out.

    Leading zeros are optional. Hidden files, such as those of macOS, are ignored.

    Returns:
        (number, file) in the order of the numbers, and (file, reason) of what has no number or the
        number of another file.
    """
    found: dict[int, Path] = {}
    left_out: list[tuple[str, str]] = []
    for path in sorted(p for p in files if not p.name.startswith(".")):
        digits = path.name.split(".")[0].split("_")[0]
        if not digits.isdecimal():
            left_out.append((str(path), "its name does not begin with a number"))
        elif int(digits) in found:
            other = found[int(digits)].name
            left_out.append((str(path), f"the same number as {other}, which is read"))
        else:
            found[int(digits)] = path
    return sorted(found.items()), left_out
