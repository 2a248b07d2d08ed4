"""A wall is placed where all columns allow it: to a hundredth of a cell, in one part or several.

The scene is made of exact vertical planes by the voxeliser itself; what is asked is where they are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlwm.core.geometry.frames import to_ego
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.voxelize import voxelize
from vlwm.core.model.memory.wall_lines import TallMaps, Wall
from vlwm.core.model.memory.walls import tall_maps

CELL = 0.8
GRID = VoxelGrid.from_range((-24, -24, -2, 24, 24, 18), (CELL, CELL, 2.5))
EGO = np.array([[-6.0, 0.2, 0, 0.31], [-4, 0.3, 0, 0.22], [-2, 0.4, 0, 0.11], [0.1, 0, 0, 0.02]])


def plane(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return the two triangles of a wall 10 m high."""
    low, high = np.array([0.0]), np.array([10.0])
    a, b, c, d = (
        np.concatenate(p) for p in ((first, low), (last, low), (last, high), (first, high))
    )
    return np.stack([np.stack([a, b, c]), np.stack([a, c, d])])


def maps_of(*planes: np.ndarray) -> TallMaps:
    triangles = np.concatenate(planes)
    frames = np.stack([voxelize(to_ego(triangles, own), GRID) for own in EGO])
    return tall_maps(frames, EGO, GRID)


def wall_of(first: np.ndarray, last: np.ndarray) -> Wall:
    length = float(np.linalg.norm(last - first))
    return Wall((first + last) / 2, (last - first) / length, -length / 2, length / 2)


def off_the_line(wall: Wall, first: np.ndarray, last: np.ndarray) -> float:
    """Return the larger distance, in cells, of a wall's ends from the line through two points."""
    true = wall_of(first, last)
    ends = wall.at(np.array([wall.start, wall.end]))
    return float(np.abs(true.coordinates(ends)[1]).max()) / CELL


@settings(max_examples=40, deadline=None)
@given(
    angle=st.floats(0, np.pi),
    x=st.floats(-4, 4),
    y=st.floats(-4, 4),
    length=st.floats(12, 24),
    moved=st.tuples(st.floats(-0.25, 0.25), st.floats(-0.25, 0.25)),
)
def test_a_wall_a_quarter_of_a_cell_off_is_put_where_it_marks_the_same_columns(
    angle: float, x: float, y: float, length: float, moved: tuple[float, float]
) -> None:
    half = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    first, last = np.array([x, y]) - half, np.array([x, y]) + half
    across = np.array([-np.sin(angle), np.cos(angle)]) * CELL
    guess = wall_of(first + moved[0] * across, last + moved[1] * across)
    maps = maps_of(plane(first, last))
    (found,) = maps.placed(guess)
    assert off_the_line(found, first, last) < 0.25
    again = maps_of(plane(*found.at(np.array([found.start, found.end]))))
    # a quarter of a cell is a quarter to half of them; the ends are not looked at
    assert (again.tall != maps.tall).sum() < 0.1 * maps.tall.sum()


def test_the_middle_of_the_room_is_a_hundredth_of_a_cell_from_the_wall() -> None:
    off = []
    for angle in np.linspace(0.05, 3.0, 24):
        half = 10 * np.array([np.cos(angle), np.sin(angle)])
        centre = np.array([np.cos(7 * angle), np.sin(5 * angle)])
        first, last = centre - half, centre + half
        guess = wall_of(first + 0.1, last - 0.1)
        (found,) = maps_of(plane(first, last)).placed(guess)
        off.append(off_the_line(found, first, last))
    assert np.median(off) < 0.02


def test_two_walls_that_no_line_satisfies_are_split() -> None:
    """A facade with a step of half a cell: one line through both is wrong along half of it."""
    ahead, step = np.array([10.0, 0.9]), np.array([0.0, 0.5 * CELL])
    corner = np.array([0.5, 3.0])
    before = corner - ahead, corner
    after = corner + step, corner + step + ahead
    maps = maps_of(plane(*before), plane(*after))
    parts = maps.placed(wall_of(before[0], after[1]))
    assert len(parts) == 2
    for part, true in zip(
        sorted(parts, key=lambda p: p.at(p.start)[0]), (before, after), strict=True
    ):
        assert off_the_line(part, *true) < 0.15


def test_a_straight_wall_is_not_split() -> None:
    first, last = np.array([-10.0, 2.0]), np.array([10.0, 5.0])
    assert len(maps_of(plane(first, last)).placed(wall_of(first, last))) == 1


def test_a_column_that_is_not_known_says_nothing() -> None:
    """Where nothing is known, even an empty raster leaves a wall at the place it had."""
    first, last = np.array([-8.0, 2.0]), np.array([8.0, 2.5])
    maps = maps_of(plane(first, last))
    guess = wall_of(first, last)
    empty = replace(maps, tall=np.zeros_like(maps.tall))
    unknown = replace(empty, known=np.zeros_like(maps.tall))
    (moved,), (same,) = empty.placed(guess), unknown.placed(guess)
    assert same == guess and off_the_line(moved, first, last) > 0.1


@pytest.mark.parametrize("end", [4.0, 4.3, 4.61, 4.9])
def test_a_wall_ends_where_its_columns_do(end: float) -> None:
    along = np.array([np.cos(0.4), np.sin(0.4)])
    first, last = -6.2 * along, end * along
    maps = maps_of(plane(first, last))
    true = wall_of(first, last)
    longer = Wall(true.centre, true.along, true.start - 0.9, true.end + 0.7)
    found = maps.ended(longer)
    assert abs(found.start - true.start) < 0.25 * CELL and abs(found.end - true.end) < 0.25 * CELL


def test_a_wall_that_goes_on_keeps_its_end() -> None:
    first, last = np.array([-14.0, 1.0]), np.array([14.0, 2.0])
    maps = maps_of(plane(first, last))
    part = replace(wall_of(first, last), start=-5.0, end=5.0)
    assert maps.ended(part) == part
