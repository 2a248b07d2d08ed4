"""ONNX graphs forecast what the model does, without torch; what they do not cover is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vlwm
from tests.trained_run import window_of, write_trained_run
from vlwm.core.errors import UsageError
from vlwm.core.model.memory.extrapolation import _edge_states

pytest.importorskip("onnx", reason="writing ONNX needs the extra onnx")
pytest.importorskip("onnxruntime", reason="running ONNX needs the extra onnx")

from vlwm.core.export.onnx.graphs import edge_states
from vlwm.core.export.onnx.onnx_model import OnnxModel
from vlwm.core.export.onnx.writer import export_onnx

EXAMPLE = Path(__file__).parents[4] / "examples" / "onnx_forecast.py"
NO_TOKENS = "model.use_tokens=False"
NO_PLANES = "model.fusion_planes=False"
OBSERVED = ("data.observed=True", "data.cache_tokens=False", NO_PLANES)


def trained(folder: Path, *overrides: str) -> vlwm.Model:
    """A run whose zero-initialised layers have values, so that every part speaks."""
    write_trained_run(folder, *overrides)
    model = vlwm.load(folder, device="cpu")
    world = model._trained.model
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in world.parameters():
            if not parameter.any():
                parameter.copy_(0.05 * torch.randn_like(parameter))
        head = world.motion_head
        for member in head.members if head.context else ():
            context = member.features.weight[:, -head.context :]
            context.copy_(0.05 * torch.randn_like(context))
        counts = world.memory.extrapolation.counts
        counts.copy_(1000 * torch.rand_like(counts).sort(dim=0, descending=True)[0])
        ridge = head.ridge
        if ridge is not None:
            ridge.weights.copy_(0.02 * torch.randn_like(ridge.weights))
            ridge.scale.fill_(3.0)
            ridge.errors.copy_(0.3 * torch.randn_like(ridge.errors))
            head.network_share.fill_(0.6)
        world.residual_weight.copy_(torch.tensor([0.5, 0.75]))
    return model


CASES = {
    "complete": (NO_TOKENS,),
    "no planes": (NO_TOKENS, NO_PLANES),
    "no ridge": (NO_TOKENS, "model.pose_ridge=False"),
    "six degrees of freedom": (NO_TOKENS, "model.pose_dof=6"),
    "observed": (NO_TOKENS, *OBSERVED),
    "observed, completed, odd": (
        NO_TOKENS,
        *OBSERVED,
        "model.fusion_channels=0",
        "model.completion_channels=16",
        "point_cloud_range=[-8,-8,-2,7,8,14]",
    ),
    "observed, completed with attention": (
        NO_TOKENS,
        *OBSERVED,
        "model.fusion_channels=0",
        "model.completion_channels=16",
        "model.completion_blocks=1",
        "model.memory_channels=0",
    ),
    "nothing refines": (NO_TOKENS, "model.memory_channels=0"),
    "tokens": (),
    "observed, tokens": OBSERVED,
}


def test_an_unknown_cell_enters_neither_as_occupied_nor_as_free() -> None:
    """Fault: what nobody observed is read as free."""
    model = object.__new__(OnnxModel)
    model.about = {"observed": True}
    cells, known = np.indices((2, 2)) % 2
    occupied, free = model._cells(cells, known)
    assert occupied.tolist() == (cells * known).tolist()
    assert free.tolist() == ((1 - cells) * known).tolist()
    model.about = {"observed": False}
    with pytest.raises(ValueError, match="complete frames"):
        model._cells(cells, known)


@pytest.mark.parametrize("case", [*list(CASES)[:1], *(pytest.param(c, marks=pytest.mark.ci)
                                                      for c in list(CASES)[1:])])  # fmt: skip
def test_the_graphs_forecast_what_the_model_does(case: str, tmp_path: Path) -> None:
    model = trained(tmp_path / "run", *CASES[case])
    files = export_onnx(model._trained, tmp_path / "onnx")
    assert all(path.is_file() for path in files)
    there = OnnxModel(tmp_path / "onnx", threads=1)
    for seed in range(3):
        occupancy, poses, plan = window_of(model._trained.config, seed)
        occupancy[:, :, 11 + seed, :4] = 1  # a long wall, beside the way
        poses[:, 3:7] *= 1 + 1e-4  # quaternions of float32 have a length of nearly 1
        known = None
        if "observed" in case:
            known = (np.random.default_rng(seed).random(occupancy.shape) < 0.7).astype(np.uint8)
        for flown in (None, plan):
            a, b = (m.forecast(occupancy, poses, plan=flown, ground_z=-0.7, known=known)
                    for m in (model, there))  # fmt: skip
            gap = np.abs(a.probability - b.probability)
            if flown is not None or "tokens" not in case:
                assert gap.max() < 2e-5
                assert np.array_equal(a.occupied, b.occupied)
            if "tokens" not in case:  # the draws meet the same cells, since the motion is the same
                assert np.abs(a.ego - b.ego).max() < 1e-11
                assert np.abs(a.sigma - b.sigma).max() < 1e-11
            # with tokens the motion reads their float32 context: a draw of 256 may meet the next
            # cell, at few places
            assert gap.max() < 3 / 256 and (gap > 1e-4).mean() < 5e-3
            for name in ("poses", "ego", "sigma"):
                assert np.abs(getattr(a, name) - getattr(b, name)).max() < 1e-4, name


def test_the_folder_runs_without_torch_and_vlwm(tmp_path: Path) -> None:
    model = trained(tmp_path / "run", NO_TOKENS, NO_PLANES)
    export_onnx(model._trained, tmp_path / "onnx")
    lines = (
        f"import runpy, sys; sys.argv = ['x', {str(tmp_path / 'onnx')!r}]; "
        f"runpy.run_path({str(EXAMPLE)!r}); "
        "print(sorted({'torch', 'vlwm', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", lines], cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]" and "3.0 s ahead" in done.stdout


def test_edge_states_are_those_of_the_model() -> None:
    frames = (torch.rand(3, 12, 9, 6, generator=torch.Generator().manual_seed(0)) < 0.5).byte()
    assert torch.equal(edge_states(frames.float()).long(), _edge_states(frames))


@pytest.mark.parametrize(
    ("override", "words"),
    [("model.use_memory=False", "model.use_memory=False"),
     ("tokenizer.num_classes=3", "tokenizer.num_classes=3")],
)  # fmt: skip
def test_what_the_graphs_do_not_cover_is_refused_by_name(
    override: str, words: str, tmp_path: Path
) -> None:
    write_trained_run(tmp_path / "run", override)
    with pytest.raises(UsageError, match=words):
        export_onnx(vlwm.load(tmp_path / "run", device="cpu")._trained, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
