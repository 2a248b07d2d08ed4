"""Choose windows of a subject and pack their frames for the viewer in the page.

A frame is the bits of its occupied cells (`VoxelGrid.pack`), compressed together with zlib and
written as base64: the browser unpacks them with `DecompressionStream`. Truth and forecasts of a
future frame are compared cell by cell, each in its own ego frame, as the protocol counts them; the
viewer draws both in the true ego frame.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlwm.core.evaluation.eval_windows import EvalWindow
from vlwm.core.evaluation.evaluator import Subject
from vlwm.core.evaluation.metrics import structure_mask
from vlwm.core.evaluation.window_scorer import WindowScorer
from vlwm.core.figures.eval_figures import known_cells
from vlwm.core.figures.window_figure import WindowFrames
from vlwm.core.geometry.frames import relative_ego
from vlwm.core.vocabulary import Track


@dataclass(frozen=True)
class ReportWindow:
    """One window with what is shown of it.

    Attributes:
        kind: 'best', 'typical' or 'worst', or 'window' where they were not compared.
        title: session and frame.
        past: uint8 (P, X, Y, Z).
        truth: uint8 (H, X, Y, Z).
        forecasts: name -> uint8 (H, X, Y, Z).
        ego: (P + H, 4), true ego frames in the ego frame of the last past one.
        predicted_ego: (H, 4) of the model; None without a model.
        times_s: (P + H,), 0 at the last past frame.
        score: mean structure IoU of the first forecast over the horizons; NaN without structure.
        known: bool (P + H, X, Y, Z), cells whose truth is known, where forecasts are shown; None:
            all of them.
        observed: uint8 (P + H, X, Y, Z), 1 where a sensor saw a past cell, or where the truth of a
            future cell is known; None where all of them are.
    """

    kind: str
    title: str
    past: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    forecasts: dict[str, NDArray[np.uint8]]
    ego: NDArray[np.float64]
    predicted_ego: NDArray[np.float64] | None
    times_s: NDArray[np.float64]
    score: float
    known: NDArray[np.bool_] | None = None
    observed: NDArray[np.uint8] | None = None

    def figure(self) -> WindowFrames:
        """Return the frames of the picture shown where the viewer cannot run."""
        past, first = len(self.past), next(iter(self.forecasts.values()))
        times = (self.times_s[:past], self.times_s[past:])
        return WindowFrames(self.past, self.truth, first, *times, self.known)

    def packed(self, shape: tuple[int, int, int]) -> dict[str, Any]:
        """Return plain values for the page.

        Args:
            shape: cells of the grid.
        """
        stacks = [self.past, self.truth, *self.forecasts.values()]
        stacks += [] if self.observed is None else [self.observed]
        bits = np.packbits(
            np.concatenate([s.reshape(len(s), -1) for s in stacks]), axis=1, bitorder="little"
        )
        ego = None if self.predicted_ego is None else np.round(self.predicted_ego, 3).tolist()
        return {
            "kind": self.kind,
            "title": self.title,
            "times": self.times_s.tolist(),
            "past": len(self.past),
            "forecasts": list(self.forecasts),
            "known": self.observed is not None,
            "ego": np.round(self.ego, 3).tolist(),
            "predicted": ego,
            "bits": base64.b64encode(zlib.compress(bits.tobytes(), 9)).decode("ascii"),
            "shape": list(shape),
        }


def shown_methods(scorer: WindowScorer) -> list[str]:
    """Return the forecasts in the viewer: the model's, and the strongest baseline of each track."""
    wanted = (*(track.value for track in Track), *scorer.baseline.values())
    return [name for name in wanted if name in scorer.methods]


@torch.inference_mode()
def window_at(subject: Subject, index: int, kind: str = "window") -> ReportWindow:
    """Return one window of a subject with its forecasts, on the host."""
    scorer = subject.scorer
    batch = subject.batch([index])
    (scored,) = scorer.forecasts(batch)
    names = shown_methods(scorer)
    planes: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in names}
    scores = []
    for frame in scored.frames:
        for name in names:
            plane = frame.planes[name] if frame.known is None else frame.planes[name] * frame.known
            planes[name].append(plane.cpu().numpy().astype(np.uint8))
        scores.append(_structure_iou(frame.planes[names[0]], frame.truth, frame.known))
    window, where = scored.window, subject.windows[index]
    past = len(window.past.ego)
    ego = np.concatenate([window.past.ego, window.future_ego])
    anchor = ego[past - 1]
    predicted = None if scored.model is None else relative_ego(anchor, scored.model.ego)
    return ReportWindow(
        kind=kind,
        title=f"{where.session}, frame {where.start + scorer.history - 1}",
        past=window.past.occupancy.cpu().numpy().astype(np.uint8),
        truth=window.truth.cpu().numpy().astype(np.uint8),
        forecasts={name: np.stack(frames) for name, frames in planes.items()},
        ego=relative_ego(anchor, ego),
        predicted_ego=predicted,
        times_s=np.concatenate([scorer.dt_s * np.arange(1 - past, 1), scorer.horizons_s]),
        score=float(np.mean(scores)),
        known=known_cells(batch, subject.store.grid),
        observed=_observed(window),
    )


def _observed(window: EvalWindow) -> NDArray[np.uint8] | None:
    """Return what a sensor saw or whose truth is known (P + H, X, Y, Z), or None where all is."""
    if window.seen is None and window.known is None:
        return None
    past, future = window.past.occupancy, window.truth
    seen = torch.ones_like(past) if window.seen is None else window.seen.known
    known = torch.ones_like(future) if window.known is None else window.known
    parts = [part.cpu().numpy().astype(np.uint8) for part in (seen, known)]
    return np.concatenate(parts)


def _structure_iou(
    forecast: torch.Tensor, truth: torch.Tensor, known: torch.Tensor | None
) -> float:
    """Return the IoU over the known cells above the true ground; NaN without any."""
    mask = structure_mask(truth).bool()
    if known is not None:
        mask = mask & known
    p, t = forecast.bool() & mask, truth.bool() & mask
    union = int((p | t).sum())
    return int((p & t).sum()) / union if union else float("nan")


def chosen_windows(subject: Subject, scores: Sequence[float | None]) -> list[ReportWindow]:
    """Return the typical, the best and the worst window of a subject.

    Args:
        subject: of the evaluation.
        scores: one a window, None without structure (`window_structure_iou` of the score sheet).

    Returns:
        the middle window of the split alone where fewer than three windows have a score.
    """
    scored = [i for i, score in enumerate(scores) if score is not None]
    order = sorted(scored, key=lambda i: float(scores[i] or 0.0))
    if len(order) < 3 or len(scores) != len(subject.windows):
        return [window_at(subject, len(subject.windows) // 2)]
    picked = {"typical": order[len(order) // 2], "best": order[-1], "worst": order[0]}
    return [window_at(subject, index, kind) for kind, index in picked.items()]


def windows_json(
    windows: list[ReportWindow], subject: Subject, most_bytes: int
) -> Iterator[tuple[ReportWindow, str]]:
    """Yield windows with their JSON until `most_bytes` are spent; always the first."""
    spent = 0
    for number, window in enumerate(windows):
        text = json.dumps(window.packed(subject.store.grid.shape), separators=(",", ":"))
        spent += len(text)
        if number and spent > most_bytes:
            return
        yield window, text.replace("<", "\\u003c")
