"""`vlwm eval FOLDER` and `vlwm eval user/name`: score an exported model on its own data again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlwm.core.evaluation.evaluator import Scores


def release_folder(run: Path) -> Path | None:
    """Return the exported folder that a name means, fetched from the Hub; None for a run."""
    from vlwm.core.export.exported_folder import is_exported
    from vlwm.core.export.hub import fetch_folder, is_hub_name

    if run.exists():
        return run if run.is_dir() and is_exported(run) else None
    return fetch_folder(str(run), data=True) if is_hub_name(str(run)) else None


def results_folder(run: Path) -> Path:
    """Return where the scores of an exported folder go: next to nothing of the release."""
    return Path(f"{run.resolve().name if run.exists() else run.name}_scores")


def tell_reproduction(folder: Path, sheet: Scores) -> None:
    """Say how far a score sheet is from that of the release."""
    from vlwm.commands.shared.output import note, warn
    from vlwm.core.export.benchmark import TOLERANCE, is_release, reproduction
    from vlwm.core.export.file_names import SCORES
    from vlwm.core.files import read_json

    if not is_release(folder):
        return
    found = reproduction(read_json(folder / SCORES), sheet)
    if found is None:
        note("other windows than those of the published table: nothing to compare")
        return
    count, gap = found
    if gap <= TOLERANCE:
        note(f"the published table is reproduced: {count} scores, largest difference {gap:.1e}")
    else:
        warn(
            f"the published table is NOT reproduced: of {count} scores one differs by {gap:.4f}, "
            f"more than {TOLERANCE:g}"
        )
