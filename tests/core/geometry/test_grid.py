from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.measures import center_of
from vlwm.core.errors import ConfigError
from vlwm.core.geometry.grid import VoxelGrid

FULL = VoxelGrid.from_range([-40, -40, -2, 40, 40, 150], [0.4, 0.4, 1.25])


def test_full_size_contract():
    assert FULL.shape == (200, 200, 121)
    assert FULL.num_cells == 4_840_000
    assert FULL.packed_bytes == 605_000
    assert FULL.upper_m == pytest.approx((40, 40, 149.25))  # the last 0.75 m are cut
    assert FULL.horizontal_half_diagonal_m == pytest.approx(40 * math.sqrt(2))
    assert FULL.ground_slice == 1


def test_small_grid_contract():
    small = VoxelGrid.from_range([-40, -40, -2, 40, 40, 150], [0.8, 0.8, 2.5])
    assert small.shape == (100, 100, 60)


def test_half_diagonal_reaches_the_farthest_corner_of_a_grid_that_is_not_centred():
    ahead = VoxelGrid.from_range([0, -30, 0, 40, 30, 10], [1, 1, 1])
    assert ahead.horizontal_half_diagonal_m == pytest.approx(50)


@pytest.mark.parametrize(
    ("range_m", "cell_m"),
    [
        ([0, 0, 0, 1, 1], [1, 1, 1]),
        ([0, 0, 0, 1, 1, 1], [1, 1]),
        ([0, 0, 0, 1, 1, math.nan], [1, 1, 1]),
        ([0, 0, 0, 1, 1, 1], [1, 1, 0]),
        ([0, 0, 0, 1, 1, 1], [1, 2, 1]),
        ([0, 0, 1, 1, 1, 0], [1, 1, 1]),
    ],
)
def test_impossible_ranges_are_refused_by_name(range_m, cell_m):
    with pytest.raises(ConfigError, match=r"point_cloud_range|voxel_size"):
        VoxelGrid.from_range(range_m, cell_m)


def test_cells_are_half_open():
    grid = VoxelGrid((0.0, 0.0, 0.0), (0.5, 1.0, 2.0), (4, 4, 4))
    assert grid.index_of([0.5, 1.0, 2.0]).tolist() == [1, 1, 1]
    assert grid.index_of([-1e-9, 0, 0]).tolist() == [-1, 0, 0]
    assert grid.contains([[0, 0, 0], [2, 0, 0], [0, 0, 7.99]]).tolist() == [True, False, True]


@given(st.tuples(*[st.integers(0, n - 1) for n in FULL.shape]))
def test_centre_of_a_cell_lies_in_it(index):
    center = center_of(FULL, index)
    assert tuple(FULL.index_of(center)) == index
    assert FULL.contains(center)


def test_centers_agree_with_center_of():
    grid = VoxelGrid((-1.0, 2.0, 0.5), (0.4, 0.8, 1.25), (3, 4, 5))
    centers = grid.centers()
    assert centers.shape == (3, 4, 5, 3)
    np.testing.assert_allclose(centers[2, 1, 4], center_of(grid, [2, 1, 4]))


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 7)] * 3))
def test_pack_and_unpack_are_inverse(seed, shape):
    grid = VoxelGrid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), shape)
    occupancy = np.random.default_rng(seed).integers(0, 2, shape, dtype=np.uint8)
    bits = grid.pack(occupancy)
    assert bits.shape == (grid.packed_bytes,)
    assert bits.dtype == np.uint8
    np.testing.assert_array_equal(grid.unpack(bits), occupancy)
    np.testing.assert_array_equal(grid.pack(occupancy.astype(bool)), bits)


def test_bit_order_is_z_fastest_and_least_significant_first():
    grid = VoxelGrid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (2, 2, 3))
    occupancy = np.zeros(grid.shape, dtype=np.uint8)
    occupancy[0, 0, 1] = 1  # cell 1
    occupancy[1, 0, 2] = 1  # cell 1 * 6 + 0 * 3 + 2 = 8
    assert grid.pack(occupancy).tolist() == [0b10, 0b1]


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="grid"):
        FULL.pack(np.zeros((2, 2, 2), dtype=np.uint8))
    with pytest.raises(ValueError, match="605000"):
        FULL.unpack(np.zeros(7, dtype=np.uint8))
