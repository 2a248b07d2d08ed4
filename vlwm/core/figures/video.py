"""A film of windows: past, true future, forecast and a baseline from a fixed view above.

The camera is fixed over the place where the forecast is made (the last past pose, its heading
up); the vehicle and its grid move. Every frame is placed by the true pose, as it is scored: a
forecast that misjudges the motion shows as houses that drift out of the true outlines.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vlwm.core.errors import MachineError, UsageError
from vlwm.core.figures import canvas
from vlwm.core.figures.canvas import Axes, HeightScale
from vlwm.core.figures.window_figure import height_above
from vlwm.core.files import atomic_path
from vlwm.core.geometry.frames import from_ego, relative_ego, to_ego
from vlwm.core.geometry.grid import VoxelGrid

_SIDE, _GAP, _TOP, _BOTTOM = 420, 16, 84, 64  # pixels
_OUT_OF_GRID = np.array([246, 240, 236], np.uint8)
_RATE = 8  # pictures a second: players dislike fewer
_NAMES = ("past", "true future", "forecast", "baseline")


@dataclass(frozen=True)
class Clip:
    """One window of the film.

    Attributes:
        past: uint8 (F, X, Y, Z).
        truth, forecast, baseline: uint8 (H, X, Y, Z).
        ego: float64 (F + H, 4): true ego frames.
        times_s: (F + H,) seconds, 0 at the last past frame.
        forecast_name, baseline_name: methods that made them.
        title: place and window.
        known: bool (F + H, X, Y, Z), cells whose truth is known; None: all. Forecasts are drawn
            and counted there alone.
    """

    past: np.ndarray
    truth: np.ndarray
    forecast: np.ndarray
    baseline: np.ndarray
    ego: np.ndarray
    times_s: np.ndarray
    forecast_name: str
    baseline_name: str
    title: str
    known: np.ndarray | None = None


CODECS = {".webm": "VP90", ".mp4": "mp4v"}


def check_video_name(path: str | Path) -> None:
    """Refuse a name of another format before anything is computed.

    Raises:
        UsageError: it ends in neither .webm nor .mp4.
    """
    if Path(path).suffix.lower() not in CODECS:
        raise UsageError(
            "a video ends in .webm or .mp4", where=path, remedy="use a name such as forecast.webm"
        )


@contextlib.contextmanager
def _quiet_library() -> Iterator[None]:
    """Keep what FFmpeg prints about the codec away from the terminal: it is of no use there."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def write_video(
    path: str | Path, clips: Iterable[Clip], grid: VoxelGrid, *, notes: Sequence[str] = ()
) -> int:
    """Write the clips one after another; return the number of pictures.

    The ending chooses the format: .webm (VP9, which browsers play) or .mp4 (MPEG-4 part 2).

    Raises:
        UsageError: another ending.
        MachineError: OpenCV cannot write this format here, or the disk is full.
    """
    check_video_name(path)
    ending = Path(path).suffix.lower()
    width = 4 * (_SIDE + _GAP) + _GAP
    size = (width, _TOP + _SIDE + _BOTTOM)
    count = 0
    with atomic_path(path) as temporary:
        part = temporary.with_suffix(ending)  # the writer goes by the ending
        codec = cv2.VideoWriter.fourcc(*CODECS[ending])
        with _quiet_library():
            writer = cv2.VideoWriter(str(part), codec, _RATE, size)
        try:
            if not writer.isOpened():
                raise MachineError(
                    f"OpenCV cannot write {ending[1:]} here",
                    where=path,
                    remedy="use --picture instead",
                )
            for clip in clips:
                for image, repeats in draw_clip(clip, grid, notes):
                    for _ in range(repeats):
                        writer.write(image)
                    count += repeats
            writer.release()
            part.rename(temporary)
        finally:
            writer.release()
            part.unlink(missing_ok=True)
    return count


def draw_clip(
    clip: Clip, grid: VoxelGrid, notes: Sequence[str] = ()
) -> Iterable[tuple[np.ndarray, int]]:
    """Yield a clip's pictures, each with its number of repeats (now and the end stay longer)."""
    now = len(clip.past) - 1
    ego = relative_ego(clip.ego[now], clip.ego)
    half = _half_view_m(ego, grid)
    scale = HeightScale.of(grid, clip.past, clip.truth)
    for step, time_s in enumerate(clip.times_s):
        image = canvas.blank(_TOP + _SIDE + _BOTTOM, 4 * (_SIDE + _GAP) + _GAP)
        canvas.text(image, clip.title, (_GAP, 28), size=0.65, bold=True)
        canvas.text(image, "   ".join(notes), (_GAP, 50), size=0.5, colour=canvas.FAINT)
        words = f"t = {time_s:+.1f} s"
        canvas.text(image, words, (image.shape[1] - _GAP, 32), size=0.9, anchor="right", bold=True)
        _draw_panels(image, clip, ego, step, grid, half, scale)
        _foot(image, scale)
        still = step in (now, len(clip.times_s) - 1)
        yield image, _RATE * (2 if still else 1) // 2


def _draw_panels(
    image: np.ndarray, clip: Clip, ego: np.ndarray, step: int, grid: VoxelGrid,
    half: float, scale: HeightScale,
) -> None:  # fmt: skip
    now = len(clip.past) - 1
    frames = [clip.past[min(step, now)]]
    first_s = clip.times_s[now + 1]
    ahead = step - now - 1
    if ahead >= 0:
        frames += [part[ahead] for part in (clip.truth, clip.forecast, clip.baseline)]
        if clip.known is not None:
            frames[1:] = [frame * clip.known[step] for frame in frames[1:]]
    for number, name in enumerate(_NAMES):
        left = _GAP + number * (_SIDE + _GAP)
        axes = Axes(left, _TOP, _SIDE, _SIDE, (half, -half), (-half, half))
        methods = {"forecast": clip.forecast_name, "baseline": clip.baseline_name}
        words = f"{name}: {methods[name]}" if name in methods else name
        if number < len(frames):
            at = ego[min(step, now) if number == 0 else step]
            axes.paste(image, view_above(frames[number], at, grid, half, scale))
            if number >= 2:
                _true_outlines(image, axes, frames[1], at, grid, half, scale)
            _vehicle(image, axes, at)
        else:
            middle = (left + _SIDE // 2, _TOP + _SIDE // 2)
            later = f"from t = {first_s:+.1f} s"
            canvas.text(image, later, middle, size=0.6, colour=canvas.FAINT, anchor="centre")
        if number == 0 and ahead >= 0:
            words += ", as last seen"
        if number >= 2 and ahead >= 0:
            words += f"   IoU {_iou(frames[number], frames[1])}"
        axes.frame(image)
        canvas.text(image, words, (left, _TOP - 8), size=0.55)
        if number < len(frames):
            axes.scale_bar(image, -20.0, "20 m")


def view_above(
    cells: np.ndarray, ego: np.ndarray, grid: VoxelGrid, half_m: float, scale: HeightScale
) -> np.ndarray:
    """Return a frame in the fixed view, uint8 (side, side, 3); outside its grid a pale tint.

    Args:
        cells: uint8 (X, Y, Z).
        ego: float64 (4,): place of the frame in the view.
        grid: the grid.
        half_m: half the side of the view, metres.
        scale: of the height colours.
    """
    height, inside = _heights_in_view(cells, ego, grid, half_m)
    return np.where(inside[..., None], scale.colours(height), _OUT_OF_GRID)


def _heights_in_view(
    cells: np.ndarray, ego: np.ndarray, grid: VoxelGrid, half_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return heights seen from above (side, side), NaN where empty, and the grid's mask."""
    offset = half_m * (1.0 - (2.0 * np.arange(_SIDE) + 1.0) / _SIDE)
    x, y = np.meshgrid(offset, offset, indexing="ij")  # rows go back, columns go right
    points = to_ego(np.stack([x, y, np.full_like(x, ego[2])], -1), ego)
    index = grid.index_of(points)
    inside = np.all((index >= 0) & (index < grid.shape), axis=-1)
    ix, iy = (np.where(inside, index[..., axis], 0) for axis in (0, 1))
    return height_above(cells, grid)[ix, iy], inside


def _true_outlines(
    image: np.ndarray, axes: Axes, truth: np.ndarray, ego: np.ndarray, grid: VoxelGrid,
    half: float, scale: HeightScale,
) -> None:  # fmt: skip
    """Draw the outlines of what is truly above the ground over a forecast."""
    height, inside = _heights_in_view(truth, ego, grid, half)
    raised = (inside & (np.nan_to_num(height, nan=-np.inf) > scale.ground_m)).astype(np.uint8)
    outlines, _ = cv2.findContours(raised, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    corner = (axes.left, axes.top)
    cv2.drawContours(image, outlines, -1, canvas.FALSE, 2, cv2.LINE_AA, offset=corner)


def _half_view_m(ego: np.ndarray, grid: VoxelGrid) -> float:
    """Return half the side of a square view that holds the grid of every frame but its corners."""
    reach = max(abs(v) for v in (*grid.lower_m[:2], *grid.upper_m[:2]))
    return float(np.abs(ego[:, :2]).max() + reach)


def _vehicle(image: np.ndarray, axes: Axes, ego: np.ndarray) -> None:
    size = (axes.y[1] - axes.y[0]) / 40
    corners = np.array([[1.6, 0, 0], [-1, 1, 0], [-1, -1, 0]]) * size
    points = [[axes.column(p[1]), axes.row(p[0])] for p in from_ego(corners, ego)]
    cv2.fillConvexPoly(image, np.array(points), canvas.WHITE, cv2.LINE_AA)
    cv2.polylines(image, [np.array(points)], True, canvas.INK, 2, cv2.LINE_AA)


def _iou(forecast: np.ndarray, truth: np.ndarray) -> str:
    union = np.count_nonzero(forecast | truth)
    return f"{np.count_nonzero(forecast & truth) / union:.2f}" if union else "-"


def _foot(image: np.ndarray, scale: HeightScale) -> None:
    row = image.shape[0] - 34
    canvas.text(image, "height above ground:", (_GAP, row), size=0.52)
    canvas.height_bar(image, scale, (_GAP + 190, row))
    tint = (int(_OUT_OF_GRID[0]), int(_OUT_OF_GRID[1]), int(_OUT_OF_GRID[2]))
    entries = [(canvas.GROUND, scale.ground_words), (tint, "outside the grid")]
    end = canvas.legend(image, entries, (_GAP + 440, row))
    cv2.line(image, (end, row - 4), (end + 22, row - 4), canvas.FALSE, 2, cv2.LINE_AA)
    canvas.text(image, "true outlines", (end + 30, row), size=0.52)
    words = "every frame is at the true pose, as it is scored; view fixed at t = 0"
    canvas.text(image, words, (end + 160, row), size=0.5, colour=canvas.FAINT)
