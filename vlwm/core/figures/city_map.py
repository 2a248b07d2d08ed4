"""A map of a prepared place: buildings by height, roads, tracks, split regions with their margins.

North is up and metres are square. A region is the place of one split; its margin, tinted, is where
no pose of it may be, so that no two splits see the same ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vlwm.core.city.city import City
from vlwm.core.data.splits import Splits
from vlwm.core.figures import canvas
from vlwm.core.figures.canvas import Axes, Colour, HeightScale
from vlwm.core.figures.lettering import text_height, text_width
from vlwm.core.vocabulary import Agent, Split

_LONG_SIDE, _LEFT, _TOP, _SIDE, _BOTTOM = 1200, 30, 84, 360, 64
_SHIFT = 4  # fractional bits of OpenCV's coordinates
_ROAD: Colour = (228, 232, 236)
_CONTOUR: Colour = (190, 200, 205)
_PAPER: Colour = (248, 250, 250)
_SPLITS: dict[str, Colour] = {
    Split.TRAIN: (178, 114, 0),
    Split.VAL: (0, 159, 230),
    Split.TEST: (0, 94, 213),
}  # Okabe and Ito: blue, orange, vermilion
_TINT = 0.13
_AROUND_M = 30.0
_MOST_LISTED = 24


@dataclass(frozen=True)
class Track:
    """One session on the map.

    Attributes:
        name, agent, split: of the session; pattern: how it goes, empty where unknown.
        xy: float64 (N, 2), city's frame, metres.
        words: its caption next to the map.
    """

    name: str
    agent: str
    split: str
    xy: np.ndarray
    words: str


def draw_map(
    city: City, splits: Splits, tracks: Sequence[Track], notes: Sequence[str]
) -> np.ndarray:
    """Return the map, uint8 (rows, columns, 3).

    Args:
        splits: regions in the CRS of the city; without regions none are drawn.
        notes: second line, the attribution first.
    """
    axes = _axes(city, splits)
    scale = _height_scale(city)
    size = (axes.top + axes.height + _BOTTOM, axes.left + axes.width + _SIDE)
    listed = axes.top + 22 * (min(len(tracks), _MOST_LISTED) + 3)
    image = canvas.blank(max(size[0], listed), size[1])
    step = _ground(image, city, axes)
    _roads(image, city, axes)
    _buildings(image, city, axes, scale)
    _regions(image, splits, city, axes)
    for number, track in enumerate(tracks, 1):
        _track(image, track, number, axes)
    image = _cut_to(image, axes)
    axes.frame(image)
    _words(image, city, tracks, notes, axes)
    _below(image, axes, scale, step)
    return image


def _axes(city: City, splits: Splits) -> Axes:
    """Return the frame of the map: everything built and every region, and some metres around."""
    x0, y0, x1, y1 = city.bounds_xy
    east, north = city.origin.easting, city.origin.northing
    for r in splits.regions:
        x0, y0 = min(x0, r.x0 - east), min(y0, r.y0 - north)
        x1, y1 = max(x1, r.x1 - east), max(y1, r.y1 - north)
    x0, y0, x1, y1 = x0 - _AROUND_M, y0 - _AROUND_M, x1 + _AROUND_M, y1 + _AROUND_M
    pixels = _LONG_SIDE / max(x1 - x0, y1 - y0)
    width, height = round((x1 - x0) * pixels), round((y1 - y0) * pixels)
    return Axes(_LEFT, _TOP, width, height, (x0, x1), (y0, y1))


def _pixels(xy: np.ndarray, axes: Axes) -> np.ndarray:
    """Return int32 (..., 2) columns and rows of points (..., 2), in 1/16 pixel."""
    per_metre = axes.width / (axes.x[1] - axes.x[0])
    column = axes.left + (xy[..., 0] - axes.x[0]) * per_metre
    row = axes.top + (axes.y[1] - xy[..., 1]) * per_metre
    return np.round(np.stack([column, row], axis=-1) * (1 << _SHIFT)).astype(np.int32)


def _height_scale(city: City) -> HeightScale:
    """Return the height that all but one in two hundred of the features reach, in steps of 10 m."""
    corners = city.mesh.triangles()
    above = corners[:, :, 2].max(axis=1) - city.terrain.height(corners[:, :, :2].mean(axis=1))
    tops = np.full(len(city.feature_ids), -np.inf)
    np.maximum.at(tops, city.feature_of_face, above)
    top = float(np.quantile(tops[np.isfinite(tops)], 0.995))
    return HeightScale(0.0, max(10.0, 10.0 * float(np.ceil(top / 10.0))))


def _cut_to(image: np.ndarray, axes: Axes) -> np.ndarray:
    """Clear everything outside the frame to white."""
    inside = np.s_[axes.top : axes.top + axes.height, axes.left : axes.left + axes.width]
    out = canvas.blank(*image.shape[:2])
    out[inside] = image[inside]
    return out


def _ground(image: np.ndarray, city: City, axes: Axes) -> float | None:
    """Draw paper and contours at multiples of 2, 5, 10 … m; return that number, or None
    for level ground."""
    x = axes.x[0] + (np.arange(axes.width) + 0.5) * (axes.x[1] - axes.x[0]) / axes.width
    y = axes.y[1] - (np.arange(axes.height) + 0.5) * (axes.y[1] - axes.y[0]) / axes.height
    height = city.terrain.height(np.stack(np.meshgrid(x, y), axis=-1))
    span = float(np.ptp(height))
    step = next((s for s in (2.0, 5.0, 10.0, 20.0, 50.0) if span / s <= 12), 100.0)
    level = np.floor(height / step)
    crossed = np.zeros(level.shape, dtype=bool)
    crossed[1:] |= level[1:] != level[:-1]
    crossed[:, 1:] |= level[:, 1:] != level[:, :-1]
    cells = np.where(crossed[..., None], _CONTOUR, _PAPER).astype(np.uint8)
    axes.paste(image, cells)
    return step if crossed.any() else None


def _roads(image: np.ndarray, city: City, axes: Axes) -> None:
    for points in _pixels(city.roads.triangles, axes):
        cv2.fillConvexPoly(image, points, _ROAD, lineType=8, shift=_SHIFT)


def _buildings(image: np.ndarray, city: City, axes: Axes, scale: HeightScale) -> None:
    """Draw buildings seen from above: what is higher covers what is lower."""
    corners = city.mesh.triangles()
    top = corners[:, :, 2].max(axis=1)
    above = top - city.terrain.height(corners[:, :, :2].mean(axis=1))
    colours = scale.colours(np.maximum(above, 0.01)).tolist()
    points = _pixels(corners[:, :, :2], axes)
    for k in np.argsort(top, kind="stable"):
        cv2.fillConvexPoly(image, points[k], colours[k], lineType=8, shift=_SHIFT)


def _regions(image: np.ndarray, splits: Splits, city: City, axes: Axes) -> None:
    """Draw each region's border, its margin tinted, and the border of where its poses are."""
    shift = np.array([city.origin.easting, city.origin.northing])
    for r in splits.regions:
        colour = _SPLITS.get(r.split, canvas.INK)
        corners = np.array([[r.x0, r.y0], [r.x1, r.y1]]) - shift
        outer = _box(corners, axes)
        inner = _box(corners + splits.margin_m * np.array([[1.0], [-1.0]]), axes)
        mask = np.zeros(image.shape[:2], np.uint8)
        cv2.rectangle(mask, *outer, 1, -1)
        cv2.rectangle(mask, *inner, 0, -1)
        tinted = image[mask > 0] * (1 - _TINT) + np.array(colour) * _TINT
        image[mask > 0] = tinted.astype(np.uint8)
        cv2.rectangle(image, *outer, colour, 2)
        cv2.rectangle(image, *inner, colour, 1)
        at = (outer[0][0] + 8, outer[0][1] + 22)
        _label(image, r.split, at, colour, size=0.7)


def _box(corners: np.ndarray, axes: Axes) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the upper left and lower right pixel of south-west and north-east corners (2, 2)."""
    (x0, y0), (x1, y1) = corners
    return (axes.column(x0), axes.row(y1)), (axes.column(x1), axes.row(y0))


def _track(image: np.ndarray, track: Track, number: int, axes: Axes) -> None:
    """Draw a path dark on white, visible on every colour; drones solid, rovers dotted in white."""
    points = _pixels(track.xy, axes)[:, None]
    colour = _SPLITS.get(track.split, canvas.INK)
    cv2.polylines(image, [points], False, canvas.WHITE, 5, cv2.LINE_AA, _SHIFT)
    cv2.polylines(image, [points], False, colour, 3, cv2.LINE_AA, _SHIFT)
    if track.agent == Agent.ROVER:
        for point in points[::6, 0]:
            cv2.circle(image, tuple(int(v) >> _SHIFT for v in point), 1, canvas.WHITE, -1)
    start = tuple(int(v) >> _SHIFT for v in points[0, 0])
    cv2.circle(image, start, 10, canvas.WHITE, -1, cv2.LINE_AA)
    cv2.circle(image, start, 10, colour, 2, cv2.LINE_AA)
    canvas.text(image, str(number), (start[0], start[1] + 5), size=0.45, anchor="centre")


def _label(image: np.ndarray, words: str, at: tuple[int, int], colour: Colour, size: float) -> None:
    width, height = text_width(words, size), text_height(size)
    corner = (at[0] - 4, at[1] - height - 5)
    cv2.rectangle(image, corner, (at[0] + width + 4, at[1] + 6), canvas.WHITE, -1)
    canvas.text(image, words, at, size=size, colour=colour, bold=True)


def _words(
    image: np.ndarray,
    city: City,
    tracks: Sequence[Track],
    notes: Sequence[str],
    axes: Axes,
) -> None:
    canvas.text(image, f"{city.name}, {city.origin.crs}", (_LEFT, 30), size=0.8, bold=True)
    canvas.text(image, "   ".join(notes), (_LEFT, 58), size=0.5, colour=canvas.FAINT)
    left, row = axes.left + axes.width + 24, axes.top + 18
    canvas.text(image, "tracks, numbered where they begin", (left, row), size=0.5, bold=True)
    for number, track in enumerate(tracks[:_MOST_LISTED], 1):
        colour = _SPLITS.get(track.split, canvas.INK)
        canvas.text(image, f"{number:2d} {track.words}", (left, row + 22 * number), colour=colour)
    if len(tracks) > _MOST_LISTED:
        more = f"and {len(tracks) - _MOST_LISTED} more"
        canvas.text(image, more, (left, row + 22 * (_MOST_LISTED + 1)))
    _north(image, (axes.left + axes.width - 30, axes.top + 20))
    length = _nice(0.2 * (axes.x[1] - axes.x[0]))
    axes.scale_bar(image, length, f"{length:g} m")


def _below(image: np.ndarray, axes: Axes, scale: HeightScale, step: float | None) -> None:
    """Draw the legend below the frame."""
    row = axes.top + axes.height + 30
    canvas.text(image, "height above the ground", (axes.left, row), size=0.5)
    canvas.height_bar(image, scale, (axes.left + 210, row))
    words = "tinted: margin, seen but never visited; dotted: rovers"
    if step is not None:
        words += f"; contours every {step:g} m"
    canvas.text(image, words, (axes.left + 450, row), size=0.5)


def _nice(length: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is not longer."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(k * power for k in (1.0, 2.0, 5.0) if k * power <= length))


def _north(image: np.ndarray, tip: tuple[int, int]) -> None:
    x, y = tip
    cv2.rectangle(image, (x - 18, y - 14), (x + 18, y + 56), canvas.WHITE, -1)
    arrow = np.array([[x, y - 8], [x + 11, y + 24], [x, y + 16], [x - 11, y + 24]], np.int32)
    cv2.fillPoly(image, [arrow], canvas.INK, cv2.LINE_AA)
    canvas.text(image, "N", (x, y + 48), size=0.7, anchor="centre", bold=True)
