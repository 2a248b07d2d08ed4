"""CityGML 1, 2 and 3: buildings, bridges, plants, roads and relief, streamed.

Features are found by their local name below any member element (`cityObjectMember`,
`gml:featureMember`, the members of a WFS), because prefixes and namespaces change from writer to
writer. Of a building LOD2 surfaces are taken where it has them, else LOD1, LOD3 or the outer shell
of LOD4, never two of them; LOD0 footprints lie at z = 0 and are never taken, nor are rooms and what
is inside. Used elements are freed, so memory follows the largest feature, not the file. Entities
and document types are refused.

A LOD2 solid mostly holds links to the surfaces under `boundedBy`. Those are read once; what only
the solid has is added.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lxml import etree
from numpy.typing import NDArray

from vlwm.core.city.readers.feature_batch import BRIDGE, BUILDING, ROAD, TERRAIN, VEGETATION
from vlwm.core.city.readers.gml_geometry import (
    PATCHES,
    BrokenFeature,
    floats,
    has_links,
    id_of,
    linked,
    local,
    names_systems,
    nearest,
    numbers_of,
    patches,
)
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
    "TINRelief": TERRAIN,
}
_MEMBERS = ("cityObjectMember", "featureMember", "featureMembers", "member", "groupMember")
_LODS = {  # in order of preference
    BUILDING: (2, 1, 3, 4),
    BRIDGE: (2, 3, 1, 4),
    VEGETATION: (2, 3, 1, 4),
    ROAD: (1, 2, 3, 4),
}
_SURFACES = ("MultiSurface", "Geometry", "Surface")
_SOLIDS = ("Solid", "MultiSolid")
_GEOMETRY = tuple(f"{{*}}lod{n}{k}" for n in (1, 2, 3, 4) for k in (*_SURFACES, *_SOLIDS))
_IMPLICIT = tuple(f"{{*}}lod{n}ImplicitRepresentation" for n in (1, 2, 3, 4))
_FLAT = tuple(f"{{*}}lod0{k}" for k in ("FootPrint", "RoofEdge", "MultiSurface", "Geometry"))
_PARTS = frozenset({"BuildingPart", "BridgePart"})
_INDOORS = frozenset(
    [
        "Room",
        "BuildingRoom",
        "BridgeRoom",
        "IntBuildingInstallation",
        "IntBridgeInstallation",
        "BuildingFurniture",
        "BridgeFurniture",
        "InteriorWallSurface",
        "CeilingSurface",
        "FloorSurface",
        "Storey",
        "BuildingUnit",
    ]
)
_OTHER_RELIEF = ("{*}MassPointRelief", "{*}BreaklineRelief", "{*}RasterRelief")
_NO_HEIGHT_M = -1000.0
_HEAD_BYTES = 8192
_SRS = re.compile(rb"srsName\s*=\s*[\"']([^\"']{1,400})[\"']")
_SRS_BYTES = 1 << 16


@dataclass
class Feature:
    """One feature: rings of numbers as the file has them.

    Attributes:
        points: (P, 3) coordinates in the file's reference system, rings end to end and closed.
        ring_sizes: points of each ring.
        polygon_rings: rings of each polygon, the outer one first.
        system: reference system that its own geometry names; None where it names none.
    """

    kind: str
    name: str
    lod: int
    points: NDArray[np.float64]
    ring_sizes: list[int]
    polygon_rings: list[int]
    system: str | None = None


@dataclass
class Broken:
    """A feature that was left out."""

    kind: str
    name: str
    reason: str


@dataclass
class Document:
    """What a file says of all its features, known when the first is read.

    Attributes:
        system: reference system of its envelope.
        others: city objects of kinds that are not read, by name.
        is_plateau: it uses the vocabulary of Project PLATEAU.
    """

    system: str | None = None
    others: Counter[str] = field(default_factory=Counter)
    is_plateau: bool = False


@dataclass
class _Unit:
    """A building without its parts, or one part: its geometry elements by level of detail."""

    feature: Any
    surfaces: dict[int, list[Any]] = field(default_factory=dict)
    solids: dict[int, list[Any]] = field(default_factory=dict)
    fittings: dict[int, list[Any]] = field(default_factory=dict)
    dead_links: int = 0

    def polygons(self, lod: int) -> list[Any]:
        """Return surfaces of the body at a level with its installations; none without a body."""
        first, second = self.surfaces.get(lod, []), self.solids.get(lod, [])
        if lod == 1:
            first, second = second, first
        body = self._surfaces_of(first, [])
        if not body:
            body = self._surfaces_of(second, [])
        elif lod > 1:
            body += self._only_in_solid(second, body)
        fittings = patches(self.fittings.get(lod, ()))
        return list(dict.fromkeys(body + fittings)) if body else []

    def _surfaces_of(self, geometries: list[Any], found: list[Any]) -> list[Any]:
        written = patches(geometries)
        by_link, dead = linked(geometries, self.feature, written + found)
        self.dead_links += dead
        return written + by_link

    def _only_in_solid(self, solids: list[Any], body: list[Any]) -> list[Any]:
        """Return surfaces of solids that are partly links: without them the body has holes."""
        by_link, _ = linked(solids, self.feature, body)
        written = patches(solids) if has_links(solids) else []
        return by_link + written


def read_features(source: Source, document: Document | None = None) -> Iterator[Feature | Broken]:
    """Yield every feature of a known kind in a file; relief as triangles without a name.

    Args:
        document: filled while reading.

    Raises:
        DataError: broken XML, or a document with entities; file and line are named.
    """
    _refuse_doctype(source)
    document = document if document is not None else Document()
    count = 0
    for element in _elements(source, document):
        tag = local(element)
        if tag == "TINRelief" and any(local(a) == "ReliefFeature" for a in element.iterancestors()):
            count -= 1  # its relief feature is counted
        count += 1
        feature = _feature(element, KINDS[tag], f"{source.name}#{count}")
        if feature is not None:
            yield feature


def read_relief(source: Source) -> Iterator[NDArray[np.float64]]:
    """Yield the terrain's triangles (N, 3, 3) of a file in its own coordinates.

    Triangles whose numbers are broken are left out.

    Raises:
        DataError: as `read_features`.
    """
    _refuse_doctype(source)
    texts: list[str] = []
    for triangle in _ended(source, ("{*}Triangle",)):
        texts.append(" ".join(triangle.itertext("{*}posList", "{*}pos", with_tail=False)))
        if len(texts) >= 50_000:
            yield _corners(texts)
            texts = []
    yield _corners(texts)


def system_in_head(source: Source) -> str | None:
    """Return the first reference system that a file names near its beginning."""
    found = _SRS.search(source.read(_SRS_BYTES))
    return found.group(1).decode("utf-8", "replace") if found else None


def _corners(texts: list[str]) -> NDArray[np.float64]:
    found = []
    for text in texts:
        try:
            numbers = floats(text.split()[:9])
        except BrokenFeature:
            continue
        if len(numbers) == 9:
            found.append(numbers)
    triangles = np.array(found, dtype=np.float64).reshape(-1, 3, 3)
    heights = triangles[:, :, 2]
    return triangles[np.isfinite(triangles).all(axis=(1, 2)) & (heights > _NO_HEIGHT_M).all(axis=1)]


def _refuse_doctype(source: Source) -> None:
    head = source.read(_HEAD_BYTES)
    if b"<!DOCTYPE" in head or b"<!ENTITY" in head:
        raise _doctype(source)


def _doctype(source: Source) -> Exception:
    return source.broken(
        1, "a city model has no document type or entities", "take the file from its publisher"
    )


def _elements(source: Source, document: Document) -> Iterator[Any]:
    """Yield features as they end; note the document's envelope and what is not read."""
    tags = tuple(f"{{*}}{k}" for k in (*KINDS, *_MEMBERS))
    for element in _ended(source, (*tags, "{*}Envelope")):
        tag = local(element)
        if tag == "Envelope":
            _note_envelope(element, document)
        elif tag in KINDS:
            yield element
        else:
            names = (local(child) for child in element)
            document.others.update(n for n in names if n and n not in KINDS and n not in _MEMBERS)


def _note_envelope(element: Any, document: Document) -> None:
    above = [local(a) for a in element.iterancestors()]
    if document.system is None and len(above) <= 2:
        document.system = element.get("srsName")
    root = element.getroottree().getroot()
    document.is_plateau |= any("geospatial.jp/iur" in str(u) for u in root.nsmap.values())


def _ended(source: Source, tags: tuple[str, ...]) -> Iterator[Any]:
    """Yield elements of some tags as they end; each is freed when the next is asked for.

    Appearance (textures) is freed too: it can be half of a file. Envelopes stay, as parts of
    features.
    """
    with source.open() as stream:
        events = etree.iterparse(
            stream,
            events=("end",),
            tag=(*tags, "{*}surfaceDataMember"),
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
        )
        checked = False
        try:
            for _, element in events:
                if not checked and element.getroottree().docinfo.doctype:
                    raise _doctype(source)
                checked = True
                if local(element) != "surfaceDataMember":
                    yield element
                if local(element) != "Envelope":
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


def _feature(element: Any, kind: str, otherwise: str) -> Feature | Broken | None:
    """Return a feature, what is wrong with it, or None for relief that was read part by part."""
    name = id_of(element, otherwise)
    try:
        if kind == TERRAIN:
            lod, polygons = 1, list(element.iter(*PATCHES))
            if not polygons:
                return _other_relief(element, name)
        else:
            lod, polygons = _choose(element, _LODS[kind])
        system = _system_of(polygons, element) if names_systems(element) else None
        points, sizes, rings = numbers_of(polygons)
        if kind != TERRAIN and points[:, 2].min() < _NO_HEIGHT_M:
            raise BrokenFeature(f"a height of {points[:, 2].min():g} m stands for none")
        return Feature(kind, name, lod, points, sizes, rings, system)
    except BrokenFeature as error:
        return Broken(kind, name, str(error))


def _other_relief(element: Any, name: str) -> Broken | None:
    for other in element.iter(*_OTHER_RELIEF):
        return Broken(TERRAIN, name, f"its ground is a {local(other)}, which is not read")
    return None


def _system_of(polygons: list[Any], feature: Any) -> str | None:
    """Return the one reference system that chosen surfaces name.

    Raises:
        BrokenFeature: they name several, or have no heights.
    """
    if any(nearest(p, "srsDimension", feature) == "2" for p in polygons):
        raise BrokenFeature("its coordinates have no heights (srsDimension 2)")
    found = {nearest(p, "srsName", feature) for p in polygons}
    if len(found) > 1:
        raise BrokenFeature("its surfaces are in several reference systems")
    return next(iter(found), None)


def _units(element: Any) -> list[_Unit]:
    """Return the feature itself and its parts."""
    units = {element: _Unit(element)}
    for geometry in element.iter(*_GEOMETRY):
        name = local(geometry)
        lod, owner, is_fitting, is_indoors = int(name[3]), element, False, False
        for above in geometry.iterancestors():
            if above is element:
                break
            tag = local(above)
            is_indoors |= tag in _INDOORS
            is_fitting |= tag.endswith(("Installation", "ConstructionElement"))
            if tag in _PARTS:
                owner = above
                break
        if is_indoors:
            continue
        unit = units.setdefault(owner, _Unit(element))
        if is_fitting:
            unit.fittings.setdefault(lod, []).append(geometry)
        elif name.endswith("Solid"):
            unit.solids.setdefault(lod, []).append(geometry)
        else:
            unit.surfaces.setdefault(lod, []).append(geometry)
    return list(units.values())


def _choose(element: Any, lods: tuple[int, ...]) -> tuple[int, list[Any]]:
    """Return the first level that a unit has, and surfaces: each part at its own best level.

    A building's own coarse block is left out where its parts have finer walls.
    """
    units = _units(element)
    found = [next(((n, p) for n in lods if (p := u.polygons(n))), None) for u in units]
    levels = [f[0] for f in found if f]
    if not levels:
        raise BrokenFeature(_why_empty(element, units))
    best = min(levels, key=lods.index)
    own, *parts = found
    polygons = own[1] if own and (own[0] == best or not any(parts)) else []
    return best, polygons + [p for part in parts if part for p in part[1]]


def _why_empty(element: Any, units: list[_Unit]) -> str:
    """Return why a feature has no surfaces."""
    missing = "no LOD1, LOD2, LOD3 or LOD4 surfaces"
    if any(u.dead_links for u in units):
        return f"it has {missing} of its own: they are links out of it"
    for _ in element.iter(*_IMPLICIT):
        return f"it has {missing}: an implicit representation is not read"
    for geometry in element.iter(*_GEOMETRY):
        inside = next((local(c) for c in geometry if local(c)), "nothing")
        return f"it has {missing}: a {inside} is not read"
    for _ in element.iter(*_FLAT):
        return f"it has {missing}, only an LOD0 outline"
    return f"it has {missing}"
