"""Carving marks the cells that rays meet, where exact rational arithmetic says."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import floor

import numpy as np
import pytest

from vlwm.core.geometry.carve import carve, carve_cells, to_cells
from vlwm.core.geometry.frames import from_ego
from vlwm.core.geometry.grid import VoxelGrid

SHAPE = (7, 6, 5)
GRID = VoxelGrid((-2.0, -1.5, -0.5), (0.5, 0.5, 0.25), (8, 6, 4))


def met_cells(origin: np.ndarray, end: np.ndarray) -> set[tuple[int, ...]]:
    """Cells of the closed segment, by rational arithmetic: floor at each plane and in between."""
    o = [Fraction(float(v)) for v in origin]
    d = [Fraction(float(v)) - a for v, a in zip(end, o, strict=True)]
    times = {Fraction(0), Fraction(1)}
    for a, along in zip(o, d, strict=True):
        if along:
            low, high = sorted((a, a + along))
            times |= {(k - a) / along for k in range(floor(low), floor(high) + 2)}
    ordered = sorted(t for t in times if 0 <= t <= 1)
    ordered += [(a + b) / 2 for a, b in itertools.pairwise(ordered)]
    return {tuple(floor(a + t * along) for a, along in zip(o, d, strict=True)) for t in ordered}


def oracle(origins: np.ndarray, ends: np.ndarray, hit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    occupied, free = (np.zeros(SHAPE, np.uint8) for _ in range(2))
    for origin, end, solid in zip(origins, ends, hit, strict=True):
        for cell in met_cells(origin, end):
            if all(0 <= i < n for i, n in zip(cell, SHAPE, strict=True)):
                free[cell] = 1
        cell = tuple(floor(v) for v in end)
        if solid and all(0 <= i < n for i, n in zip(cell, SHAPE, strict=True)):
            occupied[cell] = 1
    free[occupied == 1] = 0
    return occupied, free


def carved(origins: np.ndarray, ends: np.ndarray, hit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    occupied, free = (np.zeros(SHAPE, np.uint8) for _ in range(2))
    carve_cells(origins, ends, hit, occupied, free)
    return occupied, free


@pytest.mark.parametrize(
    "step", [0.0, 1.0, 0.5, 0.125], ids=["any", "corners", "halves", "eighths"]
)
def test_rays_meet_the_cells_of_rational_arithmetic(step: float) -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        rays = rng.uniform(-4, 11, (2, 2, 3))
        rays[0, 0, rng.integers(3)] = rays[1, 0, 0]  # some axes of some rays agree
        rays = np.round(rays / step) * step if step else rays
        hit = rng.random(2) < 0.5
        for got, wanted in zip(carved(*rays, hit), oracle(*rays, hit), strict=True):
            np.testing.assert_array_equal(got, wanted, err_msg=str(rays.tolist()))


def test_a_cell_with_a_hit_is_never_free_and_nothing_is_known_without_a_ray() -> None:
    rng = np.random.default_rng(6)
    origin = np.array([0.1, 0.2, 0.3])
    ends = rng.uniform(-3, 3, (300, 3))
    occupied, free = carve(GRID, None, origin, ends, np.ones(300, bool))
    assert not (occupied & free).any()
    assert occupied.any() and free.any()
    inside = GRID.contains(ends)
    assert (occupied[tuple(GRID.index_of(ends[inside]).T)] == 1).all()
    nothing = carve(GRID, None, origin, np.zeros((0, 3)), np.zeros(0, bool))
    assert not nothing[0].any() and not nothing[1].any()


def test_a_ray_that_does_not_return_leaves_its_last_cell_free() -> None:
    end = np.array([[1.1, 0.1, 0.1]])
    occupied, free = carve(GRID, None, np.full(3, 0.1), end, np.zeros(1, bool))
    assert not occupied.any()
    assert free[tuple(GRID.index_of(end[0]))] == 1


def test_rays_of_another_frame_are_moved_into_the_grid() -> None:
    rng = np.random.default_rng(7)
    ego = np.array([100.0, -50.0, 3.0, 0.7])
    origins, ends = rng.uniform(-3, 3, (2, 50, 3))
    hit = rng.random(50) < 0.5
    here = carve(GRID, None, origins, ends, hit)
    there = carve(GRID, ego, from_ego(origins, ego), from_ego(ends, ego), hit)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a, b)
    cells = to_cells(GRID, ego, from_ego(ends, ego))
    np.testing.assert_array_equal(np.floor(cells), GRID.index_of(ends))


@pytest.mark.parametrize(
    ("origins", "ends", "hit"),
    [
        (np.zeros(2), np.zeros((1, 3)), np.zeros(1, bool)),
        (np.zeros(3), np.zeros(3), np.zeros(1, bool)),
        (np.zeros(3), np.zeros((2, 3)), np.zeros(1, bool)),
        (np.zeros(3), np.full((1, 3), np.nan), np.zeros(1, bool)),
        (np.zeros(3), np.full((1, 3), 1e12), np.zeros(1, bool)),
    ],
)
def test_other_shapes_and_numbers_are_refused(
    origins: np.ndarray, ends: np.ndarray, hit: np.ndarray
) -> None:
    with pytest.raises(ValueError, match=r"must have"):
        carve(GRID, None, origins, ends, hit)
