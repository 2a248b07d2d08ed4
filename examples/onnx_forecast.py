"""Forecast with an ONNX export: NumPy and onnxruntime, neither torch nor vlwm.

    vlwm export checkpoints exported --onnx
    python examples/onnx_forecast.py exported/onnx window.npz

window.npz holds `occupancy` (P, X, Y, Z) of 0 and 1 and `poses` (P, 13): x y z, qx qy qz qw,
vx vy vz, wx wy wz; and `plan` (H, 13) where the motion is known. Without a file an empty street is
forecast, which shows shapes and times.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))  # the export brings onnx_model.py and runtime.py

from onnx_model import OnnxModel  # noqa: E402

model = OnnxModel(folder)
about = model.about
if len(sys.argv) > 2:
    window = dict(np.load(sys.argv[2]))
else:
    shape, past = about["shape"], about["history"]
    occupancy = np.zeros((past, *shape), np.uint8)
    occupancy[..., int(-about["lower_m"][2] / about["cell_m"][2])] = 1  # the ground
    poses = np.zeros((past, 13))
    poses[:, 0] = 2.0 * about["dt_s"] * np.arange(past)  # 2 m/s ahead
    poses[:, 2], poses[:, 6], poses[:, 7] = 3.0, 1.0, 2.0
    window = {"occupancy": occupancy, "poses": poses}

start = time.perf_counter()
forecast = model.forecast(window["occupancy"], window["poses"], plan=window.get("plan"))
print(f"{time.perf_counter() - start:.2f} s for {forecast.probability.shape}")
for seconds, cells in zip(about["dt_s"] * np.arange(1, 7), forecast.occupied, strict=False):
    print(f"{seconds:.1f} s ahead: {int(cells.sum())} occupied cells")
