"""What one reader hands over at a time: some features of one file, as loose triangles."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BUILDING, BRIDGE, VEGETATION = "building", "bridge", "vegetation"
ROAD, TERRAIN = "road", "terrain"


@dataclass(frozen=True)
class Skipped:
    """A feature that was left out."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Batch:
    """Features of one file.

    Attributes:
        kind: what they are: building, bridge, vegetation, road or terrain.
        names: (G,) names; a name that the file does not give begins with the file's name and `#`.
        lods: (G,) level of detail each was taken from.
        triangles: (T, 3, 3) metres in the city's projected system, heights above sea level.
        owners: int32 (T,) feature of each triangle, never falling.
        skipped: what was left out.
    """

    kind: str
    names: list[str]
    lods: list[int]
    triangles: NDArray[np.float64]
    owners: NDArray[np.int32]
    skipped: list[Skipped] = field(default_factory=list)

    def centers(self) -> NDArray[np.float64]:
        """(G, 2) middle of each feature's plan bounds, metres; NaN for one without triangles."""
        bounds = self.bounds()
        return (bounds[:, 0, :2] + bounds[:, 1, :2]) / 2

    def bounds(self) -> NDArray[np.float64]:
        """(G, 2, 3) lowest and highest corner of each feature, metres."""
        found = np.full((len(self.names), 2, 3), np.nan)
        if len(self.owners):
            starts = np.flatnonzero(np.diff(self.owners, prepend=-1))
            present = self.owners[starts]
            found[present, 0] = np.minimum.reduceat(self.triangles.min(axis=1), starts, axis=0)
            found[present, 1] = np.maximum.reduceat(self.triangles.max(axis=1), starts, axis=0)
        return found

    def chosen(self, keep: NDArray[np.bool_]) -> Batch:
        """Only the features that `keep` (G,) marks."""
        if keep.all():
            return self
        number = np.cumsum(keep) - 1
        faces = keep[self.owners]
        index = np.flatnonzero(keep)
        return Batch(
            self.kind,
            [self.names[i] for i in index],
            [self.lods[i] for i in index],
            self.triangles[faces],
            number[self.owners[faces]].astype(np.int32),
            self.skipped,
        )
