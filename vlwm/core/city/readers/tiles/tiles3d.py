"""3D Tiles: the finest tiles of a `tileset.json`, with heights above the sea.

Which tiles those are is the business of `vlwm.core.tile_tree`. Heights in tiles are above the
ellipsoid. The table knows each building's lowest height above sea level (`_zmin`), so a plane
through the differences is the geoid under the tile. Where no tile knows it, the lowest building is
put at height 0, with a note. Nothing is fetched: a tile that is not on the disk is named.

Only a `gml_id` is a name beyond its tile; `id` and `batchId` count in each tile from the beginning.
"""

from __future__ import annotations

import math
import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.area import Area, LatLonBounds
from vlwm.core.city.crs import Zone, from_earth_centered
from vlwm.core.city.readers.feature_batch import BUILDING, LOCAL, UNIQUE, Batch, Skipped
from vlwm.core.city.readers.places import Place
from vlwm.core.city.readers.source_files import Source
from vlwm.core.city.readers.tiles.b3dm import BrokenTile, Tile, read_tiles
from vlwm.core.errors import DataError
from vlwm.core.geometry.shells import shells_of
from vlwm.core.text import safe_text
from vlwm.core.tile_tree import Content, NotATileSet, read_tree

_NAMES = ("gml_id", "gml:id", "gmlId", "gmlid")
_LOCAL_NAMES = ("id", "name", "batchId")
_BASES = ("_zmin", "zmin")
_LODS = ("_lod", "lod")
_MARGIN_M = 200.0
_DEEPEST = 64
_ODD_M = 1.0
_EARTH_M = (6_000_000.0, 6_500_000.0)
"""distance from the middle of the earth of whatever is on it"""


@dataclass(frozen=True, eq=False)
class Leaf:
    """One tile to read.

    Attributes:
        source: its file.
        matrix: 4 x 4, where it is placed.
        up_axis: the axis of its glTF that points up.
    """

    source: Source
    matrix: NDArray[np.float64]
    up_axis: str = "Y"


@dataclass
class Leaves:
    """Tiles of a set that are on the disk, and names of those that are not.

    Attributes:
        nested: other tile sets that it names.
        passed_over: primitives other than triangles, by kind.
        copyright: what the files state of their source.
    """

    found: list[Leaf] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    copyright: str = ""

    def finish(self) -> None:
        """Add notes of what was passed over."""
        self.notes += [
            f"not read: {count} primitives of {kind} in tiles"
            for kind, count in sorted(self.passed_over.items())
        ]


def find_leaves(source: Source, area: Area | None = None) -> Leaves:
    """Return the finest tiles of a tile set; with an area only those that may touch it.

    Raises:
        DataError: the file is not a tile set, or one that is not read.
    """
    leaves = Leaves()
    _read_set(source, np.eye(4), area, leaves, ())
    return leaves


def _read_set(
    source: Source, matrix: NDArray[np.float64], area: Area | None, leaves: Leaves,
    above: tuple[str, ...],
) -> None:  # fmt: skip
    def is_wanted(tile: dict[str, Any]) -> bool:
        return area is None or _may_touch(tile, area)

    try:
        tree = read_tree(source.read(), is_wanted)
    except NotATileSet as error:
        if above:  # one of many: the others are still read
            leaves.notes.append(f"{safe_text(source.member)}: {error}")
            return
        remedy = "take another --input" if "not read" in str(error) else "download it again"
        raise source.broken(0, str(error), remedy) from error
    leaves.notes += [f"{safe_text(source.member)}: {note}" for note in tree.notes]
    leaves.copyright = leaves.copyright or tree.copyright
    for content in tree.contents:
        _take(source, content, matrix, tree.up_axis, area, leaves, (*above, source.member))


def _take(
    source: Source, content: Content, matrix: NDArray[np.float64], up_axis: str,
    area: Area | None, leaves: Leaves, above: tuple[str, ...],
) -> None:  # fmt: skip
    member = _on_disk(source, content)
    if member is None:
        leaves.missing.append(content.uri)
        return
    for numbers in content.transforms:
        matrix = matrix @ np.array(numbers, dtype=np.float64).reshape(4, 4).T
    inner = Source(source.place, member)
    if content.is_set:
        if member in above or len(above) > _DEEPEST:
            leaves.notes.append(f"{safe_text(member)} names itself; that branch is not read")
            return
        leaves.nested.append(member)
        _read_set(inner, matrix, area, leaves, above)
    else:
        leaves.found.append(Leaf(inner, matrix, up_axis))


def _on_disk(source: Source, content: Content) -> str | None:
    """Return the file of a tile next to its tile set; None where it is not on the disk.

    A "#" may be part of the name on a disk, and Windows' writers do not heed capital letters.
    """
    folder = posixpath.dirname(source.member)
    whole = unquote(content.uri).replace("\\", "/") if content.path else ""
    named = [
        posixpath.normpath(posixpath.join(folder, path))
        for path in dict.fromkeys((content.path, whole)) if path
    ]  # fmt: skip
    inside = [member for member in named if not member.startswith(("..", "/"))]
    found = next((member for member in inside if source.place.has(member)), None)
    if found is None and inside:
        return _CASELESS.of(source.place).get(inside[0].lower())
    return found


class _Caseless:
    """Names of one place by their small letters, walked once."""

    def __init__(self) -> None:
        self._place: object = None
        self._names: dict[str, str] = {}

    def of(self, place: Place) -> dict[str, str]:
        if place != self._place:
            self._place = place
            self._names = {name.lower(): name for name in place.names()}
        return self._names


_CASELESS = _Caseless()


def _may_touch(tile: dict[str, Any], area: Area) -> bool:
    region = (tile.get("boundingVolume") or {}).get("region")
    if not isinstance(region, list) or len(region) < 4:
        return True
    west, south, east, north = (math.degrees(v) for v in region[:4])
    bounds: LatLonBounds = (south, west, north, east)
    return area.may_touch(bounds, _MARGIN_M)


def tile_batches(leaves: Leaves, zone: Zone) -> Iterator[Batch]:
    """Yield one batch a set of features; heights above sea level.

    Tiles that know their heights come first, so that the others can lean on them.
    """
    undulation: float | None = None
    waiting: list[Leaf] = []
    lowest = math.inf
    for leaf in leaves.found:
        knows_no_height = False
        for tile, placed, skipped in _placed(leaf, zone, leaves):
            if skipped is not None:
                yield _broken(leaf.source, skipped)
                continue
            geoid = _geoid(placed, tile)
            if geoid is None:
                knows_no_height = True
                lowest = min(lowest, float(placed[:, :, 2].min()))
                continue
            undulation = float(np.median(geoid))
            placed[:, :, 2] -= geoid
            yield _batch(leaf.source, tile, placed)
        if knows_no_height:
            waiting.append(leaf)  # and read again: all of them at once would fill the memory
    if undulation is None and waiting:
        undulation = lowest
        leaves.notes.append("tiles hold no heights above the sea: the lowest corner is put at 0")
    for leaf in waiting:
        for tile, placed, skipped in _placed(leaf, zone, None):
            if skipped is None and _geoid(placed, tile) is None:
                assert undulation is not None
                placed[:, :, 2] -= undulation
                yield _batch(leaf.source, tile, placed)


def _placed(
    leaf: Leaf, zone: Zone, leaves: Leaves | None
) -> Iterator[tuple[Tile, NDArray[np.float64], str | None]]:
    """Yield (tile, triangles (T, 3, 3) in easting, northing, ellipsoidal height, what is wrong).

    Args:
        leaves: takes what is passed over; None where the tile was read before.
    """
    nothing = np.zeros((0, 3, 3))

    def read_file(name: str) -> bytes | None:
        folder = posixpath.dirname(leaf.source.member)
        member = posixpath.normpath(posixpath.join(folder, Content(name, ()).path or ".."))
        if member.startswith(("..", "/")) or not leaf.source.place.has(member):
            return None
        return Source(leaf.source.place, member).read()

    empty = Tile(nothing, np.zeros(0, np.int64), 0, {})
    try:
        tiles = read_tiles(leaf.source.read(), leaf.up_axis, read_file)
    except (BrokenTile, DataError) as error:
        yield empty, nothing, error.what if isinstance(error, DataError) else str(error)
        return
    for tile in tiles:
        if leaves is not None:
            leaves.passed_over.update(tile.passed_over)
            leaves.copyright = leaves.copyright or tile.copyright
        if not len(tile.triangles):
            continue
        with np.errstate(all="ignore"):  # what overflows is not on the earth
            points = tile.triangles.reshape(-1, 3) @ leaf.matrix[:3, :3].T + leaf.matrix[:3, 3]
            reach = np.linalg.norm(points, axis=1)
        off = ~((reach > _EARTH_M[0]) & (reach < _EARTH_M[1])).reshape(-1, 3).all(axis=1)  # (T,)
        if 2 * off.sum() > len(off):
            yield empty, nothing, _not_on_earth(reach)
            continue
        if off.any():
            lost = np.isin(tile.rows, tile.rows[off]) if tile.has_rows else off
            count = len(np.unique(tile.rows[lost]))
            yield empty, nothing, f"{count} of its features: {_not_on_earth(reach)}"
            tile = replace(tile, triangles=tile.triangles[~lost], rows=tile.rows[~lost])
            points = points.reshape(-1, 3, 3)[~lost].reshape(-1, 3)
        yield tile, zone.place_degrees(from_earth_centered(points)).reshape(-1, 3, 3), None


def _not_on_earth(reach: NDArray[np.float64]) -> str:
    if not np.isfinite(reach).all():
        return "a coordinate of this tile is not finite"
    if float(np.median(reach)) < _EARTH_M[0] / 2:
        return "it has no place on the earth: neither its tile set nor its centre gives one"
    return "a coordinate of this tile is not on the earth"


def _geoid(placed: NDArray[np.float64], tile: Tile) -> NDArray[np.float64] | None:
    """Return the height (T, 3) of the sea level above the ellipsoid under each corner, metres.

    A plane through the differences of the buildings' lowest heights; those more than a metre off
    the median (a building that the simplification has cut) do not count. None where the table holds
    no heights.
    """
    column = tile.column(*_BASES)
    if column is None:
        return None
    stated = np.array([_number(v) for v in column])
    # lowest corner (count,) of each feature as drawn
    lowest = np.full(tile.count, np.inf)
    np.minimum.at(lowest, tile.rows, placed[:, :, 2].min(axis=1))
    middle = np.zeros((tile.count, 2))
    middle[tile.rows] = placed[:, :, :2].mean(axis=1)
    rise = lowest - stated
    good = np.isfinite(rise)
    if not good.any():
        return None
    good &= np.abs(rise - np.median(rise[good])) < _ODD_M
    if not good.any():
        return None
    center = middle[good].mean(axis=0)
    arms = np.column_stack([middle[good] - center, np.ones(good.sum())])
    plane = np.linalg.lstsq(arms, rise[good], rcond=None)[0]
    if good.sum() < 6 or np.abs(plane[:2]).max() > 1e-3:  # too few, or steeper than any geoid
        plane = np.array([0.0, 0.0, np.median(rise[good])])
    return (placed[:, :, :2] - center) @ plane[:2] + plane[2]


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # JSON: what is not a number raises
    except (TypeError, ValueError):
        return math.nan


def _batch(source: Source, tile: Tile, placed: NDArray[np.float64]) -> Batch:
    """Return the features of a tile: rows of its table, or shells where it has none."""
    rows, count = tile.rows, tile.count
    names: list[Any] | None = None
    naming = LOCAL
    if not tile.has_rows:
        rows, count = shells_of(placed)
    else:
        names, naming = tile.column(*_NAMES), UNIQUE
        if names is None:
            names, naming = tile.column(*_LOCAL_NAMES), LOCAL
            names = names and [None if n is None else f"{source.name}#{n}" for n in names]
    lods = tile.column(*_LODS) if tile.has_rows else None
    order = np.argsort(rows, kind="stable")
    batch = Batch(
        BUILDING,
        [_name(n, source, i) for i, n in enumerate(names or [None] * count)],
        [_lod(value) for value in lods or [source.lod or 1] * count],
        placed[order],
        rows[order].astype(np.int32),
        naming=naming,
    )
    return batch.chosen(np.isin(np.arange(count), rows))


def _name(value: object, source: Source, index: int) -> str:
    if not value:
        return f"{source.name}#{index}"
    return str(value).encode("utf-8", "replace").decode("utf-8")  # JSON may hold half characters


def _lod(value: Any) -> int:
    try:
        return min(9, max(0, int(value)))
    except (OverflowError, TypeError, ValueError):
        return 1


def _broken(source: Source, reason: str) -> Batch:
    return Batch.of_skipped(BUILDING, [Skipped(source.name, reason)])
