"""Charts of a score sheet: scores over the horizon with intervals as bands, and reliability.

Both take the dict of `scores.json`, so that an old run can be drawn again without its data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vlwm.core.figures import canvas
from vlwm.core.figures.canvas import Axes, Colour
from vlwm.core.vocabulary import Track

_PANELS = (("iou", "IoU"), ("iou_structure", "structure IoU (above the ground)"))
_STRONG = tuple(Track)
_COLOURS: dict[str, Colour] = {
    Track.PREDICTED: (0, 94, 213),
    "memory_baseline": (0, 159, 230),
    "constant_velocity_warp": (167, 121, 204),
    "copy_last": (120, 60, 200),
    "ground_prior": (150, 150, 150),
    Track.PLAN: (178, 114, 0),
    "true_pose_memory": (233, 180, 86),
    "true_pose_warp": (115, 158, 0),
    "tokenizer_round_trip": (60, 60, 60),
}
"""Warm: the future motion is predicted; cold: it is given."""
_STRONGEST: dict[str, Colour] = {"predicted": (60, 60, 200), "plan": (150, 150, 0)}
"""of the strongest baseline of each track, where it is none of the above"""
_BANDS = "bands: 95 % of cluster resamples"
_SIZE = (560, 420)  # width, height of a chart
_LEFT, _TOP, _GAP, _LEGEND = 70, 76, 70, 300


def draw_curves(sheet: Mapping[str, Any]) -> np.ndarray:
    """Draw IoU and structure IoU over the horizon, 95 % intervals as bands.

    Drawn are the model, the strongest baseline of each track and the baselines without parameters.
    """
    colours = colours_of(sheet)
    methods = [m for m in colours if m in sheet["scores"]]
    width = _LEFT + len(_PANELS) * (_SIZE[0] + _GAP) + _LEGEND
    image = canvas.blank(_TOP + _SIZE[1] + 70, width)
    canvas.text(image, headline(sheet), (_LEFT, 28), size=0.65, bold=True)
    horizons = sheet["horizons_s"]
    for number, (key, words) in enumerate(_PANELS):
        left = _LEFT + number * (_SIZE[0] + _GAP)
        axes = Axes(left, _TOP, *_SIZE, (0.0, horizons[-1] + 0.1), (0.0, 1.0))
        _chart_frame(image, axes, words, horizons, "seconds ahead")
        for order in (False, True):  # bands below all lines
            for method in methods:
                _curve(image, axes, sheet, method, key, colours[method], lines=order)
    words = "too few clusters: no bands" if sheet["too_few_clusters"] else _BANDS
    names = {method: colours[method] for method in methods}
    _names(image, names, words, (width - _LEGEND - 20, _TOP + 14))
    return image


def colours_of(sheet: Mapping[str, Any]) -> dict[str, Colour]:
    """Return the colour of every method that is drawn, the strongest baselines among them."""
    strongest = {method: _STRONGEST[t] for t, method in (sheet.get("baseline") or {}).items()}
    return strongest | _COLOURS


def headline(sheet: Mapping[str, Any]) -> str:
    """Return the subject of the scores in one line of ASCII."""
    clusters = sheet["n_clusters"]
    few = " - too few for intervals" if sheet["too_few_clusters"] else ""
    city = "   procedural city" if sheet["procedural"] else ""
    return f"split {sheet['split']}: {sheet['n_windows']} windows in {clusters} clusters{few}{city}"


def _chart_frame(
    image: np.ndarray, axes: Axes, title: str, ticks_x: Sequence[float], words_x: str
) -> None:
    shares = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    for share in shares:
        row = axes.row(share)
        cv2.line(image, (axes.left, row), (axes.left + axes.width, row), canvas.GRID, 1)
    axes.frame(image)
    axes.ticks_y(image, shares, form="{:.1f}")
    axes.ticks_x(image, ticks_x, form="{:.1f}")
    canvas.text(image, title, (axes.left, axes.top - 10), size=0.6)
    middle = (axes.left + axes.width // 2, axes.top + axes.height + 42)
    canvas.text(image, words_x, middle, size=0.52, anchor="centre")


def _curve(
    image: np.ndarray,
    axes: Axes,
    sheet: Mapping[str, Any],
    method: str,
    key: str,
    colour: Colour,
    *,
    lines: bool,
) -> None:
    """Draw the band of a method (`lines` false) or its line with dots (`lines` true)."""
    values = sheet["scores"][method][key]
    points = [
        (axes.column(s), axes.row(v))
        for s, v in zip(sheet["horizons_s"], values, strict=True)
        if v is not None
    ]
    if not points:
        return
    if not lines:
        _band(image, axes, sheet["horizons_s"], sheet["intervals"][method][key], colour)
        return
    width = 3 if method in _STRONG else 1
    cv2.polylines(image, [np.array(points)], False, colour, width, cv2.LINE_AA)
    for point in points:
        cv2.circle(image, point, width + 2, colour, -1, cv2.LINE_AA)


def _band(
    image: np.ndarray,
    axes: Axes,
    horizons: Sequence[float],
    interval: Sequence[Sequence[float] | None],
    colour: Colour,
) -> None:
    whole = [(s, ends) for s, ends in zip(horizons, interval, strict=True) if ends is not None]
    if not whole:
        return
    upper = [(axes.column(s), axes.row(ends[1])) for s, ends in whole]
    lower = [(axes.column(s), axes.row(ends[0])) for s, ends in whole]
    layer = image.copy()
    cv2.fillPoly(layer, [np.array(upper + lower[::-1])], colour, cv2.LINE_AA)
    cv2.addWeighted(layer, 0.18, image, 0.82, 0, dst=image)


def _names(
    image: np.ndarray, colours: Mapping[str, Colour], words: str, at: tuple[int, int]
) -> None:
    column, row = at
    for method, colour in colours.items():
        width = 3 if method in _STRONG else 1
        cv2.line(image, (column, row - 5), (column + 26, row - 5), colour, width)
        cv2.circle(image, (column + 13, row - 5), width + 2, colour, -1, cv2.LINE_AA)
        canvas.text(image, method, (column + 34, row), size=0.52)
        row += 26
    for line, note in enumerate((words, "empty: 0 throughout, not drawn")):
        at = (column, row + 10 + 20 * line)
        canvas.text(image, note, at, size=0.45, colour=canvas.FAINT)


def draw_reliability(sheet: Mapping[str, Any]) -> np.ndarray:
    """Draw the observed share of occupied cells against predicted probability, with counts."""
    diagram, threshold = sheet["reliability"], sheet["threshold"]
    image = canvas.blank(_TOP + 420 + 200, _LEFT + 420 + 40)
    canvas.text(image, "Reliability of the model", (_LEFT, 28), size=0.65, bold=True)
    axes = Axes(_LEFT, _TOP, 420, 420, (0.0, 1.0), (0.0, 1.0))
    shares = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    _chart_frame(image, axes, "observed share occupied", shares, "predicted probability")
    cv2.line(
        image,
        (axes.left, axes.top + axes.height),
        (axes.left + axes.width, axes.top),
        canvas.FAINT,
        1,
        cv2.LINE_AA,
    )
    column = axes.column(threshold)
    cv2.line(image, (column, axes.top), (column, axes.top + axes.height), canvas.FALSE, 1)
    canvas.text(
        image, f"threshold {threshold:.2f}", (column + 5, axes.top + 16), size=0.45,
        colour=canvas.FALSE,
    )  # fmt: skip
    pairs = zip(diagram["predicted"], diagram["observed"], strict=True)
    points = [(axes.column(p), axes.row(o)) for p, o in pairs if p is not None]
    if points:
        cv2.polylines(image, [np.array(points)], False, canvas.MISSED, 2, cv2.LINE_AA)
    for point in points:
        cv2.circle(image, point, 4, canvas.MISSED, -1, cv2.LINE_AA)
    _cells_bars(image, axes, diagram["cells"])
    return image


def _cells_bars(image: np.ndarray, axes: Axes, cells: Sequence[int]) -> None:
    """Draw the number of cells per bin on a logarithmic scale, below the diagram."""
    base = axes.top + axes.height + 150
    canvas.text(image, "cells per bin (log)", (axes.left, base - 82), size=0.45)
    top = np.log10(max(max(cells), 10))
    for number, count in enumerate(cells):
        left = axes.column(number / len(cells)) + 1
        right = axes.column((number + 1) / len(cells)) - 1
        tall = round(70 * np.log10(count) / top) if count > 1 else int(count)
        cv2.rectangle(image, (left, base - tall), (right, base), canvas.FAINT, -1)
    canvas.text(image, f"tallest: {max(cells):.1e}", (axes.left, base + 18), size=0.42)


def write_curves(path: str | Path, sheet: Mapping[str, Any]) -> None:
    """Draw the curves into a PNG file."""
    canvas.write_png(path, draw_curves(sheet))


def write_reliability(path: str | Path, sheet: Mapping[str, Any]) -> None:
    """Draw the reliability diagram into a PNG file; the sheet must be a model's."""
    canvas.write_png(path, draw_reliability(sheet))
