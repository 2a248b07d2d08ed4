"""Compare readings of a session's poses by the cells of pairs of frames.

A reading turns the poses into ego frames (N, 4). Two readings differ only in pairs of
frames between which they place the same point in different cells. So each comparison uses the
pairs that show most of the difference. The choice depends on the motion alone, not on the cells,
and so favours neither reading.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.npz import KNOWN, SEEN_FREE, SEEN_OCCUPIED
from vlwm.core.data.session import Session
from vlwm.core.errors import DataError
from vlwm.core.geometry.frames import relative_ego, turn_vectors
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.jit import compiled

Floats = NDArray[np.float64]
Pairs = NDArray[np.int64]
"""(P, 2), rows of the first and the second frame"""

MOST_PAIRS = 64  # pairs that one comparison uses
SHOWN_CELLS = 0.5  # a pair shows a difference that moves cells by at least this much
_APART = (1, 2, 3, 4, 6, 8, 12, 16, 24)  # frames between the two of a pair
_CELLS = 1500  # cells of a frame that are moved
_LEAST_CELLS = 50
_FAR_CELLS = 3.0  # a difference that is larger than this shows no more
_OCCUPIED, _UNKNOWN = 1, 2  # states of a cell; 0 is free
_FRAMES, _STRETCH = 128, 32  # of a longer session, the frames of the stretches that turn most


class FramePairs:
    """Occupied cells above the ground of a session's frames, read once.

    Args:
        session: with at least one frame.
        grid: of its frames.

    Attributes:
        pairs: all pairs of frames that can be compared.
    """

    def __init__(self, session: Session, grid: VoxelGrid, ego: Floats) -> None:
        self.session, self.grid = session, grid
        self._states: dict[int, NDArray[np.uint8]] = {}  # of each frame (X, Y, Z)
        self._points: dict[int, Floats] = {}
        self._shares: dict[tuple[int, int, int, bytes], float] = {}
        usable = {int(row) for row in _rows(ego) if self._load(int(row))}
        rows = sorted(usable)
        found = [(row, row + apart) for apart in _APART for row in rows if row + apart in usable]
        self.pairs: Pairs = np.array(found, dtype=np.int64).reshape(-1, 2)

    def showing(self, one: Floats, other: Floats) -> Pairs:
        """Return the pairs that tell two readings (N, 4) apart, those that show most of it first.

        Two pairs of the same first frame share its cells: at most three of them are taken.
        """
        shown = self._shown(one, other)  # (P,)
        order = np.argsort(-shown, kind="stable")
        chosen: list[int] = []
        taken: dict[int, int] = {}
        for k in order[shown[order] >= SHOWN_CELLS]:
            first = int(self.pairs[k, 0])
            if taken.get(first, 0) < 3:
                taken[first] = taken.get(first, 0) + 1
                chosen.append(int(k))
            if len(chosen) == MOST_PAIRS:
                break
        return self.pairs[chosen]

    def _shown(self, one: Floats, other: Floats) -> Floats:
        """Return for each pair (P,) by how many cells two readings place a point apart.

        Points that the motion takes out of the grid show nothing, so the mean over the grid is
        weighted by the share that stays inside under `one`.
        """
        cell = self.grid.cell_m[0]
        low, high = np.array(self.grid.lower_m)[:2], np.array(self.grid.upper_m)[:2]
        steps = [np.linspace(a, b, 8)[1:-1] for a, b in zip(low, high, strict=True)]
        places = np.stack(np.meshgrid(*steps, [0.0], indexing="ij"), -1).reshape(-1, 3)  # (G, 3)
        moved = []
        for ego in (one, other):
            # the first frame as the second one sees it
            there = relative_ego(ego[self.pairs[:, 1]], ego[self.pairs[:, 0]])  # (P, 4)
            turned = turn_vectors(places[None], there[:, None, 3])  # (P, G, 3)
            moved.append((turned + there[:, None, :3])[..., :2])
        apart = np.linalg.norm(moved[0] - moved[1], axis=-1) / cell  # (P, G)
        inside = ((moved[0] > low) & (moved[0] < high)).all(axis=-1)
        return np.asarray((np.minimum(apart, _FAR_CELLS) * inside).mean(axis=1))

    def fit(self, ego: Floats, pairs: Pairs, every: int = 1) -> Floats:
        """Return for each pair the share (P,) of moved cells that meet an occupied one.

        Args:
            every: move each n-th cell alone, for a search over many readings.
        """
        # (P, 4), the first frame of each pair as the second one sees it
        there = relative_ego(ego[pairs[:, 1]], ego[pairs[:, 0]])
        rows = zip(pairs.tolist(), there, strict=True)
        return np.array([self._share(a, b, moved, every) for (a, b), moved in rows])

    def _share(self, first: int, second: int, there: Floats, every: int) -> float:
        key = first, second, every, there.tobytes()
        if key not in self._shares:
            points = self._points[first][::every]
            states, lower = self._states[second], np.array(self.grid.lower_m)
            hits, unknown = _met(points, there, states, lower, np.array(self.grid.cell_m))
            # All cells count that fell into the grid or out of it: leaving it must not help.
            self._shares[key] = hits / max(_LEAST_CELLS / every, len(points) - unknown)
        return self._shares[key]

    def _load(self, row: int) -> bool:
        """Read a frame; False where it has no structure."""
        layers = self.session.read_layers(int(self.session.numbers[row]))
        cells = layers["occupancy"]
        if cells.shape != self.grid.shape:
            has, wants = ("x".join(map(str, s)) for s in (cells.shape, self.grid.shape))
            raise DataError(
                f"the session has {has} cells and the config {wants}",
                where=self.session.path,
                remedy="give the --config that it was prepared with",
            )
        known = layers.get(KNOWN, np.ones_like(cells))
        if SEEN_OCCUPIED in layers and SEEN_FREE in layers and not self.session.has_believed:
            # Scans of a wrong mount or delay, accumulated over seconds, agree with each other:
            # what was seen since the last frame shows more. Where the vehicle believed other
            # poses than the true ones, these cells are those of its belief.
            cells = layers[SEEN_OCCUPIED]
            known = cells | layers[SEEN_FREE]
        self._states[row] = np.where(known > 0, cells > 0, _UNKNOWN).astype(np.uint8)
        index = np.argwhere(_edges(cells))
        rng = np.random.default_rng(row)
        if len(index) > _CELLS:
            index = index[rng.choice(len(index), _CELLS, replace=False)]
        # Points anywhere in their cells, so that shifts below a cell show in the mean.
        inside = index + rng.random(index.shape)
        self._points[row] = np.asarray(self.grid.lower_m) + inside * np.asarray(self.grid.cell_m)
        return len(index) >= _LEAST_CELLS


@compiled
def _met(
    points: Floats, there: Floats, states: NDArray[np.uint8], lower: Floats, cell: Floats
) -> tuple[int, int]:
    """Return how many points (N, 3), moved by `there` (4,), meet occupied and unknown cells."""
    cos, sin = math.cos(there[3]), math.sin(there[3])
    hits = 0
    unknown = 0
    for k in range(len(points)):
        x = cos * points[k, 0] - sin * points[k, 1] + there[0]
        y = sin * points[k, 0] + cos * points[k, 1] + there[1]
        z = points[k, 2] + there[2]
        i = math.floor((x - lower[0]) / cell[0])
        j = math.floor((y - lower[1]) / cell[1])
        m = math.floor((z - lower[2]) / cell[2])
        inside = 0 <= i < states.shape[0] and 0 <= j < states.shape[1] and 0 <= m < states.shape[2]
        if inside:
            hits += states[i, j, m] == _OCCUPIED
            unknown += states[i, j, m] == _UNKNOWN
    return hits, unknown


def _rows(ego: Floats) -> NDArray[np.int64]:
    """Return the rows of the frames that are read: all, or the stretches that turn most."""
    count = len(ego)
    if count <= _FRAMES:
        return np.arange(count)
    turns = np.abs(np.diff(np.unwrap(ego[:, 3])))
    speeds = np.linalg.norm(np.diff(ego[:, :2], axis=0), axis=1)
    change = turns.copy()
    change[1:] += np.abs(np.diff(speeds)) / max(float(np.median(speeds)), 0.1)
    starts = np.arange(0, count - _STRETCH + 1, _STRETCH)
    gains = np.array([change[s : s + _STRETCH - 1].sum() for s in starts])
    best = np.sort(starts[np.argsort(-gains, kind="stable")[: _FRAMES // _STRETCH]])
    return np.asarray((best[:, None] + np.arange(_STRETCH)).ravel())


def _edges(cells: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the occupied cells (X, Y, Z) above the ground that have an empty cell next to them.

    The inside of a block or of a roof meets occupied cells wherever it is moved, and shows nothing.
    """
    occupied = cells > 0
    lowest = cells.argmax(axis=2)  # the first of equal maxima
    above = np.arange(cells.shape[2]) > lowest[..., None]
    padded = np.pad(occupied, ((1, 1), (1, 1), (0, 0)), constant_values=True)
    within = padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    return np.asarray(occupied & above & ~within)
