"""Write a trained model as ONNX graphs with what runs them.

motion.onnx       the predicted motion and its draws, float64
past.onnx         what the past cells give all future frames
tokens.onnx       token maps of the future frames; of a model with tokens
frame.onnx        one future frame, averaged over the predicted motion
plan_frame.onnx   one future frame along a plan
onnx.json         frames, grid, thresholds, attribution
constants.npz     scale of the motion's features
onnx_model.py     Python that runs them without torch and without vlwm, with its files: runtime.py,
                  vehicle_motion.py, frames.py
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlwm.core.config.schema import Config
from vlwm.core.errors import MachineError
from vlwm.core.export.onnx.graphs import (
    FrameGraph,
    MotionGraph,
    PastGraph,
    TokensGraph,
    check_exportable,
)
from vlwm.core.export.onnx.group_norm import with_steady_norms
from vlwm.core.export.trained_model import TrainedModel
from vlwm.core.files import atomic_path, make_folder, write_json
from vlwm.core.model.forward import condition_width
from vlwm.core.model.memory.extrapolation import DISTANCES
from vlwm.core.model.memory.observed_fusion import MARGIN
from vlwm.core.model.motion.pose_features import FRAME_FEATURES
from vlwm.core.model.world_model import WorldModel
from vlwm.version import __version__

OPSET = 18
_MOTION = ["state", "log_sigma", "sigma", "moves"]
_RIDGE = ("decay_s", "centre", "scale", "weights")
_COPIED = {
    "onnx_model.py": "vlwm.core.export.onnx",
    "runtime.py": "vlwm.core.export.onnx",
    "vehicle_motion.py": "vlwm.core.export.onnx",
    "frames.py": "vlwm.core.geometry",
}
"""files that run the graphs, with the packages that they are copied from"""
_BESIDE = ("onnx.json", "constants.npz", *_COPIED)


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
    model = with_steady_norms(trained.model.cpu()).eval()
    graphs = graphs_of(trained.config)
    frame = _frame_inputs(trained)
    _write(MotionGraph(model), _motion_inputs(trained), _MOTION, out / "motion.onnx")
    outputs = past_outputs(trained.config)
    _write(PastGraph(model), _past_inputs(trained), outputs, out / "past.onnx")
    if "tokens" in graphs:
        _write(TokensGraph(model), _tokens_inputs(trained), ["maps"], out / "tokens.onnx")
    _write(FrameGraph(model, planned=False), frame, ["probability"], out / "frame.onnx")
    planned = {name: value for name, value in frame.items() if name != "draws"}
    _write(FrameGraph(model, planned=True), planned, ["probability"], out / "plan_frame.onnx")
    with atomic_path(out / "constants.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **_constants(model))
    for name, package in _COPIED.items():
        text = files(package).joinpath(name).read_text(encoding="utf-8")
        with atomic_path(out / name) as temporary:
            temporary.write_text(_standalone(text), encoding="utf-8")
    write_json(out / "onnx.json", _about(trained))  # last: without it the folder is not finished
    return [out / name for name in (*(f"{name}.onnx" for name in graphs), *_BESIDE)]


def _standalone(text: str) -> str:
    """Return a module's text with files next to it in place of the modules of vlwm."""
    for name, package in _COPIED.items():
        module = name.removesuffix(".py")
        text = text.replace(f"from {package} import {module}", f"import {module}")
        text = text.replace(f"from {package}.{module} import", f"from {module} import")
    return text


def graphs_of(config: Config) -> tuple[str, ...]:
    """Return the names of the graphs of a model."""
    tokens = ("tokens",) if config.model.use_tokens else ()
    return ("motion", "past", *tokens, "frame", "plan_frame")


def past_outputs(config: Config) -> list[str]:
    """Return the names of what past.onnx gives."""
    return ["edges", *(["tokens", "context"] if config.model.use_tokens else [])]


def _constants(model: WorldModel) -> dict[str, NDArray[np.float64]]:
    """Return the arrays that `runtime` computes with, float64."""
    head = model.motion_head
    found = {"mean": head.scale.mean, "matrix": head.scale.matrix}
    if head.ridge is not None:
        found |= {name: getattr(head.ridge, name) for name in _RIDGE}
    return {name: value.double().numpy() for name, value in found.items()}


def _about(trained: TrainedModel) -> dict[str, object]:
    """Return what `onnx_model` reads next to the graphs."""
    config, grid = trained.config, trained.grid
    return {
        "vlwm": __version__,
        "opset": OPSET,
        "graphs": graphs_of(config),
        "past_outputs": past_outputs(config),
        "distances": DISTANCES,
        "history": config.history_frames,
        "future": config.future_frames,
        "dt_s": config.frame_dt_s,
        "size": trained.model.motion_head.size,
        "observed": config.data.observed,
        "tokens": config.model.use_tokens,
        "ridge": config.model.pose_ridge,
        "planes": trained.model.memory.fusion.planes,
        "lower_m": grid.lower_m,
        "cell_m": grid.cell_m,
        "shape": grid.shape,
        "thresholds": {name: t.content() for name, t in vars(trained.thresholds).items()},
        "attribution": trained.provenance.attribution,
    }


def _motion_inputs(trained: TrainedModel) -> dict[str, Tensor]:
    """Return inputs of `MotionGraph`, float64, with the shapes that the graph is fixed to."""
    config, head = trained.config, trained.model.motion_head
    past, future, real = config.history_frames, config.future_frames, torch.float64
    found = {
        "features": torch.zeros(1, past * FRAME_FEATURES, dtype=real),
        "constant": torch.zeros(1, future, head.size, dtype=real),
    }
    if config.model.pose_ridge:
        found["ridge"] = torch.zeros(1, future, 3, dtype=real)
    if config.model.use_tokens:
        found["context"] = torch.zeros(1, head.context, dtype=real)
    return found


def _past_inputs(trained: TrainedModel) -> dict[str, Tensor]:
    """Return inputs of `PastGraph`."""
    past = trained.config.history_frames
    cells = torch.zeros(past, *trained.grid.shape, dtype=torch.uint8)
    found = {"occupied": cells}
    if trained.config.model.use_tokens:
        found["past_ego"] = torch.zeros(past, 4)
    return found


def _tokens_inputs(trained: TrainedModel) -> dict[str, Tensor]:
    """Return inputs of `TokensGraph`."""
    past = trained.config.history_frames
    tokens = torch.zeros(past, *trained.model.vae.latent_shape)
    return {"tokens": tokens, "ego": torch.zeros(past + trained.config.future_frames, 4)}


def _frame_inputs(trained: TrainedModel) -> dict[str, Tensor]:
    """Return inputs of `FrameGraph`."""
    model, config = trained.model, trained.config
    (x, y, z), past = model.grid.shape, config.history_frames
    found = {
        "edges": torch.zeros(past, 2 * x + 2 * y, z),
        "unseen": torch.zeros(4, x, y, dtype=torch.int32),
        "condition": torch.zeros(condition_width(config.future_frames)),
        "draws": torch.zeros(len(model.motion_head.even), 6),
    }
    found["past"] = torch.zeros(past, x, y, z, dtype=torch.uint8)
    if config.data.observed:
        found["free"] = found["past"].clone()
        wide = (4, past, x + 2 * MARGIN, y + 2 * MARGIN)
        found |= {"rows": torch.zeros(wide, dtype=torch.int32), "shares": torch.zeros(wide)}
    else:
        found |= {"corners": torch.zeros(past, x, y, 2), "within": torch.zeros(past, x, y)}
    found |= {"mixing": torch.zeros(past, z, z), "reached": torch.zeros(past, z)}
    if model.memory.fusion.planes:
        found |= {
            "planes": torch.zeros(x, y, z, dtype=torch.uint8),
            "explained": torch.zeros(past, x, y, z, dtype=torch.uint8),
        }
    if config.model.use_tokens:
        found["tokens"] = torch.zeros(model.vae.latent_shape)
    return found


def _write(graph: nn.Module, inputs: dict[str, Tensor], outputs: list[str], path: Path) -> None:
    """Trace a graph with inputs by name and write it as one file.

    By torch's older exporter: it needs a second a graph and the package onnx alone; the newer one
    took 13 to 18 times as long here and wrote graphs that agree no better.
    """
    # torch numbers the inputs as the signature orders them
    names = [name for name in inspect.signature(graph.forward).parameters if name in inputs]
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
                graph.eval(), (), str(temporary), kwargs=inputs, input_names=names,
                output_names=outputs, opset_version=OPSET, dynamo=False,
            )  # fmt: skip
    finally:
        quiet.setLevel(level)
