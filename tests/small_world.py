"""A world model that a test can train, and windows that drive ahead through random cells."""

from __future__ import annotations

import numpy as np
import torch

from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config
from vlwm.core.data.batch import Batch
from vlwm.core.geometry.frames import quaternion_from_heading
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.bit_packing import pack_bits
from vlwm.core.model.world_model import WorldModel

OVERRIDES = (
    "model.channels=[16,16,24]",
    "model.layers_per_level=1",
    "model.memory_channels=8",
    "tokenizer.base_channels=8",
    "tokenizer.embed_dim=16",
    "tokenizer.codebook_size=32",
    "point_cloud_range=[-8,-8,-2,8,8,14]",
    "voxel_size=[1,1,2]",
)


def small(*more: str) -> Config:
    return load_config("test_local", [*OVERRIDES, *more])


def grid_of(config: Config) -> VoxelGrid:
    return VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)


def batch_of(config: Config, size: int = 3, seed: int = 0) -> Batch:
    """Windows that drive ahead through random cells."""
    rng = np.random.default_rng(seed)
    shape = grid_of(config).shape
    cells = torch.from_numpy(rng.random((size, config.window_frames, *shape)) < 0.1)
    poses = np.zeros((size, config.window_frames, 13))
    steps = np.arange(config.window_frames) - (config.history_frames - 1)
    poses[..., 0] = steps * rng.uniform(0.5, 2.0, (size, 1))
    poses[..., 2] = 3.0
    yaw = steps * rng.uniform(-0.1, 0.1, (size, 1))
    poses[..., 3:7] = quaternion_from_heading(yaw)
    return Batch(
        bits=pack_bits(cells),
        poses=torch.from_numpy(poses).float(),
        ground_z=torch.zeros(size, config.window_frames),
        index=torch.arange(size),
        symmetry=torch.zeros(size, dtype=torch.int64),
    )


def model_of(config: Config) -> WorldModel:
    torch.manual_seed(0)
    model = WorldModel(config, grid_of(config))
    model.set_prior(np.linspace(0.9, 0.01, grid_of(config).shape[2]))
    return model
