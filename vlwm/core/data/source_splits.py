"""Splits of several data folders together, and of sessions that a folder's plan does not place.

Each source keeps its own splits: made cities by area, recordings by area where their place is
known, else whole sessions. Two sources may still show the same place. A frame that could show a
place which another source holds out for a test or a validation then belongs to no split.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vlwm.core.data.packed_store import PackedStore, source_labels
from vlwm.core.data.splits import Splits, deal_sessions, own_splits, write_splits


def open_splits(store: PackedStore, margin_m: float, seed: int) -> Splits:
    """Return the splits of a data folder: its `splits.json`, or a plan that is written there.

    Sessions that the file does not place, such as recorded ones next to made ones, are dealt whole
    and added to it. Several data folders keep their own splits each.

    Raises:
        DataError: `vlwm prepare` has not finished this folder.
    """
    if len(store.roots) > 1:
        return splits_of_sources(store, margin_m, seed)
    found = own_splits(store, margin_m, seed)
    whole = with_unplaced(store, found)
    return found if whole is found else write_splits(whole, store)


def splits_of_sources(store: PackedStore, margin_m: float, seed: int) -> Splits:
    """Return the splits of each source under its name.

    Raises:
        DataError: `vlwm prepare` has not finished one of the folders.
    """
    own = {
        label: open_splits(PackedStore.open(root, store.grid), margin_m, seed)
        for label, root in zip(source_labels(store.roots), store.roots, strict=True)
    }
    note = "; ".join(f"{label}: {splits.note}" for label, splits in own.items() if splits.note)
    return Splits(None, margin_m, (), {}, note, own)


def with_unplaced(store: PackedStore, splits: Splits) -> Splits:
    """Return splits that also hold the sessions which neither a list nor a region places.

    Such are sessions recorded elsewhere next to made ones, or added after the splits were planned.
    They are dealt whole, or keep the split that their source assigns. Without such sessions, the
    splits themselves are returned.
    """
    added = {
        name: meta.get("split")
        for name, meta in zip(store.sessions, store.meta, strict=True)
        if name not in splits.sessions and not _has_place(meta, splits)
    }
    if not added:
        return splits
    dealt = dict(zip(sorted(added), deal_sessions(len(added)), strict=True))
    sessions = {name: str(own or dealt[name]) for name, own in added.items()}
    words = f"{len(added)} sessions without a place in the plan were dealt whole"
    note = f"{words}: splits may show the same world"
    return replace(splits, sessions=splits.sessions | sessions, note=note)


def _has_place(meta: dict[str, Any], splits: Splits) -> bool:
    origin = meta.get("origin")
    return origin is not None and bool(origin) and origin.get("crs") == splits.crs
