"""Whether our OccWorld is OccWorld: every output beside that of the original.

    python benchmarks/occworld_parity.py --golden DIR [--json] [--recipe sin|randn] [--frames 15|3]

The golden folder holds names and shapes of the original's parameters, two recipes to fill them, and
what the original answered. Printed is the largest deviation of each output: floats in standard
deviations of the golden ones (over samples, mean, deviation, extremes and, where given, all
values), losses relative, whole numbers as the share that differs. Exit 0 within the limits, else 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlwm.core.model.occworld import FREE, MODES, SHAPE, OccWorld

LIMITS = {
    "z_after_quant_conv": 1e-3,
    "indices": 0.0,
    "vq_loss": 1e-4,
    "train/ce_inputs": 1e-4,
    "train/pose_decoded": 1e-4,
    "train/ce_loss": 1e-5,
    "eval/logits": 1e-3,
    "eval/sem_pred": 1e-6,
    "eval/iou_pred": 1e-6,
    "autoreg/ce_inputs": 1e-4,
    "autoreg/argmax_codes": 0.0,
    "autoreg/pose_decoded": 1e-4,
    "autoreg/poses_": 1e-4,
    "autoreg/logits": 1e-3,
    "autoreg/sem_pred": 1e-6,
}
TIES = 1e-3
"""share of indices that may differ where the golden outputs hold exact ties"""


class Golden:
    """The golden folder: facts of the parameters, and the outputs of one recipe and length."""

    def __init__(self, folder: Path, recipe: str, frames: int) -> None:
        self.facts = json.loads((folder / "occworld_state_dict.json").read_text(encoding="utf-8"))
        self.recipe, self.frames = recipe, frames
        with np.load(folder / "occworld_golden.npz") as archive:
            prefix = f"{recipe}_{frames}_f32/"
            self.values = {
                name.removeprefix(prefix): archive[name]
                for name in archive.files
                if name.startswith((prefix, "meta/"))
            }

    def limit(self, name: str) -> float:
        """The most that an output may deviate."""
        tied = self.values["codebook_margin_quantiles_0_1_10_50"][0] == 0.0
        return TIES if name == "indices" and tied else LIMITS[name]

    def model(self) -> OccWorld:
        """Our OccWorld with the recipe's parameters.

        Raises:
            ValueError: a parameter's name, shape or filling is not the original's.
        """
        model = OccWorld(self.frames).eval().requires_grad_(False)
        state = model.state_dict()
        names = sorted(self.facts)
        if sorted(state) != names:
            raise ValueError(f"other parameters: {sorted(set(state) ^ set(names))[:5]}")
        for index, name in enumerate(names):
            shape = self._shape(name)
            if tuple(state[name].shape) != shape:
                raise ValueError(f"{name} has shape {tuple(state[name].shape)}, not {shape}")
            values = filled(self.recipe, index, shape, self.facts[name]["norm_weight"])
            self._check(name, index, values)
            state[name].copy_(torch.from_numpy(values))
        return model

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(self.facts[name]["shape"])
        return (self.frames + 1, *shape[1:]) if "temporal_embeddings" in name else shape

    def _check(self, name: str, index: int, values: np.ndarray) -> None:
        if "temporal_embeddings" in name and self.frames != 15:
            return
        total = self.values[f"meta/{self.recipe}_15_param_sum"][index]
        first = self.values[f"meta/{self.recipe}_15_param_first"][index]
        near = abs(values.sum(dtype=np.float64) - total) <= 1e-5 * max(1.0, abs(total))
        if not near or not np.isclose(values.flat[0], first, atol=1e-6):
            raise ValueError(f"{name} is filled with other numbers than the original's")

    def deviation(self, name: str, value: np.ndarray | float) -> float:
        """How far an output is from the golden one, see the module."""
        gold = self.values
        if name in gold:
            return abs(float(value) - float(gold[name])) / abs(float(gold[name]))
        array = np.asarray(value)
        if f"{name}/hist" in gold:
            return self._differing(name, array)
        if tuple(gold[f"{name}/shape"]) != array.shape:
            return float("inf")
        parts = [array.mean(dtype=np.float64) - gold[f"{name}/mean"],
                 array.std(dtype=np.float64) - gold[f"{name}/std"],
                 array.min() - gold[f"{name}/min"], array.max() - gold[f"{name}/max"],
                 array.flat[gold[f"{name}/sample_idx"]] - gold[f"{name}/sample"]]  # fmt: skip
        if f"{name}/full" in gold:
            parts.append(array - gold[f"{name}/full"])
        worst = max(float(np.abs(part).max()) for part in parts)
        return worst / float(gold[f"{name}/std"])

    def _differing(self, name: str, array: np.ndarray) -> float:
        gold = self.values
        if f"{name}/full" in gold:
            return float((array != gold[f"{name}/full"]).mean())
        if zlib.crc32(array.astype("<i4").tobytes()) == gold[f"{name}/crc32_le_int32"]:
            return 0.0
        counts = np.bincount(array.ravel(), minlength=len(gold[f"{name}/hist"]))
        moved = np.abs(counts - gold[f"{name}/hist"]).sum() / 2
        return max(1.0, float(moved)) / array.size


def filled(recipe: str, index: int, shape: tuple[int, ...], norm_weight: bool) -> np.ndarray:
    """Values float32 of the parameter of a sorted index."""
    count = int(np.prod(shape))
    if recipe == "sin":
        values = 0.02 * np.sin(0.37 * np.arange(count) + index)
    else:
        wide = len(shape) >= 2 and not norm_weight
        scale = 1.0 / np.sqrt(np.prod(shape[1:])) if wide else 0.02
        values = np.random.RandomState(index).standard_normal(count) * scale
    return (values + float(norm_weight)).astype(np.float32).reshape(shape)


def inputs(frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Classes (1, F, X, Y, Z), steps (1, F, 2) and commands (1, F, 3) of F = frames + 1."""
    f, h, w, d = np.ogrid[: frames + 1, : SHAPE[0], : SHAPE[1], : SHAPE[2]]
    classes = torch.from_numpy(((3 * f + 5 * h + 7 * w + 11 * d) % 18).astype(np.uint8))[None]
    steps = 0.1 * np.sin(np.arange(2 * frames + 2)).reshape(1, -1, 2)
    modes = torch.zeros(1, frames + 1, MODES)
    modes[..., 0] = 1.0
    return classes, torch.from_numpy(steps).float(), modes


@torch.no_grad()
def outputs(model: OccWorld, golden: Golden) -> Iterator[tuple[str, np.ndarray | float]]:
    """Every golden output by name, one after the other."""
    classes, steps, modes = inputs(golden.frames)
    z, quantized = model.quantize(classes)
    yield "z_after_quant_conv", z.numpy()
    yield "indices", quantized.indices.numpy()
    yield "vq_loss", float(quantized.vq_loss)
    tokens, codes = quantized.z_q[None], quantized.indices[None]
    known = golden.frames
    told = model.predict(tokens[:, :known], steps[:, :known], modes[:, :known])
    yield "train/ce_inputs", told.logits[0].numpy()
    yield "train/pose_decoded", told.poses.numpy()
    yield "train/ce_loss", float(model.loss(told, codes[:, 1:]))
    logits = decoded(model, told.codes[0])
    yield "eval/logits", logits
    seen = logits.argmax(axis=-1)
    yield "eval/sem_pred", seen
    yield "eval/iou_pred", (seen != FREE).astype(np.int64)
    del logits, seen
    start, middle, end = golden.values["autoreg/start_mid_end"].tolist()
    past = (x[:, start:middle] for x in (tokens, steps, modes))
    rolled = model.roll_out(*past, horizon=end - middle)
    yield "autoreg/ce_inputs", rolled.logits[0].numpy()
    yield "autoreg/argmax_codes", rolled.codes[0].numpy()
    yield "autoreg/pose_decoded", rolled.poses.numpy()
    yield "autoreg/poses_", rolled.chosen.numpy()
    logits = decoded(model, rolled.codes[0])
    yield "autoreg/logits", logits
    yield "autoreg/sem_pred", logits.argmax(axis=-1)


def decoded(model: OccWorld, codes: Tensor) -> np.ndarray:
    """Class logits (1, F, X, Y, Z, classes) of codes (F, h, w), a frame at a time."""
    result = np.empty((1, len(codes), *SHAPE, 18), dtype=np.float32)
    for index, frame in enumerate(codes):
        result[0, index] = model.class_logits(frame[None])[0].numpy()
    return result


def compare(
    folder: Path, recipe: str, frames: int, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Rows of the table: setting, output, deviation, limit, whether it is within."""
    golden = Golden(folder, recipe, frames)
    rows = []
    for name, value in outputs(golden.model(), golden):
        found, limit = golden.deviation(name, value), golden.limit(name)
        rows.append({"setting": f"{recipe}_{frames}", "output": name, "deviation": found,
                     "limit": limit, "within": bool(found <= limit)})  # fmt: skip
        verdict = "" if found <= limit else "  BEYOND"
        tell(f"{recipe}_{frames:<4} {name:22} {found:10.2e}  limit {limit:.0e}{verdict}")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", type=Path, required=True, help="folder of the golden outputs")
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    parser.add_argument("--recipe", choices=("sin", "randn"), help="this one alone")
    parser.add_argument("--frames", type=int, choices=(15, 3), help="this length alone")
    given = parser.parse_args()
    target = sys.stderr if given.json else sys.stdout
    rows: list[dict[str, Any]] = []
    for frames in (given.frames,) if given.frames else (3, 15):
        for recipe in (given.recipe,) if given.recipe else ("sin", "randn"):
            rows += compare(given.golden, recipe, frames, lambda x: print(x, file=target))
    within = all(row["within"] for row in rows)
    if given.json:
        print(json.dumps({"within": within, "rows": rows}))
    else:
        print("within the limits" if within else "beyond the limits")
    return 0 if within else 1


if __name__ == "__main__":
    raise SystemExit(main())
