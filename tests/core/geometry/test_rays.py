"""Rays meet the nearest triangle, where plain float64 algebra says."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.geometry.triangles import distance_to_triangles, first_hits
from vlwm.core.geometry.rays import RayCaster


def some_triangles(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.uniform(-60, 60, (count, 1, 3)) + rng.normal(0, 8, (count, 3, 3))


def directions(rng: np.random.Generator, count: int) -> np.ndarray:
    rays = rng.normal(size=(count, 3))
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def test_first_hits_are_those_of_plain_algebra() -> None:
    rng = np.random.default_rng(1)
    triangles, rays = some_triangles(rng, 400), directions(rng, 1500)
    start = np.array([3.0, -2.0, 5.0])
    wanted, edge = first_hits(triangles, np.broadcast_to(start, rays.shape), rays)
    hits = RayCaster(triangles).first_hits(start, rays, 1e4)
    clear = edge > 1e-5  # float32 may miss a rim
    assert clear.mean() > 0.98 and 0.5 < np.isfinite(wanted).mean() < 1.0
    np.testing.assert_allclose(hits.distances[clear], wanted[clear], rtol=1e-9)
    assert ((hits.faces >= 0) == np.isfinite(hits.distances)).all()
    met = hits.faces >= 0
    places = start + hits.distances[met][:, None] * rays[met]
    for place, face in zip(places[:200], hits.faces[met][:200], strict=True):
        assert distance_to_triangles(place[None], triangles[face][None])[0] < 1e-4


def test_cosine_is_that_of_the_incidence_from_either_side() -> None:
    wall = np.array([[[10.0, -50, -50], [10, 50, -50], [10, 0, 80]]])
    for side in (wall, wall[:, ::-1]):
        angles = np.radians([0.0, 30.0, 60.0])
        rays = np.stack([np.cos(angles), np.sin(angles), np.zeros(3)], axis=1)
        hits = RayCaster(side).first_hits(np.zeros(3), rays, 100.0)
        np.testing.assert_allclose(hits.cosines, np.cos(angles), atol=1e-12)
        np.testing.assert_allclose(hits.distances, 10.0 / np.cos(angles), rtol=1e-12)


def test_what_is_beyond_the_reach_or_behind_is_not_met() -> None:
    wall = np.array([[[10.0, -50, -50], [10, 50, -50], [10, 0, 80]]])
    caster = RayCaster(wall)
    ahead, back = np.array([[1.0, 0, 0]]), np.array([[-1.0, 0, 0]])
    assert caster.first_hits(np.zeros(3), ahead, 9.99).faces[0] == -1
    assert caster.first_hits(np.zeros(3), ahead, 10.01).faces[0] == 0
    missed = caster.first_hits(np.zeros(3), back, 1e3)
    assert (missed.faces[0], missed.distances[0], missed.cosines[0]) == (-1, np.inf, 0.0)


def test_no_ray_slips_through_a_closed_box() -> None:
    corner = np.array(np.meshgrid([-7.0, 9], [-8.0, 5], [-3.0, 6], indexing="ij")).reshape(3, -1).T
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [f for a, b, c, d in quads for f in ((a, b, c), (a, c, d))]
    caster = RayCaster(corner[np.array(faces)])
    along_edges = np.concatenate(
        [corner[a] + s * (corner[b] - corner[a]) for s in (np.linspace(0, 1, 500)[:, None],)
         for a in range(8) for b in range(8) if a != b]
    )  # fmt: skip
    rays = along_edges / np.linalg.norm(along_edges, axis=1, keepdims=True)
    assert (caster.first_hits(np.zeros(3), rays, 100.0).faces >= 0).all()


def test_the_tree_is_built_the_same_every_time() -> None:
    rng = np.random.default_rng(2)
    triangles, rays = some_triangles(rng, 20000), directions(rng, 20000)
    first = RayCaster(triangles).first_hits(np.zeros(3), rays, 200.0)
    for _ in range(3):
        again = RayCaster(triangles).first_hits(np.zeros(3), rays, 200.0)
        assert (again.faces == first.faces).all()
        assert again.distances.tobytes() == first.distances.tobytes()


def test_another_shape_is_refused() -> None:
    for wrong in (np.zeros((0, 3, 3)), np.zeros((4, 3))):
        with pytest.raises(ValueError, match=r"\(T, 3, 3\)"):
            RayCaster(wrong)
