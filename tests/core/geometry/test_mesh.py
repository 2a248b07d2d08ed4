from __future__ import annotations

import numpy as np
import pytest

from tests.measures import signed_volume
from vlwm.core.geometry.mesh import TriangleMesh, concatenate

TETRAHEDRON = TriangleMesh(
    np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
)


def moved(offset_m: list[float]) -> TriangleMesh:
    return TriangleMesh(TETRAHEDRON.vertices + np.asarray(offset_m, float), TETRAHEDRON.faces)


def test_kinds_and_shapes():
    assert TETRAHEDRON.vertices.dtype == np.float64
    assert TETRAHEDRON.faces.dtype == np.int32
    assert TETRAHEDRON.triangles().shape == (4, 3, 3)
    np.testing.assert_array_equal(TETRAHEDRON.triangles()[1, 2], [0, 0, 1])


def test_areas_volume_and_bounds():
    np.testing.assert_allclose(TETRAHEDRON.areas(), [0.5, 0.5, 0.5, np.sqrt(3) / 2])
    assert signed_volume(TETRAHEDRON) == pytest.approx(1 / 6)
    np.testing.assert_array_equal(TETRAHEDRON.bounds, [[0, 0, 0], [1, 1, 1]])


def test_volume_keeps_its_digits_in_projected_coordinates():
    far = moved([-6_000.5, -35_000.25, 40.0])
    assert signed_volume(far) == pytest.approx(1 / 6, rel=1e-9)
    np.testing.assert_array_equal(far.bounds[0], [-6_000.5, -35_000.25, 40.0])


def test_faces_turned_inside_out_have_negative_volume():
    turned = TriangleMesh(TETRAHEDRON.vertices, TETRAHEDRON.faces[:, ::-1])
    assert signed_volume(turned) == pytest.approx(-1 / 6)


def test_concatenate_keeps_every_triangle_in_order():
    other = moved([5, 0, 0])
    joined = concatenate([TETRAHEDRON, TriangleMesh.empty(), other])
    expected = np.concatenate([TETRAHEDRON.triangles(), other.triangles()])
    np.testing.assert_array_equal(joined.triangles(), expected)
    assert joined.faces.dtype == np.int32


def test_nothing_is_a_mesh_too():
    nothing = concatenate([])
    assert nothing.triangles().shape == (0, 3, 3)
    assert signed_volume(nothing) == 0
    with pytest.raises(ValueError, match="without vertices"):
        _ = nothing.bounds


def test_from_triangles_round_trip():
    loose = TriangleMesh.from_triangles(TETRAHEDRON.triangles())
    np.testing.assert_array_equal(loose.triangles(), TETRAHEDRON.triangles())


@pytest.mark.parametrize("faces", [[[0, 1, 4]], [[-1, 0, 1]], [[0, 1]]])
def test_faces_must_name_vertices_that_exist(faces):
    with pytest.raises(ValueError, match="faces"):
        TriangleMesh(TETRAHEDRON.vertices, np.array(faces))
