"""Charts made of characters: sparklines, bars, line charts. Pure functions, no colour.

A braille character holds 2 x 4 dots, so a chart of 40 x 8 cells draws 80 x 32 points. Where the
terminal knows no UTF-8, plain characters take their place. Values that are missing or not finite
leave gaps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = " .:-=+*#@"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""bit of each braille dot, by column, then row from above (Unicode block U+2800)"""
_MARKS = "*o+x"


@dataclass(frozen=True)
class Scale:
    """Limits of an axis; `log` where the values span decades."""

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Return 0 at the lower limit, 1 at the upper."""
        if self.log:
            value, low, high = (math.log(max(v, 1e-300)) for v in (value, self.low, self.high))
        else:
            low, high = self.low, self.high
        return (value - low) / (high - low) if high > low else 0.5

    def at(self, share: float) -> float:
        """Return the value at a place between 0 and 1."""
        if self.log:
            return math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        return self.low + share * (self.high - self.low)


@dataclass(frozen=True)
class Cell:
    """One character of a chart and the number of the series that drew it last."""

    char: str
    series: int | None


@dataclass(frozen=True)
class LineChart:
    """Rows of cells from above, and their axes."""

    rows: tuple[tuple[Cell, ...], ...]
    y: Scale
    x: Scale


def scale_of(values: Sequence[float], *, log: bool | None = None, margin: float = 0.05) -> Scale:
    """Return limits that hold all values with a little air; `log=None` decides by their span."""
    good = [v for v in values if math.isfinite(v)]
    if not good:
        return Scale(0.0, 1.0)
    low, high = min(good), max(good)
    if log is None:
        log = low > 0 and high / low > 30
    if log and low > 0:
        air = max((high / low) ** margin, 1.01)
        return Scale(low / air, high * air, True)
    air = (high - low) * margin or abs(high) * 0.1 or 1.0
    return Scale(low - air if low < 0 or low > air else 0.0, high + air)


def binned(points: Sequence[Point], x: Scale, bins: int) -> list[float | None]:
    """Return the mean value in each of `bins` equal parts of the x axis; None if it has none."""
    sums, counts = [0.0] * bins, [0] * bins
    for at, value in points:
        if math.isfinite(value) and math.isfinite(at):
            index = min(bins - 1, max(0, int(x.place(at) * bins)))
            sums[index] += value
            counts[index] += 1
    return [s / n if n else None for s, n in zip(sums, counts, strict=True)]


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """Return a line of blocks, as many as there is room or values for, lowest to highest."""
    good = [v for v in values if math.isfinite(v)]
    if not good or width < 1:
        return ""
    points = [(float(i), v) for i, v in enumerate(good)]
    bins = min(width, len(good))
    means = [m for m in binned(points, Scale(0.0, float(len(good))), bins) if m is not None]
    low, high = min(means), max(means)
    ramp = _ASCII_BLOCKS if ascii_only else _BLOCKS
    if high <= low:
        return ramp[4] * len(means)
    steps = len(ramp) - 2
    return "".join(ramp[1 + round((m - low) / (high - low) * steps)] for m in means)


def bar(share: float | None, width: int, *, ascii_only: bool = False) -> tuple[str, str]:
    """Return the filled and the empty part of a bar, together `width` characters."""
    filled = 0.0 if share is None or not math.isfinite(share) else min(1.0, max(0.0, share))
    if ascii_only:
        full = round(filled * width)
        return "#" * full, "-" * (width - full)
    eighths = round(filled * width * 8)
    full, part = divmod(eighths, 8)
    text = "█" * full + (_EIGHTHS[part] if part else "")
    return text, " " * (width - len(text))


def line_chart(
    series: Sequence[Sequence[Point]],
    width: int,
    height: int,
    *,
    log: bool | None = None,
    ascii_only: bool = False,
) -> LineChart:
    """Draw several series over one pair of axes.

    Args:
        series: (x, y) points of each, x rising.
        width, height: characters of the drawing itself, without labels.
        log: logarithmic y axis; None decides by the span of the values.
    """
    points = [p for one in series for p in one if math.isfinite(p[0]) and math.isfinite(p[1])]
    y = scale_of([p[1] for p in points], log=log)
    xs = [p[0] for p in points]
    x = Scale(min(xs), max(xs)) if len(set(xs)) > 1 else Scale((xs or [0.0])[0] - 1.0,
                                                             (xs or [0.0])[0] + 1.0)  # fmt: skip
    grid = _Grid(width, height, ascii_only)
    for number, one in enumerate(series):
        grid.draw(number, one, x, y)
    return LineChart(grid.rows(), y, x)


class _Grid:
    """Dots of a chart: braille by 2 x 4 in a cell, else one mark in a cell."""

    def __init__(self, width: int, height: int, ascii_only: bool) -> None:
        self._ascii = ascii_only
        self._fine = (1, 1) if ascii_only else (2, 4)
        self._size = (width, height)
        self._bits = [[0] * width for _ in range(height)]
        self._last: list[list[int | None]] = [[None] * width for _ in range(height)]

    def draw(self, number: int, points: Sequence[Point], x: Scale, y: Scale) -> None:
        """Draw one series; all but the first are dashed, so that they differ without colour."""
        columns, rows = (s * f for s, f in zip(self._size, self._fine, strict=True))
        means = binned(points, x, columns)
        before: tuple[int, int] | None = None
        for column, mean in enumerate(means):
            if mean is None:
                continue
            place = min(1.0, max(0.0, y.place(mean)))
            now = column, rows - 1 - min(rows - 1, int(place * rows))
            for dot in _line(before or now, now):
                if number == 0 or self._ascii or dot[0] % 4 < 2:
                    self._set(dot, number)
            before = now

    def _set(self, dot: tuple[int, int], number: int) -> None:
        fine_x, fine_y = self._fine
        column, row = dot[0] // fine_x, dot[1] // fine_y
        if self._ascii:
            self._bits[row][column] = ord(_MARKS[number % len(_MARKS)])
        else:
            self._bits[row][column] |= _DOTS[dot[0] % 2][dot[1] % 4]
        self._last[row][column] = number

    def rows(self) -> tuple[tuple[Cell, ...], ...]:
        """Return cells from above."""
        base = 0 if self._ascii else 0x2800
        return tuple(
            tuple(
                Cell(chr(base + bits) if bits else " ", number)
                for bits, number in zip(bits_row, last_row, strict=True)
            )
            for bits_row, last_row in zip(self._bits, self._last, strict=True)
        )


def _line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Yield dots from start to end, Bresenham (IBM Systems Journal 4, 1965)."""
    (x, y), (x1, y1) = start, end
    dx, dy = abs(x1 - x), -abs(y1 - y)
    step_x, step_y = (1 if x < x1 else -1), (1 if y < y1 else -1)
    error = dx + dy
    dots = [(x, y)]
    while (x, y) != (x1, y1):
        twice = 2 * error
        if twice >= dy:
            error, x = error + dy, x + step_x
        if twice <= dx:
            error, y = error + dx, y + step_y
        dots.append((x, y))
    return dots
