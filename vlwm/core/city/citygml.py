"""CityGML 2.0 as PLATEAU writes it: buildings and bridges, streamed.

Coordinates are latitude, longitude, height (EPSG:6697). LOD2 polygons are taken where a building
has them, else LOD1, never both; LOD0 footprints lie at z = 0 and are never taken. Elements are
matched by local name, because prefixes and the `uro` namespace change from year to year. Used
elements are freed, so memory follows the largest building, not the file. Entities are not resolved.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lxml import etree
from numpy.typing import NDArray

from vlwm.core.errors import DataError

FEATURES = frozenset({"Building", "Bridge"})
_PARTS = frozenset({"BuildingPart", "BridgePart"})
_LOD2 = ("lod2MultiSurface", "lod2Geometry", "lod2Surface")
_SOLID2 = "lod2Solid"
_LOD1 = ("lod1Solid", "lod1MultiSurface")


class BrokenFeature(Exception):
    """A feature that cannot be used, and why."""


@dataclass
class Feature:
    """One building: polygons of rings (latitude, longitude, height), degrees and metres."""

    name: str
    lod: int
    polygons: list[list[NDArray[np.float64]]] = field(default_factory=list)


@dataclass
class Skipped:
    """A feature that was left out."""

    name: str
    reason: str


def read_features(path: Path) -> Iterator[Feature | Skipped]:
    """Yield every building and bridge of a `.gml` or `.gml.gz` file.

    Raises:
        DataError: broken XML, or a document with entities; file and line are named.
    """
    with _opened(path) as stream:
        members = etree.iterparse(
            stream,
            events=("end",),
            tag="{*}cityObjectMember",
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
        )
        try:
            for _, member in members:
                _refuse_doctype(member, path)
                for child in member:
                    if _local(child) in FEATURES:
                        yield _feature(child)
                _free(member)
        except etree.XMLSyntaxError as error:
            line = error.position[0] if error.position else 0
            reason = f"the XML is broken: {error.msg}"
            raise _bad(path, line, reason) from error
        except (OSError, EOFError) as error:
            raise _bad(path, 0, f"the file is damaged: {error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with open(path, "rb") as raw:
        if path.suffix == ".gz":
            with gzip.open(raw) as unpacked:
                yield unpacked
        else:
            yield raw


def _bad(path: Path, line: int, reason: str) -> DataError:
    where = f"{path}:{line}" if line else str(path)
    return DataError(reason, where=where, remedy="download the file again")


def _refuse_doctype(member: Any, path: Path) -> None:
    doctype = member.getroottree().docinfo.doctype
    if doctype:
        raise _bad(path, 1, "a city model has no document type or entities")


def _free(element: Any) -> None:
    element.clear()
    while element.getprevious() is not None:
        del element.getparent()[0]


def _local(element: Any) -> str:
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _feature(element: Any) -> Feature | Skipped:
    name = _id(element)
    try:
        return _read(element, name)
    except BrokenFeature as error:
        return Skipped(name, str(error))


def _id(element: Any) -> str:
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == "id":
            return value
    return f"line {element.sourceline}"


def _read(element: Any, name: str) -> Feature:
    units = [element, *(e for e in element.iter() if _local(e) in _PARTS)]
    fine = {id(u): _polygons(u, _LOD2) or _polygons(u, (_SOLID2,)) for u in units}
    if not any(fine.values()):
        coarse = [p for u in units for p in _polygons(u, _LOD1)]
        if not coarse:
            raise BrokenFeature("it has neither LOD1 nor LOD2 surfaces")
        return Feature(name, 1, _rings(coarse))
    polygons = list(fine[id(element)])
    for part in units[1:]:
        polygons += fine[id(part)] or _polygons(part, _LOD1)
    return Feature(name, 2, _rings(polygons))


def _polygons(unit: Any, kinds: tuple[str, ...]) -> list[Any]:
    """Polygons of a building's or part's own geometry, its nested parts left out."""
    found: list[Any] = []
    stack = list(reversed(list(unit)))
    while stack:
        element = stack.pop()
        name = _local(element)
        if name in _PARTS:
            continue
        if name in kinds:
            found += [e for e in element.iter() if _local(e) in ("Polygon", "Triangle")]
        else:
            stack.extend(reversed(list(element)))
    return found


def _rings(polygons: list[Any]) -> list[list[NDArray[np.float64]]]:
    found = []
    for polygon in polygons:
        rings = [_ring(e) for e in polygon.iter() if _local(e) == "LinearRing"]
        outer = rings[0] if rings else None
        if outer is not None and len(outer) >= 3:
            found.append([outer, *(r for r in rings[1:] if len(r) >= 3)])
    if not found:
        raise BrokenFeature("its surfaces have no corners")
    return found


def _ring(element: Any) -> NDArray[np.float64]:
    """Corners (N, 3) of a closed ring, its repeated points dropped."""
    texts = [e.text or "" for e in element.iter() if _local(e) in ("posList", "pos")]
    try:
        values = [float(v) for text in texts for v in text.split()]
    except ValueError as error:
        raise BrokenFeature("a coordinate is no number") from error
    if len(values) % 3 or not all(math.isfinite(v) for v in values):
        raise BrokenFeature("a ring is not made of finite triples")
    corners = np.array(values, dtype=np.float64).reshape(-1, 3)
    _check_degrees(corners)
    different = np.any(corners != np.roll(corners, 1, axis=0), axis=1)
    return corners[different] if len(corners) > 1 else corners


def _check_degrees(corners: NDArray[np.float64]) -> None:
    if len(corners) and (np.abs(corners[:, 0]).max() > 90 or np.abs(corners[:, 1]).max() > 180):
        raise BrokenFeature("a coordinate is not latitude and longitude")
