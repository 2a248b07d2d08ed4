"""Choose a part of a city: a mesh of JIS X 0410, or a circle about a place.

Mesh codes `AABBCDEFGH…`: AA/1.5 and 100 + BB degrees are the south-west corner of a first-level
mesh; C, D eighths of it; E, F tenths of those (about 1 km); then halves, counted 1 to 4 from the
south-west. Codes of 4, 6, 8, 9, 10 and 11 digits are understood.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlwm.core.city.crs import project, unproject
from vlwm.core.errors import UsageError

LatLonBounds = tuple[float, float, float, float]
"""south, west, north, east, degrees"""

_METRES_A_DEGREE = 111_000.0
_EXAMPLE = (
    "give a mesh code such as 53394611, or latitude,longitude,radius such as 35.68,139.77,500"
)


def mesh_bounds(code: str) -> LatLonBounds:
    """Return south, west, north, east of a mesh code, degrees.

    Raises:
        UsageError: not a mesh code.
    """
    if not re.fullmatch(r"\d{4}(?:[0-7]{2}(?:\d{2}[1-4]{0,3})?)?", code, re.ASCII):
        raise UsageError(f"{code} is not a mesh code", remedy=_EXAMPLE)
    south, west, high, wide = int(code[:2]) / 1.5, 100.0 + int(code[2:4]), 2 / 3, 1.0
    for at, parts in ((4, 8), (6, 10)):
        if len(code) > at:
            high, wide = high / parts, wide / parts
            south, west = south + int(code[at]) * high, west + int(code[at + 1]) * wide
    for digit in code[8:]:
        high, wide = high / 2, wide / 2
        south += high * ((int(digit) - 1) // 2)
        west += wide * ((int(digit) - 1) % 2)
    return south, west, south + high, west + wide


@dataclass(frozen=True)
class Area:
    """Part of a city to read: features whose middle is inside.

    Attributes:
        text: as the operator wrote it.
        bounds: south, west, north, east, degrees.
        center: latitude, longitude of a circle; None for a mesh.
        radius_m: of a circle.
    """

    text: str
    bounds: LatLonBounds
    center: tuple[float, float] | None = None
    radius_m: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Area:
        """Return the area of a text such as `53394611` or `35.68,139.77,500`.

        Raises:
            UsageError: neither, or not in Japan.
        """
        words = text.replace(" ", "").split(",")
        if len(words) == 1:
            return cls(words[0], mesh_bounds(words[0]))
        try:
            latitude, longitude, radius = (float(w) for w in words)
        except ValueError:
            raise UsageError(f"--area {text} is not understood", remedy=_EXAMPLE) from None
        return cls.circle(latitude, longitude, radius)

    @classmethod
    def circle(cls, latitude: float, longitude: float, radius_m: float) -> Area:
        """Return a circle about a place.

        Raises:
            UsageError: not in Japan, or no radius.
        """
        if not (20 <= latitude <= 46 and 122 <= longitude <= 154):
            where = f"{latitude:g},{longitude:g}"
            raise UsageError(f"{where} is not in Japan", remedy="latitude comes first")
        if not 0 < radius_m < 1e5:
            raise UsageError(f"a radius of {radius_m:g} m is out of range", remedy=_EXAMPLE)
        high = radius_m / _METRES_A_DEGREE
        wide = high / math.cos(math.radians(latitude))
        bounds = (latitude - high, longitude - wide, latitude + high, longitude + wide)
        text = f"{latitude:g},{longitude:g},{radius_m:g}"
        return cls(text, bounds, (latitude, longitude), radius_m)

    @property
    def middle(self) -> tuple[float, float]:
        """Return latitude and longitude of the middle, degrees."""
        south, west, north, east = self.bounds
        return (south + north) / 2, (west + east) / 2

    def may_touch(self, bounds: LatLonBounds, margin_m: float) -> bool:
        """Return True if something within degrees `bounds` can reach the area grown by a margin."""
        grow = margin_m / _METRES_A_DEGREE
        wide = grow / math.cos(math.radians(self.middle[0]))
        south, west, north, east = self.bounds
        return (
            bounds[0] <= north + grow
            and bounds[2] >= south - grow
            and bounds[1] <= east + wide
            and bounds[3] >= west - wide
        )

    def contains(self, xy: NDArray[np.float64], crs: str) -> NDArray[np.bool_]:
        """Return which points (N, 2), metres in `crs`, are inside; south and west edges belong."""
        if self.center is not None:
            middle = project(np.array([[*self.center, 0.0]]), crs)[0, :2]
            return np.linalg.norm(xy - middle, axis=1) <= self.radius_m
        latitude, longitude = unproject(xy, crs).T
        south, west, north, east = self.bounds
        return (latitude >= south) & (latitude < north) & (longitude >= west) & (longitude < east)
