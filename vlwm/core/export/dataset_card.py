"""Write the card of a data folder, so that the Hub takes the folder as a data set.

The licence follows from the attribution of the sessions, as that of weights does. The Hub allows
10,000 files a folder; a store of shards (`vlwm prepare --store`) has one file a session.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData

from vlwm.core.data.session import find_sessions, no_sessions
from vlwm.core.data.shards.packing import list_shards, shard_header
from vlwm.core.data.splits import Splits
from vlwm.core.errors import DataError
from vlwm.core.export.file_names import CARD, SPLITS
from vlwm.core.export.licence import Licence, licence_of
from vlwm.core.files import atomic_path, read_json
from vlwm.core.text import safe_text

_MOST_FILES = 10_000
"""that the Hub takes in one folder"""
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_TEMPLATE = """---
{metadata}
---

# {name}

Occupancy frames and poses of {agents}, made with vlwm: {frames} frames in {sessions}
sessions, {dt:g} s apart. A frame is the occupancy of {shape} cells of {cell} m in the ego frame of
the vehicle (x ahead, y left, z up; z = 0 is the terrain).

## Use

```bash
vlwm train --data hf://datasets/{repo}
vlwm eval RUN --data hf://datasets/{repo}
```

## Splits

Of splits.json, by area where the place is known, so that no building is in two of them:

| split | sessions |
|---|---|
{splits}

## Source and licence

{attribution}

`{licence}`. Name the source wherever something made of these data is shown.{restriction}

## Limits

{limits}
"""


@dataclass(frozen=True)
class _Summary:
    """Sessions of a folder as the card describes them: names, meta, and frames of all."""

    names: list[str]
    meta: list[dict[str, Any]]
    frames: int


def write_dataset_card(
    folder: Path, *, licence: str | None = None, repo: str = "user/name"
) -> Path:
    """Write README.md into a data folder or a store's folder; returns its path.

    Args:
        folder: with sessions or shards, and splits.json.
        licence: the operator's word where the sources do not name a licence.
        repo: name on the Hub that the example uses.

    Raises:
        DataError: no sessions, no splits, an unknown licence, or a folder that the Hub refuses.
        UsageError: the stated licence is weaker than that of a source.
    """
    found = _summary(folder)
    if not (folder / SPLITS).is_file():
        raise DataError("splits.json is missing", where=folder, remedy="run vlwm prepare again")
    _check_sizes(folder)
    attribution = "; ".join(sorted({str(m.get("attribution") or "") for m in found.meta} - {""}))
    procedural = any(m.get("procedural") for m in found.meta)
    terms = licence_of(attribution, procedural=procedural, initial_weights=None, stated=licence)
    grid = found.meta[0].get("grid") or {}
    agents = sorted({str(m.get("agent") or "vehicle") for m in found.meta})
    text = _TEMPLATE.format(
        metadata=_metadata(terms, folder.name, found.frames).to_yaml(),
        name=safe_text(folder.name),
        agents=" and ".join(f"{agent}s" for agent in agents),
        frames=found.frames,
        sessions=len(found.meta),
        dt=float(found.meta[0].get("dt_s") or 0.5),
        shape=" x ".join(str(v) for v in grid.get("shape", "?")),
        cell=" x ".join(f"{v:g}" for v in grid.get("voxel_size", ())),
        repo=repo,
        splits=_splits(found, Splits.read(folder / SPLITS)),
        attribution=safe_text(attribution or "A procedural city of vlwm: it owes nobody.", 2000),
        licence=terms.identifier,
        restriction=terms.restriction_on("data, and weights that are trained on them,"),
        limits=_limits(procedural),
    )
    with atomic_path(folder / CARD) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return folder / CARD


def _summary(folder: Path) -> _Summary:
    """Read the meta and the frames of every session, from shards or from session folders."""
    shards = list_shards(folder)
    if shards:
        headers = [shard_header(path) for path in shards]
        names = [str(h["session"]) for h in headers]
        return _Summary(
            names, [dict(h["meta"]) for h in headers], sum(h["frames"] for h in headers)
        )
    sessions = find_sessions(folder)
    if not sessions:
        raise no_sessions(folder)
    metas = [dict(read_json(path / "session.json")) for path in sessions]
    frames = sum(len(list((path / "occupancy").glob("*.npz"))) for path in sessions)
    return _Summary([path.name for path in sessions], metas, frames)


def _metadata(terms: Licence, name: str, frames: int) -> DatasetCardData:
    size = next((words for limit, words in _SIZES if frames < limit), "n>1M")
    return DatasetCardData(
        license=terms.identifier,
        pretty_name=name,
        task_categories=["other"],
        tags=["occupancy", "world-model", "forecasting", "drone", "3d"],
        size_categories=[size],
    )


def _splits(found: _Summary, splits: Splits) -> str:
    """Return a row a split: how many sessions were planned in it, or dealt to it."""
    pairs = zip(found.names, found.meta, strict=True)
    counts = Counter(str(splits.sessions.get(n) or m.get("split") or "by place") for n, m in pairs)
    return "\n".join(f"| {name} | {count} |" for name, count in sorted(counts.items()))


def _limits(procedural: bool) -> str:
    if procedural:
        return "A made-up city: nothing measured here carries over to a real one."
    return (
        "Buildings are as detailed as the city model; nothing moves, and what the model lacks "
        "(trees, wires, cars) is missing here as well."
    )


def _check_sizes(folder: Path) -> None:
    """Raise where a folder holds more files than the Hub takes."""
    for path in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        count = sum(1 for entry in path.iterdir() if entry.is_file())
        if count > _MOST_FILES:
            raise DataError(
                f"{count} files in one folder are more than the Hub takes ({_MOST_FILES})",
                where=path, remedy="write shards: vlwm prepare --store file:///FOLDER --card",
            )  # fmt: skip
