"""A ROS 2 node: lidar and odometry in, the forecast as points out.

    ros2 run is not needed:  python3 forecast_node.py --ros-args -p model:=RUN -p ground_z:=0.0

Subscribes  points  sensor_msgs/PointCloud2     odom  nav_msgs/Odometry
Publishes   forecast  sensor_msgs/PointCloud2 with x, y, z, probability, horizon, frame of `odom`

Everything but messages is in `forecast_logic`, which tests/examples/test_forecast_logic.py runs.
The node itself needs a sourced ROS 2 and was not run where the tests run.
"""

from __future__ import annotations

import numpy as np
import rclpy
from forecast_logic import FIELDS, ForecastLogic, xyz_of
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import PointCloud2, PointField

import vlwm


def seconds(stamp: object) -> float:
    """Return a stamp in seconds."""
    return stamp.sec + 1e-9 * stamp.nanosec


class ForecastNode(Node):
    """Forecasts every `period` seconds from the newest scans."""

    def __init__(self) -> None:
        super().__init__("vlwm_forecast")
        model = self.declare_parameter("model", "exported").value
        eye = np.eye(4).flatten().tolist()
        extrinsic = np.reshape(self.declare_parameter("lidar_to_body", eye).value, (4, 4))
        self.logic = ForecastLogic(
            vlwm.load(model),
            lidar_to_body=extrinsic,
            ground_z=self.declare_parameter("ground_z", 0.0).value,
            threshold=self.declare_parameter("threshold", 0.2).value,
            complete=self.declare_parameter("complete", False).value,
        )
        self.now_s, self.frame = None, "odom"
        self.create_subscription(PointCloud2, "points", self.take_points, qos_profile_sensor_data)
        self.create_subscription(Odometry, "odom", self.take_odometry, qos_profile_sensor_data)
        self.publisher = self.create_publisher(PointCloud2, "forecast", 1)
        self.create_timer(self.declare_parameter("period", 0.5).value, self.publish)

    def take_points(self, message: PointCloud2) -> None:
        """Add a scan."""
        fields = [(f.name, f.offset, f.datatype) for f in message.fields]
        points = xyz_of(bytes(message.data), fields, message.point_step, message.is_bigendian)
        self.logic.add_points(seconds(message.header.stamp), points)

    def take_odometry(self, message: Odometry) -> None:
        """Add a pose."""
        at, turn = message.pose.pose.position, message.pose.pose.orientation
        linear, angular = message.twist.twist.linear, message.twist.twist.angular
        pose = [at.x, at.y, at.z, turn.x, turn.y, turn.z, turn.w]
        pose += [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z]
        self.now_s, self.frame = seconds(message.header.stamp), message.header.frame_id
        self.stamp = message.header.stamp
        self.logic.add_odometry(self.now_s, np.array(pose))

    def publish(self) -> None:
        """Forecast from what came so far."""
        rows = None if self.now_s is None else self.logic.forecast(self.now_s)
        if rows is None:
            return
        message = PointCloud2(height=1, width=len(rows), point_step=4 * len(FIELDS), is_dense=True)
        message.header.stamp, message.header.frame_id = self.stamp, self.frame
        message.row_step = message.point_step * len(rows)
        message.fields = [
            PointField(name=name, offset=4 * n, datatype=PointField.FLOAT32, count=1)
            for n, name in enumerate(FIELDS)
        ]
        message.data = rows.tobytes()
        self.publisher.publish(message)


if __name__ == "__main__":
    rclpy.init()
    rclpy.spin(ForecastNode())
