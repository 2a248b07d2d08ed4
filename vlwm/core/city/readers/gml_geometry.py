"""Surfaces of GML 3.1 (and 2) as rings of numbers: every form that a city model may give them.

A surface is a Polygon, PolygonPatch, Rectangle or Triangle, however deep in Surface, Tin,
CompositeSurface, OrientableSurface, Solid and the like. Its rings are LinearRing or Ring (of
LineString, Curve, OrientableCurve), their points posList, pos, coordinates, coord or pointProperty.
Where an OrientableSurface turns a surface around, its rings are read backwards.
Curved segments are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from lxml import etree
from numpy.typing import NDArray

Element: TypeAlias = Any
"""an element of lxml, which has no types"""

PATCHES = ("{*}Polygon", "{*}PolygonPatch", "{*}Triangle", "{*}Rectangle")
_RINGS = ("{*}LinearRing", "{*}Ring")
_POINTS = ("{*}posList", "{*}pos")
_OLD_POINTS = ("{*}coordinates", "{*}coord")
_CURVED = frozenset(
    [
        "Arc",
        "ArcString",
        "ArcByBulge",
        "ArcStringByBulge",
        "ArcByCenterPoint",
        "Circle",
        "CircleByCenterPoint",
        "CubicSpline",
        "BSpline",
        "Bezier",
        "Clothoid",
        "OffsetCurve",
        "GeodesicString",
        "Geodesic",
    ]
)
_XLINK = "http://www.w3.org/1999/xlink"
_HREF = f"{{{_XLINK}}}href"
_links = etree.XPath(".//@x:href", namespaces={"x": _XLINK}, smart_strings=False)
_linking = etree.XPath(".//*[@x:href]", namespaces={"x": _XLINK})
_systems = etree.XPath(".//@srsName|.//@srsDimension", smart_strings=False)


class BrokenFeature(Exception):
    """A feature that cannot be used, and why."""


def local(element: Element) -> str:
    """Return an element's name without its namespace; empty for a comment."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def id_of(element: Element, otherwise: str = "") -> str:
    """Return an element's `gml:id`."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == "id":
            return str(value)
    return otherwise


class Surface(NamedTuple):
    """A surface, and whether it is used with its other side in front."""

    element: Element
    turned: bool = False


def patches(geometries: Iterable[Element]) -> list[Surface]:
    """Return the surfaces that are written inside geometries."""
    found = []
    for geometry in geometries:
        turning = _has_turned(geometry)
        for patch in geometry.iter(*PATCHES):
            found.append(Surface(patch, turning and _is_turned(patch, geometry)))
    return found


def linked(
    geometries: Iterable[Element], feature: Element, found: list[Surface]
) -> tuple[list[Surface], int]:
    """Return surfaces that geometries name by link, and how many links lead out of the feature.

    Args:
        found: surfaces that are taken already: a link to one of them costs nothing.
    """
    names = [str(h) for g in geometries for h in _links(g)]
    if not names:
        return [], 0
    written = {id_of(p.element) for p in found}
    if all(n.lstrip("#") in written for n in names):
        return [], 0
    by_id = _by_id(feature)
    inside, dead = [], 0
    for geometry in geometries:
        for name, turned in _turned_links(geometry):
            target = by_id.get(name.removeprefix("#"))
            if name.lstrip("#") not in written:
                dead += target is None
                inside += [] if target is None else _below(target, turned)
    return inside, dead


def as_solids_turn(
    surfaces: list[Surface], solids: Iterable[Element], feature: Element
) -> list[Surface]:
    """Return surfaces with the side in front that solids which link to them give them."""
    solids = [solid for solid in solids if _has_turned(solid)]
    if not solids:
        return surfaces
    by_id = _by_id(feature)
    sides = {
        surface.element: surface.turned
        for solid in solids
        for name, turned in _turned_links(solid)
        if (target := by_id.get(name.removeprefix("#"))) is not None
        for surface in _below(target, turned)
    }
    return [s._replace(turned=sides.get(s.element, s.turned)) for s in surfaces]


def _by_id(feature: Element) -> dict[str, Element]:
    return {name: e for e in feature.iter() if local(e) and (name := id_of(e))}


def _below(target: Element, turned: bool) -> list[Surface]:
    """Return the surfaces of a link's target, turned where the link is."""
    return [s._replace(turned=s.turned != turned) for s in patches([target])]


def _turned_links(geometry: Element) -> list[tuple[str, bool]]:
    """Return the links in a geometry, and whether each is to the other side."""
    turning = _has_turned(geometry)
    return [
        (str(element.get(_HREF)), turning and _is_turned(element, geometry))
        for element in _linking(geometry)
    ]


def _has_turned(geometry: Element) -> bool:
    return any(e.get("orientation") == "-" for e in geometry.iter("{*}OrientableSurface"))


def _is_turned(element: Element, top: Element) -> bool:
    """Return True below an odd number of OrientableSurface with orientation "-", up to `top`."""
    turns, current = 0, element
    while current is not None:
        if local(current) == "OrientableSurface" and current.get("orientation") == "-":
            turns += 1
        current = None if current is top else current.getparent()
    return turns % 2 == 1


def has_links(geometries: Iterable[Element]) -> bool:
    """Return True where geometries name surfaces by link."""
    return any(_links(g) for g in geometries)


def names_systems(feature: Element) -> bool:
    """Return True where a feature states a reference system or the number of its axes itself."""
    return bool(_systems(feature))


def nearest(element: Element, key: str, top: Element) -> str | None:
    """Return an attribute of an element, of its first point list, or of what is around it."""
    for points in element.iter(*_POINTS):
        if points.get(key) is not None:
            return str(points.get(key))
        break
    current = element
    while current is not None:
        if current.get(key) is not None:
            return str(current.get(key))
        if current is top:
            return None
        current = current.getparent()
    return None


def numbers_of(polygons: list[Surface]) -> tuple[NDArray[np.float64], list[int], list[int]]:
    """Return points (P, 3) of surfaces, points of each ring, and rings of each surface.

    Raises:
        BrokenFeature: a number is none, or the form of a ring is not read.
    """
    words: list[str] = []
    sizes: list[int] = []
    rings: list[int] = []
    for polygon, turned in polygons:
        before = len(sizes)
        for ring in polygon.iter(*_RINGS):
            numbers = _words_of(ring)
            if len(numbers) % 3:
                raise BrokenFeature("a ring is not made of triples")
            words += _reversed(numbers) if turned else numbers
            sizes.append(len(numbers) // 3)
        if len(sizes) > before:
            rings.append(len(sizes) - before)
    values = np.array(floats(words), dtype=np.float64).reshape(-1, 3)
    if not len(values):
        raise BrokenFeature("its surfaces have no corners")
    if not np.isfinite(values).all():
        raise BrokenFeature("a coordinate is not finite")
    return values, sizes, rings


def floats(words: list[str]) -> list[float]:
    """Return words as numbers, by XML's rules: no underscores, as Python's have.

    Raises:
        BrokenFeature: one is not a number.
    """
    try:
        values = list(map(float, words))
    except ValueError as error:
        raise BrokenFeature("a coordinate is not a number") from error
    if any("_" in word for word in words):
        raise BrokenFeature("a coordinate is not a number")
    return values


def _words_of(ring: Element) -> list[str]:
    """Return the coordinates of a ring as they are written."""
    if local(ring) == "Ring":
        return [word for curve in _curves(ring) for word in curve]
    words = " ".join(ring.itertext(*_POINTS, with_tail=False)).split()
    return words or _old_words(ring)


def _reversed(words: list[str]) -> list[str]:
    """Return coordinates from the last point to the first."""
    return [word for k in range(len(words) - 3, -1, -3) for word in words[k : k + 3]]


def _curves(ring: Element) -> Iterator[list[str]]:
    """Yield the coordinates of each curve of a ring, in the ring's direction."""
    for element in ring.iter():
        if local(element) in _CURVED:
            raise BrokenFeature(f"a surface is bounded by a {local(element)}, which is not read")
    for member in ring:
        words = " ".join(member.itertext(*_POINTS, with_tail=False)).split() or _old_words(member)
        turns = sum(e.get("orientation") == "-" for e in member.iter("{*}OrientableCurve"))
        if turns % 2:
            words = _reversed(words)
        yield words


def _old_words(ring: Element) -> list[str]:
    """Return coordinates as GML 2 writes them: "x,y,z x,y,z", or coord with X, Y and Z."""
    words: list[str] = []
    for element in ring.iter(*_OLD_POINTS):
        if local(element) == "coord":
            words += [
                (part.text or "").strip() for part in element if local(part) in ("X", "Y", "Z")
            ]
            continue
        text = element.text or ""
        comma, space = element.get("cs") or ",", element.get("ts") or " "
        decimal = element.get("decimal") or "."
        words += text.replace(space, " ").replace(comma, " ").replace(decimal, ".").split()
    return words
