"""The zone follows from the place."""

import numpy as np
import pytest

from vlwm.core.city.crs import from_earth_centered, project, unproject, zone_of


@pytest.mark.parametrize(
    ("latitude", "longitude", "crs"),
    [
        (35.68, 139.76, "EPSG:6677"),  # Tokyo, zone IX
        (36.24, 137.97, "EPSG:6676"),  # Matsumoto, zone VIII
        (34.65, 135.43, "EPSG:6674"),  # Osaka, zone VI
        (43.06, 141.35, "EPSG:6680"),  # Sapporo, zone XII
        (26.21, 127.68, "EPSG:6683"),  # Naha, zone XV
        (38.27, 140.87, "EPSG:6678"),  # Sendai, zone X
    ],
)
def test_zone_of_known_cities(latitude: float, longitude: float, crs: str) -> None:
    assert zone_of(latitude, longitude) == crs


def test_axis_order_and_origin() -> None:
    origin = np.array([[36.0, 139 + 50 / 60, 12.5], [36.01, 139 + 50 / 60, 0.0]])
    metres = project(origin, "EPSG:6677")
    np.testing.assert_allclose(metres[0], [0, 0, 12.5], atol=1e-6)
    assert metres[1, 1] == pytest.approx(1109.6, abs=1.0) and abs(metres[1, 0]) < 1e-6


def test_there_and_back_again() -> None:
    rng = np.random.default_rng(0)
    places = np.column_stack([rng.uniform(35, 36.5, 50), rng.uniform(139, 140.5, 50), np.zeros(50)])
    back = unproject(project(places, "EPSG:6677")[:, :2], "EPSG:6677")
    np.testing.assert_allclose(back, places[:, :2], atol=1e-9)


def test_earth_centred_metres_become_degrees() -> None:
    a = 6378137.0
    found = from_earth_centered(np.array([[a + 7.0, 0, 0], [0, a, 0]]))
    np.testing.assert_allclose(found, [[0, 0, 7.0], [0, 90, 0]], atol=1e-8)
