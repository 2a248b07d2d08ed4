"""Write text of any script the figures need into an image.

Outlines come from matplotlib's font machinery and the package's own font, a subset of Noto Sans CJK
JP (fonts/OFL.txt): Latin, Greek, kana, and the kanji that attributions and city names are written
with. A character that the font lacks is named by its code point, such as [U+1F600], never dropped.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vlwm.core.text import safe_text

FONT = Path(__file__).with_name("fonts") / "vlwm-figures.otf"
_EM_PX = 27.0  # height of the em at size 1: capitals are as high as OpenCV's Hershey letters
_FINE = 4  # letters are filled on a grid this many times finer, then averaged
_BOLD = 0.035  # of the em, extra width of bold strokes

Colour = tuple[int, int, int]


@lru_cache(maxsize=1)
def _characters() -> frozenset[int]:
    """Return the code points of the font."""
    from matplotlib.font_manager import get_font

    return frozenset(get_font(str(FONT)).get_charmap())


def writable(words: str) -> str:
    """Return text with every character that the font lacks named by its code point."""
    line = safe_text(words, 2000)
    return "".join(c if ord(c) in _characters() else f"[U+{ord(c):04X}]" for c in line)


@lru_cache(maxsize=2048)
def _outlines(words: str, size: float) -> tuple[list[NDArray[np.float64]], float]:
    """Return closed outlines (N, 2) in pixels, y up from the baseline, and the width."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.path import Path as Outline
    from matplotlib.textpath import TextToPath

    pen, face = TextToPath(), FontProperties(fname=FONT)
    scale = _EM_PX * size / pen.FONT_SCALE
    face.set_size(pen.FONT_SCALE)
    line = writable(words)
    if not line.strip():
        return [], _EM_PX * size * 0.25 * len(line)
    vertices, codes = pen.get_text_path(face, line)
    width, _, _ = pen.get_text_width_height_descent(line, face, ismath=False)
    outline = Outline(np.asarray(vertices) * 20.0, codes)  # enlarged: curves stay smooth
    parts = outline.to_polygons(closed_only=True)
    return [np.asarray(p) / 20.0 * scale for p in parts], float(width) * scale


def text_width(words: str, size: float) -> int:
    """Return the width of a line in pixels."""
    return int(np.ceil(_outlines(words, size)[1]))


def text_height(size: float) -> int:
    """Return the height of capitals in pixels."""
    return round(0.73 * _EM_PX * size)


@lru_cache(maxsize=2048)
def _mask(words: str, size: float, bold: bool) -> tuple[NDArray[np.uint8], int, int]:
    """Return the coverage uint8 (rows, columns) of a line, and the (column, row) of its origin."""
    outlines, width = _outlines(words, size)
    em = int(np.ceil(_EM_PX * size))
    shape = (2 * em, int(np.ceil(width)) + 2 * em)
    left, base = em // 2, int(1.4 * em)
    fine = np.zeros((shape[0] * _FINE, shape[1] * _FINE), np.uint8)
    polygons = [np.round((p * [1, -1] + [left, base]) * _FINE).astype(np.int32) for p in outlines]
    cv2.fillPoly(fine, polygons, 255)  # all at once: holes stay holes
    if bold:
        cv2.polylines(fine, polygons, True, 255, max(1, round(_BOLD * em * _FINE)))
    return cv2.resize(fine, shape[::-1], None, 0, 0, cv2.INTER_AREA), left, base


def write(
    image: np.ndarray,
    words: str,
    at: tuple[int, int],
    *,
    size: float,
    colour: Colour,
    bold: bool = False,
) -> None:
    """Write a line into uint8 (rows, columns, 3), its baseline beginning at (column, row).

    Text outside the image is cut off.
    """
    mask, left, base = _mask(words, size, bold)
    top, start = at[1] - base, at[0] - left
    rows = slice(max(top, 0), min(top + mask.shape[0], image.shape[0]))
    columns = slice(max(start, 0), min(start + mask.shape[1], image.shape[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    part = mask[rows.start - top : rows.stop - top, columns.start - start : columns.stop - start]
    share = (part / 255.0)[..., None]  # (rows, columns, 1)
    under = image[rows, columns]
    image[rows, columns] = np.round(under + share * (np.array(colour) - under)).astype(np.uint8)
