"""Find points on what moves: later scans look through the place where they were.

Each scan becomes a picture of the nearest returns around its sensor. A point of an earlier scan is
seen through where a later scan has returns in its direction and all of them, neighbouring
directions included, are clearly farther. It moves if the last of the later scans see through it,
with none among them that finds it again. Neighbouring directions keep edges and surfaces at a
grazing angle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.recordings.placing import PlacedScan
from vlwm.core.geometry.jit import compiled

Floats = NDArray[np.float64]

_STEP = math.radians(0.75)  # of the picture, in azimuth and elevation
_ROWS = round(math.pi / _STEP)
_COLUMNS = 2 * _ROWS
_MARGIN_M = 0.5  # least distance behind a point that counts as seen through ...
_MARGIN_SHARE = 0.03  # ... and that share of its distance
LATER_S = (0.2, 1.6)
"""how much later a scan has to be to look through a point"""
TICK_S = 1e-6
"""added to every limit of time: a scan on the limit counts, whatever the last bit of its time is"""
_VIEWS = 6  # later scans that are asked
_FEWEST_VIEWS = 2  # that have to see through a point, where at least that many see its direction


def moving_points(
    scan: PlacedScan, later: Sequence[PlacedScan], votes: int = _FEWEST_VIEWS
) -> NDArray[np.bool_]:
    """Return bool (N,), the points of a scan that later scans see through.

    Args:
        later: scans after it; at most `_VIEWS` of them, evenly chosen, are asked.
        votes: scans that have to see through a point.
    """
    through = np.zeros(len(scan.points), dtype=np.int64)  # views since it was last found
    chosen = np.unique(np.linspace(0, len(later) - 1, min(_VIEWS, len(later))).round())
    for index in chosen.astype(int):
        view = later[index]
        centre = view.origins.mean(axis=0)  # (3,)
        nearest = np.full((_ROWS, _COLUMNS), np.inf)
        _draw(view.points, centre, nearest)
        _look(scan.points, centre, nearest, through)
    return through >= min(votes, max(1, len(chosen)))


def later_scans(scans: Sequence[PlacedScan], index: int) -> list[PlacedScan]:
    """Return the scans that come late enough after scan `index`, and not too late."""
    now = scans[index].time_s
    low, high = LATER_S[0] - TICK_S, LATER_S[1] + TICK_S
    return [s for s in scans[index + 1 :] if low <= s.time_s - now <= high]


@compiled
def _draw(points: Floats, centre: Floats, nearest: Floats) -> None:
    """Write the nearest return in each direction from `centre` to `nearest` (rows, columns)."""
    for k in range(len(points)):
        x = points[k, 0] - centre[0]
        y = points[k, 1] - centre[1]
        z = points[k, 2] - centre[2]
        distance = math.sqrt(x * x + y * y + z * z)
        if distance < 0.1:
            continue
        row = min(_ROWS - 1, int((math.asin(z / distance) + math.pi / 2) / _STEP))
        column = int((math.atan2(y, x) + math.pi) / _STEP) % _COLUMNS
        if distance < nearest[row, column]:
            nearest[row, column] = distance


@compiled
def _look(
    points: Floats,
    centre: Floats,
    nearest: Floats,
    through: NDArray[np.int64],
) -> None:
    """Count in `through` (N,) that the view sees through a point; 0 where it finds a surface."""
    for k in range(len(points)):
        x = points[k, 0] - centre[0]
        y = points[k, 1] - centre[1]
        z = points[k, 2] - centre[2]
        distance = math.sqrt(x * x + y * y + z * z)
        if distance < 0.1:
            continue
        row = min(_ROWS - 1, int((math.asin(z / distance) + math.pi / 2) / _STEP))
        column = int((math.atan2(y, x) + math.pi) / _STEP) % _COLUMNS
        margin = max(_MARGIN_M, _MARGIN_SHARE * distance)
        closest = math.inf
        for i in range(max(0, row - 1), min(_ROWS, row + 2)):
            for j in range(column - 1, column + 2):
                closest = min(closest, nearest[i, j % _COLUMNS])
        if closest == math.inf:
            continue  # the view has no return in this direction: it cannot tell
        if closest > distance + margin:
            through[k] += 1
        elif closest >= distance - margin:
            through[k] = 0
