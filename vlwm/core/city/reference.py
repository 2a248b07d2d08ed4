"""The reference system that a city file names (`srsName`), and its coordinates made usable.

Names are read in every form that files use: `EPSG:6697`, OGC's URNs and URLs, compounds of a plane
and a height system, `CRS84`, GML 2's `epsg.xml#` and the German `urn:adv:crs`. The axes follow the
system's definition. Where its coordinates are then outside the area that the system is used in,
and would be inside with the axes exchanged, or where all walls look inward and would look outward,
they are exchanged, with a note.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Proj, Transformer
from pyproj.exceptions import CRSError, ProjError

from vlwm.core.city.crs import GEOGRAPHIC, Zone, from_earth_centered, in_japan
from vlwm.core.text import safe_text

_CODE = re.compile(
    r"EPSG(?:\.xml#|/[\d.]+/|:[\d.]*:|:|\+)(\d{4,6})(?!\d)", re.IGNORECASE | re.ASCII
)
_PLUS = re.compile(r"EPSG:(\d{4,6})[+,](\d{4,6})$", re.IGNORECASE | re.ASCII)
_GERMAN = re.compile(r"ETRS89_UTM(\d\d)", re.ASCII)
_SAME_AS_JGD2011 = {6697, 6668, 6667, 4612, 4326, 4979, 9754, 9755}
"""geographic systems that differ from JGD2011 by less than a city model shows"""
_SCALE = 0.003
"""a projection that stretches lengths more than this is not used as it is (Web Mercator: 23 %)"""
_MARGIN_DEG = 1.0
_NARROW_DEG = 0.1
"""beyond the area of use, where the other order of the axes is inside"""
_MOST = 0.9
"""of the points"""
_WITH_ZONE = {"EPSG:25831": "EPSG:5649", "EPSG:25832": "EPSG:4647", "EPSG:25833": "EPSG:5650"}
"""the same systems with the number of the zone before the easting, as German files have it"""
_LONGEST_NAME = 4000


class UnknownReference(Exception):
    """A reference system that is not read, and why."""


@dataclass(frozen=True)
class Reference:
    """A reference system.

    Attributes:
        name: as the file writes it, made printable; empty where the file names none.
        kind: geographic (degrees), metric (usable as it is), other (goes by way of degrees) or
            earth (earth-centred metres).
        crs: the horizontal system, as EPSG code.
        swapped: the first coordinate is the north one.
        height_scale: metres of one unit of height.
        is_height_guessed: the system states no unit of heights, and its plane is not in metres.
        area: south, west, north, east, degrees, where the system is used.
    """

    name: str
    kind: str
    crs: str
    swapped: bool
    height_scale: float
    area: tuple[float, float, float, float]
    is_height_guessed: bool = False

    def degrees(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert the file's coordinates (N, 3) to latitude, longitude (°, JGD2011), height (m)."""
        height = points[:, 2] * self.height_scale
        if self.kind == "earth":
            return from_earth_centered(points)
        east, north = (points[:, 1], points[:, 0]) if self.swapped else (points[:, 0], points[:, 1])
        if self.kind == "geographic" and int(self.crs[5:]) in _SAME_AS_JGD2011:
            return np.column_stack([north, east, height])
        longitude, latitude = _to_degrees(self.crs).transform(east, north)
        return np.column_stack([latitude, longitude, height])

    def metres(self, points: NDArray[np.float64], zone: Zone) -> NDArray[np.float64]:
        """Convert the file's coordinates (N, 3) to the city's easting, northing, height (m)."""
        if self.kind != "metric":
            return zone.place_degrees(self.degrees(points))
        east, north = (points[:, 1], points[:, 0]) if self.swapped else (points[:, 0], points[:, 1])
        metres = np.column_stack([east, north, points[:, 2] * self.height_scale])
        return zone.place_metres(metres, self.crs)

    def oriented(
        self, points: NDArray[np.float64], is_mirrored: Callable[[Reference], bool] | None = None
    ) -> tuple[Reference, str | None]:
        """Return the system with the order of axes that puts points (N, 3) inside its area.

        The second value is a note where the order is not that of the definition.

        Args:
            is_mirrored: True where walls look inward in a system: its axes are exchanged, if that
                leads to its area too.

        Raises:
            UnknownReference: no order puts them there.
        """
        if self.kind == "earth":
            return self, None
        other = replace(self, swapped=not self.swapped)
        mine, others = self.holds(points), other.holds(points)
        # the order of most points; in doubt that of the definition
        takes_other = others.sum() > mine.sum()
        if mine.all() and others.all():
            inward = is_mirrored is not None and is_mirrored(self)
            outward = is_mirrored is not None and is_mirrored(other)
            by_place = other.is_nearer(self, points) and not outward
            takes_other = (inward and not outward) or by_place
        chosen, inside = (other, others) if takes_other else (self, mine)
        if 2 * inside.sum() >= len(points):
            order = "north, east" if chosen.swapped else "east, north"
            note = f"its axes are {order}, unlike {self.label}" if takes_other else None
            return chosen._usable_at(points[inside][:1]), note
        zoned = _WITH_ZONE.get(self.crs)
        if zoned:
            other = replace(self, crs=zoned, swapped=False)
            if 2 * other.holds(points).sum() >= len(points):
                return other, f"its eastings begin with the number of the zone, unlike {self.label}"
        x, y, _ = np.median(points, axis=0)
        if self.name:
            raise UnknownReference(f"its coordinates, about {x:g} {y:g}, are outside {self.label}")
        raise UnknownReference(
            f"it names no reference system, and its coordinates, about {x:g} {y:g}, are not "
            "latitude and longitude of a place in Japan"
        )

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.name or "latitude and longitude of JGD2011"

    def holds(self, points: NDArray[np.float64], margin: float = _MARGIN_DEG) -> NDArray[np.bool_]:
        """Return which points (N, 3) are in the area where the system is used.

        Args:
            margin: degrees beyond it that belong to it too.
        """
        with np.errstate(all="ignore"):
            latitude, longitude, _ = self.degrees(points).T
        south, west, north, east = self.area
        inside = (latitude >= south - margin) & (latitude <= north + margin)
        after, before = longitude >= west - margin, longitude <= east + margin
        # an area across the date line begins east of where it ends
        return np.asarray(inside & (after | before if west > east else after & before))

    def is_nearer(self, other: Reference, points: NDArray[np.float64]) -> bool:
        """Return True where most points (N, 3) are in the area of use, and few as `other` has them.

        The margin is narrow: exchanged axes move a city in its plane by tens of kilometres.
        """
        mine, others = (r.holds(points, _NARROW_DEG).mean() for r in (self, other))
        return bool(mine > _MOST and others < 1.0 - _MOST)

    def _usable_at(self, middle: NDArray[np.float64]) -> Reference:
        """Return the system, by way of degrees where it stretches lengths at this place."""
        if self.kind != "metric":
            return self
        latitude, longitude, _ = self.degrees(middle)[0]
        factors = Proj(self.crs).get_factors(longitude, latitude)
        worst = max(abs(factors.meridional_scale - 1.0), abs(factors.parallel_scale - 1.0))
        return self if worst < _SCALE else replace(self, kind="other")


UNNAMED = Reference("", "geographic", GEOGRAPHIC, True, 1.0, (20.0, 122.0, 46.0, 154.5))
"""what a CityGML file without a name is taken for: latitude, longitude, height, in Japan"""


@lru_cache(maxsize=64)
def reference_of(name: str) -> Reference:
    """Return the reference system of a name.

    Raises:
        UnknownReference: it is local, unknown, or has no way to JGD2011 or WGS 84.
    """
    text = name.strip()
    shown = safe_text(text, 90)
    if not text:
        return UNNAMED
    if "CRS84" in text.upper() or text.upper() == "CRS:84":
        return Reference(shown, "geographic", "EPSG:4326", False, 1.0, (-90.0, -180.0, 90.0, 180.0))
    codes = _codes(text)
    if not codes:
        found = _named(text, shown)
        if found.kind != "earth":
            _to_degrees(found.crs)
        return found
    try:
        system = CRS.from_epsg(codes[0])
        height = CRS.from_epsg(codes[1]) if len(codes) > 1 else None
    except CRSError as error:
        raise UnknownReference(f"it is in {shown!r}, an EPSG code that does not exist") from error
    found = _reference(shown, system, height, east_first=".xml#" in text or "urn:adv" in text)
    if found.kind != "earth" and not (
        found.kind == "geographic" and int(found.crs[5:]) in _SAME_AS_JGD2011
    ):
        _to_degrees(found.crs)
    return found


def _named(text: str, shown: str) -> Reference:
    """Return the system of a name or a definition in WKT, as far as EPSG lists it.

    Raises:
        UnknownReference: EPSG does not.
    """
    wrong = UnknownReference(f"it is in {shown!r}, which is not an EPSG system")
    if "://" in text or text.lower().startswith("urn:") or len(text) > _LONGEST_NAME:
        raise wrong
    try:
        system = CRS.from_user_input(text)
    except CRSError as error:
        raise wrong from error
    if system.to_epsg() is None and system.to_epsg(min_confidence=25) is not None:
        system = CRS.from_epsg(system.to_epsg(min_confidence=25))
    return _reference(shown, system, None, east_first=False)


def _codes(text: str) -> list[int]:
    german = _GERMAN.search(text)
    if german:
        return [25800 + int(german.group(1))]
    both = _PLUS.search(text)
    if both:
        return [int(both.group(1)), int(both.group(2))]
    found = [int(code) for code in _CODE.findall(text)]
    return found or ([int(text)] if re.fullmatch(r"[1-9]\d{3,5}", text, re.ASCII) else [])


def _reference(shown: str, system: CRS, height: CRS | None, *, east_first: bool) -> Reference:
    axes = system.axis_info
    vertical = height.axis_info[0] if height is not None and height.axis_info else None
    if vertical is None and len(axes) > 2:
        vertical = axes[2]
    plane = system.sub_crs_list[0] if system.is_compound else system
    code = plane.to_epsg()
    if code is None or not axes or not (
        plane.is_geographic or plane.is_projected or plane.is_geocentric
    ):  # fmt: skip
        raise UnknownReference(f"it is in {shown!r}, which has no place on the earth")
    use = plane.area_of_use or system.area_of_use  # that of a height system is too narrow
    area = (use.south, use.west, use.north, use.east) if use else (-90.0, -180.0, 90.0, 180.0)
    if plane.is_geocentric:
        return Reference(shown, "earth", f"EPSG:{code}", False, 1.0, area)
    flat = [a for a in plane.axis_info if a.direction.lower() != "up"]
    # where axes point west or south, pyproj takes the coordinates in the order of the definition
    turned = any(a.direction.lower() in ("west", "south") for a in flat)
    metric = plane.is_projected and all(a.unit_conversion_factor == 1.0 for a in flat)
    metric = metric and not turned
    # a plane in feet without a height system has its heights in feet too
    guessed = vertical is None and any(a.unit_conversion_factor != 1.0 for a in flat)
    guessed = guessed and plane.is_projected
    height_scale = flat[0].unit_conversion_factor if guessed else 1.0
    return Reference(
        shown,
        "geographic" if plane.is_geographic else "metric" if metric else "other",
        f"EPSG:{code}",
        flat[0].direction.lower() == "north" and not east_first and not turned,
        float(vertical.unit_conversion_factor if vertical is not None else height_scale),
        area,
        guessed,
    )


@lru_cache(maxsize=32)
def _to_degrees(crs: str) -> Transformer:
    """Return the way to latitude and longitude, by a datum shift that is known.

    Raises:
        UnknownReference: there is none.
    """
    use = CRS(crs).area_of_use
    middle = ((use.south + use.north) / 2, (use.west + use.east) / 2) if use else (0.0, 0.0)
    target = GEOGRAPHIC if in_japan(*middle) else "EPSG:4326"
    try:
        return Transformer.from_crs(crs, target, always_xy=True, allow_ballpark=False)
    except ProjError as error:
        raise UnknownReference(f"there is no transformation of {crs} to {target} here") from error
