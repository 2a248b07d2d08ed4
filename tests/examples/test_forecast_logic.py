"""The logic of the ROS 2 example: points and odometry in, cells of the world out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from examples.ros2.forecast_logic import FIELDS, ForecastLogic, xyz_of
from vlwm.core.export.forecast import Forecast
from vlwm.core.geometry.frames import quaternion_from_heading, rotate
from vlwm.core.geometry.grid import VoxelGrid

GRID = VoxelGrid((-8.0, -8.0, -2.0), (1.0, 1.0, 2.0), (16, 16, 8))
WALL_X, SPEED, YAW = 4.2, 2.0, 0.5
HEAD = quaternion_from_heading(YAW)


@dataclass
class LastFrame:
    """A model whose forecast is the last frame, seen from where the vehicle is now."""

    grid: VoxelGrid = GRID
    history: int = 4
    horizons_s: np.ndarray = field(default_factory=lambda: 0.5 * np.arange(1, 7))
    given: dict[str, Any] = field(default_factory=dict)

    def forecast(self, occupancy: np.ndarray, poses: np.ndarray, **more: Any) -> Forecast:
        self.given = {"occupancy": occupancy, "poses": poses, **more}
        frames = np.repeat(occupancy[-1:], 6, axis=0)
        ego = np.tile([*poses[-1, :2], more["ground_z"], YAW], (6, 1))
        still = np.repeat(poses[-1:], 6, axis=0)
        return Forecast(
            frames.astype(np.float32),
            frames > 0,
            still,
            ego,
            np.ones((6, 4)),
            self.horizons_s,
            GRID,
        )


def flown(logic: ForecastLogic, lidar_to_body: np.ndarray) -> None:
    """Fly 5 s ahead at heading YAW, level at 3 m, and look at a wall across the way."""
    inverse = np.linalg.inv(lidar_to_body)
    for time_s in np.arange(0, 5.01, 0.1):
        ahead = SPEED * (time_s - 5.0)  # 0 at the end
        place = rotate(HEAD, np.array([ahead, 0.0, 3.0]))
        # Odometry: the twist is in the axes of the body, and a quaternion may change its sign
        sign = -1.0 if int(time_s * 10) % 2 else 1.0
        logic.add_odometry(time_s, np.array([*place, *(sign * HEAD), SPEED, 0, 0, 0, 0, 0]))
        if time_s < 0.1:
            continue
        y, z = np.meshgrid(np.arange(-3.0, 3.1, 0.25), np.arange(-2.9, 2.0, 0.25))
        wall = np.stack([np.full(y.size, WALL_X - ahead), y.ravel(), z.ravel()], axis=1)
        sensor = wall @ inverse[:3, :3].T + inverse[:3, 3]
        broken = np.concatenate([sensor, [[np.nan, 0, 0]]])
        assert logic.add_points(time_s - 0.03, broken)


@pytest.fixture
def turned_sensor() -> np.ndarray:
    """A sensor 0.3 m ahead of the body that looks to the left."""
    extrinsic = np.eye(4)
    extrinsic[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    extrinsic[:3, 3] = [0.3, 0, 0.1]
    return extrinsic


def test_a_wall_comes_out_where_it_is(turned_sensor: np.ndarray) -> None:
    model = LastFrame()
    logic = ForecastLogic(model, lidar_to_body=turned_sensor)
    flown(logic, turned_sensor)
    rows = logic.forecast(5.0)
    assert rows is not None and rows.dtype == np.float32 and rows.shape[1] == len(FIELDS)
    assert set(rows[:, 4].tolist()) == {0.5, 1.0, 1.5, 2.0, 2.5, 3.0}
    # in the axes of the vehicle every cell is the wall's: within one cell of its plane
    own = rotate(quaternion_from_heading(-YAW), rows[:, :3].astype(float))
    assert np.abs(own[:, 0] - WALL_X).max() < 1.0 and np.abs(own[:, 1]).max() < 4.0


def test_frames_know_only_what_came_before_them() -> None:
    model = LastFrame()
    logic = ForecastLogic(model, window_s=0.6)
    flown(logic, np.eye(4))
    assert logic.forecast(5.0) is not None
    occupancy, known = model.given["occupancy"], model.given["known"]
    # the wall comes nearer by 1 m a frame, and nothing behind it is known
    nearest = [int(np.argwhere(frame)[:, 0].min()) for frame in occupancy]
    assert nearest == sorted(nearest, reverse=True) and nearest[-1] == 12
    assert known.sum() > occupancy.sum() and not known[-1][14].any()
    # velocities were turned into the world
    assert np.allclose(model.given["poses"][:, 7:9], SPEED * np.array([np.cos(YAW), np.sin(YAW)]))


def test_too_early_is_no_forecast() -> None:
    logic = ForecastLogic(LastFrame())
    assert logic.forecast(0.0) is None
    logic.add_odometry(0.0, np.array([0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0.0]))
    assert not logic.add_points(0.0, np.zeros((3, 3))) and logic.forecast(0.0) is None


def test_points_of_any_layout_are_read() -> None:
    kind = np.dtype({"names": ["y", "x", "z", "t"], "formats": [">f8", ">f4", ">f4", ">u2"],
                     "offsets": [4, 0, 12, 18], "itemsize": 24})  # fmt: skip
    points = np.zeros(5, kind)
    points["x"], points["y"], points["z"] = np.arange(5), 2.0, -1.0
    fields = [("x", 0, 7), ("y", 4, 8), ("z", 12, 7), ("t", 18, 4)]
    found = xyz_of(points.tobytes(), fields, 24, big_endian=True)
    assert np.array_equal(found, np.stack([np.arange(5), [2.0] * 5, [-1.0] * 5], axis=1))
