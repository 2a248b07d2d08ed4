"""`vlwm eval --mcap FILE`: windows of a split for Foxglove."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlwm.core.evaluation.evaluator import Subject
    from vlwm.core.export.mcap_file import McapWindow

_MOST_WINDOWS = 6


def write_windows(path: Path, subject: Subject) -> Path:
    """Write windows evenly spaced over the split, each with the first forecast; returns `path`."""
    from vlwm.core.evaluation.column_prior import evenly
    from vlwm.core.export.mcap_file import McapWindow, write_mcap
    from vlwm.core.files import make_folder
    from vlwm.core.report.windows import window_at

    def windows() -> Iterator[McapWindow]:
        for index in evenly(len(subject.windows), _MOST_WINDOWS):
            found = window_at(subject, int(index))
            yield McapWindow(
                grid=subject.store.grid,
                times_s=found.times_s,
                ego=found.ego,
                past=found.past,
                truth=found.truth,
                forecast=next(iter(found.forecasts.values())),
                plan=found.ego[len(found.past) :, :3],
                attribution=subject.store.attribution,
            )

    make_folder(path.parent)
    write_mcap(path, windows())
    return path
