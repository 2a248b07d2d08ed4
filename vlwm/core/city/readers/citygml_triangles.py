"""CityGML features to batches of triangles in metres, a few thousand at a time.

The file's own reference system places them. Repeated points and rings without area are dropped
before the polygons are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.crs import Zone
from vlwm.core.city.readers.citygml import (
    Broken,
    Document,
    Feature,
    read_features,
    read_relief,
    system_in_head,
)
from vlwm.core.city.readers.feature_batch import Batch, Skipped
from vlwm.core.city.readers.source_files import Source
from vlwm.core.city.reference import UNNAMED, Reference, UnknownReference, reference_of
from vlwm.core.geometry.triangulate import Polygons, triangulate

_FEATURES = 2000
_POINTS = 400_000
_REMEDY = (
    "transform it to EPSG:6697 (latitude, longitude, height) or to a plane system in metres that "
    "EPSG lists, with FME or ogr2ogr"
)
_NAMED = 3
_FEWEST, _INWARD_SHARE = 5, 0.9


@dataclass
class GmlFile:
    """One CityGML file on its way into a city.

    Attributes:
        notes: for the operator.
        document: properties that hold for all its features.
    """

    source: Source
    zone: Zone
    notes: list[str] = field(default_factory=list)
    document: Document = field(default_factory=Document)
    _references: dict[str | None, Reference] = field(default_factory=dict)

    def batches(self) -> Iterator[Batch]:
        """Yield all features of the file.

        Raises:
            DataError: broken XML, or a reference system that is not read.
        """
        pending: list[Feature | Broken] = []
        points = 0
        for feature in read_features(self.source, self.document):
            pending.append(feature)
            points += len(feature.points) if isinstance(feature, Feature) else 0
            if len(pending) >= _FEATURES or points >= _POINTS:
                yield from self._batches(pending)
                pending, points = [], 0
        yield from self._batches(pending)
        if self.document.is_recoded:
            self.notes.append(f"{self.source.name}: not in the encoding that it states; names "
                              "may be wrong")  # fmt: skip
        others = self.document.others.most_common(_NAMED)
        if others:
            shown = ", ".join(f"{count} {name}" for name, count in others)
            more = ", …" if len(self.document.others) > _NAMED else ""
            self.notes.append(f"{self.source.name}: not read: {shown}{more}")

    def relief(self) -> Iterator[NDArray[np.float64]]:
        """Yield terrain triangles (T, 3, 3) in the city's system of a file of nothing but relief.

        Raises:
            DataError: broken XML, or a reference system that is not read.
        """
        self.document.system = system_in_head(self.source)
        for triangles in read_relief(self.source):
            if len(triangles):
                points = triangles.reshape(-1, 3)
                metres = self._reference(None, points).metres(points, self.zone)
                placed = metres.reshape(-1, 3, 3)
                yield placed[np.isfinite(placed).all(axis=(1, 2))]

    def _batches(self, features: list[Feature | Broken]) -> Iterator[Batch]:
        def key(feature: Feature | Broken) -> tuple[str, str]:
            system = feature.system if isinstance(feature, Feature) else None
            return feature.kind, system or ""

        for (kind, system), group in groupby(sorted(features, key=key), key=key):
            yield self._batch(kind, list(group), system or None)

    def _batch(self, kind: str, features: list[Feature | Broken], system: str | None) -> Batch:
        whole = [f for f in features if isinstance(f, Feature)]
        skipped = [Skipped(f.name, f.reason) for f in features if isinstance(f, Broken)]
        if not whole:
            return Batch.of_skipped(kind, skipped)
        polygons, owner = clean(whole)
        firsts = np.array([f.points[0] for f in whole])
        reference = self._reference(
            system, firsts, lambda r: looks_inward(polygons, owner, r.swapped)
        )
        metres = reference.metres(polygons.points, self.zone)
        lost = _off_the_map(reference, polygons, metres, owner, len(whole))
        if lost.any():
            bad = [
                Skipped(f.name, _place(reference, f)) for f, x in zip(whole, lost, strict=True) if x
            ]
            rest = [f for f, x in zip(whole, lost, strict=True) if not x]
            batch = self._batch(kind, list(rest), system) if rest else Batch.of_skipped(kind, [])
            batch.skipped.extend([*skipped, *bad])
            return batch
        faces, polygon = triangulate(
            Polygons(metres, polygons.ring_sizes, polygons.polygon_rings),
        )
        owners = owner[polygon]
        there = np.isin(np.arange(len(whole)), owners)
        skipped += [
            Skipped(f.name, "its surfaces have no area")
            for f, found in zip(whole, there, strict=True)
            if not found
        ]
        batch = Batch(
            kind,
            [f.name for f in whole],
            [f.lod for f in whole],
            metres[faces],
            owners.astype(np.int32),
            skipped,
        )
        return batch.chosen(there)

    def _reference(
        self,
        system: str | None,
        points: NDArray[np.float64],
        is_mirrored: Callable[[Reference], bool] | None = None,
    ) -> Reference:
        """Return the reference system of features that name `system`, or of the file.

        Raises:
            DataError: it is not read, or the points (N, 3) are outside it.
        """
        if system not in self._references:
            name = system or self.document.system
            try:
                reference = reference_of(name) if name else UNNAMED
                chosen, note = reference.oriented(points, is_mirrored)
            except UnknownReference as error:
                raise self.source.broken(0, f"this file is not placed: {error}", _REMEDY) from error
            self._references[system] = chosen
            if note:
                self.notes.append(f"{self.source.name}: {note}")
            if chosen.is_height_guessed:
                self.notes.append(
                    f"{self.source.name}: its heights are taken in units of "
                    f"{chosen.height_scale:.4g} m, as the plane of {chosen.label} is"
                )
        return self._references[system]


def looks_inward(polygons: Polygons, owner: NDArray[np.int64], north_first: bool) -> bool:
    """Return True where nearly all features have walls that look inward: negative volumes.

    Args:
        owner: (N,) feature of each polygon.
        north_first: the first coordinate is north.
    """
    if not len(polygons.points):
        return False
    order = [1, 0, 2] if north_first else [0, 1, 2]
    points = polygons.points[:, order]
    rings = np.repeat(np.arange(len(polygons.polygon_rings)), polygons.polygon_rings)
    feature = owner[rings]  # (R,) of each ring
    first = np.zeros((int(owner.max()) + 1, 3))
    starts = polygons.ring_starts
    first[feature[::-1]] = points[starts[::-1]]
    # about a corner of each feature, where degrees and metres lose no digits
    local = points - np.repeat(first[feature], polygons.ring_sizes, axis=0)
    normals = Polygons(local, polygons.ring_sizes, polygons.polygon_rings).normals()
    parts = np.einsum("ij,ij->i", local[starts], normals)
    volumes = np.bincount(feature, parts, minlength=len(first))
    sizes = np.bincount(feature, np.abs(parts), minlength=len(first))
    closed = np.abs(volumes) > 1e-3 * np.maximum(sizes, 1e-300)
    return bool(closed.sum() >= _FEWEST and (volumes[closed] < 0).mean() > _INWARD_SHARE)


def _off_the_map(
    reference: Reference, polygons: Polygons, metres: NDArray[np.float64],
    owner: NDArray[np.int64], count: int,
) -> NDArray[np.bool_]:  # fmt: skip
    """Return which features (G,) have a corner outside of the map."""
    bad = ~np.isfinite(metres).all(axis=1)
    if reference.kind == "geographic":
        bad |= (np.abs(polygons.points[:, :2]) > (90, 180)[:: 1 if reference.swapped else -1]).any(
            axis=1
        )
    ring = np.repeat(np.arange(len(polygons.ring_sizes)), polygons.ring_sizes)
    polygon = np.repeat(np.arange(len(polygons.polygon_rings)), polygons.polygon_rings)[ring]
    return np.bincount(owner[polygon], bad, minlength=count) > 0


def _place(reference: Reference, feature: Feature) -> str:
    low, high = feature.points[:, :2].min(axis=0), feature.points[:, :2].max(axis=0)
    span = f"{low[0]:g} {low[1]:g} to {high[0]:g} {high[1]:g}"
    if reference.kind == "geographic":
        return f"a coordinate is not latitude and longitude of this place ({span})"
    return f"a coordinate is outside of {reference.label} ({span})"


def clean(features: list[Feature]) -> tuple[Polygons, NDArray[np.int64]]:
    """Return polygons of all features without repeated points, and the feature (N,) of each.

    A ring of fewer than three different points is dropped, and a polygon whose outer ring is.
    """
    points = np.concatenate([f.points for f in features])
    sizes = np.concatenate([np.asarray(f.ring_sizes, dtype=np.int64) for f in features])
    rings = np.concatenate([np.asarray(f.polygon_rings, dtype=np.int64) for f in features])
    owner = np.repeat(np.arange(len(features)), [len(f.polygon_rings) for f in features])
    ring_of_point = np.repeat(np.arange(len(sizes)), sizes)
    polygon_of_ring = np.repeat(np.arange(len(rings)), rings)
    keep = _differs_from_previous(points, sizes)
    new_sizes = np.bincount(ring_of_point, keep, minlength=len(sizes)).astype(np.int64)
    outer = np.cumsum(rings) - rings
    whole = new_sizes[outer] >= 3
    kept_rings = (new_sizes >= 3) & whole[polygon_of_ring]
    counts = np.bincount(polygon_of_ring[kept_rings], minlength=len(rings))
    return (
        Polygons(points[keep & kept_rings[ring_of_point]], new_sizes[kept_rings], counts[whole]),
        owner[whole],
    )


def _differs_from_previous(
    points: NDArray[np.float64], sizes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which points differ from the one before in their ring, the first from the last."""
    filled = sizes > 0
    starts = (np.cumsum(sizes) - sizes)[filled]
    previous = np.arange(len(points)) - 1
    previous[starts] = starts + sizes[filled] - 1
    return np.any(points != points[previous], axis=1)
