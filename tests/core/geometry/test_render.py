"""Every pixel shows what the ray through its centre meets first."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.geometry.triangles import first_hits
from vlwm.core.geometry.rays import RayCaster
from vlwm.core.geometry.render import Pinhole, render

CAMERA = Pinhole(160, 90, 126.0, 120.0, 80.3, 44.1)
FORWARD = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])  # looks along x, z up


def rays_of(camera: Pinhole, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit rays (H, W, 3) through the pixels' centres and their depth per metre."""
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    local = np.stack(
        [(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], -1
    )
    length = np.linalg.norm(local, axis=-1)
    return (local / length[..., None]) @ axes, 1.0 / length


def scattered(rng: np.random.Generator, count: int, spread: float = 60.0) -> np.ndarray:
    return rng.uniform(-spread, spread, (count, 1, 3)) + rng.normal(0, 9, (count, 3, 3))


def turned(rng: np.random.Generator) -> np.ndarray:
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return np.asarray(axes * np.sign(np.linalg.det(axes)))


@pytest.mark.parametrize("seed", range(4))
def test_depth_is_that_of_plain_algebra(seed: int) -> None:
    rng = np.random.default_rng(seed)
    triangles, axes, place = scattered(rng, 150), turned(rng), rng.uniform(-5, 5, 3)
    depth, face = render(triangles, place, axes, CAMERA, 500.0)
    rays, share = rays_of(CAMERA, axes)
    some = rng.integers(0, (CAMERA.height, CAMERA.width), (400, 2))
    picked = rays[tuple(some.T)]
    wanted, edge = first_hits(triangles, np.broadcast_to(place, picked.shape), picked)
    seen = depth[tuple(some.T)] / share[tuple(some.T)]
    clear = edge > 1e-9
    assert clear.mean() > 0.99 and np.isfinite(wanted).any()
    np.testing.assert_allclose(seen[clear], wanted[clear], rtol=1e-5)
    assert ((face >= 0) == np.isfinite(depth)).all()


def test_all_pixels_agree_with_embree_in_a_crowd() -> None:
    rng = np.random.default_rng(9)
    triangles, axes = scattered(rng, 3000, 150.0), turned(rng)
    depth, face = render(triangles, np.zeros(3), axes, CAMERA, 400.0)
    rays, share = rays_of(CAMERA, axes)
    hits = RayCaster(triangles).first_hits(np.zeros(3), rays.reshape(-1, 3), 1e3)
    same = hits.faces.reshape(face.shape) == face
    assert same.mean() > 0.9995  # the rest: float32 rims
    wanted = hits.distances.reshape(face.shape) * share
    np.testing.assert_allclose(depth[same & (face >= 0)], wanted[same & (face >= 0)], rtol=1e-5)


def test_a_surface_of_many_triangles_has_no_holes() -> None:
    """Rolling ground all around: below the horizon no pixel is left out, above it none is hit."""
    xs = np.linspace(-300, 300, 61)
    x, y = np.meshgrid(xs, xs, indexing="ij")
    nodes = np.stack([x, y, np.sin(x / 40) + np.cos(y / 30)], axis=-1)
    a, b, c, d = nodes[:-1, :-1], nodes[1:, :-1], nodes[1:, 1:], nodes[:-1, 1:]
    ground = np.concatenate(
        [np.stack(t, axis=-2).reshape(-1, 3, 3) for t in ((a, b, c), (a, c, d))]
    )
    _, face = render(ground, np.array([0.3, 0.2, 6.0]), FORWARD, CAMERA, 290.0)
    rows = (face >= 0).mean(axis=1)
    horizon = round(CAMERA.cy + CAMERA.fy * 9 / 250)
    assert (rows[horizon + 1 :] == 1.0).all()
    assert (rows[: round(CAMERA.cy)] == 0.0).all()


def test_what_reaches_behind_the_camera_is_cut_there() -> None:
    """The ground beneath as one huge triangle, most of it behind."""
    ground = np.array([[[-1e4, -1e4, -2.0], [1e4, -1e4, -2.0], [0.0, 2e4, -2.0]]])
    depth, _ = render(ground, np.zeros(3), FORWARD, CAMERA, 1000.0)
    v = np.arange(CAMERA.height)
    with np.errstate(divide="ignore"):
        wanted = 2.0 * CAMERA.fy / (v - CAMERA.cy)
    below = (v > CAMERA.cy) & (wanted < 1000.0)
    np.testing.assert_allclose(depth[below], np.repeat(wanted[below, None], 160, 1), rtol=1e-5)
    assert not np.isfinite(depth[~below]).any()


def test_behind_and_beyond_are_not_seen() -> None:
    wall = np.array([[[20.0, -90, -90], [20, 90, -90], [20, 0, 150]]])
    for move, reach, seen in ((0.0, 50.0, True), (-40.0, 50.0, False), (0.0, 19.0, False)):
        _, face = render(wall + np.array([move, 0, 0]), np.zeros(3), FORWARD, CAMERA, reach)
        assert (face >= 0).any() == seen


def test_projection_is_that_of_the_matrix() -> None:
    points = np.random.default_rng(3).uniform(1, 9, (20, 3))
    homogeneous = points @ np.array(CAMERA.matrix).T
    np.testing.assert_allclose(CAMERA.project(points), homogeneous[:, :2] / homogeneous[:, 2:])


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(T, 3, 3\)"):
        render(np.zeros((4, 3)), np.zeros(3), FORWARD, CAMERA, 10.0)
