"""Find the runs that `vlwm monitor` shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlwm.core.run_folder import RunFolder
from vlwm.core.vocabulary import Stage

_USUAL = ("checkpoints", "*", "runs/*", "*/checkpoints", "outputs/*")
_MOST = 200  # folders looked at


def holds_traces(folder: RunFolder) -> bool:
    """Return whether anything of a run is in this folder."""
    places = (folder, folder.tokenizer)
    files = [f for p in places for f in (p.status_json, p.metrics_jsonl)]
    return any(file.exists() for file in files) or folder.holds_a_run()


def find_runs(paths: Sequence[Path]) -> list[RunFolder]:
    """Return the run folders that `paths` name, or that are one level below them; newest first.

    Without paths: `./checkpoints` where it holds a run, else every run in the usual places below
    the current folder.
    """
    if not paths:
        usual = RunFolder(Path("checkpoints"))
        if holds_traces(usual):
            return [usual]
        return _newest_first(_below(Path(".")))
    found: list[RunFolder] = []
    for path in paths:
        folder = RunFolder(path)
        found += [folder] if holds_traces(folder) else _newest_first(_below(path))
    return found


def _below(root: Path) -> list[RunFolder]:
    seen: dict[Path, RunFolder] = {}
    for pattern in _USUAL:
        for path in sorted(root.glob(pattern))[:_MOST]:
            if path.is_dir() and path.name != Stage.TOKENIZER and path not in seen:
                folder = RunFolder(path)
                if holds_traces(folder):
                    seen[path] = folder
    return list(seen.values())


def _newest_first(folders: list[RunFolder]) -> list[RunFolder]:
    return sorted(folders, key=_changed, reverse=True)


def _changed(folder: RunFolder) -> float:
    times = []
    for file in (folder.status_json, folder.metrics_jsonl, folder.path):
        try:
            times.append(file.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)
