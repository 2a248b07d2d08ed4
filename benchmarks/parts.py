"""What each learned part is worth over what it replaces: the same minutes, windows and motion.

    python benchmarks/parts.py --data DIR --out FILE [--train DIR] [--minutes 6] [--seeds 0 1 2]
                               [--parts NAME …] [--windows 84] [--config tokyo_small]
                               [--set KEY=VALUE …]
    python benchmarks/parts.py --out FILE --table

Without a gradient, one line each: `votes` of nearest cells, `mean` of resampled frames, `planes`;
the last two with the column prior beyond the view, and with the edge statistics (`_edges`), and
`baseline`: `planes_edges` under the strongest motion without a network.
Learned, one line for each seed, always with the edge statistics: `fusion` of resampled frames,
`fusion_planes` on top of the planes, `residual` (and the refinement net, half of the minutes each),
`tokens` (and tokenizer and transformer, a third of the minutes each). Minutes are processor
minutes, from nothing. All but the baseline read one motion head, trained once and frozen: their
predicted track differs in nothing else. Thresholds and the weight of the residual come from
validation windows of every cluster. With --train everything is learned and chosen on another folder
of the same city, split alike, and --data is only scored.

Lines that are in the file are not made again: the same command goes on. The table gives IoU at
1, 2, 3 s in every zone, and the difference to what the part replaces, all seeds together, with its
paired 95 % interval over clusters.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ladder import read_lines
from motion_gain import PLANAR, each_window
from motion_ladder import Folder, network
from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config
from vlwm.core.data.batch import collate
from vlwm.core.data.windows import Window
from vlwm.core.evaluation.baselines.fit import fit_edges, fit_motions
from vlwm.core.evaluation.baselines.planes import PlaneScene
from vlwm.core.evaluation.baselines.scenes import Background, MeanScene, Scene, spread
from vlwm.core.evaluation.baselines.warps import PastFrames, warped_past
from vlwm.core.evaluation.calibration.residual_weight import ResidualWeightSweep
from vlwm.core.evaluation.clusters import cluster_of, over_clusters
from vlwm.core.evaluation.column_prior import ColumnPrior
from vlwm.core.evaluation.eval_windows import EvalWindow
from vlwm.core.evaluation.metrics import SCORES, ZONES, count_zones, iou_of, structure_mask
from vlwm.core.evaluation.scores.bootstrap import FEWEST_CLUSTERS, interval_of, resampled_iou
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.warp import under_spread
from vlwm.core.model.motion.motion_head import MotionHead
from vlwm.core.model.motion.vehicle_state import planar_of
from vlwm.core.model.tokenizer.vqvae import Tokenizer
from vlwm.core.model.world_loss import WorldLoss
from vlwm.core.model.world_model import WorldModel
from vlwm.core.training.loop.optimizer import build_optimizer, set_lr
from vlwm.core.training.loop.stepper import Stepper
from vlwm.core.training.loop.task import batch_size
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.runtime.rng import seed_everything
from vlwm.core.training.startup.train_data import TrainData, open_data
from vlwm.core.training.tasks.fusion_pretraining import FusionPretraining
from vlwm.core.training.tasks.tokenizer_task import TokenizerTask
from vlwm.core.training.tasks.world_task import WorldTask

PLAIN = ("votes", "mean", "mean_edges", "planes", "planes_edges", "baseline")
LEARNED = ("fusion", "fusion_planes", "residual", "tokens")
REPLACES = {
    "mean": ["votes"], "planes": ["mean"], "mean_edges": ["mean"], "planes_edges": ["planes"],
    "fusion": ["mean_edges", "baseline"], "fusion_planes": ["planes_edges", "baseline"],
    "residual": ["fusion_planes"], "tokens": ["fusion_planes"],
}  # fmt: skip
TRACKS = ("predicted", "plan")
MARKS = (1, 3, 5)  # horizons of the table: 1, 2, 3 s
MOTION = ("model.pose_channels=48", "data.motion_samples=256", "data.motion_steps=400")
REFINEMENT = 32  # channels of the refinement net, which a part that has none leaves untrained
VALIDATION = 48  # windows that thresholds come from, or as many as there are clusters
MANY = 1_000_000  # steps: time ends the phase
WARM_UP = 20
CPU = torch.device("cpu")

Frames = list[tuple[Tensor, Tensor]]
"""by horizon, float (X, Y, Z) each: logits without and with the residual"""


class VotesScene:
    """Reads nearest cells: occupied where half of the frames that reach say so, else the prior."""

    def __init__(self, past: PastFrames, grid: VoxelGrid, prior: np.ndarray) -> None:
        self.past, self.grid, self.prior = past, grid, prior

    def read(self, ego: np.ndarray) -> Tensor:
        (frame,) = warped_past(self.past, ego[None], self.prior, self.grid)
        return frame.memory.permute(2, 0, 1).float()


class Plain:
    """Forecasts of a part that learns nothing by gradient."""

    def __init__(self, name: str, bench: Bench) -> None:
        self.name, self.bench = name, bench

    def _scene(self, past: PastFrames) -> Scene:
        bench, grid = self.bench, self.bench.folder.store.grid
        if self.name == "votes":
            return VotesScene(past, grid, bench.layers)
        edges = bench.edges if self.name in ("mean_edges", "planes_edges", "baseline") else None
        make = MeanScene if self.name.startswith("mean") else PlaneScene
        return make(past, grid, Background(bench.column, edges))

    def __call__(self, batch: Any, window: EvalWindow) -> dict[str, Frames]:
        """Return the frames of both tracks."""
        scene, found = self._scene(window.past), {track: [] for track in TRACKS}
        moved = (self._driven if self.name == "baseline" else self._led)(scene, batch, window)
        for h, frame in enumerate(moved):
            for track, said in (("predicted", frame), ("plan", scene.read(window.future_ego[h]))):
                logits = torch.logit(said.permute(1, 2, 0).contiguous(), eps=1e-4)
                found[track].append((logits, logits))
        return found

    def _led(self, scene: Scene, batch: Any, window: EvalWindow) -> Iterator[Tensor]:
        """Yield the scene under the motion head, (Z, X, Y)."""
        head, grid = self.bench.head, self.bench.folder.store.grid
        past = batch.past(head.history)
        motion = head(past.poses, past.ground_z)
        rows = torch.zeros(head.future, dtype=torch.int64), torch.arange(head.future)
        moves = head.moves(motion, *rows).double()
        places = planar_of(motion.state)[0].double().numpy()
        for h in range(head.future):
            ego = np.zeros(4)
            ego[PLANAR] = places[h]
            here = torch.from_numpy(ego)[None]
            yield under_spread(scene.read(ego)[None], here, moves[h : h + 1], grid)[0]

    def _driven(self, scene: Scene, batch: Any, window: EvalWindow) -> Iterator[Tensor]:
        """Yield the scene under the strongest motion without a network, (Z, X, Y)."""
        bench, past = self.bench, window.past.motion(self.bench.folder.shape.dt_s)
        draws = bench.motion.draws(past)[0]
        for h, ego in enumerate(bench.motion.expected(past)[0]):
            yield spread(scene.read(ego), ego, draws[:, h], bench.folder.store.grid)


class Learned:
    """Forecasts of a model."""

    def __init__(self, model: WorldModel) -> None:
        self.model = model

    def __call__(self, batch: Any, window: EvalWindow) -> dict[str, Frames]:
        """Return the frames of both tracks."""
        history = self.model.history
        past = batch.past(history)
        answers = zip(TRACKS, (None, batch.plan(history)), strict=True)
        forecasts = {track: self.model.forecast(past, plan) for track, plan in answers}
        return {
            track: list(zip(f.memory_logits[0], f.logits[0], strict=True))
            for track, f in forecasts.items()
        }


class Bench:
    """Data, motion and the counted statistics that all parts read.

    Attributes:
        head: the motion, frozen.
        motion: the strongest without a network on validation.
        column, layers: share of occupied cells by height in the train split; the layers that the
            column prior calls occupied.
        edges: what is beyond the view, counted on train windows.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        root = given.train or given.data
        words = (f"data_root={str(root)!r}", *given.set)
        self.config = config = load_config(given.config, words)
        self.source, self.folder = Folder(root, config), Folder(given.data, config)
        self.data: TrainData = open_data(config, lambda: None)
        store, shape = self.source.store, self.source.shape
        train, val = self.source.windows("train"), self.source.windows("val")
        motions, best = fit_motions(store, train, val, shape)
        self.motion = motions[best]
        small = Folder(root, load_config(given.config, (*words, *MOTION)))
        self.head: MotionHead = network(small, train, val, 0).eval().requires_grad_(False)
        self.column = torch.as_tensor(self.data.column, dtype=torch.float32)
        prior = ColumnPrior.of_shares(self.data.column, len(self.data.train_rows), store.grid)
        self.layers = prior.layers
        self.edges = fit_edges(self.source.dataset(train), store, shape)
        self.val = over_clusters(store, val, shape.history, VALIDATION)
        test = self.folder.windows("test")
        self.test = over_clusters(self.folder.store, test, shape.history, given.windows)

    def windows(self, folder: Folder, chosen: list[Window]) -> Iterator[tuple[Any, EvalWindow]]:
        """Yield batches of one, and the same unpacked."""
        data = folder.dataset(chosen)
        unpacked = each_window(folder, chosen)
        for index, window in zip(range(len(data)), unpacked, strict=True):
            yield collate([data[0, index]]), window

    @torch.no_grad()
    def scored(self, forecast: Plain | Learned) -> dict[str, Any]:
        """Choose weights and thresholds on validation windows, and count test windows."""
        history, future = self.folder.shape.history, self.folder.shape.future
        sweeps = {track: ResidualWeightSweep(future) for track in TRACKS}
        for batch, window in self.windows(self.source, self.val):
            for track, frames in forecast(batch, window).items():
                for h, (memory, logits) in enumerate(frames):
                    sweeps[track].add(memory, logits, window.truth[h], h)
        best = {track: sweep.best() for track, sweep in sweeps.items()}
        cuts = {track: histogram.best() for track, (_, histogram) in best.items()}
        clusters: dict[str, np.ndarray] = {}
        shape = (len(TRACKS), future, len(ZONES), 4)
        for where, (batch, window) in zip(
            self.test, self.windows(self.folder, self.test), strict=True
        ):
            key = str(cluster_of(self.folder.store, where, history))
            counts = clusters.setdefault(key, np.zeros(shape, np.int64))
            said = forecast(batch, window)
            seen = [f.seen for f in warped_past(
                window.past, window.future_ego, self.layers, self.folder.store.grid
            )]  # fmt: skip
            for h, truth in enumerate(window.truth):
                cells = []
                for track in TRACKS:
                    mixed = torch.lerp(*(v.float() for v in said[track][h]), best[track][0])
                    cells.append(cuts[track].occupied(torch.sigmoid(mixed).contiguous(), h))
                counts[:, h] += count_zones(cells, truth, seen[h], structure_mask(truth))
        return {
            "residual_weight": {track: share for track, (share, _) in best.items()},
            "clusters": {key: counts.tolist() for key, counts in sorted(clusters.items())},
        }


def learn(task: Any, batches: Iterator[Any], lr: float, seconds: float, config: Config) -> int:
    """Take steps for some processor seconds; return how many. The rate falls as a cosine."""
    optimizer = build_optimizer(task.module, config.optimizer, lr)
    stepper = Stepper(task, optimizer, config.grad_clip, CPU, None, 1 << 30)
    begun, step = time.process_time(), 0
    while (spent := time.process_time() - begun) < seconds:
        rising = min(1.0, (step + 1) / WARM_UP)
        set_lr(optimizer, lr * rising * 0.5 * (1 + math.cos(math.pi * spent / seconds)))
        batch = next(batches)
        stepper(batch, step, batch_size(batch))
        step += 1
    return step


def endless(task: Any) -> Iterator[Any]:
    """Yield the batches of one epoch after the other."""
    epoch = 0
    while True:
        yield from task.batches(epoch, 0)
        epoch += 1


def config_of(name: str, config: Config, seed: int) -> Config:
    """Return the config of a learned part."""
    model = replace(
        config.model, fusion_planes=name != "fusion", use_tokens=name == "tokens", freeze_vae=True,
        memory_channels=REFINEMENT,
    )  # fmt: skip
    data = replace(config.data, motion_samples=0)  # the motion is frozen
    return replace(config, model=model, data=data, seed=seed)


def trained(name: str, bench: Bench, seed: int, minutes: float) -> tuple[WorldModel, Any]:
    """Return a model with the part, and the steps of each stage."""
    config, data = config_of(name, bench.config, seed), bench.data
    seed_everything(seed)
    model = WorldModel(config, data.grid)
    model.motion_head = bench.head
    model.set_prior(data.column)
    model.memory.extrapolation.load_state_dict(bench.edges.state_dict())
    stages = {"residual": 2, "tokens": 3}.get(name, 1)
    seconds, steps = 60 * minutes / stages, {}
    if name == "tokens":
        tokenizer = Tokenizer(config.tokenizer, data.grid.shape)
        task = TokenizerTask(tokenizer, data, config, CPU, 0, Ranks())
        steps["tokenizer"] = learn(task, endless(task), config.tokenizer.lr, seconds, config)
        model.vae.load_state_dict(tokenizer.state_dict())
    world = WorldTask(model, data, config, CPU, 0, Ranks())
    fusion = FusionPretraining(WorldLoss(model), world.train_set, config, 0)
    fusion.steps = MANY
    fusion.prepare()
    steps["fusion"] = learn(fusion, fusion.batches(0), fusion.lr, seconds, config)
    if stages > 1:
        model.train()
        steps["world"] = learn(world, endless(world), config.optimizer.lr, seconds, config)
    return model.eval(), steps


def run(given: argparse.Namespace) -> None:
    """Append what the file lacks."""
    done = {(row["part"], row["seed"]) for row in read_lines(given.out)}
    wanted = [(part, 0) for part in given.parts if part in PLAIN]
    wanted += [(part, seed) for seed in given.seeds for part in given.parts if part in LEARNED]
    missing = [key for key in wanted if key not in done]
    if not missing:
        return
    bench = Bench(given)
    for part, seed in missing:
        begun = time.process_time()
        how: dict[str, Any] = {"minutes": 0.0, "steps": {}}
        forecast: Plain | Learned = Plain(part, bench)
        if part in LEARNED:
            model, steps = trained(part, bench, seed, given.minutes)
            how, forecast = {"minutes": given.minutes, "steps": steps}, Learned(model)
        row = {"part": part, "seed": seed, **how, **bench.scored(forecast)}
        row["processor_s"] = round(time.process_time() - begun)
        write_line(given.out, row)
        own = iou_of(sum(np.array(v) for v in row["clusters"].values()))
        print(
            part, seed, how, f"{row['processor_s']} s", own[:, :, 0].round(3).tolist(), flush=True
        )


def write_line(out: Path, row: dict[str, Any]) -> None:
    """Append one line."""
    with open(out, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows of docs/benchmarks.md: by track, part and zone."""
    lines = []
    parts = {p: [r for r in rows if r["part"] == p] for p in dict.fromkeys(r["part"] for r in rows)}
    names = sorted(set.intersection(*(set(row["clusters"]) for row in rows)))
    totals = {
        part: np.array([[row["clusters"][n] for n in names] for row in some])  # (S, C, T, H, Z, Q)
        for part, some in parts.items()
    }
    for t, track in enumerate(TRACKS):
        lines.append(f"| {track} | seeds | " + " | ".join(SCORES) + " |")
        for part, counts in totals.items():
            own = iou_of(counts[:, :, t].sum(axis=(0, 1)))  # (H, Z)
            cells = [_row(own[MARKS, ZONES.index(zone)]) for zone in SCORES.values()]
            lines.append(f"| {part} | {len(counts)} | " + " | ".join(cells) + " |")
            for other in REPLACES.get(part, []):
                if other in totals and len(names) >= FEWEST_CLUSTERS:
                    text = _differences(counts[:, :, t], totals[other][:, :, t])
                    lines.append(f"| over {other} {text}")
    weights = {p: [r["residual_weight"] for r in s] for p, s in parts.items() if p in LEARNED[2:]}
    return "\n".join([*lines, f"residual weights: {weights}", f"{len(names)} clusters"])


def _differences(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Return the paired differences of counts (S, C, H, Z, Q), seeds pooled, and each seed's."""
    pair = np.stack([ours.sum(axis=0), theirs.sum(axis=0)], axis=1)  # (C, 2, H, Z, Q)
    own = iou_of(pair.sum(axis=0))
    samples = resampled_iou(pair)
    ends = interval_of(samples[:, 0] - samples[:, 1])
    cells = []
    for zone in SCORES.values():
        z = ZONES.index(zone)
        cells.append(" ".join(
            f"{own[0, h, z] - own[1, h, z]:+.4f} ({ends.low[h, z]:+.4f}, {ends.high[h, z]:+.4f})"
            for h in MARKS
        ))  # fmt: skip
    one = (
        iou_of(ours.sum(axis=1))[..., 0].mean(axis=1) - iou_of(theirs.sum(axis=(0, 1)))[:, 0].mean()
    )
    return "| | " + " | ".join(cells) + f" | by seed, mean IoU: {_signed(one)} |"


def _row(values: Any) -> str:
    return " ".join(f"{v:.3f}".replace("0.", ".", 1) for v in values)


def _signed(values: Any) -> str:
    return " ".join(f"{v:+.4f}" for v in values)


def parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, help="prepared session folders")
    options.add_argument("--train", type=Path, help="folder to learn from, all of it")
    options.add_argument("--out", type=Path, required=True, help="JSON lines")
    options.add_argument("--config", default="tokyo_small")
    options.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    options.add_argument("--parts", nargs="+", default=[*PLAIN, *LEARNED], metavar="NAME")
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--minutes", type=float, default=6.0, help="processor minutes a part")
    options.add_argument("--windows", type=int, default=84, help="of the test split")
    options.add_argument("--table", action="store_true", help="print the table of the file")
    return options


def main() -> None:
    given = parser().parse_args()
    if given.table:
        print(table(read_lines(given.out)))
        return
    torch.set_num_threads(1)
    run(given)


if __name__ == "__main__":
    main()
