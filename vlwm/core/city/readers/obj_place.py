"""Find where an OBJ file is: its reference system, and coordinates in degrees.

OBJ has no field for it. Writers put it into a comment (an EPSG code, WKT, or the system's name) or
into a `.prj` file of the same name; some tools write longitude and latitude instead of metres.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from vlwm.core.city.area import mesh_bounds
from vlwm.core.city.crs import Zone
from vlwm.core.city.readers.source_files import Source
from vlwm.core.city.reference import Reference, UnknownReference, reference_of
from vlwm.core.errors import UsageError

_PLANE = re.compile(r"(?:EPSG[:\"',\s]+|_)(66(?:69|7\d|8[0-7]))(?!\d)", re.ASCII)
_ANY = re.compile(r"EPSG:{1,2}\s?(\d{4,5})(?!\d)", re.IGNORECASE | re.ASCII)
_UTM = re.compile(
    r"(?:(ETRS ?(?:19)?89|JGD ?20\d\d|NAD ?83)\W{0,4})?"
    r"UTM[\s_\-]*(?:zone)?[\s_\-]*(\d{1,2})\s*([NS])?\b",
    re.IGNORECASE | re.ASCII,
)  # fmt: skip
_UTM_EPSG = {"E": 25800, "J": 6637, "N": 26900}
"""what a zone's number is added to, by the first letter of the datum"""
_RECTANGULAR = re.compile(
    r"(JGD ?2000)?[^\n]{0,20}(?:Plane Rectangular CS|平面直角座標系?)\W{0,3}"
    r"(?:zone\s*|第)?([IVX]+|\d{1,2})(?![\w.])",
    re.IGNORECASE,
)  # fmt: skip
_ROMAN = [
    "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV",
    "XVI", "XVII", "XVIII", "XIX",
]  # fmt: skip
_WKT = re.compile(r"(?:PROJCS|PROJCRS|COMPD_CS|COMPOUNDCRS)\[.*\]", re.DOTALL)
_CODES = re.compile(r'((?:AUTHORITY|ID)\["EPSG",\s*"?(\d{4,5})"?)')
_PRJ_BYTES = 20_000
_SAMPLE = 1000
"""vertices that tell where a file is"""
_STEEP = 200.0
"""degrees are recognised by heights this many times the extent of the plan"""


def system_of(head: str, source: Source) -> str | None:
    """Return the EPSG code that a file's comments, its `.prj` file or its name state.

    Args:
        head: its comments near the beginning, one a line.
    """
    in_head = _PLANE.search(head) or _ANY.search(head)
    if in_head:
        return f"EPSG:{in_head.group(1)}"
    stem = re.sub(r"\.obj(\.gz)?$", "", source.member, flags=re.IGNORECASE)
    return (
        _named(head)
        or (_named(_text_of(source, f"{stem}.prj")))
        or (f"EPSG:{m.group(1)}" if (m := _PLANE.search(source.name)) else None)
    )


def _named(text: str) -> str | None:
    """Return the code of a system that a text names or defines in WKT."""
    if _WKT.search(text) and (code := _of_wkt(text)):
        return code
    found = _ANY.search(text)
    if found:
        return f"EPSG:{found.group(1)}"
    plane = _RECTANGULAR.search(text)
    if plane:
        word = plane.group(2).upper()
        number = _ROMAN.index(word) + 1 if word in _ROMAN else int(word) if word.isdigit() else 0
        if 1 <= number <= len(_ROMAN):
            return f"EPSG:{(2442 if plane.group(1) else 6668) + number}"
    utm = _UTM.search(text)
    if utm and 1 <= int(utm.group(2)) <= 60:
        first = (utm.group(1) or " ")[0].upper()
        south = (utm.group(3) or "N").upper() == "S"
        base = 32700 if south else _UTM_EPSG.get(first, 32600)
        return f"EPSG:{base + int(utm.group(2))}"
    return None


def _of_wkt(text: str) -> str | None:
    found = _WKT.search(re.sub(r"^#\s?", "", text, flags=re.MULTILINE))
    if not found:
        return None
    # the last code is that of the whole; those before it are of its parts
    codes = _CODES.findall(found.group(0))
    if codes and found.group(0).rstrip("] \n").endswith(codes[-1][0]):
        return f"EPSG:{codes[-1][1]}"
    try:
        code = CRS.from_wkt(found.group(0)).to_epsg(min_confidence=25)
    except CRSError:
        return None
    return f"EPSG:{code}" if code else None


def _text_of(source: Source, member: str) -> str:
    if not source.place.has(member):
        return ""
    return Source(source.place, member).read(_PRJ_BYTES).decode("utf-8", "replace")


def are_degrees(vertices: NDArray[np.float64], crs: str | None) -> bool:
    """Return True where vertices (V, 3) are longitude, latitude and metres.

    The file states a geographic system, or none, and its heights are far larger than its plan.
    """
    points = vertices[np.isfinite(vertices).all(axis=1)]
    if not len(points):
        return False
    x, y = np.abs(points[:, 0]).max(), np.abs(points[:, 1]).max()
    if max(x, y) > 180 or min(x, y) > 90:
        return False
    if crs is not None:
        return bool(CRS.from_user_input(crs).is_geographic)
    plan, height = np.ptp(points[:, :2], axis=0).max(), np.ptp(points[:, 2])
    return bool(x > 1 and y > 1 and plan > 0 and height > _STEEP * plan)


def from_degrees(vertices: NDArray[np.float64]) -> tuple[NDArray[np.float64], str, str]:
    """Return vertices (V, 3) in metres, their system, and a note.

    Longitude comes first; latitude does where the second number is beyond 90.
    """
    good = np.isfinite(vertices).all(axis=1)
    is_swapped = bool(np.abs(vertices[good, 1]).max() > 90)
    world = (-90.0, -180.0, 90.0, 180.0)
    zone = Zone()
    metres = np.full_like(vertices, np.nan)
    reference = Reference("", "geographic", "EPSG:4326", is_swapped, 1.0, world)
    metres[good] = reference.metres(vertices[good], zone)
    order = "latitude, longitude" if is_swapped else "longitude, latitude"
    return metres, str(zone.crs), f"its coordinates are taken as {order} in degrees"


def is_north_first(
    vertices: NDArray[np.float64], crs: str, mesh: str | None, *, is_outward: bool
) -> str | None:
    """Return why x is north and y is east in a file, or None where nothing shows it.

    A plane of Japan is defined with x to the north, and OBJ writers turn it or do not. The mesh in
    the file's name tells; without one, the area where the system is used does, where only the
    exchanged coordinates are in it.

    Args:
        vertices: (V, 3) metres.
        crs: EPSG code of the file's plane.
        mesh: code in the file's name.
        is_outward: the walls of its buildings look outward as the coordinates are.
    """
    points = vertices[np.isfinite(vertices).all(axis=1)]
    points = points[:: max(1, len(points) // _SAMPLE)]
    try:
        east = replace(reference_of(crs), swapped=False)
    except UnknownReference:
        return None
    if not len(points) or east.kind != "metric":
        return None
    north = replace(east, swapped=True)
    if mesh is not None:
        try:
            bounds = mesh_bounds(mesh)
        except UsageError:  # digits that are none
            return None
        in_mesh, other = (replace(r, area=bounds) for r in (east, north))
        exchanged = other.is_nearer(in_mesh, points)
        return f"with x to the east it is outside mesh {mesh}" if exchanged else None
    if north.is_nearer(east, points) and not is_outward:
        return f"with x to the east it is outside the area of {crs}"
    return None
