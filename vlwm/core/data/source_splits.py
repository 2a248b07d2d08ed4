"""Splits of several data folders together, and of sessions that a folder's plan does not place.

Each source keeps its own splits: made cities by area, recordings by area where their place is
known, else whole sessions. Two sources may still show the same place. A frame that could show a
place which another source holds out for a test or a validation then belongs to no split.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.packed_store import PackedStore, source_labels
from vlwm.core.data.splits import NOWHERE, Splits, deal_sessions, open_splits


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
    return bool(origin) and origin.get("crs") == splits.crs


def without_leaks(labels: NDArray[np.str_], store: PackedStore, apart_m: float) -> NDArray[np.str_]:
    """Return the splits of frames (N,), less those that could show what another source holds out.

    Args:
        apart_m: two frames that are closer could show the same cell of the world.
    """
    from scipy.spatial import cKDTree

    out = labels.copy()
    source = store.source[store.session]  # (N,)
    systems = np.array([str((m.get("origin") or {}).get("crs") or "") for m in store.meta])
    system = systems[store.session]
    shifts = np.array([_shift(m.get("origin")) for m in store.meta])
    places = store.poses[:, :2] + shifts[store.session]
    for held, losing in (("test", ("train", "val")), ("val", ("train",))):
        for crs in set(systems) - {""}:
            for own in range(len(store.roots)):
                keep = np.flatnonzero((system == crs) & (source == own) & (out == held))
                other = np.flatnonzero((system == crs) & (source != own) & np.isin(out, losing))
                if len(keep) and len(other):
                    away, _ = cKDTree(places[keep]).query(places[other])
                    out[other[away < apart_m]] = NOWHERE
    return out


def _shift(origin: dict[str, Any] | None) -> tuple[float, float]:
    return (origin["easting"], origin["northing"]) if origin else (0.0, 0.0)
