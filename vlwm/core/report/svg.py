"""Draw curves and maps as inline SVG.

Text stays text, so that Japanese names, search and print work. Colours are Okabe and Ito's
(jfly.uni-koeln.de/color), which colour-blind readers can tell apart. No style attributes: the
page's content security policy forbids them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from vlwm.core.text import safe_text
from vlwm.core.vocabulary import Track

WIDTH, HEIGHT = 380, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 26, 40

COLOURS: dict[str, str] = {
    Track.PREDICTED: "#d55e00",
    "memory_baseline": "#e69f00",
    "constant_velocity_warp": "#cc79a7",
    "copy_last": "#a0306a",
    "ground_prior": "#969696",
    Track.PLAN: "#0072b2",
    "true_pose_memory": "#56b4e9",
    "true_pose_warp": "#009e73",
    "tokenizer_round_trip": "#3c3c3c",
}
"""Warm: the future motion is predicted; cold: it is given."""
OTHER_COLOURS = ("#7b5ea7", "#8c6d31", "#17807e", "#b0413e", "#5c6b1f")
STRONG = tuple(Track)

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A curve of a chart.

    Attributes:
        name: for the legend; empty for none.
        points: (x, y) in data units.
        colour: of line and band.
        band: (x, low, high) of an interval.
        strong: drawn thicker, with dots.
    """

    name: str
    points: Sequence[Point]
    colour: str
    band: Sequence[tuple[float, float, float]] = ()
    strong: bool = False


@dataclass(frozen=True)
class Chart:
    """Axes with curves.

    Attributes:
        title: above the chart; also its accessible name.
        x_words, y_words: names of the axes with units.
        lines: the curves.
        y_range: of the vertical axis; None fits it to the curves.
        diagonal: draw y = x, as in a reliability diagram.
    """

    title: str
    x_words: str
    y_words: str
    lines: Sequence[Line]
    y_range: tuple[float, float] | None = None
    diagonal: bool = False
    x_range: tuple[float, float] | None = None
    marks: Sequence[tuple[float, str]] = field(default=())

    def svg(self) -> str:
        """Return the chart; an empty text where no curve has a point."""
        points = [p for line in self.lines for p in line.points]
        if not points:
            return ""
        x = self.x_range or _fitted([p[0] for p in points])
        y = self.y_range or _fitted([p[1] for p in points])
        scale = _Scale(x, y)
        parts = [_grid(scale), *(_band(scale, line) for line in self.lines)]
        if self.diagonal:
            low, high = max(x[0], y[0]), min(x[1], y[1])
            parts.append(
                _polyline([scale.at(low, low), scale.at(high, high)], "#999", 1, dashed=True)
            )
        for at, words in self.marks:
            parts.append(_mark(scale, at, words))
        parts += [_curve(scale, line) for line in self.lines]
        title = escape(safe_text(self.title))
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
            f'<text x="{_LEFT}" y="16" class="title">{title}</text>{"".join(parts)}'
            f'<text x="{(WIDTH + _LEFT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">'
            f"{escape(self.x_words)}</text>"
            f'<text transform="translate(12 {(HEIGHT - _BOTTOM + _TOP) / 2:.0f}) rotate(-90)" '
            f'text-anchor="middle">{escape(self.y_words)}</text></svg>'
        )


def legend(lines: Sequence[Line]) -> str:
    """Return a list of coloured names that wraps on narrow screens."""
    named = [line for line in lines if line.name and line.points]
    items = [
        f'<li><svg viewBox="0 0 24 10" class="key" aria-hidden="true"><path d="M1 5H23" '
        f'stroke="{line.colour}" stroke-width="{4 if line.strong else 2}"/></svg>'
        f"{escape(safe_text(line.name))}</li>"
        for line in named
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


@dataclass(frozen=True)
class _Scale:
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> Point:
        """Return pixels of a point in data units, clipped to the axes."""
        share_x = (x - self.x[0]) / (self.x[1] - self.x[0])
        share_y = min(1.0, max(0.0, (y - self.y[0]) / (self.y[1] - self.y[0])))
        wide, tall = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
        return _LEFT + share_x * wide, HEIGHT - _BOTTOM - share_y * tall


def _fitted(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = 0.05 * (high - low) or max(abs(high), 1.0) * 0.1
    return low - pad, high + pad


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round values inside [low, high], at most `most`."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def _grid(scale: _Scale) -> str:
    parts = []
    for value in ticks(*scale.y):
        x, y = scale.at(scale.x[0], value)
        parts.append(
            f'<path d="M{x:.1f} {y:.1f}H{WIDTH - _RIGHT}" class="rule"/>'
            f'<text x="{x - 5:.1f}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    for value in ticks(*scale.x):
        x, y = scale.at(value, scale.y[0])
        parts.append(
            f'<path d="M{x:.1f} {y:.1f}v4" class="rule"/>'
            f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{value:g}</text>'
        )
    return "".join(parts)


def _polyline(pixels: Sequence[Point], colour: str, width: float, *, dashed: bool = False) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in pixels)
    dashes = ' stroke-dasharray="4 4"' if dashed else ""
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>'


def _band(scale: _Scale, line: Line) -> str:
    if not line.band:
        return ""
    upper = [scale.at(x, high) for x, _, high in line.band]
    lower = [scale.at(x, low) for x, low, _ in reversed(line.band)]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in [*upper, *lower])
    return f'<path d="M{path}Z" fill="{line.colour}" fill-opacity="0.18"/>'


def _curve(scale: _Scale, line: Line) -> str:
    pixels = [scale.at(x, y) for x, y in line.points]
    if not pixels:
        return ""
    drawn = _polyline(pixels, line.colour, 2.5 if line.strong else 1.3)
    if len(pixels) > 40:
        return drawn
    radius = 3.2 if line.strong else 2
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{line.colour}"/>' for x, y in pixels
    )
    return drawn + dots


def _mark(scale: _Scale, at: float, words: str) -> str:
    x, top = scale.at(at, scale.y[1])
    return (
        f'<path d="M{x:.1f} {top:.1f}V{HEIGHT - _BOTTOM}" stroke="#cc79a7" stroke-dasharray="3 3"/>'
        f'<text x="{x + 4:.1f}" y="{top + 12:.1f}">{escape(safe_text(words))}</text>'
    )
