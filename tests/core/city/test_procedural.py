"""A procedural city says that it is one, is closed, and is the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.measures import base_heights, signed_volume
from vlwm.core.city.procedural import procedural_city
from vlwm.core.errors import UsageError


def test_same_seed_same_city() -> None:
    a, b, c = procedural_city(400, 1), procedural_city(400, 1), procedural_city(400, 2)
    np.testing.assert_array_equal(a.mesh.vertices, b.mesh.vertices)
    assert len(a.mesh.vertices) != len(c.mesh.vertices)


def test_it_is_named_as_procedural() -> None:
    city = procedural_city(400, 7)
    assert city.procedural and city.name == "procedural-7" and "not real" in city.attribution


def test_buildings_are_closed_and_stand_on_the_ground() -> None:
    city = procedural_city(400, 3)
    for index in range(0, len(city.feature_ids), 17):
        faces = city.mesh.triangles()[city.feature_of_face == index]
        keys = np.round(faces, 6).reshape(-1, 3, 3)
        edges: dict[tuple, int] = {}
        for triangle in keys:
            for a, b in ((0, 1), (1, 2), (2, 0)):
                edge = (tuple(triangle[a]), tuple(triangle[b]))
                edges[edge] = edges.get(edge, 0) + 1
        assert all(edges.get((b, a)) == count for (a, b), count in edges.items())
    assert signed_volume(city.mesh) > 0
    assert base_heights(city).min() > -4


def test_too_small_is_said() -> None:
    with pytest.raises(UsageError, match="200 m"):
        procedural_city(100)
