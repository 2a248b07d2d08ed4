"""Write sessions of a made-up street of towers, and the config that fits them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vlwm.core.config.load import config_from_dict
from vlwm.core.config.schema import Config
from vlwm.core.data.npz import write_layers
from vlwm.core.data.session import SessionMeta, write_meta, write_pose
from vlwm.core.geometry.frames import ego_of, from_ego, quaternion_from_heading
from vlwm.core.geometry.grid import VoxelGrid

FRAMES = 14
NAMES = ("drone_20240101_000000", "drone_20240101_000001", "rover_20240101_000002")


def config_of(root: Path) -> Config:
    return config_from_dict(
        {
            "name": "tiny",
            "data_root": str(root),
            "point_cloud_range": [-8, -8, -2, 8, 8, 10],
            "voxel_size": [1.0, 1.0, 1.5],
        }
    )


def street(grid: VoxelGrid, ego: np.ndarray) -> np.ndarray:
    """A static world of ground and square towers, seen from an ego frame (z about 0)."""
    points = from_ego(grid.centers(), ego)
    i, j = np.floor(points[..., 0] / 5), np.floor(points[..., 1] / 5)
    tower = np.sin(12.9898 * i + 78.233 * j) > 0.4  # without a period
    z = points[..., 2]
    return (((z < 0) & (z > -1.5)) | (tower & (z > 0) & (z < 6))).astype(np.uint8)


def write_session(folder: Path, grid: VoxelGrid, number: int, origin: dict | None) -> None:
    times = 0.5 * np.arange(FRAMES)
    poses = np.zeros((FRAMES, 13))
    yaw = 0.1 * np.sin(times + number)
    poses[:, 0], poses[:, 1], poses[:, 2] = 4.0 * times + 40 * number, np.sin(times), 3.0
    poses[:, 3:7] = quaternion_from_heading(yaw)
    for name in ("occupancy", "poses"):
        (folder / name).mkdir(parents=True)
    for i, ego in enumerate(ego_of(poses, np.zeros(FRAMES))):
        write_layers(
            folder / "occupancy" / f"{i:06d}_occupancy.npz", {"occupancy": street(grid, ego)}
        )
        write_pose(folder / "poses" / f"{i:06d}.json", poses[i], 0.0, float(times[i]))
    meta = SessionMeta("drone", 0.5, origin=origin, procedural=True, attribution="made up")
    write_meta(folder, meta)
