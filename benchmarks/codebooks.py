"""Which codebook, chosen by what it lets a transformer foresee.

    python benchmarks/codebooks.py --data DIR [--other DIR …] [--only NAME …]
                                   [--steps 220] [--forecast-steps 300] [--windows 40] [--json]

For each codebook a tokenizer of `tokyo_small`'s size is trained from nothing (same steps, frames,
seed), frozen, and a token transformer is trained on its codes. No memory and no network beside it:
what is foreseen is in the tokens alone. The true motion is given, so that motion blurs no table.
Three ways to foresee are compared:

    one by one    each frame from the ones before it, trained on the true ones
    own roll-out  the same, but the last third of the steps starts from the frames foreseen so far
    all at once   every future frame from the past, its place held by the last past frame

Printed per codebook: processor seconds; IoU and structure IoU of the round trip on unseen blocks of
the same city and on other data; of the forecasts at 1, 2, 3 s; of the true future through the
tokenizer, which no forecast of its tokens can pass; and of the rival without learning, on the same
windows. Every score is cut where it is best on the very cells it is told of, so none is judged by
another's threshold. Residual: Zeghidour et al. 2021 (arXiv 2107.03312, III-C); low-dimensional:
Yu et al. 2022 (arXiv 2110.04627, 3.2); finite scalar: Mentzer et al. 2024 (arXiv 2309.15505, 3.1).

Axes: N frames, B windows, F frames of a window, L codes of a place, K size of a codebook, C width
of a code, h, w the token map.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config
from vlwm.core.data.batch import Batch, collate
from vlwm.core.data.datasets import FrameDataset, WindowDataset
from vlwm.core.data.windows import Window, frame_rows, windows_of
from vlwm.core.evaluation.baselines.warps import PastFrames, plan_track
from vlwm.core.evaluation.calibration.histogram import ProbabilityHistogram
from vlwm.core.evaluation.column_prior import evenly, train_prior
from vlwm.core.evaluation.metrics import structure_mask
from vlwm.core.model.bit_packing import unpack_bits
from vlwm.core.model.losses import occupancy_loss
from vlwm.core.model.tokenizer.quantizer import CodebookHealth, Quantized, VectorQuantizer
from vlwm.core.model.tokenizer.vqvae import Tokenizer
from vlwm.core.model.torch_frames import ego_of, step_features
from vlwm.core.model.transformer.token_transformer import TokenTransformer
from vlwm.core.training.loop.data_loader import epoch_batches
from vlwm.core.training.loop.optimizer import Schedule, build_optimizer, clip_gradients, set_lr
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.runtime.rng import seed_everything
from vlwm.core.training.startup.train_data import TrainData, open_data

WAYS = ("one by one", "own roll-out", "all at once")
TOLD = (1, 3, 5)
"""future frames that are told of: 1, 2, 3 s"""
SESSIONS = 48
"""whose windows the transformer is trained on"""
BATCH = 2
"""windows of its step"""


class Codebook(nn.Module):
    """One or more codes per place, between two convolutions.

    Args:
        codes: K.
        width: channels of the encoder and the decoder.
        dim: C.
        levels: L; each quantises what the ones before it left.
        decay: of the moving means that the codes follow; 0 trains them by gradient.
    """

    def __init__(self, codes: int, width: int, dim: int, levels: int, decay: float) -> None:
        super().__init__()
        self.codes, self.dim, self.levels = codes, dim, levels
        self.quant_conv = nn.Conv2d(width, dim, 1)
        self.post_quant_conv = nn.Conv2d(dim, width, 1)
        self.books = nn.ModuleList(
            VectorQuantizer(codes, dim, 0.25, by_gradient=decay == 0) for _ in range(levels)
        )
        self.health = [CodebookHealth(book, decay, 0.05) for book in self._each()]

    def _each(self) -> list[VectorQuantizer]:
        return [book for book in self.books if isinstance(book, VectorQuantizer)]

    def forward(self, z: Tensor) -> Quantized:
        """Quantise (N, C, h, w); indices are (N, L, h, w)."""
        rest, indices, loss = z, [], z.new_zeros(())
        for book in self._each():
            said = book(rest)
            indices.append(said.indices)
            loss = loss + said.vq_loss
            rest = rest - book.embed(said.indices).detach()
        chosen = torch.stack(indices, dim=1)
        return Quantized(z + (self.embed(chosen) - z).detach(), chosen, loss)

    def embed(self, indices: Tensor) -> Tensor:
        """(N, C, h, w) of indices (N, L, h, w)."""
        pairs = zip(self._each(), indices.unbind(1), strict=True)
        return torch.stack([book.embed(index) for book, index in pairs]).sum(0)

    @torch.no_grad()
    def follow(self, z: Tensor, indices: Tensor) -> None:
        """After a step: let the codes follow what chose them."""
        rest = z.movedim(1, -1).flatten(0, 2)
        for health, index in zip(self.health, indices.unbind(1), strict=True):
            health.update(rest, index.reshape(-1))
            rest = rest - health.quantizer.embedding(health.quantizer.nearest(rest))


class FiniteScalar(nn.Module):
    """Each channel rounded to a few values; the code is their combination.

    Args:
        width: channels of the encoder and the decoder.
        sides: values of each channel, even numbers; K is their product.
    """

    levels = 1

    def __init__(self, width: int, sides: tuple[int, ...]) -> None:
        super().__init__()
        self.dim, self.codes = len(sides), int(np.prod(sides))
        self.quant_conv = nn.Conv2d(width, self.dim, 1)
        self.post_quant_conv = nn.Conv2d(self.dim, width, 1)
        self.register_buffer("sides", torch.tensor(sides).view(-1, 1, 1))
        self.register_buffer("places", torch.tensor(np.cumprod((1, *sides[:-1]))).view(-1, 1, 1))

    def forward(self, z: Tensor) -> Quantized:
        """Round (N, C, h, w) within its sides."""
        reach = (self.sides - 1) / 2 * (1 - 1e-3)
        bounded = torch.tanh(z + torch.atanh(0.5 / reach)) * reach - 0.5
        digits = torch.round(bounded).detach() + self.sides // 2
        indices = (digits.long() * self.places).sum(1, keepdim=True)
        straight = bounded + (torch.round(bounded) - bounded).detach()
        return Quantized(straight / (self.sides // 2), indices, z.new_zeros(()))

    def embed(self, indices: Tensor) -> Tensor:
        """(N, C, h, w) of indices (N, 1, h, w)."""
        digits = indices // self.places % self.sides
        return (digits - self.sides // 2) / (self.sides // 2)

    def follow(self, z: Tensor, indices: Tensor) -> None:
        """There is nothing to follow."""


class NoCodebook(nn.Module):
    """Nothing is quantised: what the encoder and the decoder can do at most."""

    codes, levels = 0, 0

    def __init__(self, width: int) -> None:
        super().__init__()
        self.quant_conv, self.post_quant_conv = (
            nn.Conv2d(width, width, 1),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, z: Tensor) -> Quantized:
        """(N, C, h, w) as it is."""
        return Quantized(z, torch.zeros(len(z), 0, dtype=torch.int64), z.new_zeros(()))

    def follow(self, z: Tensor, indices: Tensor) -> None:
        """There is nothing to follow."""


CODEBOOKS: dict[str, Callable[[int], nn.Module]] = {
    "moving means": lambda width: Codebook(512, width, width, 1, 0.95),
    "by gradient": lambda width: Codebook(512, width, width, 1, 0.0),
    "low-dimensional": lambda width: Codebook(512, width, 8, 1, 0.95),
    "residual": lambda width: Codebook(512, width, width, 2, 0.95),
    "finite scalar": lambda width: FiniteScalar(width, (8, 8, 8)),
    "not quantised": NoCodebook,
}


class Scores:
    """Histograms of all cells and of structure, by key."""

    def __init__(self) -> None:
        self.found: dict[Any, tuple[ProbabilityHistogram, ProbabilityHistogram]] = {}

    def add(self, key: Any, probability: Tensor, truth: Tensor) -> None:
        """Count cells (X, Y, Z)."""
        fresh = (ProbabilityHistogram(), ProbabilityHistogram())
        everything, structure = self.found.setdefault(key, fresh)
        above = structure_mask(truth) > 0
        everything.add(probability, truth)
        structure.add(probability[above], truth[above])

    def best(self) -> dict[Any, list[float | None]]:
        """IoU and structure IoU by key, each at its own best threshold."""
        return {key: [one.best_threshold()[1] for one in pair] for key, pair in self.found.items()}


def trained_tokenizer(config: Config, data: TrainData, name: str, steps: int) -> Tokenizer:
    """A tokenizer with a codebook of that name after `steps` steps."""
    seed_everything(config.seed)
    model = Tokenizer(config.tokenizer, data.grid.shape)
    model.vqvae = CODEBOOKS[name](config.tokenizer.embed_dim)
    model.init_output_rate(torch.from_numpy(data.column))
    frames = FrameDataset(data.store, data.train_rows, symmetries=8, seed=config.seed)
    size = config.tokenizer.samples_per_gpu
    batches = epoch_batches(frames, size, config.seed, (0, 0), Ranks(), 0, steps * size)

    def loss(batch: Any) -> tuple[Tensor, Callable[[], None]]:
        voxels = unpack_bits(batch.bits, data.grid.shape)
        z = model.encode(voxels)
        said = model.quantize(z)
        total = occupancy_loss(model.decode(said.z_q), voxels, config.loss).total + said.vq_loss
        after: Any = model.vqvae
        return total, lambda: after.follow(z.detach(), said.indices)

    optimise(model, config, config.tokenizer.lr, steps, batches, loss)
    return model.eval().requires_grad_(False)


def optimise(
    model: nn.Module,
    config: Config,
    rate: float,
    steps: int,
    batches: Iterator[Any],
    loss: Callable[[Any], tuple[Tensor, Callable[[], None]]],
) -> None:
    """`steps` steps with the product's optimiser and schedule; `loss` tells what follows one."""
    optimizer = build_optimizer(model, config.optimizer, rate)
    schedule = Schedule(config.lr_config, rate, steps)
    model.train()
    for step, batch in zip(range(steps), batches, strict=False):
        set_lr(optimizer, schedule.lr(step))
        total, after = loss(batch)
        optimizer.zero_grad()
        total.backward()
        clip_gradients(model.parameters(), config.grad_clip)
        optimizer.step()
        after()
    model.eval()


@torch.no_grad()
def round_trip(model: Tokenizer, data: TrainData, rows: np.ndarray) -> list[float | None]:
    """IoU and structure IoU of frames."""
    scores = Scores()
    for row in rows:
        truth = torch.from_numpy(data.store.read_frame(int(row)))
        logits = model.decode(model.quantize(model.encode(truth[None])).z_q)
        scores.add("", torch.sigmoid(logits[0]), truth)
    return scores.best()[""]


class TokenForecast(nn.Module):
    """A token transformer over a frozen tokenizer's codes, steered by the steps.

    Args:
        config: its size.
        tokenizer: frozen.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer) -> None:
        super().__init__()
        book: Any = tokenizer.vqvae
        self.history, self.levels, self.codes = config.history_frames, book.levels, book.codes
        self.embed = book.embed
        width = config.model.channels[0]
        self.token_in = nn.Conv2d(book.dim, width, 1)
        self.step_in, self.pose_in = nn.Linear(5, width), nn.Linear(5, width)
        self.transformer = TokenTransformer(
            config.model.channels, self.levels * self.codes, tokenizer.map_sizes[-1],
            config.window_frames, config.model.num_heads, config.model.layers_per_level,
        )  # fmt: skip

    def logits(self, codes: Tensor, ego: Tensor) -> Tensor:
        """(B, F, L, K, h, w) of the frames after each of codes (B, F, L, h, w), with the ego frames
        (B, F + 1, 4)."""
        steps = step_features(ego)
        said, _ = self.transformer(self._enter(codes, steps), self.pose_in(steps))
        return said.unflatten(2, (self.levels, self.codes))

    def _enter(self, codes: Tensor, steps: Tensor) -> Tensor:
        maps = self.token_in(self.embed(codes.flatten(0, 1))).unflatten(0, codes.shape[:2])
        return maps + self.step_in(steps)[..., None, None]

    @torch.no_grad()
    def one_by_one(self, codes: Tensor, ego: Tensor) -> Tensor:
        """Codes of the whole window, the future ones foreseen each from the ones before it."""
        steps, held = step_features(ego), list[Tensor]()
        known = codes[:, : self.history]
        while known.shape[1] < ego.shape[1]:
            done = known.shape[1] - 1 if held else 0
            here = self._enter(known[:, done:], steps[:, done : known.shape[1]])
            said = self.transformer.next_logits(here, held)
            best = said.unflatten(1, (self.levels, self.codes)).argmax(2)
            known = torch.cat([known, best[:, None]], dim=1)
        return known

    def past_alone(self, codes: Tensor) -> Tensor:
        """Codes of a window whose future frames are the last past one."""
        last = codes[:, self.history - 1 : self.history]
        ahead = codes.shape[1] - self.history
        return torch.cat([codes[:, : self.history], last.expand(-1, ahead, -1, -1, -1)], dim=1)

    @torch.no_grad()
    def all_at_once(self, codes: Tensor, ego: Tensor) -> Tensor:
        """Codes of the whole window, the future ones foreseen from the past in one pass."""
        said = self.logits(self.past_alone(codes)[:, :-1], ego).argmax(3)
        return torch.cat([codes[:, : self.history], said[:, self.history - 1 :]], dim=1)


@dataclass(frozen=True)
class Coded:
    """Windows with the codes of their frames."""

    windows: WindowDataset
    codes: dict[int, Tensor]

    def batch(self, indices: list[int]) -> tuple[Batch, Tensor]:
        """Some windows, and their codes (B, F, L, h, w)."""
        rows = [self.windows.windows[i].rows for i in indices]
        codes = torch.stack([torch.stack([self.codes[int(r)] for r in each]) for each in rows])
        return collate([self.windows[0, i] for i in indices]), codes.long()


@torch.no_grad()
def coded(model: Tokenizer, data: TrainData, windows: list[Window], history: int) -> Coded:
    """Codes of all frames of some windows."""
    codes = {}
    for row in sorted({int(row) for window in windows for row in window.rows}):
        voxels = torch.from_numpy(data.store.read_frame(row))[None]
        codes[row] = model.quantize(model.encode(voxels)).indices[0].short()
    return Coded(WindowDataset(data.store, windows, history), codes)


def trained_forecast(
    config: Config, model: Tokenizer, train: Coded, way: str, steps: int
) -> TokenForecast:
    """A token forecaster after `steps` steps."""
    seed_everything(config.seed)
    forecast = TokenForecast(config, model)
    order = np.random.default_rng(config.seed).integers(len(train.windows), size=(steps, BATCH))
    taken = 0

    def loss(indices: np.ndarray) -> tuple[Tensor, Callable[[], None]]:
        nonlocal taken
        taken += 1
        batch, codes = train.batch(indices.tolist())
        ego = ego_of(batch.poses, batch.ground_z)
        given, first = codes, 0
        if way == "own roll-out" and 3 * taken > 2 * steps:
            given = forecast.one_by_one(codes, ego)
        if way == "all at once":
            given, first = forecast.past_alone(codes), forecast.history - 1
        said = forecast.logits(given[:, :-1], ego)[:, first:]
        total = functional.cross_entropy(said.flatten(0, 2), codes[:, first + 1 :].flatten(0, 2))
        return total, lambda: None

    optimise(forecast, config, config.optimizer.lr, steps, iter(order), loss)
    return forecast


@torch.no_grad()
def judged(
    config: Config, data: TrainData, model: Tokenizer, test: Coded, ways: dict[str, TokenForecast]
) -> dict[str, dict[str, list[Any]]]:
    """Scores at `TOLD` of each way, of the true future's codes, and of the rival."""
    scores, history = Scores(), config.history_frames
    prior = train_prior(data.store, data.splits).layers
    for index in range(len(test.windows)):
        batch, codes = test.batch([index])
        ego = ego_of(batch.poses, batch.ground_z)
        frames = unpack_bits(batch.bits, data.grid.shape)[0]
        said = {"true future": codes}
        for way, forecast in ways.items():
            foresee = forecast.all_at_once if way == "all at once" else forecast.one_by_one
            said[way] = foresee(codes, ego)
        for name, future in said.items():
            maps: Any = model.vqvae
            logits = model.decode(maps.embed(future[0, [history + h for h in TOLD]]))
            for h, one in zip(TOLD, torch.sigmoid(logits), strict=True):
                scores.add((name, h), one, frames[history + h])
        past = PastFrames(frames[:history], ego[0, :history].double().numpy())
        rivals = plan_track(past, ego[0, history:].double().numpy(), prior, data.grid)
        for h, (methods, _) in enumerate(rivals):
            if h in TOLD:
                rival = methods["true_pose_memory"].float()
                scores.add(("true_pose_memory", h), rival, frames[history + h])
    best = scores.best()
    names = dict.fromkeys(name for name, _ in best)
    return {
        name: {
            "iou": [best[name, h][0] for h in TOLD],
            "iou_structure": [best[name, h][1] for h in TOLD],
        }
        for name in names
    }  # fmt: skip


def used(model: Tokenizer, coded: Coded) -> int:
    """How many codes of the first level occur."""
    return len({int(c) for codes in coded.codes.values() for c in codes[:1].unique()})


def measure(name: str, options: argparse.Namespace, config: Config) -> dict[str, Any]:
    """All that is told of one codebook."""
    data = open_data(config, lambda: None)
    others = [open_data(replace(config, data_root=str(o)), lambda: None) for o in options.other]
    started = time.process_time()
    model = trained_tokenizer(config, data, name, options.steps)
    told: dict[str, Any] = {"codebook": name, "tokenizer_s": round(time.process_time() - started)}
    told["round_trip"] = round_trip(model, data, data.val_rows)
    told["elsewhere"] = {}
    for path, other in zip(options.other, others, strict=True):
        rows = frame_rows(other.store, other.splits, "all")
        told["elsewhere"][path.name] = round_trip(model, other, rows[evenly(len(rows), 40)])
    if name == "not quantised":
        return told
    frames, history = config.window_frames, config.history_frames
    sessions = set(sorted({w.session for w in data.train})[: SESSIONS if options.ways else 0])
    train = coded(model, data, [w for w in data.train if w.session in sessions], history)
    tested = windows_of(data.store, data.splits, "test", frames)
    tested = [tested[i] for i in evenly(len(tested), options.windows)]
    test = coded(model, data, tested, history)
    told["used"], ways, told["forecast_s"] = used(model, test), {}, {}
    for way in options.ways:
        started = time.process_time()
        ways[way] = trained_forecast(config, model, train, way, options.forecast_steps)
        told["forecast_s"][way] = round(time.process_time() - started)
    told["scores"] = judged(config, data, model, test, ways)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared session folders")
    parser.add_argument("--other", type=Path, nargs="*", default=[], help="data never trained on")
    parser.add_argument("--only", nargs="*", choices=CODEBOOKS, help="codebooks; all if not given")
    ways = "of forecasting; all if not given"
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS, help=ways)
    parser.add_argument("--steps", type=int, default=220, help="of each tokenizer")
    parser.add_argument("--forecast-steps", type=int, default=300, help="of each transformer")
    parser.add_argument("--windows", type=int, default=40, help="of the test split")
    parser.add_argument("--json", action="store_true", help="one object per codebook on stdout")
    options = parser.parse_args()
    config = load_config("tokyo_small", (f"data_root={str(options.data)!r}",))
    config = replace(config, evaluation=replace(config.evaluation, max_windows=80))
    for name in options.only or CODEBOOKS:
        told = measure(name, options, config)
        print(json.dumps(told) if options.json else "\n".join(lines(told)), flush=True)


def lines(told: dict[str, Any]) -> Iterator[str]:
    """What is told of one codebook, to be read."""
    yield f"{told['codebook']}: {told['tokenizer_s']} s, {told.get('used', 0)} codes in use"
    for where, pair in {"unseen blocks": told["round_trip"], **told["elsewhere"]}.items():
        yield f"  round trip {where:15} {row(pair)}"
    for name, scores in told.get("scores", {}).items():
        yield f"  {name:26} {row(scores['iou'])}   structure {row(scores['iou_structure'])}"


def row(values: list[float | None]) -> str:
    """Numbers of a table."""
    return " ".join(" -  " if v is None else f"{v:.3f}" for v in values)


if __name__ == "__main__":
    main()
