"""Coordinate systems of a city: the metres it is laid out in, and how degrees become metres.

In Japan a city is laid out in its plane rectangular zone (JGD2011, EPSG:6669 to 6687), elsewhere in
the UTM zone of WGS 84, or in the metric system that its files state. The table is the Geospatial
Information Authority's list of origins (notice 9 of 2002, zones I to XIX).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

_ORIGINS = (
    (33.0, 129.5), (33.0, 131.0), (36.0, 132 + 10 / 60), (33.0, 133.5), (36.0, 134 + 20 / 60),
    (36.0, 136.0), (36.0, 137 + 10 / 60), (36.0, 138.5), (36.0, 139 + 50 / 60),
    (40.0, 140 + 50 / 60), (44.0, 140.25), (44.0, 142.25), (44.0, 144.25), (26.0, 142.0),
    (26.0, 127.5), (26.0, 124.0), (26.0, 131.0), (20.0, 136.0), (26.0, 154.0),
)  # fmt: skip
_FIRST_EPSG = 6669
_LATITUDE_WEIGHT = 0.5
GEOGRAPHIC = "EPSG:6668"
JAPAN = (20.0, 122.0, 46.0, 154.5)
"""south, west, north, east, degrees: where the plane rectangular zones are used"""


def in_japan(latitude: float, longitude: float) -> bool:
    """Return True where Japan's plane rectangular zones are used."""
    south, west, north, east = JAPAN
    return south <= latitude <= north and west <= longitude <= east


def zone_of(latitude: float, longitude: float) -> str:
    """Return the metric system of a place: 'EPSG:6677' for Tokyo, 'EPSG:32618' for New York.

    In Japan the plane rectangular zone whose origin is nearest, its meridian weighing twice;
    elsewhere the UTM zone of WGS 84.
    """
    if not in_japan(latitude, longitude):
        number = int((longitude + 180.0) // 6.0) % 60 + 1
        return f"EPSG:{(32600 if latitude >= 0 else 32700) + number}"
    shrink = math.cos(math.radians(latitude))

    def distance(origin: tuple[float, float]) -> float:
        east = (longitude - origin[1]) * shrink
        return math.hypot(east, (latitude - origin[0]) * _LATITUDE_WEIGHT)

    index = min(range(len(_ORIGINS)), key=lambda i: distance(_ORIGINS[i]))
    return f"EPSG:{_FIRST_EPSG + index}"


@lru_cache(maxsize=32)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


def _degrees_of(crs: str) -> str:
    """Return the geographic system to come from: UTM has WGS 84, without a search for shifts."""
    code = int(crs.partition(":")[2])
    return "EPSG:4326" if 32601 <= code <= 32760 else GEOGRAPHIC


def project(lat_lon_h: NDArray[np.float64], crs: str) -> NDArray[np.float64]:
    """Convert latitude, longitude (degrees), height (m) to easting, northing, height (m); (N, 3).

    Heights are passed through: both systems share T.P. heights.
    """
    transformer = _transformer(_degrees_of(crs), crs)
    east, north = transformer.transform(lat_lon_h[:, 1], lat_lon_h[:, 0])
    return np.column_stack([east, north, lat_lon_h[:, 2]])


def unproject(xy: NDArray[np.float64], crs: str) -> NDArray[np.float64]:
    """Convert easting, northing (m) to latitude, longitude (degrees); (N, 2) float64."""
    longitude, latitude = _transformer(crs, _degrees_of(crs)).transform(xy[:, 0], xy[:, 1])
    return np.column_stack([latitude, longitude])


def reproject(points: NDArray[np.float64], source: str, target: str) -> NDArray[np.float64]:
    """Convert easting, northing, height (m) of one metric system to another; (N, 3) float64."""
    if source == target:
        return points
    east, north = _transformer(source, target).transform(points[:, 0], points[:, 1])
    return np.column_stack([east, north, points[:, 2]])


def from_earth_centered(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert earth-centred metres (EPSG:4978) to latitude, longitude (°), ellipsoidal height.

    WGS 84 and JGD2011 are taken as one: they differ by centimetres.
    """
    transformer = _transformer("EPSG:4978", "EPSG:4979")
    longitude, latitude, height = transformer.transform(points[:, 0], points[:, 1], points[:, 2])
    return np.column_stack([latitude, longitude, height])


@dataclass
class Zone:
    """The one metric system of all files of a city: that of the first file or of the area.

    A file in another system is transformed, so a town on the border of two zones is one city.

    Attributes:
        crs: as EPSG code.
        guessed: the system follows from the area; a file that states its own may still change it.
        stated: systems that files stated, in the order of reading.
    """

    crs: str | None = None
    guessed: bool = False
    stated: list[str] = field(default_factory=list)

    def place_degrees(self, lat_lon_h: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert latitude, longitude, height (N, 3) to the city's easting, northing, height.

        The median place settles the system: one stray coordinate does not choose it.
        """
        if not len(lat_lon_h):
            return lat_lon_h
        self.guessed = False
        if self.crs is None:
            latitude, longitude = np.median(lat_lon_h[:, :2], axis=0)
            self.crs = zone_of(float(latitude), float(longitude))
        return project(lat_lon_h, self.crs)

    def place_metres(self, points: NDArray[np.float64], crs: str) -> NDArray[np.float64]:
        """Convert a file's easting, northing, height (N, 3) to the city's system."""
        if self.crs is None or self.guessed:
            self.crs, self.guessed = crs, False
        if crs not in self.stated:
            self.stated.append(crs)
        return reproject(points, crs, self.crs)
