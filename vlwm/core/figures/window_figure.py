"""One window as a picture: past, true future, forecast and difference, from above and in a cut.

Left block: from above, x ahead is up and y left is left; the colour is the height of the highest
occupied cell. Right block: one vertical cut along the heading, x ahead to the right, where the true
frames hold most; a thin line in the left block marks it. Each frame is drawn in its own ego frame,
as the model sees it; the triangle is the vehicle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vlwm.core.figures import canvas
from vlwm.core.figures.canvas import Axes, Colour, HeightScale
from vlwm.core.geometry.grid import VoxelGrid

_PANEL = 300  # pixels along one side of a view from above
_CUT_HEIGHT, _CUT_WIDTH = 300, 260
_GAP, _LEFT, _TOP, _ROW_GAP = 14, 100, 86, 34
_SHOWN = 4  # frames in a row


@dataclass(frozen=True)
class WindowFrames:
    """Frames to draw.

    Attributes:
        past: uint8 (F, X, Y, Z), oldest first.
        truth, forecast: uint8 (H, X, Y, Z).
        past_s: (F,) seconds, 0 at the last past frame.
        horizons_s: (H,) seconds.
        known: bool (F + H, X, Y, Z), cells whose truth is known, of past and future; None: all.
    """

    past: np.ndarray
    truth: np.ndarray
    forecast: np.ndarray
    past_s: np.ndarray
    horizons_s: np.ndarray
    known: np.ndarray | None = None


def height_above(cells: np.ndarray, grid: VoxelGrid) -> np.ndarray:
    """Return float64 (X, Y): top of the highest occupied cell, metres; NaN where empty."""
    top = cells.shape[-1] - 1 - np.argmax(cells[..., ::-1] > 0, axis=-1)
    height = (top + 1) * grid.cell_m[2] + grid.lower_m[2]
    return np.where(cells.any(-1), height, np.nan)


def from_above(
    cells: np.ndarray, grid: VoxelGrid, scale: HeightScale, known: np.ndarray | None = None
) -> np.ndarray:
    """Return uint8 (X, Y, 3): the frame seen from above, ahead is up.

    A column is unknown where nothing in it is occupied and none of its cells is `known`.
    """
    picture = scale.colours(height_above(cells, grid))
    if known is not None:
        picture[~(known.any(-1) | cells.any(-1))] = canvas.UNKNOWN
    return picture[::-1, ::-1]


def in_cut(
    cells: np.ndarray, grid: VoxelGrid, scale: HeightScale, row: int,
    known: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Return uint8 (Z, X, 3): the cut along the heading through cells [:, row]."""
    height = grid.axis_centers()[2] + grid.cell_m[2] / 2
    solid = np.where(cells[:, row].T > 0, height[:, None], np.nan)
    picture = scale.colours(solid)
    if known is not None:
        picture[~(known[:, row].T | (cells[:, row].T > 0))] = canvas.UNKNOWN
    return picture[::-1]


def row_of_cut(frames: WindowFrames) -> int:
    """Return the index along y, in the inner half, with the most truly occupied cells."""
    occupied = frames.past.sum(axis=(0, 1, 3), dtype=np.int64)
    occupied = occupied + frames.truth.sum(axis=(0, 1, 3), dtype=np.int64)
    edge = len(occupied) // 4
    return edge + int(np.argmax(occupied[edge : len(occupied) - edge]))


def difference_above(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return uint8 (X, Y, 3): each column in the mix of its cells: agreed, missed, false."""
    return _mixture(forecast > 0, truth > 0)[::-1, ::-1]


def difference_cut(forecast: np.ndarray, truth: np.ndarray, row: int) -> np.ndarray:
    """Return uint8 (Z, X, 3): agreed, missed and false cells of the cut."""
    p, t = forecast[:, row].T > 0, truth[:, row].T > 0
    return _mixture(p[..., None], t[..., None])[::-1]


def _mixture(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    kinds = [(forecast & truth, canvas.AGREED), (truth & ~forecast, canvas.MISSED),
             (forecast & ~truth, canvas.FALSE)]  # fmt: skip
    counts = np.stack([cells.sum(-1) for cells, _ in kinds], axis=-1).astype(float)
    colours = np.array([colour for _, colour in kinds], float)
    total = counts.sum(-1, keepdims=True)
    mixed = counts @ colours / np.maximum(total, 1)
    return np.where(total > 0, mixed, 255).astype(np.uint8)


@dataclass(frozen=True)
class _Layout:
    """Places of the panels: two blocks side by side, a row for each kind of frame."""

    grid: VoxelGrid
    cut_top_m: float
    cut_y_m: float

    @property
    def cut_size(self) -> tuple[int, int]:
        """Width and height of a cut in pixels; metres are square."""
        span_x = self.grid.upper_m[0] - self.grid.lower_m[0]
        span_z = self.cut_top_m - self.grid.lower_m[2]
        scale = min(_CUT_HEIGHT / span_z, _CUT_WIDTH / span_x)
        return round(span_x * scale), round(span_z * scale)

    @property
    def cut_left(self) -> int:
        return _LEFT + _SHOWN * (_PANEL + _GAP) + 76

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the picture."""
        width = self.cut_left + _SHOWN * (self.cut_size[0] + _GAP) + 10
        return _TOP + 4 * (_PANEL + _ROW_GAP) + 96, width

    def row_top(self, row: int) -> int:
        return _TOP + row * (_PANEL + _ROW_GAP) + 18

    def above(self, row: int, number: int) -> Axes:
        left, lower, upper = _LEFT + number * (_PANEL + _GAP), self.grid.lower_m, self.grid.upper_m
        ends = (upper[1], lower[1]), (lower[0], upper[0])
        return Axes(left, self.row_top(row), _PANEL, _PANEL, *ends)

    def cut(self, row: int, number: int) -> Axes:
        width, height = self.cut_size
        left, top = self.cut_left + number * (width + _GAP), self.row_top(row) + _PANEL - height
        lower, upper = self.grid.lower_m, self.grid.upper_m
        return Axes(left, top, width, height, (lower[0], upper[0]), (lower[2], self.cut_top_m))

    @property
    def layers(self) -> int:
        """Layers that a cut shows."""
        return round((self.cut_top_m - self.grid.lower_m[2]) / self.grid.cell_m[2])


def draw_window(
    frames: WindowFrames, grid: VoxelGrid, *, title: str, notes: Sequence[str] = ()
) -> np.ndarray:
    """Return the picture, uint8 (rows, columns, 3).

    Args:
        frames: the window.
        grid: its grid.
        title: first line, such as the method and the place.
        notes: second line (attribution, threshold).
    """
    scale = HeightScale.of(grid, frames.past, frames.truth, frames.forecast)
    cut = row_of_cut(frames)
    layout = _Layout(
        grid, min(grid.upper_m[2], scale.top_m + 10.0), float(grid.axis_centers()[1][cut])
    )
    image = canvas.blank(*layout.size)
    _headings(image, layout, title, notes)
    for row, (name, panels) in enumerate(_rows(frames, grid, scale, cut)):
        middle = layout.row_top(row) + _PANEL // 2
        canvas.text_upright(image, name, (16, middle), size=0.7)
        for number, panel in enumerate(panels):
            _draw_panel(image, layout, panel, row, number)
    _legend(image, scale, (_LEFT, image.shape[0] - 28), masked=frames.known is not None)
    return image


def _headings(image: np.ndarray, layout: _Layout, title: str, notes: Sequence[str]) -> None:
    canvas.text(image, title, (_LEFT, 26), size=0.7, bold=True)
    canvas.text(image, "   ".join(notes), (_LEFT, 50), size=0.52, colour=canvas.FAINT)
    canvas.text(image, "From above", (_LEFT, _TOP - 8), size=0.6, bold=True)
    words = f"Vertical cut along the heading at y = {layout.cut_y_m:+.1f} m"
    canvas.text(image, words, (layout.cut_left, _TOP - 8), size=0.6, bold=True)


def _draw_panel(image: np.ndarray, layout: _Layout, panel: _Panel, row: int, number: int) -> None:
    above, cut = layout.above(row, number), layout.cut(row, number)
    above.paste(image, panel.above)
    cut.paste(image, panel.cut[-layout.layers :])
    line = above.column(layout.cut_y_m)
    cv2.line(image, (line, above.top), (line, above.top + above.height), canvas.CUT, 1)
    _vehicle(image, above)
    for axes in (above, cut):
        axes.frame(image)
        canvas.text(image, panel.title, (axes.left + 2, axes.top - 5), size=0.52)
    _label(image, above, cut, first=number == 0, last=row == 3)


@dataclass(frozen=True)
class _Panel:
    title: str
    above: np.ndarray
    cut: np.ndarray


def _rows(
    frames: WindowFrames, grid: VoxelGrid, scale: HeightScale, cut: int
) -> list[tuple[str, list[_Panel]]]:
    shown = np.unique(np.linspace(0, len(frames.horizons_s) - 1, _SHOWN).round().astype(int))

    count, known = len(frames.past), frames.known

    def plain(cells: np.ndarray, words: str, seen: np.ndarray | None = None) -> _Panel:
        above = from_above(cells, grid, scale, seen)
        return _Panel(words, above, in_cut(cells, grid, scale, cut, seen))

    def known_at(place: int) -> np.ndarray | None:
        return None if known is None else known[place]

    def difference(h: int) -> _Panel:
        forecast, truth = frames.forecast[h], frames.truth[h]
        seen = known_at(count + h)
        if seen is not None:  # unknown cells count for nobody
            forecast, truth = forecast * seen, truth * seen
        words = f"{frames.horizons_s[h]:+.1f} s   IoU {_iou(forecast, truth)}"
        above = difference_above(forecast, truth)
        return _Panel(words, above, difference_cut(forecast, truth, cut))

    past = list(enumerate(zip(frames.past, frames.past_s, strict=True)))[-_SHOWN:]
    return [
        (
            "past",
            [plain(c, f"{s:+.1f} s" if s else "now, 0 s", known_at(k)) for k, (c, s) in past],
        ),
        (
            "true future",
            [plain(frames.truth[h], _at(frames, h), known_at(count + h)) for h in shown],
        ),
        ("forecast", [plain(frames.forecast[h], _at(frames, h)) for h in shown]),
        ("difference", [difference(h) for h in shown]),
    ]


def _at(frames: WindowFrames, h: int) -> str:
    return f"{frames.horizons_s[h]:+.1f} s"


def _iou(forecast: np.ndarray, truth: np.ndarray) -> str:
    union = np.count_nonzero((forecast > 0) | (truth > 0))
    return f"{np.count_nonzero((forecast > 0) & (truth > 0)) / union:.2f}" if union else "-"


def _vehicle(image: np.ndarray, axes: Axes) -> None:
    column, row = axes.column(0.0), axes.row(0.0)
    corners = np.array([[column, row - 9], [column - 6, row + 6], [column + 6, row + 6]])
    cv2.fillConvexPoly(image, corners, canvas.WHITE, cv2.LINE_AA)
    cv2.polylines(image, [corners], True, canvas.INK, 2, cv2.LINE_AA)


def _label(image: np.ndarray, above: Axes, cut: Axes, *, first: bool, last: bool) -> None:
    """Draw ticks on the outer edges only; scale bars on the first panel of the last row."""
    if first:
        above.ticks_y(image, _ticks(above.y))
        cut.ticks_y(image, _ticks(cut.y))
        canvas.text_upright(image, "x ahead (m)", (46, above.top + above.height // 2), size=0.5)
        middle = cut.top + cut.height // 2
        canvas.text_upright(image, "height (m)", (cut.left - 46, middle), size=0.5)
    if last:
        above.ticks_x(image, _ticks(above.x))
        cut.ticks_x(image, _ticks(cut.x))
        for axes, words in ((above, "y left (m)"), (cut, "x ahead (m)")):
            at = (axes.left + axes.width // 2, axes.top + axes.height + 38)
            canvas.text(image, words, at, size=0.5, anchor="centre")
    if first and last:
        above.scale_bar(image, -20.0, "20 m")
        cut.scale_bar(image, 20.0, "20 m")


def _ticks(ends: tuple[float, float]) -> list[float]:
    low, high = min(ends), max(ends)
    step = 20.0 if high - low < 120 else 50.0
    first = int(np.ceil(low / step + 0.1))  # none on the edge itself: panels are side by side
    return [step * n for n in range(first, int(np.floor(high / step - 0.1)) + 1)]


def _legend(image: np.ndarray, scale: HeightScale, at: tuple[int, int], *, masked: bool) -> None:
    column, row = at
    canvas.text(image, "height above ground:", (column, row), size=0.52)
    canvas.height_bar(image, scale, (column + 190, row))
    entries: list[tuple[Colour, str]] = [
        (canvas.GROUND, scale.ground_words),
        (canvas.WHITE, "empty"),
        (canvas.AGREED, "agreed"),
        (canvas.MISSED, "missed (true, not forecast)"),
        (canvas.FALSE, "false (forecast, not true)"),
    ]
    if masked:
        entries.insert(2, (canvas.UNKNOWN, "unknown, not counted"))
    canvas.legend(image, entries, (column + 440, row))


def write_window_picture(
    path: str | Path,
    frames: WindowFrames,
    grid: VoxelGrid,
    *,
    title: str,
    notes: Sequence[str] = (),
) -> None:
    """Draw a window into a PNG file."""
    canvas.write_png(path, draw_window(frames, grid, title=title, notes=notes))


def window_png(
    frames: WindowFrames,
    grid: VoxelGrid,
    *,
    title: str,
    notes: Sequence[str] = (),
    width: int = 1500,
) -> bytes:
    """Return the picture of a window as PNG, at most `width` pixels wide."""
    image = draw_window(frames, grid, title=title, notes=notes)
    if image.shape[1] > width:
        height = round(image.shape[0] * width / image.shape[1])
        image = cv2.resize(image, (width, height), None, 0, 0, cv2.INTER_AREA)
    return canvas.png_bytes(image)
