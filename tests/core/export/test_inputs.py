"""Arrays of a caller are understood, or refused with the fix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.small_world import grid_of, small
from tests.trained_run import window_of
from vlwm.core.errors import UsageError
from vlwm.core.export.inputs import Conventions, ForecastInput, check_inputs
from vlwm.core.geometry.frames import conjugate, quaternion_from_rpy, rotate

CONFIG = small()
GRID = grid_of(CONFIG)
CELLS, POSES, PLAN = window_of(CONFIG)


def check(cells: object = CELLS, poses: object = POSES, **more: object) -> ForecastInput:
    conventions = Conventions(more.pop("quaternion", None), more.pop("velocity_frame", None))
    return check_inputs(cells, poses, GRID, (4, 6), 0.5, conventions=conventions, **more)


def w_first(poses: np.ndarray) -> np.ndarray:
    return np.concatenate([poses[:, :3], np.roll(poses[:, 3:7], 1, axis=1), poses[:, 7:]], axis=1)


def turned(poses: np.ndarray) -> np.ndarray:
    """The same poses in a world turned by 120 degrees."""
    out, turn = poses.copy(), quaternion_from_rpy(0, 0, 2.1)
    for part in (slice(0, 3), slice(7, 10), slice(10, 13)):
        out[:, part] = rotate(turn, poses[:, part])
    from vlwm.core.geometry.frames import multiply_quaternions

    out[:, 3:7] = multiply_quaternions(turn, poses[:, 3:7])
    return out


def body(poses: np.ndarray) -> np.ndarray:
    out = poses.copy()
    for part in (slice(7, 10), slice(10, 13)):
        out[:, part] = rotate(conjugate(poses[:, 3:7]), poses[:, part])
    return out


def test_other_conventions_give_the_same_poses() -> None:
    poses = turned(POSES)
    plain = check(poses=poses).poses
    np.testing.assert_allclose(check(poses=w_first(poses), quaternion="wxyz").poses, plain)
    np.testing.assert_allclose(check(poses=body(poses), velocity_frame="body").poses, plain)


def test_a_window_without_an_axis_of_windows_gets_one() -> None:
    one, two = check(), check(np.stack([CELLS] * 2), np.stack([POSES] * 2), plan=[PLAN, PLAN])
    assert (one.batched, two.batched) == (False, True)
    assert one.occupancy.shape == (1, 4, *GRID.shape)
    assert two.plan is not None and two.plan.shape == (2, 6, 13)
    assert CELLS.dtype == np.uint8 and check(CELLS.astype(bool)).occupancy.dtype == np.uint8


def test_terrain_heights_are_held_where_the_plan_has_none() -> None:
    given = check(plan=PLAN, ground_z=[1, 2, 3, 4])
    assert given.plan_ground_z.tolist() == [[4.0] * 6]
    assert check(plan=PLAN, ground_z=np.arange(10)).plan_ground_z.tolist() == [[4, 5, 6, 7, 8, 9]]


def test_the_caller_s_arrays_stay_as_they_are() -> None:
    poses = w_first(POSES)
    before = poses.copy()
    check(poses=poses, quaternion="wxyz", velocity_frame="body")
    np.testing.assert_array_equal(poses, before)


def _scaled(poses: np.ndarray, factor: float) -> np.ndarray:
    return np.concatenate([poses[:, :7], factor * poses[:, 7:]], axis=1)


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: check(CELLS[:3]), "occupancy has shape"),
    (lambda: check(CELLS[0]), "np.stack the last 4"),
    (lambda: check(CELLS.swapaxes(-3, -1)), "order the axes x, y, z"),
    (lambda: check(np.concatenate([CELLS, CELLS])[None]), "give the last 4 frames"),
    (lambda: check(CELLS * 0.7), "occupancy holds values other than 0 and 1"),
    (lambda: check(CELLS * 17), "occupancy holds classes up to 17"),
    (lambda: check(CELLS.astype(str)), "not numbers"),
    (lambda: check(known=np.stack([CELLS] * 2)), "known has 2 windows and occupancy has 1"),
    (lambda: check(poses=POSES[:, :7]), "thirteen numbers each"),
    (lambda: check(poses=POSES.astype(str)), "poses holds <U32, not numbers"),
    (lambda: check(poses=POSES * np.nan), "poses holds NaN or infinity"),
    (lambda: check(poses=np.roll(POSES, 3, axis=1)), "are not unit quaternions"),
    (lambda: check(poses=w_first(POSES)), "poses[:, 3:7] looks w-first"),
    (lambda: check(plan=w_first(PLAN)), "plan[:, 3:7] looks w-first"),
    (lambda: check(poses=body(turned(POSES))), "poses[:, 7:10] looks body-frame"),
    (lambda: check(poses=_scaled(POSES, 0)), "are near 0 while the positions move"),
    (lambda: check(poses=_scaled(POSES, 5)), "The positions move at".lower()),
    (lambda: check(poses=POSES + np.eye(13)[2] * 900), "ground_z is missing"),
    (lambda: check(ground_z=[1, 2]), "ground_z has shape (2,), not (4,)"),
    (lambda: check(ground_z=np.nan), "ground_z holds NaN or infinity"),
    (lambda: check(quaternion="wxzy"), "quaternion='wxzy' is unknown"),
    (lambda: check(velocity_frame="ned"), "velocity_frame='ned' is unknown"),
]


@pytest.mark.parametrize(("call", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_a_mistake_is_named_with_its_fix(call: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert words in str(caught.value) and caught.value.remedy


def test_a_convention_that_is_stated_is_believed() -> None:
    check(poses=w_first(POSES), quaternion="xyzw", velocity_frame="world")
    check(poses=_scaled(POSES, 5), velocity_frame="world")
