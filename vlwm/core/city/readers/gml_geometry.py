"""Surfaces of GML 3.1 (and 2) as rings of numbers: every form that a city model may give them.

A surface is a Polygon, PolygonPatch, Rectangle or Triangle, however deep in Surface, Tin,
CompositeSurface, OrientableSurface, Solid and the like. Its rings are LinearRing or Ring (of
LineString, Curve, OrientableCurve), their points posList, pos, coordinates, coord or pointProperty.
Curved segments are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from lxml import etree
from numpy.typing import NDArray

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
_links = etree.XPath(".//@x:href", namespaces={"x": _XLINK}, smart_strings=False)
_systems = etree.XPath(".//@srsName|.//@srsDimension", smart_strings=False)


class BrokenFeature(Exception):
    """A feature that cannot be used, and why."""


def local(element: Any) -> str:
    """Return an element's name without its namespace; empty for a comment."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def id_of(element: Any, otherwise: str = "") -> str:
    """Return an element's `gml:id`."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == "id":
            return str(value)
    return otherwise


def patches(geometries: Iterable[Any]) -> list[Any]:
    """Return the surfaces that are written inside geometries."""
    return [patch for geometry in geometries for patch in geometry.iter(*PATCHES)]


def linked(geometries: Iterable[Any], feature: Any, found: list[Any]) -> tuple[list[Any], int]:
    """Return surfaces that geometries name by link, and how many links lead out of the feature.

    Args:
        found: surfaces that are taken already: a link to one of them costs nothing.
    """
    names = [str(h) for g in geometries for h in _links(g)]
    if not names:
        return [], 0
    written = {id_of(p) for p in found}
    rest = [n for n in names if n.lstrip("#") not in written]
    if not rest:
        return [], 0
    by_id = {name: e for e in feature.iter() if local(e) and (name := id_of(e))}
    targets = [by_id.get(n.removeprefix("#")) for n in rest]
    inside = [t for t in targets if t is not None]
    return patches(inside), len(targets) - len(inside)


def has_links(geometries: Iterable[Any]) -> bool:
    """Return True where geometries name surfaces by link."""
    return any(_links(g) for g in geometries)


def names_systems(feature: Any) -> bool:
    """Return True where a feature states a reference system or the number of its axes itself."""
    return bool(_systems(feature))


def nearest(element: Any, key: str, top: Any) -> str | None:
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


def numbers_of(polygons: list[Any]) -> tuple[NDArray[np.float64], list[int], list[int]]:
    """Return points (P, 3) of surfaces, points of each ring, and rings of each surface.

    Raises:
        BrokenFeature: a number is none, or the form of a ring is not read.
    """
    words: list[str] = []
    sizes: list[int] = []
    rings: list[int] = []
    for polygon in polygons:
        before = len(sizes)
        for ring in polygon.iter(*_RINGS):
            numbers = _words_of(ring)
            if len(numbers) % 3:
                raise BrokenFeature("a ring is not made of triples")
            words += numbers
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


def _words_of(ring: Any) -> list[str]:
    """Return the coordinates of a ring as they are written."""
    if local(ring) == "Ring":
        return [word for curve in _curves(ring) for word in curve]
    words = " ".join(ring.itertext(*_POINTS, with_tail=False)).split()
    return words or _old_words(ring)


def _curves(ring: Any) -> Iterator[list[str]]:
    """Yield the coordinates of each curve of a ring, in the ring's direction."""
    for element in ring.iter():
        if local(element) in _CURVED:
            raise BrokenFeature(f"a surface is bounded by a {local(element)}, which is not read")
    for member in ring:
        words = " ".join(member.itertext(*_POINTS, with_tail=False)).split() or _old_words(member)
        turns = sum(e.get("orientation") == "-" for e in member.iter("{*}OrientableCurve"))
        if turns % 2:
            triples = [words[k : k + 3] for k in range(0, len(words), 3)]
            words = [word for triple in reversed(triples) for word in triple]
        yield words


def _old_words(ring: Any) -> list[str]:
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
