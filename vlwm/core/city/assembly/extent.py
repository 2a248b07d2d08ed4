"""Bounds what was read to one place, before any grid is laid over it.

A stray coordinate would otherwise stretch the ground over half a country. Single features far from
all others are left out and named; two places that are far apart are refused; a place that was given
in two formats, or twice in one, is taken once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from vlwm.core.city.assembly.cover import COVERED_SHARE, Cover
from vlwm.core.city.assembly.deduplicate import Collector, FileOf
from vlwm.core.city.assembly.feature_table import KINDS, Features
from vlwm.core.city.readers.feature_batch import BRIDGE, BUILDING, Skipped
from vlwm.core.errors import DataError
from vlwm.core.geometry.mapped_arrays import let_go, pieces
from vlwm.core.text import safe_text

FAR_M = 20_000.0
"""features that are farther than this from all others are another place, give or take a cell"""
_CELL_M = 2_000.0
"""features are linked by the cells of their middles: they are fewer"""
_FEW, _FEW_SHARE = 3, 0.05
_MOST_OFF_M = 2_000.0
"""off the median base: farther ones are left out"""
_MODEL_SHARE = 0.1
"""of a file's features: if more are covered, it is a second model of the same place"""
_BOX_SHARE = 0.3
"""of the smaller of two files: they overlap"""
_HASH = np.uint64(0x9E3779B97F4A7C15)
"""an odd number without pattern (2**64 over the golden ratio)"""
_FORMATS = ("gml", "obj", "tiles")
_NAMES = {"gml": "CityGML", "obj": "OBJ", "tiles": "3D Tiles"}


def bound_extent(collector: Collector) -> None:
    """Leave out features far from all others.

    Raises:
        DataError: what is left are two places, or, with strict reading, the first stray feature.
    """
    features = collector.features
    chosen = features.standing()
    numbers = np.flatnonzero(chosen)
    if len(numbers) < 2:
        return
    bounds = features.bounds.array()[numbers]
    middles = (bounds[:, 0] + bounds[:, 1])[:, :2] / 2
    place = _places(middles)
    sizes = np.bincount(place)
    main = int(np.argmax(sizes))
    few = max(_FEW, _FEW_SHARE * len(numbers))
    if sizes.sum() - sizes[main] > few or 2 * sizes[main] <= sizes.sum():
        raise _two_places(collector, numbers, middles, place)
    far = place != main
    far |= _off_the_ground(bounds, far)
    _leave_out(collector, numbers[far], middles, far)
    _leave_out_roads(features, middles[~far])


def _places(middles: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the place (G,) of each middle: what is linked by steps of at most `FAR_M` is one."""
    at = np.floor(middles / _CELL_M)
    cells, cell = np.unique(at, axis=0, return_inverse=True)
    pairs = cKDTree(cells * _CELL_M).query_pairs(FAR_M, output_type="ndarray").reshape(-1, 2)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(cells),) * 2)
    label = connected_components(graph, directed=False)[1]
    return np.asarray(label, dtype=np.int64)[cell.reshape(-1)]


def _off_the_ground(bounds: NDArray[np.float64], far: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return features (G,) whose base is kilometres above or below the others."""
    bases = bounds[:, 0, 2]
    return ~far & (np.abs(bases - np.median(bases[~far])) > _MOST_OFF_M)


def _leave_out(
    collector: Collector, numbers: NDArray[np.int64], middles: NDArray[np.float64],
    far: NDArray[np.bool_],
) -> None:  # fmt: skip
    features = collector.features
    center = np.median(middles[~far], axis=0)
    for number, middle in zip(numbers.tolist(), middles[far], strict=True):
        away = float(np.linalg.norm(middle - center))
        base = features.bounds_of(number)[0, 2]
        reason = f"it is {away / 1000:.0f} km away from the others, base at {base:.0f} m"
        file = collector.files[int(features.files.read(number, number + 1)[0])]
        collector.skip([Skipped(features.name_of(number), reason)], file)
        features.alive.put(number, False)


def _leave_out_roads(features: Features, middles: NDArray[np.float64]) -> None:
    """Take roads out that are far from the place; they would not be near any building."""
    low, high = middles.min(axis=0) - FAR_M, middles.max(axis=0) + FAR_M
    roads = features.roads()
    for start, some in pieces(features.bounds.array()):
        part = roads[start : start + len(some)]
        outside = (some[:, 1, :2] < low).any(axis=1) | (some[:, 0, :2] > high).any(axis=1)
        roads[start : start + len(some)] = part & outside
    features.leave_out(roads)


def _two_places(
    collector: Collector, numbers: NDArray[np.int64], middles: NDArray[np.float64],
    place: NDArray[np.int64],
) -> DataError:  # fmt: skip
    sizes = np.bincount(place)
    first, second = np.argsort(-sizes, kind="stable")[:2].tolist()
    away = np.linalg.norm(
        np.median(middles[place == first], axis=0) - np.median(middles[place == second], axis=0)
    )
    shown = []
    files = collector.features.files.array()
    for each in (first, second):
        of = Counter(files[numbers[place == each]].tolist()).most_common(1)[0][0]
        file = collector.files[of]
        system = f", {file.crs}" if file.crs else ""
        shown.append(f"{sizes[each]} buildings ({safe_text(file.name)}{system})")
    return DataError(
        f"these files hold places {away / 1000:.0f} km apart: {shown[0]} and {shown[1]}",
        remedy="prepare them one by one, each with its own --input or --area",
    )


def one_copy(collector: Collector) -> None:
    """Keep one of features that are equal in bounds, triangles and middle, whatever their names.

    As with two models, a few are chance: from three and a tenth of all on they are copies.
    """
    features = collector.features
    numbers = np.flatnonzero(_solid(features))
    if len(numbers) < 2:
        return
    _, first = np.unique(_shape_keys(features)[numbers], return_index=True)
    copies = np.ones(len(numbers), dtype=bool)
    copies[first] = False
    if copies.sum() >= max(_FEW, _MODEL_SHARE * len(numbers)):
        again = np.zeros(len(features), dtype=bool)
        again[numbers[copies]] = True
        features.leave_out(again)
        collector.duplicates += int(copies.sum())


def _shape_keys(features: Features) -> NDArray[np.uint64]:
    """Return a hash (G,) of each feature's bounds, middle and number of triangles, to 0.01 m."""
    scratch, count = features.scratch, len(features)
    triangles, sums = scratch.zeros(count), scratch.zeros((count, 3))
    owners = features.owners.array()
    for start, some in pieces(features.triangles.array()):
        mine = owners[start : start + len(some)]
        low = int(mine[0])  # owners are non-decreasing
        part = slice(low, int(mine[-1]) + 1)
        triangles[part] += np.bincount(mine - low)
        for axis in range(3):
            sums[part, axis] += np.bincount(mine - low, some[:, :, axis].sum(axis=1))
        let_go(owners)
    keys = np.zeros(count, np.uint64)
    for start, some in pieces(features.bounds.array()):
        part = slice(start, start + len(some))
        middles = sums[part] / np.maximum(3 * triangles[part], 1)[:, None]
        rows = np.column_stack([some.reshape(len(some), 6), middles, triangles[part]])
        for column in np.rint(100 * rows).astype(np.int64).view(np.uint64).T:
            keys[part] = (keys[part] ^ column) * _HASH
            keys[part] ^= keys[part] >> np.uint64(29)
    return keys


def one_format(collector: Collector) -> None:
    """Keep one format where buildings of two formats cover each other, and note it."""
    features = collector.features
    numbers = np.array([_FORMATS.index(f.format) for f in collector.files], dtype=np.int64)
    codes = numbers[features.files.array()] if len(features) else np.zeros(0, np.int64)
    _leave_out_covered(collector, codes, _said_twice)


def one_model(collector: Collector) -> None:
    """Keep one of two models of one place under different names in two files, and note it.

    Such are two years of a city, two levels of detail, or a copy with new names. The finer model
    stays, of two equal ones the first. Tiles overlap at their borders only and are not looked at.
    A feature on top of a building of another file, or covered by half, is not a copy and is kept.
    """
    features = collector.features
    if len(collector.files) < 2 or not len(features):
        return
    files = features.files.array()
    layers = _layers(features, files, len(collector.files))
    if not layers.any():
        return

    def words(count: int, total: int, code: int, present: list[int]) -> str:
        names = [_shown(f) for f, n in zip(collector.files, layers, strict=True) if n]
        more = f" and {len(names) - 1} more files" if len(names) > 1 else ""
        return (
            f"{count} of {total} buildings of {names[0]}{more} cover buildings of another file "
            "under other names: two models of one place, one is taken"
        )

    _leave_out_covered(
        collector, layers[files], words, fewest=_FEW, share=_MODEL_SHARE, by_height=True
    )


def _shown(file: FileOf) -> str:
    """Return a file's name with its folder: files of two years are called alike."""
    return safe_text("/".join(Path(file.where).parts[-2:]) or file.name)


def _layers(features: Features, files: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Return for each file (F,) on how many others its place is: 0 for most."""
    solid = _solid(features)
    bounds = features.bounds.array()
    boxes = np.full((count, 4), np.nan)
    lods = np.zeros(count, dtype=np.int64)
    for file in np.unique(files[solid]):
        mine = solid & (files == file)
        low, high = bounds[mine, 0, :2], bounds[mine, 1, :2]
        boxes[file] = *low.min(axis=0), *high.max(axis=0)
        lods[file] = features.lods.array()[mine].max()
    sizes = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    layers = np.zeros(count, dtype=np.int64)
    done = np.zeros(count, dtype=bool)
    for file in sorted(range(count), key=lambda k: (-lods[k], k)):
        low = np.maximum(boxes[:, :2], boxes[file, :2])
        high = np.minimum(boxes[:, 2:], boxes[file, 2:])
        common = np.prod(np.maximum(high - low, 0.0), axis=1)
        on = done & (common > _BOX_SHARE * np.minimum(sizes, sizes[file]))
        layers[file] = layers[on].max() + 1 if on.any() else 0
        done[file] = not np.isnan(sizes[file])
    return layers


def _solid(features: Features) -> NDArray[np.bool_]:
    """Return which features (G,) are left and buildings or bridges."""
    kinds = features.kinds.array()
    wanted = np.isin(kinds, [KINDS.index(BUILDING), KINDS.index(BRIDGE)])
    return np.asarray(features.standing() & wanted)


def _leave_out_covered(
    collector: Collector,
    codes: NDArray[np.int64],
    words: Callable[[int, int, int, list[int]], str],
    fewest: int = 1,
    share: float = 0.0,
    *,
    by_height: bool = False,
) -> None:
    """Leave out buildings that cover buildings of a lower code.

    Args:
        codes: (G,) of the features; the lowest stays.
        words: returns the note of (how many, of how many, code, codes that there are).
        fewest, share: of the buildings of a code; fewer are not a second model.
        by_height: only what is at the same heights is twice; two formats differ in theirs.
    """
    features = collector.features
    solid = _solid(features)
    present = sorted(set(codes[solid].tolist()))
    extent = features.extent(solid)
    if len(present) < 2 or extent is None:
        return
    cover = Cover(extent, features.scratch)
    for code in present:
        mine = solid & (codes == code)
        if code != present[0]:
            overlap = cover.overlap(features, mine)
            shift = overlap.shift(mine) if by_height else 0.0
            twice = mine & ((overlap.same if shift is None else overlap.plan) >= COVERED_SHARE)
            if twice.sum() >= max(fewest, share * mine.sum()):
                collector.superseded += int(twice.sum())
                features.leave_out(twice)
                side = "higher" if (shift or 0.0) > 0 else "lower"
                apart = f" (it is about {abs(shift):.0f} m {side})" if shift else ""
                note = words(int(twice.sum()), int(mine.sum()), code, present)
                collector.notes.append(note + apart)
        cover.add(features, mine & features.alive.array())


def _said_twice(count: int, total: int, code: int, present: list[int]) -> str:
    better = " and ".join(_NAMES[_FORMATS[c]] for c in present if c < code)
    return (
        f"{count} of {total} buildings of {_NAMES[_FORMATS[code]]} cover buildings of {better}: "
        f"one place in two formats, {better} is taken"
    )
