"""CityGML 1, 2 and 3: buildings, bridges, plants, roads and relief, streamed.

Features are found by their local name below any member element (`cityObjectMember`,
`gml:featureMember`, the members of a WFS), because prefixes and namespaces change from writer to
writer. Used elements are freed, so memory follows the largest feature, not the file. Entities
and document types are refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np
from lxml import etree
from numpy.typing import NDArray

from vlwm.core.city.readers.citygml_levels import chosen_surfaces
from vlwm.core.city.readers.feature_batch import BRIDGE, BUILDING, ROAD, TERRAIN, VEGETATION
from vlwm.core.city.readers.foreign import as_utf8
from vlwm.core.city.readers.gml_geometry import (
    BrokenFeature,
    Element,
    Surface,
    floats,
    id_of,
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
_OTHER_RELIEF = ("{*}MassPointRelief", "{*}BreaklineRelief", "{*}RasterRelief")
_NO_HEIGHT_M = -1000.0
_HEAD_BYTES = 8192
_SRS = re.compile(rb"srsName\s*=\s*[\"']([^\"']{1,400})[\"']")
_SRS_BYTES = 1 << 16
_BLANK_BYTES = 256


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
    """Properties of a whole file, known before its first feature is read.

    Attributes:
        system: reference system of its envelope.
        others: city objects of kinds that are not read, by name.
        is_plateau: it uses the vocabulary of Project PLATEAU.
        is_recoded: it is not in the encoding that it states.
    """

    system: str | None = None
    others: Counter[str] = field(default_factory=Counter)
    is_plateau: bool = False
    is_recoded: bool = False


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
    found = _SRS.search(as_utf8(source.read(_SRS_BYTES)))
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


def _elements(source: Source, document: Document) -> Iterator[Element]:
    """Yield features as they end; note the document's envelope and what is not read."""
    tags = tuple(f"{{*}}{k}" for k in (*KINDS, *_MEMBERS))
    for element in _ended(source, (*tags, "{*}Envelope"), document):
        tag = local(element)
        if tag == "Envelope":
            _note_envelope(element, document)
        elif tag in KINDS:
            yield element
        else:
            names = (local(child) for child in element)
            document.others.update(n for n in names if n and n not in KINDS and n not in _MEMBERS)


def _note_envelope(element: Element, document: Document) -> None:
    above = [local(a) for a in element.iterancestors()]
    if document.system is None and len(above) <= 2:
        document.system = element.get("srsName")
    root = element.getroottree().getroot()
    document.is_plateau |= any("geospatial.jp/iur" in str(u) for u in root.nsmap.values())


def _ended(
    source: Source, tags: tuple[str, ...], document: Document | None = None
) -> Iterator[Element]:
    """Yield elements of some tags as they end; each is freed when the next is asked for.

    A file that is not in the encoding that it states is read from there on as Latin-1: every byte
    is a character of it, so numbers and tags are right, and names as good as they can be.
    """
    done = 0
    try:
        for element in _parsed(source, tags, None):
            done += 1
            yield element
        return
    except _WrongEncoding:
        if document is not None:
            document.is_recoded = True
    for number, element in enumerate(_parsed(source, tags, "iso-8859-1")):
        if number >= done:
            yield element


class _WrongEncoding(Exception):
    """A file that is not in the encoding that it states."""


def _parsed(source: Source, tags: tuple[str, ...], encoding: str | None) -> Iterator[Element]:
    """Yield elements of some tags as they end; each is freed when the next is asked for.

    Appearance (textures) is freed too: it can be half of a file. Envelopes stay, as parts of
    features.
    """
    with source.open() as stream:
        _pass_blanks(stream)
        events = etree.iterparse(
            stream,
            events=("end",),
            tag=(*tags, "{*}surfaceDataMember"),
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
            encoding=encoding,
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
            if encoding is None and "encoding" in str(error.msg):
                raise _WrongEncoding from error
            line = error.position[0] if error.position else 0
            reason = " ".join(str(error.msg).split())
            raise source.broken(line, f"the XML is broken: {reason}") from error
        except source.damage as error:
            raise source.broken(0, f"the file is damaged: {error}") from error


def _pass_blanks(stream: IO[bytes]) -> None:
    """Move to the XML declaration, which has to be the first thing that a parser sees."""
    head = stream.read(_BLANK_BYTES)
    at = head.find(b"<?xml")
    blank = at > 0 and not head[:at].removeprefix(b"\xef\xbb\xbf").strip()
    stream.seek(at if blank else 0)


def _free(element: Element) -> None:
    element.clear()
    parent = element.getparent()
    while parent is not None and element.getprevious() is not None:
        del parent[0]


def _feature(element: Element, kind: str, otherwise: str) -> Feature | Broken | None:
    """Return a feature, what is wrong with it, or None for relief that was read part by part."""
    name = id_of(element, otherwise)
    try:
        if kind == TERRAIN:
            lod, polygons = 1, patches([element])
            if not polygons:
                return _other_relief(element, name)
        else:
            lod, polygons = chosen_surfaces(element, kind)
        system = _system_of(polygons, element) if names_systems(element) else None
        points, sizes, rings = numbers_of(polygons)
        if kind != TERRAIN and points[:, 2].min() < _NO_HEIGHT_M:
            raise BrokenFeature(f"a height of {points[:, 2].min():g} m means none")
        return Feature(kind, name, lod, points, sizes, rings, system)
    except BrokenFeature as error:
        return Broken(kind, name, str(error))


def _other_relief(element: Element, name: str) -> Broken | None:
    for other in element.iter(*_OTHER_RELIEF):
        return Broken(TERRAIN, name, f"its ground is a {local(other)}, which is not read")
    return None


def _system_of(polygons: list[Surface], feature: Element) -> str | None:
    """Return the one reference system that chosen surfaces name.

    Raises:
        BrokenFeature: they name several, or have no heights.
    """
    if any(nearest(p.element, "srsDimension", feature) == "2" for p in polygons):
        raise BrokenFeature("its coordinates have no heights (srsDimension 2)")
    found = {nearest(p.element, "srsName", feature) for p in polygons}
    if len(found) > 1:
        raise BrokenFeature("its surfaces are in several reference systems")
    return next(iter(found), None)
