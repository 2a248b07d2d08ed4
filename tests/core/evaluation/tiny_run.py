"""A run with an untrained world model on a tiny grid, its data, and an engine that is elsewhere."""

from __future__ import annotations

import pickle
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from vlwm.core.config.load import config_from_dict, load_config
from vlwm.core.config.schema import Config
from vlwm.core.data.npz import write_layers
from vlwm.core.data.session import write_pose
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.checkpoint import save_checkpoint
from vlwm.core.model.world_model import WorldModel


def write_tiny_data(folder: Path, sessions: int = 3, frames: int = 11) -> Path:
    """Write tiny.py, a config, and recorded sessions without session.json; return their folder."""
    (folder / "tiny.py").write_text(
        "point_cloud_range = [-8, -8, -2, 8, 8, 10]\nvoxel_size = [1.0, 1.0, 1.5]\n"
    )
    rng = np.random.default_rng(0)
    for number in range(sessions):
        session = folder / "data" / f"drone_20240101_00000{number}"
        for name in ("occupancy", "poses"):
            (session / name).mkdir(parents=True)
        for i in range(frames):
            cells = (rng.random((16, 16, 8)) < 0.1).astype(np.uint8)
            write_layers(session / "occupancy" / f"{i:06d}_occupancy.npz", {"occupancy": cells})
            pose = np.array([i, 0, 3, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0], float)
            write_pose(session / "poses" / f"{i:06d}.json", pose, 0.0, 0.5 * i)
    return folder / "data"


def tiny_config(folder: Path) -> Config:
    """Return the config of the run, on the data of `write_tiny_data`."""
    small = {
        "tokenizer": {"base_channels": 8, "embed_dim": 8, "codebook_size": 16,
                      "num_res_blocks": 1, "channel_mult": [1, 2]},
        "model": {"channels": [8, 16], "num_heads": 2, "layers_per_level": 1,
                  "memory_channels": 8, "memory_levels": 2, "pose_channels": 16},
        "data_root": str(folder / "data"),
    }  # fmt: skip
    return config_from_dict({**load_config(folder / "tiny.py").to_dict(), **small})


def write_tiny_run(folder: Path) -> Path:
    """Write a run folder with best.pth; return it."""
    config = tiny_config(folder)
    model = WorldModel(config, VoxelGrid.from_range(config.point_cloud_range, config.voxel_size))
    content = {"stage": "world", "model": model.state_dict(), "config": config.to_dict()}
    (folder / "run").mkdir()
    save_checkpoint(folder / "run" / "best.pth", {**content, "threshold": 0.25})
    return folder / "run"


class ElsewhereEngine:
    """Runs items in this process as if in another one: by pickle, and from last to first."""

    elsewhere = True

    def run(self, function: Any, items: Any) -> Generator[Any, None, None]:
        for item in reversed(items):
            there, own = pickle.loads(pickle.dumps((function, item)))
            yield pickle.loads(pickle.dumps(there(own)))
