"""CityGML 2.0 as PLATEAU writes it: buildings, bridges, plants, roads and relief, streamed.

Coordinates are latitude, longitude, height above sea level (EPSG:6697). Of a building LOD2 polygons
are taken where it has them, else LOD1, never both; LOD0 footprints lie at z = 0 and are never
taken. Elements are matched by local name, because prefixes and the `uro` namespace change from year
to year. Used elements are freed, so memory follows the largest feature, not the file. Entities and
document types are refused.

A LOD2 solid holds only links to the surfaces under `boundedBy`, so the surfaces are read and the
solid only where it has polygons of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lxml import etree
from numpy.typing import NDArray

from vlwm.core.city.readers.feature_batch import BRIDGE, BUILDING, ROAD, TERRAIN, VEGETATION
from vlwm.core.city.readers.source_files import Source

KINDS = {
    "Building": BUILDING,
    "Bridge": BRIDGE,
    "PlantCover": VEGETATION,
    "SolitaryVegetationObject": VEGETATION,
    "Road": ROAD,
    "Square": ROAD,
    "Track": ROAD,
    "ReliefFeature": TERRAIN,
}
_LODS = {  # in order of preference
    BUILDING: (2, 1, 3),
    BRIDGE: (2, 3, 1),
    VEGETATION: (2, 3, 1),
    ROAD: (1, 2, 3),
}
_SURFACES = ("MultiSurface", "Geometry", "Surface")
_SOLIDS = ("Solid", "MultiSolid")
_GEOMETRY = tuple(f"{{*}}lod{n}{k}" for n in (1, 2, 3) for k in (*_SURFACES, *_SOLIDS))
_PARTS = frozenset({"BuildingPart", "BridgePart"})
_PATCHES = ("{*}Polygon", "{*}Triangle")
_NO_HEIGHT_M = -1000.0
_HEAD_BYTES = 8192


class BrokenFeature(Exception):
    """A feature that cannot be used, and why."""


@dataclass
class Feature:
    """One feature: rings of numbers as they stand in the file.

    Attributes:
        points: (P, 3) latitude, longitude (degrees), height (m), rings end to end and closed.
        ring_sizes: points of each ring.
        polygon_rings: rings of each polygon, the outer one first.
    """

    kind: str
    name: str
    lod: int
    points: NDArray[np.float64]
    ring_sizes: list[int]
    polygon_rings: list[int]


@dataclass
class Broken:
    """A feature that was left out."""

    kind: str
    name: str
    reason: str


@dataclass
class _Unit:
    """A building without its parts, or one part: its geometry elements by level of detail."""

    surfaces: dict[int, list[Any]] = field(default_factory=dict)
    solids: dict[int, list[Any]] = field(default_factory=dict)
    fittings: dict[int, list[Any]] = field(default_factory=dict)

    def polygons(self, lod: int) -> list[Any]:
        """Polygons of the body at a level, its installations with it; none without a body."""
        first, second = (self.solids, self.surfaces) if lod == 1 else (self.surfaces, self.solids)
        body = _patches(first.get(lod, ())) or _patches(second.get(lod, ()))
        return body + _patches(self.fittings.get(lod, ())) if body else []


def read_features(source: Source) -> Iterator[Feature | Broken]:
    """Yield every feature of a known kind in a file; relief as triangles without a name.

    Raises:
        DataError: broken XML, or a document with entities; file and line are named.
    """
    _refuse_doctype(source)
    count = 0
    for member in _members(source):
        for child in member:
            kind = KINDS.get(_local(child))
            if kind is not None:
                count += 1
                yield _feature(child, kind, f"{source.name}#{count}")


def read_relief(source: Source) -> Iterator[NDArray[np.float64]]:
    """Yield the terrain's triangles (N, 3, 3) of a file: latitude, longitude, height.

    Triangles whose numbers are broken are left out.

    Raises:
        DataError: as `read_features`.
    """
    _refuse_doctype(source)
    texts: list[str] = []
    for triangle in _members(source, "{*}Triangle"):
        texts.append(" ".join(triangle.itertext("{*}posList", "{*}pos", with_tail=False)))
        if len(texts) >= 50_000:
            yield _corners(texts)
            texts = []
    yield _corners(texts)


def _corners(texts: list[str]) -> NDArray[np.float64]:
    found = []
    for text in texts:
        try:
            numbers = [float(v) for v in text.split()[:9]]
        except ValueError:
            continue
        if len(numbers) == 9:
            found.append(numbers)
    triangles = np.array(found, dtype=np.float64).reshape(-1, 3, 3)
    heights = triangles[:, :, 2]
    return triangles[np.isfinite(triangles).all(axis=(1, 2)) & (heights > _NO_HEIGHT_M).all(axis=1)]


def _refuse_doctype(source: Source) -> None:
    head = source.read(_HEAD_BYTES)
    if b"<!DOCTYPE" in head or b"<!ENTITY" in head:
        raise source.broken(1, "a city model has no document type or entities")


def _members(source: Source, tag: str = "{*}cityObjectMember") -> Iterator[Any]:
    """Elements of a tag as they end; each is freed when the next is asked for.

    Appearance (textures) is freed too: it can be half of a file.
    """
    with source.open() as stream:
        events = etree.iterparse(
            stream,
            events=("end",),
            tag=(tag, "{*}surfaceDataMember"),
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
        )
        checked = False
        try:
            for _, element in events:
                if not checked and element.getroottree().docinfo.doctype:
                    raise source.broken(1, "a city model has no document type or entities")
                checked = True
                if _local(element) != "surfaceDataMember":
                    yield element
                _free(element)
        except etree.XMLSyntaxError as error:
            line = error.position[0] if error.position else 0
            raise source.broken(line, f"the XML is broken: {error.msg}") from error
        except source.damage as error:
            raise source.broken(0, f"the file is damaged: {error}") from error


def _free(element: Any) -> None:
    element.clear()
    parent = element.getparent()
    while parent is not None and element.getprevious() is not None:
        del parent[0]


def _local(element: Any) -> str:
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _id(element: Any, otherwise: str) -> str:
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == "id":
            return str(value)
    return otherwise


def _feature(element: Any, kind: str, otherwise: str) -> Feature | Broken:
    name = _id(element, otherwise)
    try:
        if kind == TERRAIN:
            lod, polygons = 1, list(element.iter(*_PATCHES))
        else:
            lod, polygons = _choose(_units(element), _LODS[kind])
        return Feature(kind, name, lod, *_numbers(polygons))
    except BrokenFeature as error:
        return Broken(kind, name, str(error))


def _units(element: Any) -> list[_Unit]:
    """The feature itself and its parts."""
    units = {element: _Unit()}
    for geometry in element.iter(*_GEOMETRY):
        name = _local(geometry)
        lod, owner, fitting = int(name[3]), element, False
        for above in geometry.iterancestors():
            if above is element:
                break
            tag = _local(above)
            fitting |= tag.endswith(("Installation", "ConstructionElement"))
            if tag in _PARTS:
                owner = above
                break
        unit = units.setdefault(owner, _Unit())
        if fitting:
            unit.fittings.setdefault(lod, []).append(geometry)
        elif name.endswith("Solid"):
            unit.solids.setdefault(lod, []).append(geometry)
        else:
            unit.surfaces.setdefault(lod, []).append(geometry)
    return list(units.values())


def _choose(units: list[_Unit], lods: tuple[int, ...]) -> tuple[int, list[Any]]:
    """The first level that a unit has, and polygons: each part at its own best level.

    A building's own coarse block is left out where its parts have finer walls.
    """
    found = [next(((n, p) for n in lods if (p := u.polygons(n))), None) for u in units]
    levels = [f[0] for f in found if f]
    if not levels:
        raise BrokenFeature("it has no LOD1, LOD2 or LOD3 surfaces")
    best = min(levels, key=lods.index)
    own, *parts = found
    polygons = own[1] if own and (own[0] == best or not any(parts)) else []
    return best, polygons + [p for part in parts if part for p in part[1]]


def _patches(geometries: Any) -> list[Any]:
    return [patch for geometry in geometries for patch in geometry.iter(*_PATCHES)]


def _numbers(polygons: list[Any]) -> tuple[NDArray[np.float64], list[int], list[int]]:
    """Points (P, 3), points of each ring, rings of each polygon."""
    words: list[str] = []
    sizes: list[int] = []
    rings: list[int] = []
    for polygon in polygons:
        before = len(sizes)
        for ring in polygon.iter("{*}LinearRing"):
            texts = ring.itertext("{*}posList", "{*}pos", with_tail=False)
            numbers = " ".join(texts).split()
            if len(numbers) % 3:
                raise BrokenFeature("a ring is not made of triples")
            words += numbers
            sizes.append(len(numbers) // 3)
        if len(sizes) > before:
            rings.append(len(sizes) - before)
    try:
        values = np.array(list(map(float, words)), dtype=np.float64).reshape(-1, 3)
    except ValueError as error:
        raise BrokenFeature("a coordinate is no number") from error
    _check(values)
    return values, sizes, rings


def _check(points: NDArray[np.float64]) -> None:
    if not len(points):
        raise BrokenFeature("its surfaces have no corners")
    if not np.isfinite(points).all():
        raise BrokenFeature("a coordinate is not finite")
    if np.abs(points[:, 0]).max() > 90 or np.abs(points[:, 1]).max() > 180:
        raise BrokenFeature("a coordinate is not latitude and longitude")
    if points[:, 2].min() < _NO_HEIGHT_M:
        raise BrokenFeature(f"a height of {points[:, 2].min():g} m stands for none")
