"""A run folder that grows as a training run's does, without training.

    python tests/fake_run.py FOLDER --steps 400 --pause 0.05

writes status, metrics and checkpoints of both stages in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import socket
import time
from pathlib import Path
from typing import Any

from vlwm.core.run_folder import RunFolder


def status(folder: RunFolder, **changes: Any) -> dict[str, Any]:
    """A status of this process, as the trainer writes it."""
    now = time.time()
    return {
        "version": 1, "pid": os.getpid(), "host": socket.gethostname(), "heartbeat": now,
        "started": now - 3661, "state": "running", "phase": "world", "stage": "world",
        "epoch": 11, "epochs": 50, "step": 1204, "steps": 5000, "eta_s": 11520.0, "health": [],
        "exit_code": None, "next": None, "device": "cuda", "config": "finetune_tokyo",
        "work_dir": str(folder.path), **changes,
    }  # fmt: skip


def train_record(stage: str, step: int, seed: int = 0) -> dict[str, Any]:
    """A plausible line of metrics.jsonl."""
    noise = random.Random(f"{stage}{step}{seed}")
    fall = math.exp(-step / 900)
    wave = noise.gauss(0, 0.03)
    record: dict[str, Any] = {
        "time": round(time.time(), 3), "kind": "train", "stage": stage, "epoch": step // 100,
        "step": step, "train/loss": 0.35 + 4 * fall + wave, "loss/occupancy": 0.3 + fall + wave,
        "loss/focal": 0.012 + 0.2 * fall, "loss/dice": 0.28 + 0.7 * fall + wave,
        "loss/mean": 0.02 + fall, "pred/mean": 0.0083 * (1 + 2 * fall) + wave / 200,
        "pred/min": 0.0, "pred/max": 0.91, "pred/occupancy_rate": 0.0081,
        "target/mean": 0.0083 + noise.gauss(0, 2e-4), "lr": 1e-4, "grad_norm": 1.9 + wave,
        "loader_share": 0.012, "memory_gb": 12.4, "skipped_steps": 0.0,
    }  # fmt: skip
    if stage == "tokenizer":
        own = {"loss/vq": 0.1 + fall, "codebook/used": 470.0, "codebook/size": 512.0,
               "codebook/perplexity": 391.0, "frames_per_s": 210 + 10 * wave}  # fmt: skip
    else:
        own = {"loss/token": 3.1 + 3 * fall, "loss/pose": 0.2 * fall, "windows_per_s": 12 + wave}
    return {**record, **own}


def val_record(stage: str, step: int) -> dict[str, Any]:
    """A plausible line after a validation."""
    rise = 1 - math.exp(-step / 700)
    own = {"val/round_trip_iou": 0.7 * rise} if stage == "tokenizer" else {
        "val/iou": 0.46 * rise, "val/iou_memory_baseline": 0.38, "val/threshold": 0.41}  # fmt: skip
    return {"time": time.time(), "kind": "val", "stage": stage, "epoch": step // 100, "step": step,
            "epoch/val_loss": 0.5 - 0.2 * rise, "epoch/lr": 1e-4, **own}  # fmt: skip


def append(folder: RunFolder, record: dict[str, Any]) -> None:
    """Add a line of metrics."""
    with open(folder.create().metrics_jsonl, "a") as handle:
        handle.write(json.dumps(record) + "\n")


def write_run(path: Path, steps: int = 1200, **changes: Any) -> RunFolder:
    """A whole run folder in the middle of stage 2."""
    folder = RunFolder(path)
    for stage, place in (("tokenizer", folder.tokenizer), ("world", folder)):
        for step in range(10, steps + 1, 10):
            append(place, train_record(stage, step))
            if step % 100 == 0:
                append(place, val_record(stage, step))
        for name, size in (("epoch_5.pth", 3000), ("best.pth", 2000), ("last.pth", 4000)):
            (place.path / name).write_bytes(b"\0" * size)
    folder.write_status(status(folder, **changes))
    return folder


def grow(path: Path, steps: int, pause_s: float) -> None:
    """Write a run step by step, and end it."""
    folder = RunFolder(path).create()
    for stage, place in (("tokenizer", folder.tokenizer), ("world", folder)):
        for step in range(1, steps + 1):
            where = {"stage": stage, "phase": stage, "step": step, "steps": steps,
                     "epoch": step // 100, "epochs": steps // 100 or 1, "device": "cpu",
                     "eta_s": (steps - step) * pause_s}  # fmt: skip
            folder.write_status(status(folder, **where, started=time.time() - step * pause_s))
            if step % 2 == 0:
                append(place, train_record(stage, 4 * step))
            if step % 50 == 0:
                append(place, val_record(stage, 4 * step))
                (place.path / "last.pth").write_bytes(b"\0" * 40_000)
            time.sleep(pause_s)
    done = {"state": "done", "phase": "done", "step": steps, "steps": steps, "exit_code": 0}
    folder.write_status(status(folder, **done, next=f"vlwm eval {path} --split test"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--pause", type=float, default=0.05)
    options = parser.parse_args()
    grow(options.folder, options.steps, options.pause)
