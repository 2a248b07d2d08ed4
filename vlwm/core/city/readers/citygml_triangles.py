"""CityGML features to batches of triangles in metres, a few thousand at a time.

Repeated points and rings without area to span are dropped before the polygons are cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.crs import project
from vlwm.core.city.crs_zone import Zone
from vlwm.core.city.readers.citygml import Broken, Feature, read_features
from vlwm.core.city.readers.feature_batch import Batch, Skipped
from vlwm.core.city.readers.source_files import Source
from vlwm.core.geometry.triangulate import Polygons, triangulate

_FEATURES = 2000
_POINTS = 400_000


def gml_batches(source: Source, zone: Zone) -> Iterator[Batch]:
    """All features of a CityGML file; the zone is settled by the first.

    Raises:
        DataError: broken XML; file and line are named.
    """
    pending: list[Feature | Broken] = []
    points = 0
    for feature in read_features(source):
        pending.append(feature)
        points += len(feature.points) if isinstance(feature, Feature) else 0
        if len(pending) >= _FEATURES or points >= _POINTS:
            yield from _batches(pending, zone)
            pending, points = [], 0
    yield from _batches(pending, zone)


def _batches(features: list[Feature | Broken], zone: Zone) -> Iterator[Batch]:
    for kind, group in groupby(sorted(features, key=lambda f: f.kind), key=lambda f: f.kind):
        yield _batch(kind, list(group), zone)


def _batch(kind: str, features: list[Feature | Broken], zone: Zone) -> Batch:
    whole = [f for f in features if isinstance(f, Feature)]
    skipped = [Skipped(f.name, f.reason) for f in features if isinstance(f, Broken)]
    if not whole:
        return Batch(kind, [], [], np.zeros((0, 3, 3)), np.zeros(0, np.int32), skipped)
    latitude, longitude, _ = whole[0].points[0]
    crs = zone.settle(latitude, longitude)
    polygons, owner = clean(whole)
    metres = project(polygons.points, crs)
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


def clean(features: list[Feature]) -> tuple[Polygons, NDArray[np.int64]]:
    """Polygons of all features without repeated points, and the feature (N,) of each.

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
    """Which points differ from the one before in their ring, the first from the last."""
    filled = sizes > 0
    starts = (np.cumsum(sizes) - sizes)[filled]
    previous = np.arange(len(points)) - 1
    previous[starts] = starts + sizes[filled] - 1
    return np.any(points != points[previous], axis=1)
