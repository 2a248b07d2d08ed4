"""Plan a run for `vlwm train --dry-run`: everything that would happen, with nothing written.

Frames are counted by name, not opened, so the numbers of steps are close, not exact.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from vlwm.core.config.schema import Config
from vlwm.core.data.generation.session_plans import grid_values
from vlwm.core.data.splits import PLAN_FILE, deal_sessions
from vlwm.core.errors import DataError
from vlwm.core.files import free_bytes, read_json
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.hardware.advice import FULL_GRID_CELLS, VRAM_TABLE, guide_hours
from vlwm.core.hardware.gpu import Gpu, read_gpus
from vlwm.core.model.world_model import WorldModel
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.loop.progress import StageSettings
from vlwm.core.training.loop.stepper import autocast_type
from vlwm.core.training.options import TrainOptions
from vlwm.core.training.run_context import choose_device, describe
from vlwm.core.training.startup.data_on_demand import holds_sessions, refuse_what_is_missing
from vlwm.core.training.startup.initial_weights import (
    refuse_a_missing_checkpoint,
    refuse_missing_weights,
)
from vlwm.core.training.startup.resume import locate_data, resumes_run
from vlwm.core.vocabulary import Split, Stage

_GUIDE_EPOCHS = 50

_BYTES = 4  # of a float32


def make_plan(config: Config, options: TrainOptions) -> dict[str, Any]:
    """Return the resolved plan as plain values.

    Raises:
        DataError: data or weights are missing, as they would be when training.
        MachineError: the requested GPU does not exist.
    """
    refuse_a_missing_checkpoint(options)
    config = locate_data(config, options)
    refuse_what_is_missing(config, raw_will_do=options.auto is not None)
    folder = RunFolder(options.work_dir)
    on = resumes_run(folder, config, options)
    if not on:
        refuse_missing_weights(config, options)
    device = choose_device(options.gpu_id)
    precision = autocast_type(config.amp, device)
    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    _refuse_another_grid(config, grid)
    stages = [stage for stage in Stage if options.trains(stage)]
    sizes = _parameters(config, grid)
    disk = sum(_checkpoint_gb(config, stage, sizes) for stage in stages)
    gpu = _gpu(device)
    auto = {} if options.auto is None else {"auto": options.auto.paragraph}
    return {
        **auto,
        "config": config.name,
        "work_dir": str(folder.path),
        "begins": "resumes" if on else ("moves the run there aside" if _runs(folder) else "fresh"),
        "data_root": ", ".join(config.data_roots),
        "data": _data(config),
        "weights": _weights(config, options),
        "stages": stages,
        "grid": list(grid.shape),
        "device": describe(device),
        "precision": "float32" if precision is None else str(precision).removeprefix("torch."),
        "batch_size": {stage: StageSettings.of(config, stage).batch_size for stage in stages},
        "lr": {stage: StageSettings.of(config, stage).lr for stage in stages},
        "epochs": {stage: StageSettings.of(config, stage).epochs for stage in stages},
        "steps": {stage: _steps(config, stage) for stage in stages},
        "parameters": sizes,
        "vram_gb_by_guide": vram_gb(config.data.samples_per_gpu)
        if gpu and _is_full(grid)
        else None,
        "hours_by_guide": _hours(config, gpu),
        "checkpoints_gb": round(disk, 2),
        "disk_free_gb": round(free_bytes(folder.path) / 1e9, 1),
    }


def plan_lines(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a plan for people: a name and a sentence per line."""
    data, sizes = plan["data"], plan["parameters"]
    resumes = f"{plan['begins']} in {plan['work_dir']}"
    lines = [
        ("config", plan["config"]),
        ("run", {"fresh": f"a new run starts in {plan['work_dir']}"}.get(plan["begins"], resumes)),
        ("data", f"{plan['data_root']}: {data['state']}; {data['train_frames']} frames of "
                 f"{data['train_sessions']} sessions to train on"),
        ("weights", plan["weights"]),
        ("grid", " x ".join(map(str, plan["grid"])) + " cells"),
        ("device", f"{plan['device']}, {plan['precision']}"),
    ]  # fmt: skip
    for number, stage in enumerate(plan["stages"], 1):
        of = sizes["tokenizer" if stage == Stage.TOKENIZER else "world_trained"]
        lines.append((
            f"stage {number}",
            f"{stage}: {plan['epochs'][stage]} epochs, {plan['steps'][stage]} steps, batch "
            f"{plan['batch_size'][stage]}, lr {plan['lr'][stage]:g}, {of / 1e6:.1f} M parameters",
        ))  # fmt: skip
    if plan["vram_gb_by_guide"] is not None:
        lines.append(("GPU memory", f"about {plan['vram_gb_by_guide']:.0f} GB"))
    if plan["hours_by_guide"] is not None:
        lines.append(("time", f"about {plan['hours_by_guide']:.0f} h"))
    lines.append(("disk", f"{plan['checkpoints_gb']:.2f} GB of checkpoints; "
                          f"{plan['disk_free_gb']:.0f} GB are free"))  # fmt: skip
    return lines


def _is_full(grid: VoxelGrid) -> bool:
    """Return whether a grid is as large as that of the VRAM table."""
    return grid.num_cells >= FULL_GRID_CELLS


def _refuse_another_grid(config: Config, grid: VoxelGrid) -> None:
    """Compare the grid that the data were prepared with, as training would.

    Raises:
        DataError: the grids differ.
    """
    path = Path(config.data_root) / PLAN_FILE
    if not path.exists():
        return
    plan = read_json(path)
    made = plan.get("grid") if isinstance(plan, dict) else None
    wanted = json.loads(json.dumps(grid_values(grid)))
    if made is not None and made != wanted:
        raise DataError(
            "the data were prepared with another grid than the config's",
            where=config.data_root,
            remedy="train with the --config that they were prepared with, or prepare others",
        )


def _runs(folder: RunFolder) -> bool:
    return folder.holds_a_run()


def _weights(config: Config, options: TrainOptions) -> str:
    if config.load_from is None or options.from_scratch:
        return "from scratch"
    return config.load_from


def vram_gb(batch: int) -> float:
    """Return GB of VRAM by the guide's table, linear between its rows and beyond them."""
    rows = [row for row in VRAM_TABLE if row[0] <= batch]
    low = rows[-1] if rows[-1] != VRAM_TABLE[-1] else VRAM_TABLE[-2]
    high = VRAM_TABLE[VRAM_TABLE.index(low) + 1]
    return round(low[1] + (high[1] - low[1]) * (batch - low[0]) / (high[0] - low[0]), 1)


def _gpu(device: torch.device) -> Gpu | None:
    gpus = read_gpus().gpus if device.type == "cuda" else ()
    return gpus[0] if gpus else None


def _hours(config: Config, gpu: Gpu | None) -> float | None:
    """Return hours of stage 2 by the guide's table for 50 epochs; None without a GPU."""
    hours = None if gpu is None else guide_hours(gpu)[1]
    return None if hours is None else round(hours * config.max_epochs / _GUIDE_EPOCHS, 1)


def _parameters(config: Config, grid: VoxelGrid) -> dict[str, int]:
    # shapes without memory: a model of any size is counted at once
    with torch.device("meta"):
        model = WorldModel(config, grid)
    return {
        Stage.TOKENIZER: sum(p.numel() for p in model.vae.parameters()),
        Stage.WORLD: sum(p.numel() for p in model.parameters()),
        "world_trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def _checkpoint_gb(config: Config, stage: Stage, sizes: dict[str, int]) -> float:
    """Return GB of a stage's checkpoints: weights and two moments of what is trained, all files."""
    trained = sizes["world_trained"] if stage == Stage.WORLD else sizes[Stage.TOKENIZER]
    one = _BYTES * (sizes[stage] + 2 * trained)
    wanted = config.checkpoint_config
    # epoch_*.pth that are kept, and with them last.pth and best.pth
    periodic = math.ceil(StageSettings.of(config, stage).epochs / wanted.interval)
    if wanted.max_keep_ckpts > 0:
        periodic = min(periodic, wanted.max_keep_ckpts)
    return one * (periodic + 2) / 1e9


def _data(config: Config) -> dict[str, Any]:
    frames = _train_frames(config)
    made = "a procedural city is made first"
    if config.prepare.source != "procedural":
        made = f"prepared first from {config.prepare.input}"
    every = all(holds_sessions(Path(root)) for root in config.data_roots)
    state = "prepared" if every else made
    return {"state": state, "train_sessions": len(frames), "train_frames": sum(frames)}


def _train_frames(config: Config) -> list[int]:
    """Return the frames of each session that trains."""
    sessions = [s for r in config.data_roots for s in sorted(Path(r).glob("*/occupancy"))]
    if not sessions:
        dealt = deal_sessions(config.prepare.sessions)
        return [config.prepare.frames for split in dealt if split == Split.TRAIN]
    trains = [s for s in sessions if _split(s.parent / "session.json") in (None, Split.TRAIN)]
    return [len(list(s.glob("*_occupancy.npz"))) for s in trains]


def _split(path: Path) -> str | None:
    """Return the split that a session states.

    Raises:
        DataError: its file is damaged, as training would say.
    """
    if not path.exists():
        return None
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(
            "session.json must be a JSON object", where=path, remedy="run vlwm prepare again"
        )
    split = value.get("split")
    return split if isinstance(split, str) else None


def _steps(config: Config, stage: Stage) -> int:
    settings = StageSettings.of(config, stage)
    frames = _train_frames(config)
    if stage == Stage.TOKENIZER:
        samples = sum(frames)
    else:
        samples = sum(max(0, n - config.window_frames + 1) for n in frames)
    return settings.epochs * math.ceil(samples / settings.batch_size)
