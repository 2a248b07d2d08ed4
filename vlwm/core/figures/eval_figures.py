"""Windows of a subject as pictures and film: the same forecasts that are scored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from vlwm.core.data.batch import Batch
from vlwm.core.evaluation.column_prior import evenly
from vlwm.core.evaluation.evaluator import Scores, Subject
from vlwm.core.figures.score_curves import write_curves, write_reliability
from vlwm.core.figures.video import Clip, write_video
from vlwm.core.figures.window_figure import WindowFrames, write_window_picture
from vlwm.core.files import make_folder, write_json
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.bit_packing import unpack_bits
from vlwm.core.run_folder import RunFolder
from vlwm.core.vocabulary import Track

_CANDIDATES = 64


def shown_method(subject: Subject) -> str:
    """Return the forecast to show: the model's, or without a model the strongest baseline's."""
    scorer = subject.scorer
    return Track.PREDICTED.value if scorer.model is not None else scorer.baseline["predicted"]


@torch.inference_mode()
def clip_of(subject: Subject, index: int) -> Clip:
    """Return one window with its forecasts, as arrays on the host."""
    scorer, method = subject.scorer, shown_method(subject)
    batch = subject.batch([index])
    (scored,) = scorer.forecasts(batch)
    compared = scorer.baseline["predicted"]
    forecast, baseline = [], []
    for frame in scored.frames:
        forecast.append(frame.planes[method].cpu().numpy())
        baseline.append(frame.planes[compared].cpu().numpy())
    window = scored.window
    past_s = scorer.dt_s * np.arange(1 - scorer.history, 1)
    where = subject.windows[index]
    return Clip(
        past=window.past.occupancy.cpu().numpy(),
        truth=window.truth.cpu().numpy(),
        forecast=np.stack(forecast),
        baseline=np.stack(baseline),
        ego=np.concatenate([window.past.ego, window.future_ego]),
        times_s=np.concatenate([past_s, scorer.horizons_s]),
        forecast_name=method,
        baseline_name=compared,
        title=f"{where.session}, frame {where.start + scorer.history - 1}",
        known=known_cells(batch, subject.store.grid),
    )


def known_cells(batch: Batch, grid: VoxelGrid) -> np.ndarray | None:
    """Return bool (F + H, X, Y, Z) of the first window of a batch; None: every cell is known."""
    if batch.known is None:
        return None
    known: np.ndarray = unpack_bits(batch.known[0], grid.shape).cpu().numpy() > 0
    return known


def notes_of(subject: Subject) -> list[str]:
    """Return the notes that every picture must carry: the city's source, and the threshold."""
    found = ["procedural city"] if subject.store.procedural else []
    if subject.store.attribution and not subject.store.procedural:
        found.append(subject.store.attribution)
    if subject.store.has_unknown:
        found.append("unknown cells are not counted")
    if subject.scorer.model is not None:
        found.append(subject.scorer.thresholds.model.words())
    return found


def telling_window(subject: Subject) -> int:
    """Return the window, of some spread over the split, whose last past frame holds most.

    A full frame shows more than an empty square; the forecast has no part in the choice.
    """
    candidates = evenly(len(subject.windows), _CANDIDATES)
    last = subject.scorer.history - 1
    rows = np.array([subject.windows[i].rows[last] for i in candidates])
    occupied = [int(subject.store.read_frame(int(row)).sum(dtype=np.int64)) for row in rows]
    return int(candidates[int(np.argmax(occupied))])


def write_picture(path: str | Path, subject: Subject, split: str) -> None:
    """Write one window of the split as a PNG, not chosen by its score (`telling_window`)."""
    clip = clip_of(subject, telling_window(subject))
    past = len(clip.past)
    frames = WindowFrames(
        clip.past, clip.truth, clip.forecast, clip.times_s[:past], clip.times_s[past:], clip.known
    )
    title = f"{clip.forecast_name}: {clip.title}, split {split}"
    write_window_picture(path, frames, subject.store.grid, title=title, notes=notes_of(subject))


def write_film(path: str | Path, subject: Subject, *, windows: int = 12) -> int:
    """Write windows evenly spaced over the split as a video; return the number of pictures."""

    def clips() -> Iterator[Clip]:
        for index in evenly(len(subject.windows), windows):
            yield clip_of(subject, int(index))

    return write_video(path, clips(), subject.store.grid, notes=notes_of(subject))


def write_results(
    scores: Scores,
    subject: Subject,
    folder: Path | None,
    *,
    picture: Path | None = None,
    video: Path | None = None,
) -> list[Path]:
    """Write scores.json and pictures; returns what was written.

    Args:
        scores: the score sheet.
        subject: what was scored.
        folder: where scores.json, curves.png, reliability.png and window.png go; None: nowhere.
        picture: another place for the picture of one window.
        video: where a film goes, if anywhere.
    """
    written: list[Path] = []
    if folder is not None:
        make_folder(folder)
        written.append(RunFolder(folder).scores_json)
        write_json(written[-1], scores)
        written.append(folder / "curves.png")
        write_curves(written[-1], scores)
        if "reliability" in scores:
            written.append(folder / "reliability.png")
            write_reliability(written[-1], scores)
        picture = picture or folder / "window.png"
    for path in filter(None, (picture, video)):
        make_folder(path.parent)
    if picture is not None:
        write_picture(picture, subject, scores["split"])
        written.append(picture)
    if video is not None:
        write_film(video, subject)
        written.append(video)
    return written
