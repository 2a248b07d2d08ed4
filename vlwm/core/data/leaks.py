"""Keep frames of one data folder out of what another folder holds out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vlwm.core.data.packed_store import PackedStore

NOWHERE = "none"
"""split of frames that belong to none"""


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
