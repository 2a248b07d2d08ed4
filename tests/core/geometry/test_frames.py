from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vlwm.core.geometry import frames

angle = st.floats(-7, 7)
metre = st.floats(-1e4, 1e4)
ego_frame = st.builds(lambda *values: np.array(values), metre, metre, metre, angle)
point = st.builds(lambda *values: np.array(values), metre, metre, metre)
tilt = st.floats(-1.4, 1.4)


def assert_same_ego(found, expected, atol=1e-8):
    np.testing.assert_allclose(found[..., :3], expected[..., :3], atol=atol)
    turn = frames.wrap_angle(np.asarray(found)[..., 3] - np.asarray(expected)[..., 3])
    np.testing.assert_allclose(turn, 0, atol=1e-10)


def random_poses(rng, count):
    poses = np.zeros((count, 13))
    poses[:, frames.POSITION] = rng.normal(0, 50, (count, 3))
    poses[:, frames.ORIENTATION] = Rotation.random(
        count, random_state=rng.integers(1 << 31)
    ).as_quat()
    poses[:, 7:] = rng.normal(0, 5, (count, 6))
    return poses


@given(angle, metre, metre, st.floats(-0.4, 0.4), st.floats(-0.4, 0.4))
def test_an_object_20_m_ahead_of_any_heading_lands_at_ego_20_0(yaw, x, y, roll, pitch):
    pose = np.zeros(13)
    pose[frames.POSITION] = x, y, 30.0
    pose[frames.ORIENTATION] = frames.quaternion_from_rpy(roll, pitch, yaw)
    ahead = np.array([x + 20 * np.cos(yaw), y + 20 * np.sin(yaw), 12.0])
    ego = frames.ego_of(pose, 10.0)
    np.testing.assert_allclose(frames.to_ego(ahead, ego), [20, 0, 2], atol=1e-8)


def test_left_of_the_vehicle_is_positive_y():
    np.testing.assert_allclose(frames.to_ego([0, 5, 0], [0, 0, 0, 0]), [0, 5, 0], atol=1e-12)
    north = frames.to_ego([-5, 0, 0], [0, 0, 0, np.pi / 2])  # heading north, object to the west
    np.testing.assert_allclose(north, [0, 5, 0], atol=1e-12)


@given(angle)
def test_wrapped_angles_point_the_same_way(value):
    wrapped = frames.wrap_angle(value)
    assert -np.pi < wrapped <= np.pi
    assert np.cos(wrapped) == pytest.approx(np.cos(value), abs=1e-12)
    assert np.sin(wrapped) == pytest.approx(np.sin(value), abs=1e-12)


@given(tilt, tilt, angle)
def test_roll_and_pitch_do_not_change_the_heading(roll, pitch, yaw):
    heading = frames.heading_of(frames.quaternion_from_rpy(roll, pitch, yaw))
    assert frames.wrap_angle(heading - yaw) == pytest.approx(0, abs=1e-9)


@given(tilt, tilt, angle)
def test_quaternions_agree_with_scipy(roll, pitch, yaw):
    found = frames.quaternion_from_rpy(roll, pitch, yaw)
    expected = Rotation.from_euler("ZYX", [yaw, pitch, roll])
    assert (Rotation.from_quat(found) * expected.inv()).magnitude() == pytest.approx(0, abs=1e-7)


def test_products_rotations_and_vectors_agree_with_scipy():
    rng = np.random.default_rng(0)
    left, right = Rotation.random(50, random_state=1), Rotation.random(50, random_state=2)
    product = frames.multiply_quaternions(left.as_quat(), right.as_quat())
    assert (Rotation.from_quat(product) * (left * right).inv()).magnitude().max() < 1e-7
    vectors = rng.normal(size=(50, 3))
    np.testing.assert_allclose(frames.rotate(left.as_quat(), vectors), left.apply(vectors))
    np.testing.assert_allclose(frames.rotation_vector(left.as_quat()), left.as_rotvec(), atol=1e-12)
    tiny = Rotation.from_rotvec(vectors * 1e-6)
    np.testing.assert_allclose(frames.rotation_vector(-tiny.as_quat()), vectors * 1e-6, rtol=1e-9)


@given(point, ego_frame)
def test_to_ego_and_from_ego_are_inverse(position, ego):
    np.testing.assert_allclose(
        frames.from_ego(frames.to_ego(position, ego), ego), position, atol=1e-8
    )


@given(ego_frame, ego_frame)
def test_relative_and_compose_are_inverse(reference, ego):
    relative = frames.relative_ego(reference, ego)
    assert_same_ego(frames.compose_ego(reference, relative), ego)
    assert_same_ego(frames.compose_ego(ego, frames.relative_ego(ego, np.zeros(4))), np.zeros(4))


@given(point, ego_frame, ego_frame)
def test_a_chain_of_frames_is_one_change_of_frame(position, first, second):
    there = frames.to_ego(frames.to_ego(position, first), frames.relative_ego(first, second))
    np.testing.assert_allclose(there, frames.to_ego(position, second), atol=1e-7)


def test_frames_broadcast_over_leading_axes():
    rng = np.random.default_rng(3)
    reference, egos = rng.normal(size=4), rng.normal(size=(5, 6, 4))
    relative = frames.relative_ego(reference, egos)
    assert relative.shape == (5, 6, 4)
    np.testing.assert_allclose(relative[2, 3], frames.relative_ego(reference, egos[2, 3]))
    assert frames.ego_of(random_poses(rng, 7), 0.0).shape == (7, 4)


def test_anchor_poses_put_the_anchor_over_the_origin_looking_along_x():
    rng = np.random.default_rng(4)
    poses, ground = random_poses(rng, 10), rng.normal(0, 3, 10)
    moved, above = frames.anchor_poses(poses, ground, 3)
    ego = frames.ego_of(moved, above)
    np.testing.assert_allclose(ego[3], 0, atol=1e-12)
    assert moved[3, 2] == pytest.approx(poses[3, 2] - ground[3])
    world = frames.ego_of(poses, ground)
    assert_same_ego(ego, frames.relative_ego(world[3], world))


def test_anchor_poses_keep_body_frame_velocities():
    rng = np.random.default_rng(5)
    poses = random_poses(rng, 6)
    moved, _ = frames.anchor_poses(poses, np.zeros(6), 2)
    for part in (frames.LINEAR_VELOCITY, frames.ANGULAR_VELOCITY):
        before = frames.rotate(frames.conjugate(poses[:, frames.ORIENTATION]), poses[:, part])
        after = frames.rotate(frames.conjugate(moved[:, frames.ORIENTATION]), moved[:, part])
        np.testing.assert_allclose(after, before, atol=1e-12)


def test_anchor_poses_do_not_depend_on_where_the_world_begins():
    rng = np.random.default_rng(6)
    poses, ground = random_poses(rng, 6), rng.normal(size=6)
    shift = np.array([100.0, -50.0, 8.0, 2.1])  # the same world seen from elsewhere
    other = poses.copy()
    other[:, :3] = frames.to_ego(poses[:, :3], shift)
    other[:, 3:7] = frames.multiply_quaternions(
        frames.quaternion_from_heading(-shift[3]), poses[:, 3:7]
    )
    other[:, 7:10] = frames.turn_vectors(poses[:, 7:10], -shift[3])
    other[:, 10:] = frames.turn_vectors(poses[:, 10:], -shift[3])
    here, below = frames.anchor_poses(poses, ground, 1)
    there, under = frames.anchor_poses(other, ground - shift[2], 1)
    np.testing.assert_allclose(there, here, atol=1e-9)
    np.testing.assert_allclose(under, below, atol=1e-9)


@given(st.floats(0.1, 20), st.floats(-2, 2), st.floats(-3, 3), angle)
def test_constant_twist_continues_a_circle(speed, sideways, rate, yaw):
    """A vehicle of constant body velocity and yaw rate is foreseen exactly."""
    times = np.linspace(0, 4, 4001)
    heading = yaw + rate * times
    velocity = frames.turn_vectors([speed, sideways, 0], heading)[:, :2]
    middle = (velocity[1:] + velocity[:-1]) / 2 * 1e-3  # trapezoids of 1 ms
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(middle, axis=0)])
    egos = np.column_stack([path, np.zeros(len(times)), heading])
    horizons = [0.5, 1.0, 3.0]
    found = frames.constant_twist(egos[500], egos[1000], 0.5, horizons)
    expected = egos[[1500, 2000, 4000]]
    assert_same_ego(found, expected, atol=1e-3)


@given(ego_frame, ego_frame)
def test_constant_twist_repeats_the_last_step_and_holds_the_ground(first, last):
    found = frames.constant_twist(first, last, 0.5, [0.5])[0]
    step = frames.relative_ego(first, last)
    again = frames.compose_ego(last, step * [1, 1, 0, 1])
    assert_same_ego(found, again, atol=1e-6)
    assert found[2] == last[2]


def test_constant_twist_of_a_batch():
    rng = np.random.default_rng(7)
    first, last = rng.normal(size=(2, 5, 4))
    found = frames.constant_twist(first, last, 0.5, [0.5, 1.0, 1.5])
    assert found.shape == (5, 3, 4)
    np.testing.assert_allclose(
        found[4], frames.constant_twist(first[4], last[4], 0.5, [0.5, 1.0, 1.5])
    )


def test_finite_differences_of_a_helix():
    rate, climb, radius, dt = 0.3, 1.5, 20.0, 0.01
    time = np.arange(200) * dt
    yaw = rate * time
    positions = np.stack([radius * np.cos(yaw), radius * np.sin(yaw), climb * time], axis=-1)
    velocity = np.stack([-np.sin(yaw), np.cos(yaw)], axis=-1) * radius * rate
    quaternions = frames.quaternion_from_heading(yaw + np.pi / 2)
    linear, angular = frames.finite_difference_velocity(positions, quaternions, dt)
    np.testing.assert_allclose(linear[1:-1, :2], velocity[1:-1], atol=1e-4)
    np.testing.assert_allclose(linear[:, 2], climb)
    np.testing.assert_allclose(angular, np.tile([0, 0, rate], (200, 1)), atol=1e-9)


def test_backward_differences_do_not_look_ahead():
    rng = np.random.default_rng(8)
    positions, quaternions = rng.normal(size=(9, 3)), random_poses(rng, 9)[:, 3:7]
    whole = frames.finite_difference_velocity(positions, quaternions, 0.5, "backward")
    past = frames.finite_difference_velocity(positions[:5], quaternions[:5], 0.5, "backward")
    for of_whole, of_past in zip(whole, past, strict=True):
        np.testing.assert_array_equal(of_whole[:5], of_past)


def test_angular_velocity_is_in_the_outer_frame():
    """A pitched body that turns about the vertical has angular velocity along z."""
    pitched = frames.quaternion_from_rpy(0.0, 0.4, np.arange(5) * 0.1)
    _, angular = frames.finite_difference_velocity(np.zeros((5, 3)), pitched, 0.5)
    np.testing.assert_allclose(angular, np.tile([0, 0, 0.2], (5, 1)), atol=1e-12)


@pytest.mark.parametrize("count", [0, 1])
def test_a_path_of_one_frame_stands_still(count):
    linear, angular = frames.finite_difference_velocity(
        np.zeros((count, 3)), np.tile([0, 0, 0, 1.0], (count, 1)), 0.5
    )
    assert linear.shape == angular.shape == (count, 3)
    assert not linear.any()


def test_poses_come_back_from_their_anchor() -> None:
    rng = np.random.default_rng(3)
    poses = rng.normal(size=(5, 4, 13))
    poses[..., 3:7] /= np.linalg.norm(poses[..., 3:7], axis=-1, keepdims=True)
    ground = rng.normal(size=(5, 4))
    local, _ = frames.anchor_poses(poses, ground, 2)
    ego = frames.ego_of(poses[:, 2], ground[:, 2])[:, None]
    np.testing.assert_allclose(frames.poses_from_ego(local, ego), poses, atol=1e-12)
