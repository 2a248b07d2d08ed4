"""A run folder with a small untrained world model, as `vlwm train` leaves one, and its inputs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tests.small_world import batch_of, grid_of, model_of, small
from vlwm.core.config.schema import Config
from vlwm.core.model.bit_packing import unpack_bits
from vlwm.core.model.checkpoint import save_checkpoint

ATTRIBUTION = "3D都市モデル（Project PLATEAU）（国土交通省）, CC BY 4.0"
THRESHOLDS = {
    "model": {"threshold": 0.4, "ground": [0.5] * 6, "above": [0.3, 0.3, 0.25, 0.2, 0.2, 0.2]},
    "model_plan": {"threshold": 0.45, "ground": [0.5] * 6, "above": [0.35] * 6},
}


def write_trained_run(
    folder: Path, *more: str, attribution: str = ATTRIBUTION, unknown_cells: bool = False
) -> Config:
    """Write best.pth and scores.json into `folder`; returns the config of the model."""
    config = small(*more)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "stage": "world", "epoch": 3, "step": 30, "model": model_of(config).state_dict(),
        "config": asdict(config), "threshold": 0.4, "thresholds": THRESHOLDS, "fresh": [],
        "unknown_cells": unknown_cells, "data_hash": "ab" * 32,
        "versions": {"vlwm": "0.1.0", "git": None},
    }  # fmt: skip
    save_checkpoint(folder / "best.pth", content)
    (folder / "scores.json").write_text(json.dumps(score_sheet(attribution)), encoding="utf-8")
    return config


def score_sheet(attribution: str = ATTRIBUTION) -> dict[str, object]:
    """A sheet with the keys of scores.json that cards and reports read."""
    horizons = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    keys = ("iou", "iou_structure", "iou_seen", "iou_new", "precision", "recall", "mean_ratio")
    methods = {"model": 0.6, "model_plan": 0.7, "memory_baseline": 0.5, "true_pose_memory": 0.65}
    scores = {m: {k: [v - 0.02 * h for h in range(6)] for k in keys} for m, v in methods.items()}
    intervals = {
        m: {k: [[v - 0.05, v + 0.05] for v in row] for k, row in keyed.items()}
        for m, keyed in scores.items()
    }
    return {
        "split": "test", "checkpoint": "best.pth", "threshold": 0.4,
        "thresholds": THRESHOLDS, "cuts": THRESHOLDS,
        "horizons_s": horizons, "n_windows": 40, "n_clusters": 31, "too_few_clusters": False,
        "scores": scores, "intervals": intervals, "procedural": False,
        "attribution": attribution, "data": {"root": "data/maru", "hash": "ab" * 32},
        "reliability": {"predicted": [0.1, 0.5, 0.9], "observed": [0.12, 0.45, 0.88],
                        "cells": [1000, 100, 400]},
    }  # fmt: skip


def window_of(config: Config, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Past occupancy (P, X, Y, Z), past poses (P, 13) and the true future poses (H, 13).

    The vehicle drives ahead at 1 to 4 m/s with the velocities that belong to its positions.
    """
    batch, past = batch_of(config, 1, seed), config.history_frames
    occupancy = unpack_bits(batch.bits, grid_of(config).shape).numpy()[0, :past]
    poses = batch.poses.numpy()[0].astype(np.float64)
    poses[:, 7:10] = np.gradient(poses[:, :3], config.frame_dt_s, axis=0)
    return occupancy, poses[:past], poses[past:]
