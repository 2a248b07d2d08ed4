"""Write a trained model as ONNX graphs with what runs them.

past.onnx         what the past gives all future frames
frame.onnx        one future frame, averaged over the predicted motion
plan_frame.onnx   one future frame along a plan
onnx.json         frames, grid, thresholds, attribution
constants.npz     scale of the motion's features
onnx_model.py, runtime.py   Python that runs them without torch and without vlwm
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlwm.core.errors import MachineError
from vlwm.core.export.onnx.graphs import FrameGraph, PastGraph, check_exportable
from vlwm.core.export.trained_model import TrainedModel
from vlwm.core.files import atomic_path, make_folder, write_json
from vlwm.core.model.memory.observed_fusion import MARGIN
from vlwm.core.model.motion.pose_features import FRAME_FEATURES
from vlwm.core.model.world_model import WorldModel
from vlwm.version import __version__

OPSET = 18
_RIDGE = ("decay_s", "centre", "scale", "weights")
GRAPHS = ("past", "frame", "plan_frame")
FILES = (*(f"{name}.onnx" for name in GRAPHS), "onnx.json", "constants.npz",
         "onnx_model.py", "runtime.py")  # fmt: skip


def export_onnx(trained: TrainedModel, out: Path) -> list[Path]:
    """Write the graphs of a model into `out`; returns the files.

    Args:
        trained: the model, on the CPU.
        out: made where it is missing.

    Raises:
        UsageError: the graphs do not cover this model; the sentence names the key.
        MachineError: the extra vlwm[onnx] is not installed.
    """
    check_exportable(trained.model)
    if find_spec("onnx") is None:
        raise MachineError("writing ONNX needs the package onnx", remedy="pip install 'vlwm[onnx]'")
    make_folder(out)
    model = trained.model.cpu().eval()
    past, frame = _past_inputs(trained), _frame_inputs(trained)
    outputs = ["state", "log_sigma", "sigma", "moves", "edges"]
    outputs += ["fused"] if trained.config.data.observed else []
    outputs += ["maps"] if trained.config.model.use_tokens else []
    _write(PastGraph(model), past, outputs, out / "past.onnx")
    _write(FrameGraph(model, planned=False), frame, ["probability"], out / "frame.onnx")
    planned = {name: value for name, value in frame.items() if name != "draws"}
    _write(FrameGraph(model, planned=True), planned, ["probability"], out / "plan_frame.onnx")
    with atomic_path(out / "constants.npz") as temporary, temporary.open("wb") as file:
        arrays: dict[str, Any] = dict(_constants(model))
        np.savez(file, **arrays)
    for name in ("onnx_model.py", "runtime.py"):
        text = files("vlwm.core.export.onnx").joinpath(name).read_text(encoding="utf-8")
        with atomic_path(out / name) as temporary:
            text = text.replace("from vlwm.core.export.onnx import runtime", "import runtime")
            temporary.write_text(text, encoding="utf-8")
    write_json(out / "onnx.json", _about(trained))  # last: without it the folder is not finished
    return [out / name for name in FILES]


def _constants(model: WorldModel) -> dict[str, NDArray[np.float64]]:
    """Return the arrays that `runtime` computes with, float64."""
    head = model.motion_head
    found = {"mean": head.scale.mean, "matrix": head.scale.matrix}
    if head.ridge is not None:
        found |= {name: getattr(head.ridge, name) for name in _RIDGE}
    return {name: value.double().numpy() for name, value in found.items()}


def _about(trained: TrainedModel) -> dict[str, object]:
    """Return what `onnx_model` reads beside the graphs."""
    config, grid = trained.config, trained.grid
    return {
        "vlwm": __version__,
        "opset": OPSET,
        "history": config.history_frames,
        "future": config.future_frames,
        "dt_s": config.frame_dt_s,
        "size": trained.model.motion_head.size,
        "observed": config.data.observed,
        "tokens": config.model.use_tokens,
        "ridge": config.model.pose_ridge,
        "lower_m": grid.lower_m,
        "cell_m": grid.cell_m,
        "shape": grid.shape,
        "thresholds": {name: t.content() for name, t in vars(trained.thresholds).items()},
        "attribution": trained.provenance.attribution,
    }


def _past_inputs(trained: TrainedModel) -> dict[str, Tensor]:
    """Return inputs of `PastGraph` with the shapes that the graph is fixed to."""
    config, head = trained.config, trained.model.motion_head
    past, future = config.history_frames, config.future_frames
    cells = torch.zeros(past, *trained.grid.shape, dtype=torch.uint8)
    found = {
        "features": torch.zeros(1, past * FRAME_FEATURES),
        "constant": torch.zeros(1, future, head.size),
        "occupied": cells,
    }
    if config.model.pose_ridge:
        found["ridge"] = torch.zeros(1, future, 3)
    if config.data.observed:
        found |= {"free": cells.clone(), "places": torch.zeros(past, 6), "lift": torch.zeros(past)}
    if config.model.use_tokens:
        found |= {
            "past_ego": torch.zeros(past, 4),
            "plan_ego": torch.zeros(future, 4),
            "planned": torch.zeros(1),
        }
    return found


def _frame_inputs(trained: TrainedModel) -> dict[str, Tensor]:
    """Return inputs of `FrameGraph` with the shapes that the graph is fixed to."""
    model, config = trained.model, trained.config
    (x, y, z), past = model.grid.shape, config.history_frames
    found = {
        "past": torch.zeros(past, x, y, z, dtype=torch.uint8),
        "edges": torch.zeros(past, 2 * x + 2 * y, z),
        "places": torch.zeros(past, 6),
        "lift": torch.zeros(past),
        "condition": torch.zeros(next(model.refinement_net.condition.parameters()).shape[1]),
        "draws": torch.zeros(len(model.motion_head.even), 6),
    }
    if config.data.observed:
        wide = torch.zeros(2, z, x + 2 * MARGIN, y + 2 * MARGIN)
        found |= {"fused": wide, "anchor": torch.zeros(1, 6), "anchor_lift": torch.zeros(1)}
    if config.model.use_tokens:
        found["tokens"] = torch.zeros(model.vae.latent_shape)
    return found


def _write(graph: nn.Module, inputs: dict[str, Tensor], outputs: list[str], path: Path) -> None:
    """Trace a graph with inputs by name and write it as one file.

    By torch's older exporter: it needs a second a graph and the package onnx alone; the newer one
    took 13 to 18 times as long here and wrote graphs that agree no better.
    """
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with (
            torch.no_grad(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            atomic_path(path) as temporary,
        ):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph.eval(), (), str(temporary), kwargs=inputs, input_names=list(inputs),
                output_names=outputs, opset_version=OPSET, dynamo=False,
            )  # fmt: skip
    finally:
        quiet.setLevel(level)
