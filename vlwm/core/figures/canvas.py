"""Draw primitives on NumPy images with OpenCV: text, axes, legends, colours.

Images are uint8 (rows, columns, 3) in OpenCV's order blue, green, red. Text is written by
`lettering`, which knows Japanese. Colours are Okabe and Ito's
(jfly.uni-koeln.de/color), which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from vlwm.core.errors import DataError
from vlwm.core.figures.lettering import text_height, text_width, write
from vlwm.core.files import atomic_path
from vlwm.core.geometry.grid import VoxelGrid

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
INK: Colour = (40, 40, 40)
FAINT: Colour = (150, 150, 150)
GRID: Colour = (225, 225, 225)
GROUND: Colour = (205, 210, 215)
MISSED: Colour = (178, 114, 0)  # blue
FALSE: Colour = (0, 94, 213)  # vermilion
CUT: Colour = (190, 60, 190)  # magenta
AGREED: Colour = (205, 205, 205)
UNKNOWN: Colour = (250, 238, 228)  # pale blue


def blank(height: int, width: int) -> np.ndarray:
    """Return a white image."""
    return np.full((height, width, 3), 255, np.uint8)


def text(
    image: np.ndarray,
    words: str,
    at: tuple[int, int],
    *,
    size: float = 0.5,
    colour: Colour = INK,
    anchor: str = "left",
    bold: bool = False,
) -> None:
    """Write a line with its baseline at (column, row); `anchor` is left, centre or right."""
    width = text_width(words, size)
    shift = {"left": 0, "centre": width // 2, "right": width}[anchor]
    write(image, words, (int(at[0]) - shift, int(at[1])), size=size, colour=colour, bold=bold)


def text_upright(image: np.ndarray, words: str, at: tuple[int, int], *, size: float = 0.5) -> None:
    """Write a line turned by 90 degrees, its middle at (column, row)."""
    width, height = text_width(words, size), text_height(size)
    strip = blank(height + 8, width + 4)
    text(strip, words, (2, height + 2), size=size)
    strip = np.rot90(strip)
    top, left = at[1] - strip.shape[0] // 2, at[0] - strip.shape[1] // 2
    image[top : top + strip.shape[0], left : left + strip.shape[1]] = strip


@lru_cache(maxsize=1)
def height_colours() -> np.ndarray:
    """Return uint8 (256, 3): from the ground (pale) up (dark violet over green to yellow)."""
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    return cv2.applyColorMap(ramp, cv2.COLORMAP_VIRIDIS)[:, 0]


@dataclass(frozen=True)
class HeightScale:
    """Colours of heights above the terrain under the vehicle.

    Attributes:
        ground_m: what reaches no higher is drawn as ground.
        top_m: end of the scale.
    """

    ground_m: float
    top_m: float

    @classmethod
    def of(cls, grid: VoxelGrid, *frames: np.ndarray) -> HeightScale:
        """Return a scale up to the highest occupied cell of uint8 (..., X, Y, Z), in steps of 10 m.

        Ground is what is within the layer of z = 0, and at least up to 2 m.
        """
        occupied = [f.any(axis=tuple(range(f.ndim - 1))) for f in frames]
        layers = np.flatnonzero(np.any(occupied, axis=0))
        tops = (np.arange(grid.shape[2]) + 1) * grid.cell_m[2] + grid.lower_m[2]
        highest = float(tops[layers[-1]]) if len(layers) else 0.0
        ground = float(tops[np.clip(grid.ground_slice, 0, len(tops) - 1)])
        return cls(max(2.0, ground), max(10.0, 10.0 * float(np.ceil(highest / 10.0))))

    def colours(self, height_m: np.ndarray) -> np.ndarray:
        """Return uint8 (..., 3) for heights in metres; ground is grey, NaN is white."""
        share = np.nan_to_num(height_m) / self.top_m
        picture = height_colours()[np.clip(share * 255, 0, 255).astype(np.uint8)]
        low = (height_m <= self.ground_m)[..., None]
        picture = np.where(low, np.array(GROUND, np.uint8), picture)
        return np.where(np.isnan(height_m)[..., None], np.array(WHITE, np.uint8), picture)

    @property
    def ground_words(self) -> str:
        """For the legend."""
        return f"ground, up to {self.ground_m:g} m"


@dataclass(frozen=True)
class Axes:
    """A rectangle of an image with metric or other linear axes.

    Attributes:
        left, top, width, height: pixels.
        x: values at the left and the right edge; `x[0] > x[1]` is allowed.
        y: values at the bottom and the top edge.
    """

    left: int
    top: int
    width: int
    height: int
    x: tuple[float, float]
    y: tuple[float, float]

    def column(self, value: float) -> int:
        """Return the pixel column of a value on the horizontal axis."""
        return self.left + round((value - self.x[0]) / (self.x[1] - self.x[0]) * self.width)

    def row(self, value: float) -> int:
        """Return the pixel row of a value on the vertical axis."""
        share = (value - self.y[0]) / (self.y[1] - self.y[0])
        return self.top + self.height - round(share * self.height)

    def paste(self, image: np.ndarray, cells: np.ndarray) -> None:
        """Fill the rectangle with uint8 (rows, columns, 3) cells, each one a clean block."""
        shrinks = cells.shape[0] > self.height or cells.shape[1] > self.width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
        block = cv2.resize(np.ascontiguousarray(cells), (self.width, self.height), None, 0, 0, how)
        image[self.top : self.top + self.height, self.left : self.left + self.width] = block

    def frame(self, image: np.ndarray) -> None:
        """Draw the border."""
        corner = (self.left + self.width, self.top + self.height)
        cv2.rectangle(image, (self.left, self.top), corner, FAINT, 1, cv2.LINE_8)

    def ticks_x(
        self, image: np.ndarray, values: Sequence[float], *, form: str = "{:g}", size: float = 0.48
    ) -> None:
        """Label the bottom edge."""
        for value in values:
            at = (self.column(value), self.top + self.height)
            cv2.line(image, at, (at[0], at[1] + 4), FAINT, 1)
            text(image, form.format(value), (at[0], at[1] + 19), size=size, anchor="centre")

    def ticks_y(
        self, image: np.ndarray, values: Sequence[float], *, form: str = "{:g}", size: float = 0.48
    ) -> None:
        """Label the left edge."""
        for value in values:
            row = self.row(value)
            cv2.line(image, (self.left - 4, row), (self.left, row), FAINT, 1)
            text(image, form.format(value), (self.left - 7, row + 4), size=size, anchor="right")

    def scale_bar(self, image: np.ndarray, length: float, words: str) -> None:
        """Draw a bar of `length` on the horizontal axis in the lower right corner, on white."""
        pixels = abs(self.column(self.x[0] + length) - self.column(self.x[0]))
        right, row = self.left + self.width - 8, self.top + self.height - 8
        cv2.rectangle(image, (right - pixels - 5, row - 21), (right + 5, row + 5), WHITE, -1)
        cv2.line(image, (right - pixels, row), (right, row), INK, 2)
        text(image, words, (right - pixels // 2, row - 5), size=0.45, anchor="centre")


def legend(
    image: np.ndarray, entries: Sequence[tuple[Colour, str]], at: tuple[int, int], gap: int = 24
) -> int:
    """Draw coloured squares with words in one line from (column, row); return the end column."""
    column, row = at
    for colour, words in entries:
        cv2.rectangle(image, (column, row - 10), (column + 12, row + 2), colour, -1)
        cv2.rectangle(image, (column, row - 10), (column + 12, row + 2), FAINT, 1)
        text(image, words, (column + 18, row), size=0.52)
        column += 18 + text_width(words, 0.52) + gap
    return column


def height_bar(
    image: np.ndarray, scale: HeightScale, at: tuple[int, int], width: int = 200
) -> None:
    """Draw the height colours from the ground to the top with labels, from (column, row)."""
    column, row = at
    heights = np.linspace(0.0, scale.top_m, width)[None].repeat(12, axis=0)
    image[row - 10 : row + 2, column : column + width] = scale.colours(heights)
    cv2.rectangle(image, (column, row - 10), (column + width, row + 2), FAINT, 1)
    for share in (0.0, 0.5, 1.0):
        words = f"{share * scale.top_m:.0f} m"
        text(image, words, (column + round(share * width), row + 19), size=0.48, anchor="centre")


def png_bytes(image: np.ndarray) -> bytes:
    """Return an image as the bytes of a PNG file.

    Raises:
        DataError: OpenCV cannot encode it.
    """
    good, data = cv2.imencode(".png", image)
    if not good:
        raise DataError(
            "the picture cannot be encoded",
            where="PNG",
            remedy="install OpenCV again: pip install --force-reinstall opencv-python-headless",
        )
    return bytes(data.tobytes())


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write an image by rename.

    Raises:
        DataError: OpenCV cannot encode it.
        MachineError: the disk is full or read-only.
    """
    data = png_bytes(image)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
