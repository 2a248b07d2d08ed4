"""A contact sheet of a prepared folder: some frames of each session, and its pictures.

Each row is a session; its frames are spread evenly over it and drawn from above in the vehicle's
own frame, ahead up, the colour the height of the highest occupied cell. Sessions with images show
those of the same frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vlwm.core.figures import canvas
from vlwm.core.figures.canvas import HeightScale
from vlwm.core.figures.lettering import text_width
from vlwm.core.figures.window_figure import from_above
from vlwm.core.geometry.grid import VoxelGrid

_PANEL, _GAP, _LEFT, _TOP, _ROW = 200, 10, 20, 74, 250
PICTURES = 2


@dataclass(frozen=True)
class SheetRow:
    """One session on the sheet.

    Attributes:
        title: over its frames.
        numbers: of the frames shown.
        frames: uint8 (K, X, Y, Z).
        pictures: uint8 (rows, columns, 3) of the first frames, blue first; may be empty.
    """

    title: str
    numbers: Sequence[int]
    frames: np.ndarray
    pictures: Sequence[np.ndarray]


def draw_sheet(
    rows: Sequence[SheetRow], grid: VoxelGrid, title: str, notes: Sequence[str]
) -> np.ndarray:
    """Return the sheet, uint8 (rows, columns, 3)."""
    scale = HeightScale.of(grid, *(row.frames for row in rows))
    shown = max(len(row.frames) for row in rows)
    step_x = _PANEL * 16 // 9 + _GAP
    width = _LEFT + shown * (_PANEL + _GAP)
    width += max(len(row.pictures) for row in rows) * step_x + _LEFT
    image = canvas.blank(_TOP + len(rows) * _ROW + 44, max(width, 1100))
    canvas.text(image, title, (_LEFT, 28), size=0.75, bold=True)
    canvas.text(image, "   ".join(notes), (_LEFT, 54), size=0.5, colour=canvas.FAINT)
    for place, row in enumerate(rows):
        _draw_row(image, row, grid, scale, _TOP + place * _ROW)
    below = image.shape[0] - 28
    canvas.text(image, "highest occupied cell", (_LEFT, below), size=0.5)
    canvas.height_bar(image, scale, (_LEFT + 190, below))
    words = [(canvas.GROUND, scale.ground_words), (canvas.WHITE, "ground below the grid")]
    end = canvas.legend(image, words, (_LEFT + 430, below))
    canvas.text(image, "higher ground has its height's colour", (end, below), size=0.5)
    return image


def _draw_row(
    image: np.ndarray, row: SheetRow, grid: VoxelGrid, scale: HeightScale, top: int
) -> None:
    canvas.text(image, row.title, (_LEFT, top + 14), size=0.5)
    top += 22
    for k, (number, cells) in enumerate(zip(row.numbers, row.frames, strict=True)):
        left = _LEFT + k * (_PANEL + _GAP)
        panel = cv2.resize(
            np.ascontiguousarray(from_above(cells, grid, scale)), (_PANEL, _PANEL),
            interpolation=cv2.INTER_NEAREST,
        )  # fmt: skip
        _put(image, panel, left, top)
        _vehicle(image, left + _PANEL // 2, top + _PANEL // 2)
        _number(image, number, left, top)
    for k, (number, picture) in enumerate(zip(row.numbers, row.pictures, strict=False)):
        left = _LEFT + len(row.frames) * (_PANEL + _GAP) + k * (_PANEL * 16 // 9 + _GAP)
        small = cv2.resize(picture, (_PANEL * 16 // 9, _PANEL), interpolation=cv2.INTER_AREA)
        _put(image, small, left, top)
        _number(image, number, left, top)


def _put(image: np.ndarray, panel: np.ndarray, left: int, top: int) -> None:
    height, width = panel.shape[:2]
    image[top : top + height, left : left + width] = panel
    cv2.rectangle(image, (left, top), (left + width, top + height), canvas.FAINT, 1)


def _vehicle(image: np.ndarray, x: int, y: int) -> None:
    """Draw a triangle that points ahead."""
    points = np.array([[x, y - 7], [x + 5, y + 5], [x - 5, y + 5]], np.int32)
    cv2.fillPoly(image, [points], canvas.FALSE, cv2.LINE_AA)
    cv2.polylines(image, [points], True, canvas.WHITE, 1, cv2.LINE_AA)


def _number(image: np.ndarray, number: int, left: int, top: int) -> None:
    words = str(number)
    width = text_width(words, 0.42)
    cv2.rectangle(image, (left + 1, top + 1), (left + width + 8, top + 17), canvas.WHITE, -1)
    canvas.text(image, words, (left + 4, top + 13), size=0.42)
