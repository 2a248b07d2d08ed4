"""Make the film of a report: as many windows as fit into a page that stays small."""

from __future__ import annotations

import tempfile
from pathlib import Path

from vlwm.core.evaluation.evaluator import Subject
from vlwm.core.figures.eval_figures import write_film

MOST_BYTES = 1_000_000
"""of the film; base64 makes a third more of it"""
_WINDOWS = (3, 2, 1)


def page_film(subject: Subject) -> bytes | None:
    """Return a WebM film of windows evenly spaced over the split; None if even one is too large.

    The film of `--video` has twelve windows and several megabytes; that of a page has up to three.
    """
    with tempfile.TemporaryDirectory(prefix="vlwm-film-") as folder:
        path = Path(folder) / "film.webm"
        for windows in _WINDOWS:
            write_film(path, subject, windows=windows)
            if path.stat().st_size <= MOST_BYTES:
                return path.read_bytes()
    return None
