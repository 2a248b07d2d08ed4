"""Batches that readers yield: some features of one file, as loose triangles."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BUILDING, BRIDGE, VEGETATION = "building", "bridge", "vegetation"
ROAD, TERRAIN = "road", "terrain"
UNIQUE, PIECES, SHELLS, LOCAL = "unique", "pieces", "shells", "local"
"""what a name promises: one feature in all files; pieces of one feature; nothing, the file names
none; nothing beyond its own tile"""


@dataclass(frozen=True)
class Skipped:
    """A feature that was left out."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Batch:
    """Features of one file.

    Attributes:
        kind: building, bridge, vegetation, road or terrain.
        names: (G,) names; a name that the file does not give begins with the file's name and `#`.
        lods: (G,) level of detail each was taken from.
        triangles: (T, 3, 3) metres in the city's projected system, heights above sea level.
        owners: int32 (T,) feature of each triangle, never falling.
        skipped: features that were left out.
        naming: what a name promises: unique, pieces, shells or local.
    """

    kind: str
    names: list[str]
    lods: list[int]
    triangles: NDArray[np.float64]
    owners: NDArray[np.int32]
    skipped: list[Skipped] = field(default_factory=list)
    naming: str = UNIQUE

    @classmethod
    def of_skipped(cls, kind: str, skipped: list[Skipped]) -> Batch:
        """Return a batch that holds only features that were left out."""
        return cls(kind, [], [], np.zeros((0, 3, 3)), np.zeros(0, np.int32), skipped)

    def centers(self) -> NDArray[np.float64]:
        """Return the (G, 2) middle of each feature's plan, metres; NaN where it has no triangle."""
        bounds = self.bounds()
        return (bounds[:, 0, :2] + bounds[:, 1, :2]) / 2

    def bounds(self) -> NDArray[np.float64]:
        """Return the (G, 2, 3) lowest and highest corner of each feature, metres."""
        found = np.full((len(self.names), 2, 3), np.nan)
        if len(self.owners):
            starts = np.flatnonzero(np.diff(self.owners, prepend=-1))
            present = self.owners[starts]
            found[present, 0] = np.minimum.reduceat(self.triangles.min(axis=1), starts, axis=0)
            found[present, 1] = np.maximum.reduceat(self.triangles.max(axis=1), starts, axis=0)
        return found

    def chosen(self, keep: NDArray[np.bool_]) -> Batch:
        """Return only the features that `keep` (G,) marks."""
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
            self.naming,
        )
