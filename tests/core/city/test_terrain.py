"""The height that a vehicle stands on is the height of the triangles below it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlwm.core.city.terrain import Terrain


def hilly() -> Terrain:
    rng = np.random.default_rng(1)
    return Terrain(-50.0, -30.0, 10.0, rng.normal(size=(12, 9)) * 3)


@given(st.floats(-50, 59.9), st.floats(-30, 49.9))
def test_height_lies_on_a_triangle(x: float, y: float) -> None:
    terrain = hilly()
    triangles = terrain.triangles((-50.0, -30.0, 60.0, 50.0))
    found = [h for t in triangles if (h := _height_in(t, x, y)) is not None]
    assert found
    assert min(abs(h - float(terrain.height(np.array([x, y])))) for h in found) < 1e-6


def _height_in(triangle: np.ndarray, x: float, y: float) -> float | None:
    a, b, c = triangle
    m = np.array([b[:2] - a[:2], c[:2] - a[:2]]).T
    s, t = np.linalg.solve(m, np.array([x, y]) - a[:2])
    if s < -1e-9 or t < -1e-9 or s + t > 1 + 1e-9:
        return None
    return float(a[2] + s * (b[2] - a[2]) + t * (c[2] - a[2]))


def test_triangles_cover_what_was_asked_even_beyond_the_grid() -> None:
    bounds = (-200.0, -100.0, 100.0, 90.0)
    triangles = hilly().triangles(bounds)
    edges = triangles[:, 1:, :2] - triangles[:, :1, :2]
    area = 0.5 * np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]).sum()
    assert area == pytest.approx(300 * 190)
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    assert (normals[:, 2] > 0).all()


def test_a_slope_through_points_is_that_slope() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(-400, 400, (4000, 2))
    z = 600 + 0.045 * xy[:, 0]
    terrain = Terrain.from_points(np.column_stack([xy, z]), (-500, -500, 500, 500))
    at = rng.uniform(-300, 300, (200, 2))
    assert np.abs(terrain.height(at) - (600 + 0.045 * at[:, 0])).max() < 1.0


def test_one_odd_base_does_not_dent_the_ground() -> None:
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-100, 100, (400, 2)), np.full(400, 5.0)])
    points[7, 2] = 60.0
    terrain = Terrain.from_points(points, (-200, -200, 200, 200))
    assert np.abs(terrain.heights - 5.0).max() < 1e-9


def test_points_on_a_line_and_none_at_all() -> None:
    line = np.array([[x, 0.0, 0.1 * x] for x in range(0, 100, 5)])
    assert np.isfinite(Terrain.from_points(line, (-50, -50, 150, 50)).heights).all()
    assert float(Terrain.from_points(np.empty((0, 3)), (0, 0, 1, 1)).height([0.5, 0.5])) == 0.0
