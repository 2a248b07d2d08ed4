"""Clusters: the 120 m tile of the world that holds a window's last past pose.

Windows of one tile see the same blocks and are not independent. Sessions with an origin share the
tiles of its coordinate reference system; one without has tiles of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.windows import Window
from vlwm.core.evaluation.column_prior import evenly
from vlwm.core.evaluation.scores.bootstrap import tile_of


def cluster_of(store: PackedStore, window: Window, history: int) -> Hashable:
    """Return the cluster of a window, by the last of its `history` past poses."""
    row = window.rows[history - 1]
    session = int(store.session[row])
    origin = store.meta[session].get("origin")
    x, y = store.poses[row, :2]
    if not origin:
        return (store.sessions[session], *tile_of(x, y))
    return (origin["crs"], *tile_of(origin["easting"] + x, origin["northing"] + y))


def over_clusters(
    store: PackedStore, windows: Sequence[Window], history: int, most: int
) -> list[Window]:
    """Return at most `most` windows (0: all) that are spread over all clusters.

    Every cluster gives at least one window, even if there are more clusters than `most`; larger
    ones give more, in proportion, evenly spaced.
    """
    if most <= 0 or len(windows) <= most:
        return list(windows)
    members: dict[Hashable, list[int]] = {}
    for index, window in enumerate(windows):
        members.setdefault(cluster_of(store, window, history), []).append(index)
    rest = max(0, most - len(members))
    chosen: list[int] = []
    for rows in members.values():
        share = 1 + round(rest * (len(rows) - 1) / max(1, len(windows) - len(members)))
        chosen += [rows[i] for i in evenly(len(rows), share)]
    return [windows[i] for i in sorted(chosen)]
