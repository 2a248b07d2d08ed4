"""Whether our OccWorld is OccWorld: every output beside that of the original.

    python benchmarks/occworld_parity.py --golden DIR [--json] [--recipe sin|randn] [--frames 3]

The golden folder holds names and shapes of the original's parameters, two recipes to fill them, and
what the original answered. Printed is the largest deviation of each output: floats in standard
deviations of the golden ones (over samples, mean, deviation, extremes and, where given, all
values), losses relative, whole numbers as the share that differs. Exit 0 within the limits, else 1.

Limits. In float64 (three frames) everything must agree to 1e-9 and codes exactly. In float32 an
output may deviate by the limit that the golden folder's README states "above float32 noise", plus
that noise: two float32 evaluations of one function differ by at most the sum of their distances
from the exact one. Ours is measured here, as float32 against float64 on the very same frames, codes
given, its largest value over the whole output; the original's is taken to be as large. So limit =
stated + 2 x noise, and no limit is chosen by looking at a deviation. For decoded classes the README
states nothing, so noise alone is allowed. Codes are exact, with two exceptions: where the golden
outputs hold an exact tie in the codebook, as many may differ as the noise of the margin between two
codes leaves undecided; of the codes that a roll-out chooses, as many as the noise of its logits
does.

The transformer is given the golden codes, so that a tie in the codebook is not counted twice.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vlwm.core.model.occworld import FREE, MODES, SHAPE, OccWorld

AUTOREG = {3: (0, 2, 4), 15: (0, 5, 11)}
"""first frame of the past, of the future, and the end, of the golden roll-outs"""
LIMITS = {
    "z_after_quant_conv": 1e-3,
    "indices": 0.0,
    "vq_loss": 1e-4,
    "train/ce_inputs": 1e-4,
    "train/pose_decoded": 1e-4,
    "train/ce_loss": 1e-4,
    "eval/logits": 1e-3,
    "eval/sem_pred": 0.0,
    "eval/iou_pred": 0.0,
    "autoreg/ce_inputs": 1e-4,
    "autoreg/argmax_codes": 0.0,
    "autoreg/pose_decoded": 1e-4,
    "autoreg/poses_": 1e-4,
    "autoreg/logits": 1e-3,
    "autoreg/sem_pred": 0.0,
}
"""above float32 noise"""
EXACT = 1e-9
"""limit of every float in float64"""
Outputs = dict[str, "np.ndarray | float"]


class Golden:
    """The golden folder: facts of the parameters, and the outputs of one recipe and length."""

    def __init__(self, folder: Path, recipe: str, frames: int, kind: str = "f32") -> None:
        self.facts = json.loads((folder / "occworld_state_dict.json").read_text(encoding="utf-8"))
        self.recipe, self.frames = recipe, frames
        with np.load(folder / "occworld_golden.npz") as archive:
            prefix = f"{recipe}_{frames}_{kind}/"
            self.values = {
                name.removeprefix(prefix): archive[name]
                for name in archive.files
                if name.startswith((prefix, "meta/"))
            }

    @property
    def codes(self) -> Tensor:
        """The golden codes int64 (F, h, w)."""
        return torch.from_numpy(self.values["indices/full"].astype(np.int64))

    @property
    def tied(self) -> bool:
        """Whether two codes are equally near somewhere."""
        return float(self.values["codebook_margin_quantiles_0_1_10_50"][0]) == 0.0

    def holds(self, name: str) -> bool:
        """Whether there is a golden output of this name."""
        return (
            name in self.values or f"{name}/shape" in self.values or f"{name}/hist" in self.values
        )

    def model(self) -> OccWorld:
        """Our OccWorld with the recipe's parameters.

        Raises:
            ValueError: a parameter's name, shape or filling is not the original's.
        """
        model = OccWorld(self.frames).eval().requires_grad_(False)
        self.fill(model)
        return model

    def fill(self, part: nn.Module, prefix: str = "") -> None:
        """Give a part of the model, whose names begin with a prefix, the recipe's parameters."""
        state = {prefix + name: value for name, value in part.state_dict().items()}
        expected = {name for name in self.facts if name.startswith(prefix)}
        if state.keys() != expected:
            raise ValueError(f"other parameters: {sorted(state.keys() ^ expected)[:5]}")
        for index, name in enumerate(sorted(self.facts)):
            if name not in expected:
                continue
            shape = self._shape(name)
            if tuple(state[name].shape) != shape:
                raise ValueError(f"{name} has shape {tuple(state[name].shape)}, not {shape}")
            values = filled(self.recipe, index, shape, self.facts[name]["norm_weight"])
            self._check(name, index, values)
            state[name].copy_(torch.from_numpy(values))

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
    """Classes (1, F, X, Y, Z), steps float64 (1, F, 2), commands (1, F, 3) of F = frames + 1."""
    f, h, w, d = np.ogrid[: frames + 1, : SHAPE[0], : SHAPE[1], : SHAPE[2]]
    classes = torch.from_numpy(((3 * f + 5 * h + 7 * w + 11 * d) % 18).astype(np.uint8))[None]
    steps = 0.1 * np.sin(np.arange(2 * frames + 2)).reshape(1, -1, 2)
    modes = torch.zeros(1, frames + 1, MODES)
    modes[..., 0] = 1.0
    return classes, torch.from_numpy(steps), modes


@torch.no_grad()
def outputs(
    model: OccWorld, golden: Golden, decode: dict[str, Tensor]
) -> Iterator[tuple[str, np.ndarray | float]]:
    """Every golden output by name, one after the other, in the model's precision.

    Args:
        decode: codes (F, h, w) to decode, "eval" and "autoreg"; what is not there is put there.
    """
    classes, steps, modes = inputs(golden.frames)
    precision = model.transformer.conv_out.weight.dtype
    steps, modes = steps.to(precision), modes.to(precision)
    z, quantized = model.quantize(classes)
    yield "z_after_quant_conv", z.numpy()
    yield "indices", quantized.indices.numpy()
    yield "vq_loss", float(quantized.vq_loss)
    codes, known = golden.codes[None], golden.frames
    tokens = model.vae.embed(codes[0])[None]
    told = model.predict(tokens[:, :known], steps[:, :known], modes[:, :known])
    yield "train/ce_inputs", told.logits[0].numpy()
    yield "train/pose_decoded", told.poses.numpy()
    yield "train/ce_loss", float(model.loss(told, codes[:, 1:]))
    logits = decoded(model, decode.setdefault("eval", told.codes[0]))
    yield "eval/logits", logits
    seen = logits.argmax(axis=-1)
    yield "eval/sem_pred", seen
    yield "eval/iou_pred", (seen != FREE).astype(np.int64)
    del logits, seen
    start, middle, end = AUTOREG[golden.frames]
    past = (x[:, start:middle] for x in (tokens, steps, modes))
    rolled = model.roll_out(*past, horizon=end - middle)
    yield "autoreg/ce_inputs", rolled.logits[0].numpy()
    yield "autoreg/argmax_codes", rolled.codes[0].numpy()
    yield "autoreg/pose_decoded", rolled.poses.numpy()
    yield "autoreg/poses_", rolled.chosen.numpy()
    logits = decoded(model, decode.setdefault("autoreg", rolled.codes[0]))
    yield "autoreg/logits", logits
    yield "autoreg/sem_pred", logits.argmax(axis=-1)


def decoded(model: OccWorld, codes: Tensor) -> np.ndarray:
    """Class logits (1, F, X, Y, Z, classes) of codes (F, h, w), a frame at a time."""
    frames = [model.class_logits(frame[None])[0].numpy() for frame in codes]
    return np.stack(frames)[None]


def apart(single: np.ndarray | float, exact: np.ndarray | float) -> float:
    """Float32 noise of one output, in the units of `Golden.deviation`."""
    a, b = np.asarray(single), np.asarray(exact)
    if a.dtype.kind == "i":
        return float((a != b).mean())
    scale = abs(float(b)) if b.ndim == 0 else float(b.std())
    return float(np.abs(a - b).max()) / scale


def open_codes(model: OccWorld, single: np.ndarray, exact: np.ndarray) -> float:
    """Share of places whose two nearest codes float32 cannot tell apart.

    Args:
        single: z float32 (N, C, h, w).
        exact: the same in float64.
    """
    codes = model.vae.vqvae.embedding.weight.double()

    def distances(z: np.ndarray) -> Tensor:
        rows = torch.from_numpy(z).movedim(1, -1).flatten(0, 2).double()
        return codes.pow(2).sum(1) - 2 * rows @ codes.T

    best = distances(exact).topk(2, dim=1, largest=False)
    margin = best.values.diff(dim=1)
    noise = (distances(single).gather(1, best.indices).diff(dim=1) - margin).abs().max()
    return float((margin <= 2 * noise).double().mean())


def near_ties(logits: np.ndarray, reach: float) -> float:
    """Share of places of logits (F, K, h, w) whose two best are no further apart than `reach`."""
    best = torch.from_numpy(logits).topk(2, dim=1).values
    return float((best[:, 0] - best[:, 1] <= reach).double().mean())


class Recipe:
    """Comparisons of one recipe: our float32 and float64 side by side, each beside the original."""

    def __init__(self, folder: Path, name: str, tell: Callable[[str], None]) -> None:
        self.folder, self.name, self.tell = folder, name, tell
        self.rows: list[dict[str, Any]] = []

    def compare(self, frames: int) -> None:
        """Every output of one length; the noise is measured on the same frames."""
        golden, exact = (Golden(self.folder, self.name, frames, kind) for kind in ("f32", "f64"))
        model, decode = golden.model(), dict[str, Tensor]()
        both = zip(
            outputs(model, golden, decode),
            outputs(copy.deepcopy(model).double(), golden, decode),
            strict=True,
        )
        undecided: dict[str, float] = {}  # share of whole numbers that noise leaves open
        for (name, single), (_, double) in both:
            noise = undecided.get(name, 2 * apart(single, double))
            if exact.holds(name):
                self._row(frames, "f64", name, exact.deviation(name, double),
                          LIMITS[name] and EXACT, 0.0)  # fmt: skip
            self._row(frames, "f32", name, golden.deviation(name, single), LIMITS[name], noise)
            if name == "z_after_quant_conv" and golden.tied:
                undecided["indices"] = open_codes(model, np.asarray(single), np.asarray(double))
            if name == "autoreg/ce_inputs":  # either of two logits may be off
                reach = 2 * noise * float(np.std(single))
                undecided["autoreg/argmax_codes"] = near_ties(np.asarray(single), reach)

    def _row(
        self, frames: int, kind: str, name: str, found: float, stated: float, noise: float
    ) -> None:
        setting, limit = f"{self.name}_{frames}_{kind}", stated + noise
        within = bool(found <= limit)
        self.rows.append({"setting": setting, "output": name, "deviation": found,
                          "limit": limit, "noise": noise, "within": within})  # fmt: skip
        self.tell(f"{setting:13}{name:22}{found:10.2e}{limit:10.2e}{noise:10.2e}"
                  f"{'' if within else '  BEYOND'}")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", type=Path, required=True, help="folder of the golden outputs")
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    parser.add_argument("--recipe", choices=("sin", "randn"), help="this one alone")
    parser.add_argument("--frames", type=int, choices=tuple(AUTOREG), help="this length alone")
    given = parser.parse_args()
    target = sys.stderr if given.json else sys.stdout
    heads = ("deviation", "limit", "of it noise")
    print(f"{'setting':13}{'output':20}" + "".join(f"{x:>12}" for x in heads), file=target)
    rows: list[dict[str, Any]] = []
    for name in (given.recipe,) if given.recipe else ("sin", "randn"):
        recipe = Recipe(given.golden, name, lambda x: print(x, file=target, flush=True))
        for frames in (given.frames,) if given.frames else tuple(AUTOREG):
            recipe.compare(frames)
        rows += recipe.rows
    within = all(row["within"] for row in rows)
    if given.json:
        print(json.dumps({"within": within, "rows": rows}))
    else:
        print("within the limits" if within else "beyond the limits")
    return 0 if within else 1


if __name__ == "__main__":
    raise SystemExit(main())
