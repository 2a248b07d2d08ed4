from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vlwm.core.geometry import frames
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.voxelize import TriangleTiles, fill_solid, voxelize

FULL = VoxelGrid.from_range([-40, -40, -2, 40, 40, 150], [0.4, 0.4, 1.25])
SMALL = VoxelGrid.from_range([-8, -8, -2, 8, 8, 12], [0.5, 0.5, 1.25])

BOX_QUADS = np.array(
    [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]]
)
BOX_FACES = np.concatenate([BOX_QUADS[:, [0, 1, 2]], BOX_QUADS[:, [0, 2, 3]]])


def box(size):
    """Twelve triangles of a closed box (12, 3, 3) about the origin."""
    corners = np.array([[x, y, z] for z in (-1, 1) for y in (-1, 1) for x in (-1, 1)])
    return (corners * np.asarray(size) / 2)[BOX_FACES]


def scene(rng, count=400, extent_m=300.0):
    """Loose triangles of many sizes and one ground plane larger than all tiles."""
    sizes = 10.0 ** rng.uniform(-1, 1.7, (count, 1, 1))
    middle = rng.uniform(-extent_m, extent_m, (count, 1, 3)) * [1, 1, 0.02]
    ground = np.array([[[-9e3, -9e3, 0.1], [9e3, -9e3, 0.1], [0, 9e3, 0.1]]])
    return np.concatenate([middle + rng.normal(0, 1, (count, 3, 3)) * sizes, ground])


def read_obj(path):
    """Triangles (T, 3, 3) of an OBJ, faces cut into fans."""
    vertices, faces = [], []
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(value) for value in rest.split()[:3]])
        elif kind == "f":
            ring = [int(entry.split("/")[0]) - 1 for entry in rest.split()]
            faces += [[ring[0], ring[k], ring[k + 1]] for k in range(1, len(ring) - 1)]
    return np.array(vertices)[np.array(faces)]


@pytest.fixture(scope="module")
def marunouchi(shared_data):
    """Two neighbouring tiles of real buildings about a local origin: (T, 3, 3), metres."""
    folder = shared_data / "plateau" / "tokyo_marunouchi_obj"
    tiles = [f"tokyo_-11_{column}_bldg_6677.obj" for column in (-73, -72)]
    triangles = np.concatenate([read_obj(folder / tile) for tile in tiles])
    return triangles - np.floor(triangles.mean(axis=(0, 1))) * [1, 1, 0]


def test_full_size_shape_and_kind():
    found = voxelize(box([10, 10, 10]), FULL)
    assert found.shape == (200, 200, 121)
    assert found.dtype == np.uint8
    assert set(np.unique(found)) == {0, 1}


def test_nothing_gives_an_empty_grid():
    assert not voxelize(np.zeros((0, 3, 3)), SMALL).any()
    assert not TriangleTiles.build(np.zeros((0, 3, 3))).voxelize_ego(np.zeros(4), SMALL).any()


def test_out_is_overwritten_and_returned():
    rng = np.random.default_rng(0)
    triangles = scene(rng)
    out = np.full(SMALL.shape, 7, dtype=np.uint8)
    assert voxelize(triangles, SMALL, out) is out
    np.testing.assert_array_equal(out, voxelize(triangles, SMALL))
    tiles, ego = TriangleTiles.build(triangles), [3, 4, 0, 1]
    assert tiles.voxelize_ego(ego, SMALL, out) is out
    np.testing.assert_array_equal(out, tiles.voxelize_ego(ego, SMALL))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"\(T, 3, 3\)"):
        voxelize(np.zeros((4, 3)), SMALL)
    with pytest.raises(ValueError, match="out must"):
        voxelize(box([1, 1, 1]), SMALL, np.zeros((2, 2, 2), dtype=np.uint8))
    with pytest.raises(ValueError, match="finite"):
        TriangleTiles.build(np.full((1, 3, 3), np.nan))
    with pytest.raises(ValueError, match="four finite"):
        TriangleTiles.build(box([1, 1, 1])).voxelize_ego([0, 0, 0, np.nan], SMALL)


# Closed meshes stay closed


def leaks(occupancy, inside):
    """Whether a 6-connected path of empty cells joins cells inside with cells outside."""
    labels, _ = ndimage.label(occupancy == 0)
    within, without = set(labels[inside]), set(labels[~inside])
    return bool((within & without) - {0})


shift = st.tuples(st.floats(-8, 8), st.floats(-8, 8), st.floats(-3, 10))
extent = st.tuples(*[st.floats(0.1, 14)] * 3)


@settings(deadline=None)
@given(extent, st.floats(-7, 7), st.floats(-7, 7), shift)
@example((6.0, 4.0, 5.0), 1e-10, 0.0, (0.0, 0.0, 3.0))
@example((6.0, 4.0, 5.0), 0.0, 1e-10, (0.5 - 1e-10, 0.5 + 1e-10, 3.0))
@example((6.0, 4.0, 5.0), np.pi / 4, 0.0, (0.25, 0.0, 0.5))
def test_a_closed_box_stays_closed(size, yaw, roll, offset):
    turn = frames.quaternion_from_rpy(roll, 0.0, yaw)
    triangles = frames.rotate(turn, box(size)) + offset
    in_box = frames.rotate(frames.conjugate(turn), SMALL.centers() - offset)
    inside = np.all(np.abs(in_box) < np.array(size) / 2, axis=-1)
    assert not leaks(voxelize(triangles, SMALL), inside)


def test_a_box_without_its_roof_leaks():
    """The proof above can fail."""
    inside = np.all(np.abs(SMALL.centers()) < [3, 3, 2], axis=-1)
    open_box = np.delete(box([6, 6, 4]), [1, 7], axis=0)
    assert not leaks(voxelize(box([6, 6, 4]), SMALL), inside)
    assert leaks(voxelize(open_box, SMALL), inside)


def test_real_buildings_stand_on_closed_shells(marunouchi):
    """Filling the shell of a whole real building fills its middle."""
    grid = VoxelGrid.from_range([-60, -60, -20, 60, 60, 220], [0.8, 0.8, 2.5])
    tiles = TriangleTiles.build(marunouchi)
    ego = [*marunouchi[len(marunouchi) // 2].mean(axis=0)[:2], 0.0, 0.3]
    shell = tiles.voxelize_ego(ego, grid)
    solid = fill_solid(shell)
    assert solid.sum() > 1.5 * shell.sum()


# Tiles


@pytest.mark.parametrize("tile_m", [3.0, 32.0, 1000.0])
def test_voxelize_ego_equals_voxelize_of_moved_triangles(tile_m):
    rng = np.random.default_rng(1)
    triangles = scene(rng)
    tiles = TriangleTiles.build(triangles, tile_m)
    for _ in range(20):
        ego = np.append(rng.uniform(-320, 320, 3) * [1, 1, 0.02], rng.uniform(-7, 7))
        expected = voxelize(frames.to_ego(triangles, ego), SMALL)
        np.testing.assert_array_equal(tiles.voxelize_ego(ego, SMALL), expected)


def test_voxelize_ego_far_from_everything_is_empty():
    tiles = TriangleTiles.build(scene(np.random.default_rng(2))[:-1])
    for place in ([1e5, 0], [-1e5, 0], [0, 1e5], [-1e5, -1e5]):
        assert not tiles.voxelize_ego([*place, 0, 0.5], SMALL).any()
        assert not len(tiles.near(place, 100.0))


@pytest.mark.parametrize("tile_m", [3.0, 32.0])
def test_near_equals_a_search_of_all(tile_m):
    rng = np.random.default_rng(3)
    triangles = scene(rng)
    tiles = TriangleTiles.build(triangles, tile_m)
    low, high = triangles[:, :, :2].min(axis=1), triangles[:, :, :2].max(axis=1)
    for _ in range(30):
        center, radius = rng.uniform(-350, 350, 2), rng.uniform(0, 90)
        distance = np.linalg.norm(np.maximum(0, np.maximum(low - center, center - high)), axis=1)
        np.testing.assert_array_equal(
            tiles.near(center, radius), np.flatnonzero(distance <= radius)
        )


def test_stray_triangles_do_not_cost_memory():
    far = box([1, 1, 1]) + np.array([5e6, 5e6, 0])
    tiles = TriangleTiles.build(np.concatenate([box([4, 4, 4]), far]), 1.0)
    assert tiles.shape[0] * tiles.shape[1] <= 1 << 23
    assert tiles.voxelize_ego([0, 0, 0, 0], SMALL).any()
    assert tiles.voxelize_ego([5e6, 5e6, 0, 0], SMALL).any()


def test_tiles_can_be_pickled():
    tiles = TriangleTiles.build(scene(np.random.default_rng(4)))
    again = pickle.loads(pickle.dumps(tiles))
    ego = [5, 5, 0, 2]
    np.testing.assert_array_equal(again.voxelize_ego(ego, SMALL), tiles.voxelize_ego(ego, SMALL))


_shared_tiles = TriangleTiles.build(scene(np.random.default_rng(5)))


def frame_bits(ego):
    return SMALL.pack(_shared_tiles.voxelize_ego(ego, SMALL))


def test_forked_workers_give_the_same_frames():
    egos = np.random.default_rng(6).uniform(-100, 100, (6, 4)) * [1, 1, 0.01, 0.03]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map(frame_bits, egos)
    np.testing.assert_array_equal(found, [frame_bits(ego) for ego in egos])


# Real buildings


def points_on(triangles, count, rng):
    """Random points (count, 3), uniform over the surface of triangles."""
    edges = triangles[:, 1:] - triangles[:, :1]
    areas = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    chosen = rng.choice(len(triangles), count, p=areas / areas.sum())
    share = rng.random((count, 2, 1))
    share = np.where(share.sum(axis=1, keepdims=True) > 1, 1 - share, share)
    return triangles[chosen, 0] + (share * edges[chosen]).sum(axis=1)


def test_every_point_of_real_buildings_is_marked(marunouchi):
    """Recall 1.0, and no cell far from the surface: the share of false cells has an upper bound."""
    rng = np.random.default_rng(7)
    tiles = TriangleTiles.build(marunouchi)
    egos = marunouchi[rng.integers(len(marunouchi), size=4)].mean(axis=1)
    seen = 0
    for position in egos:
        ego = np.array([*position[:2], rng.uniform(0, 5), rng.uniform(-np.pi, np.pi)])
        occupancy = tiles.voxelize_ego(ego, FULL)
        near = tiles.triangles[tiles.near(ego[:2], FULL.horizontal_half_diagonal_m)]
        points = frames.to_ego(points_on(near, 500_000, rng), ego)
        index = FULL.index_of(points[FULL.contains(points)])
        marked = occupancy[tuple(index.T)]
        assert marked.all(), f"{(marked == 0).sum()} of {len(marked)} points missed"
        sampled = np.zeros(FULL.shape, dtype=np.uint8)
        sampled[tuple(index.T)] = 1
        assert sampled.sum() > 0.6 * occupancy.sum()
        seen += len(index)
    assert seen > 500_000


# Solid fill


def test_fill_solid_fills_what_is_enclosed_and_only_that():
    occupancy = voxelize(box([4, 4, 4]) + np.array([0, 0, 5.0]), SMALL)
    before = occupancy.copy()
    solid = fill_solid(occupancy)
    np.testing.assert_array_equal(occupancy, before)
    where = np.argwhere(occupancy)
    low, high = where.min(axis=0), where.max(axis=0) + 1
    expected = np.zeros_like(solid)
    expected[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = 1
    np.testing.assert_array_equal(solid, expected)
    assert solid.dtype == np.uint8


def test_fill_solid_leaves_open_shells_and_takes_the_bottom_for_closed():
    shell = np.zeros((7, 7, 6), dtype=np.uint8)
    shell[1:6, 1:6] = 1
    shell[2:5, 2:5, :5] = 0  # closed at the top, open at the grid's bottom
    assert fill_solid(shell)[2:5, 2:5, :5].all()
    shell[3, 3, 5] = 0  # a hole in the roof
    np.testing.assert_array_equal(fill_solid(shell), shell)


def test_fill_solid_of_a_full_grid_and_an_empty_one():
    assert fill_solid(np.ones((3, 3, 3), dtype=np.uint8)).all()
    assert not fill_solid(np.zeros((3, 3, 3), dtype=np.uint8)).any()
