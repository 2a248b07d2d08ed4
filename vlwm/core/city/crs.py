"""Japan's plane rectangular coordinate systems (JGD2011, EPSG:6669 to 6687).

CityGML gives latitude, longitude, height (EPSG:6697); the zone follows from the place. The table is
the Geospatial Information Authority's list of origins (notice 9 of 2002, zones I to XIX).
"""

from __future__ import annotations

import math
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


def zone_of(latitude: float, longitude: float) -> str:
    """The zone whose origin is nearest, its meridian weighing twice: 'EPSG:6677' for Tokyo."""
    shrink = math.cos(math.radians(latitude))

    def distance(origin: tuple[float, float]) -> float:
        east = (longitude - origin[1]) * shrink
        return math.hypot(east, (latitude - origin[0]) * _LATITUDE_WEIGHT)

    index = min(range(len(_ORIGINS)), key=lambda i: distance(_ORIGINS[i]))
    return f"EPSG:{_FIRST_EPSG + index}"


@lru_cache(maxsize=8)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


def project(lat_lon_h: NDArray[np.float64], crs: str) -> NDArray[np.float64]:
    """Latitude, longitude (degrees), height (m) → easting, northing, height (m); (N, 3) float64.

    Heights are passed through: both systems share T.P. heights.
    """
    transformer = _transformer(GEOGRAPHIC, crs)
    east, north = transformer.transform(lat_lon_h[:, 1], lat_lon_h[:, 0])
    return np.column_stack([east, north, lat_lon_h[:, 2]])


def unproject(xy: NDArray[np.float64], crs: str) -> NDArray[np.float64]:
    """Easting, northing (m) → latitude, longitude (degrees); (N, 2) float64."""
    longitude, latitude = _transformer(crs, GEOGRAPHIC).transform(xy[:, 0], xy[:, 1])
    return np.column_stack([latitude, longitude])


def from_earth_centered(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Earth-centred metres (EPSG:4978) → latitude, longitude (degrees), ellipsoidal height (m).

    WGS 84 and JGD2011 are taken as one: they differ by centimetres.
    """
    transformer = _transformer("EPSG:4978", "EPSG:4979")
    longitude, latitude, height = transformer.transform(points[:, 0], points[:, 1], points[:, 2])
    return np.column_stack([latitude, longitude, height])
