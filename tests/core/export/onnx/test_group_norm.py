"""Group norms of the graphs are as precise in onnxruntime as float32 allows."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("onnx", reason="writing ONNX needs the extra onnx")
pytest.importorskip("onnxruntime", reason="running ONNX needs the extra onnx")

import onnxruntime

from vlwm.core.export.onnx.group_norm import with_steady_norms


def maps() -> Tensor:
    """Maps (1, 16, 120, 120) whose values are nearly all the same, as of a city not yet seen."""
    x = torch.full((1, 16, 120, 120), 0.3)
    x[..., 40:80, 40:80] += torch.randn(1, 16, 40, 40, generator=torch.Generator().manual_seed(0))
    return x


@torch.no_grad()
def test_a_norm_in_a_graph_is_that_of_float64(tmp_path: Path) -> None:
    """Fault: the graph holds torch's own group norm."""
    net = nn.Sequential(nn.GroupNorm(2, 16), nn.Sequential(nn.SiLU(), nn.GroupNorm(8, 16)))
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    exact = net.double()(maps().double())
    steady = with_steady_norms(net.float()).eval()
    limit = 5e-6 * exact.abs().max()
    assert (steady(maps()) - exact).abs().max() < limit
    path = tmp_path / "norm.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            steady, (maps(),), str(path), input_names=["x"], opset_version=18, dynamo=False
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (there,) = session.run(None, {"x": maps().numpy()})
    assert (torch.from_numpy(there) - exact).abs().max() < limit  # 1e-3 with the fault


def test_the_module_itself_keeps_its_norms() -> None:
    net = nn.Sequential(nn.GroupNorm(2, 4))
    copied = with_steady_norms(net)
    assert type(net[0]) is nn.GroupNorm and type(copied[0]) is not nn.GroupNorm
    assert set(copied.state_dict()) == set(net.state_dict())
