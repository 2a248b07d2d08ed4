"""The triangle–cell test against an oracle of its own: separating axes in float64, cell by cell.

Where the oracle cannot decide within 1e-6 m (a tie) nothing is asked, except on small lattices,
where ties are what is tested.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlwm.core.geometry.frames import turn_vectors
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.voxelize import voxelize

TIE_M = 1e-6


def separation(triangle, lower, upper):
    """Largest gap (C,), metres, between a triangle and boxes (C, 3) along thirteen axes.

    Negative: they overlap by that much. Akenine-Möller, Fast 3D Triangle-Box Overlap Testing, 2001.
    """
    edges = np.roll(triangle, -1, axis=0) - triangle
    axes = [*np.eye(3), np.cross(edges[0], edges[1])]
    axes += [np.cross(edge, unit) for edge in edges for unit in np.eye(3)]
    center, half = (lower + upper) / 2, (upper - lower) / 2
    gaps = []
    for axis in axes:
        length = np.linalg.norm(axis)
        if length < 1e-12:
            continue
        axis = axis / length
        along, middle, reach = triangle @ axis, center @ axis, half @ np.abs(axis)
        gaps.append(np.maximum(along.min() - middle, middle - along.max()) - reach)
    return np.max(gaps, axis=0)


def cell_boxes(grid):
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
    lower = np.array(grid.lower_m) + index * np.array(grid.cell_m)
    return lower, lower + np.array(grid.cell_m)


def oracle(triangles, grid):
    """Occupied, and too close to call: two boolean arrays (X, Y, Z)."""
    lower, upper = cell_boxes(grid)
    gaps = [separation(triangle, lower, upper) for triangle in triangles]
    nearest = np.min(gaps, axis=0).reshape(grid.shape)
    return nearest <= 0, np.abs(nearest) <= TIE_M


def half_open_oracle(triangles, grid, margin=1e-5):
    """Occupied (X, Y, Z) for triangles on a coarse lattice, borders included.

    A compact set meets [lower, upper) just when it meets [lower, upper - margin] for some margin;
    on a coarse lattice a small one serves for all.
    """
    lower, upper = cell_boxes(grid)
    gaps = [separation(triangle, lower, upper - margin) for triangle in triangles]
    return np.min(gaps, axis=0).reshape(grid.shape) <= 1e-10


def assert_equal_but_ties(found, triangles, grid):
    occupied, tie = oracle(triangles, grid)
    wrong = (found.astype(bool) != occupied) & ~tie
    assert not wrong.any(), (np.argwhere(wrong)[:5], triangles.tolist())


def random_grid(rng):
    shape = rng.integers(1, 11, size=3)
    cell = rng.uniform(0.2, 1.5, size=3)
    lower = rng.uniform(-6.0, 1.0, size=3)
    return VoxelGrid(tuple(lower), tuple(cell), tuple(int(n) for n in shape))


@pytest.mark.parametrize("seed", range(6))
def test_equals_separating_axes_for_random_triangles_grids_and_poses(seed):
    rng = np.random.default_rng(seed)
    marked = 0
    for _ in range(150):
        grid = random_grid(rng)
        size = 10.0 ** rng.uniform(-2, 2.5)
        triangles = rng.normal(0, size, (rng.integers(1, 4), 3, 3))
        if rng.random() < 0.3:
            triangles[:, :, 2] = triangles[:, :1, 2]  # level
        elif rng.random() < 0.4:
            triangles[:, 2, :2] = triangles[:, 0, :2]  # upright
        triangles = turn_vectors(triangles, rng.uniform(-np.pi, np.pi))
        triangles -= triangles.mean(axis=1, keepdims=True)
        triangles += rng.uniform(grid.lower_m, grid.upper_m, size=(len(triangles), 1, 3))
        found = voxelize(triangles, grid)
        assert_equal_but_ties(found, triangles, grid)
        marked += found.sum()
    assert marked > 2000


step = st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0, -0.5, -1.0, -2.0, -4.0])
climb = st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (1, -1)])


@st.composite
def lattice_triangles(draw):
    """Triangles with half-integer corners and slopes that are powers of two: nothing rounds.

    Two sides along two axes, both raised along the third; legs of length 0 make them degenerate.
    """
    start = np.array(draw(st.tuples(*[st.integers(-2, 9)] * 3))) / 2
    corners = np.tile(start, (3, 1))
    i, j, k = draw(st.permutations(range(3)))
    corners[1, i] += draw(step)
    corners[2, j] += draw(step)
    corners[1:, k] += np.array(draw(climb)) * draw(step)
    return corners


@settings(max_examples=400, deadline=None)
@given(st.lists(lattice_triangles(), min_size=1, max_size=2))
def test_half_open_borders_on_a_lattice(corners):
    triangles = np.array(corners)
    grid = VoxelGrid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (4, 3, 4))
    np.testing.assert_array_equal(voxelize(triangles, grid), half_open_oracle(triangles, grid))


GRID = VoxelGrid((-2.0, -2.0, -2.0), (0.5, 0.5, 0.8), (8, 8, 5))
coordinate = st.floats(-3, 3, allow_subnormal=False)
loose_triangles = st.lists(
    st.tuples(*[st.tuples(coordinate, coordinate, coordinate)] * 3), min_size=1, max_size=3
).map(lambda corners: np.array(corners))


def assert_equal_where_sure(found, expected, sure):
    np.testing.assert_array_equal(found[sure], expected[sure])


def sure_cells(triangles):
    return ~oracle(triangles, GRID)[1]


@settings(deadline=None)
@given(loose_triangles)
def test_equals_separating_axes_near_special_positions(triangles):
    assert_equal_but_ties(voxelize(triangles, GRID), triangles, GRID)


@settings(deadline=None)
@given(loose_triangles, st.tuples(*[st.integers(-4, 4)] * 3))
def test_a_shift_by_whole_cells_shifts_the_cells(triangles, cells):
    moved = VoxelGrid(
        tuple(np.array(GRID.lower_m) + np.array(cells) * GRID.cell_m), GRID.cell_m, GRID.shape
    )
    triangles_moved = triangles + np.array(cells) * np.array(GRID.cell_m)
    assert_equal_where_sure(
        voxelize(triangles_moved, moved), voxelize(triangles, GRID), sure_cells(triangles)
    )


@settings(deadline=None)
@given(loose_triangles)
def test_a_quarter_turn_turns_the_cells(triangles):
    turned = triangles[:, :, [1, 0, 2]] * [-1.0, 1.0, 1.0]  # x, y -> -y, x
    expected = np.rot90(voxelize(triangles, GRID), axes=(0, 1))
    sure = np.rot90(sure_cells(triangles), axes=(0, 1))
    assert_equal_where_sure(voxelize(turned, GRID), expected, sure)


@settings(deadline=None)
@given(loose_triangles)
def test_left_and_right_mirrored(triangles):
    expected = voxelize(triangles, GRID)[:, ::-1]
    sure = sure_cells(triangles)[:, ::-1]
    assert_equal_where_sure(voxelize(triangles * [1.0, -1.0, 1.0], GRID), expected, sure)


@settings(deadline=None)
@given(loose_triangles, st.permutations(range(3)))
def test_the_order_of_corners_does_not_matter(triangles, order):
    assert_equal_where_sure(
        voxelize(triangles[:, order], GRID), voxelize(triangles, GRID), sure_cells(triangles)
    )


def test_a_mirrored_wall_on_a_border_changes_sides():
    """Cells are half open, so what lies on a border belongs to the upper cell both times."""
    wall = np.array([[[1.0, -1.9, 0], [1.0, 1.9, 0], [1.0, 0, 1.0]]])
    assert set(np.nonzero(voxelize(wall, GRID))[0]) == {6}
    assert set(np.nonzero(voxelize(-wall, GRID))[0]) == {2}


def test_a_floor_on_a_border_belongs_to_the_cell_above():
    grid = VoxelGrid((-40.0, -40.0, -2.0), (0.4, 0.4, 1.25), (4, 4, 121))
    level = -2.0 + 3 * 1.25
    floor = np.array([[[-45.0, -45, level], [-30, -45, level], [-45, -30, level]]])
    assert set(np.nonzero(voxelize(floor, grid))[2]) == {3}
    assert set(np.nonzero(voxelize(floor - [0, 0, 1e-9], grid))[2]) == {2}


def test_what_only_touches_the_grids_upper_border_is_outside():
    roof = np.array([[[-2.0, -2, 2], [2, -2, 2], [0, 2, 2]]])
    side = np.array([[[2.0, -1, -1], [2, 1, -1], [2, 0, 1]]])
    assert not voxelize(np.concatenate([roof, side]), GRID).any()
    assert voxelize(-np.concatenate([roof, side]), GRID).any()


@pytest.mark.parametrize("kind", ["point", "line", "folded line", "needle"])
def test_triangles_without_area_mark_the_cells_they_meet(kind):
    rng = np.random.default_rng(11)
    for _ in range(100):
        a, b = rng.uniform(-2.5, 2.5, (2, 3))
        third = {
            "point": a,
            "line": b,
            "folded line": a + rng.uniform(-1, 2) * (b - a),
            "needle": b + rng.normal(0, 1e-9, 3),
        }[kind]
        triangles = np.array([[a, a if kind == "point" else b, third]])
        assert_equal_but_ties(voxelize(triangles, GRID), triangles, GRID)


def test_a_point_marks_its_own_cell():
    for position in ([0.1, -0.3, 0.4], [-2.0, -2.0, -2.0], [1.999, 0, 0]):
        found = voxelize(np.tile(position, (1, 3, 1)), GRID)
        assert np.argwhere(found).tolist() == [GRID.index_of(position).tolist()]


def test_kilometres_of_ground_cost_and_mark_only_the_grid():
    corners = np.array([[-3e6, -3e6, 0.3], [3e6, -3e6, 0.3], [0, 6e6, 0.3]])
    found = voxelize(corners[None], GRID)
    assert found[:, :, 2].all()
    assert found.sum() == 64
