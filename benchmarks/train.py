"""What training costs: ours beside the same network run plainly, in one run.

    python benchmarks/train.py [--json] [--steps 2] [--windows 1] [--frames 2] [--config NAME]

Plainly means float32, the loss written with torch's own operations, one graph of the whole loss
with everything that torch keeps for it, `np.load` of the users' npz files, tokens computed in each
step and rolled out from the whole sequence. Both sides take the same steps on the same samples of a
procedural city, each in a process of its own, so that its peak memory is its own. Seconds are of
the processor, all threads together, so that other work on the machine weighs less.

    loader_ratio    seconds of np.load over ours, four windows of ten frames   (goal: 20 or more)
    stage1_ratio    seconds of a plain step of the tokenizer over ours
    stage2_ratio    seconds of a plain step of the world model over ours
    memory_ratio    peak memory of stage 2, ours over plain                    (goal: 0.5 or less)
    stage1_memory_ratio  the same of stage 1
    saving          those of stage 2 again with model.checkpoint_activations

On a GPU also peak_gb_by_batch, windows_per_s and mfu (share of the peak rate in bf16 or fp16).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config, LossConfig
from vlwm.core.data.batch import collate
from vlwm.core.model import world_loss
from vlwm.core.model.loss_report import LossReport, LossTerm
from vlwm.core.model.losses import DICE_SMOOTHING, MEAN_EPSILON, OccupancyLoss
from vlwm.core.model.tokenizer import conv_blocks
from vlwm.core.model.tokenizer.vqvae import Tokenizer
from vlwm.core.model.transformer import token_transformer
from vlwm.core.model.world_model import WorldModel
from vlwm.core.training.loop.optimizer import build_optimizer
from vlwm.core.training.loop.stepper import Stepper, autocast_type, first_microbatch
from vlwm.core.training.loop.task import batch_size
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.runtime.rng import seed_everything
from vlwm.core.training.startup.train_data import TrainData, open_data
from vlwm.core.training.tasks import tokenizer_task
from vlwm.core.training.tasks.tokenizer_task import TokenizerTask
from vlwm.core.training.tasks.world_task import WorldTask

PARTS = ("loader", "stage1_ours", "stage1_plain", "stage2_ours", "stage2_saving", "stage2_plain")
LOADED_WINDOWS = 4
GPU_BATCHES = (1, 2, 3, 4, 6, 8)
PEAK_FLOPS = {(8, 0): 312e12, (8, 6): 71e12, (8, 9): 165e12, (9, 0): 989e12}
"""dense half-precision peak by compute capability, from the makers' data sheets"""


def config_of(options: argparse.Namespace) -> Config:
    """The preset on a procedural city, without turning and mirroring."""
    sets = (
        f"data_root={str(options.data)!r}", "prepare.source='procedural'", "prepare.frames=14",
        "prepare.sessions=4", "prepare.procedural_size_m=800.0", "load_from=None",
        f"data.samples_per_gpu={options.windows}", f"tokenizer.samples_per_gpu={options.frames}",
        "data.mirror=False", "data.symmetries=False", "evaluation.max_windows=1",
    )  # fmt: skip
    return load_config(options.config, sets)


# Loader


def npz_of(data: TrainData, rows: Any) -> Tensor:
    """Voxels uint8 (F, X, Y, Z) of frames, from the users' files."""
    store = data.store
    frames = []
    for row in rows:
        folder = store.root / store.sessions[store.session[row]] / "occupancy"
        with np.load(folder / f"{store.frame[row]:06d}_occupancy.npz") as file:
            frames.append(file[file.files[0]].astype(np.uint8))
    return torch.from_numpy(np.stack(frames))


def measure_loader(config: Config, data: TrainData, runs: int = 5) -> dict[str, Any]:
    """Median seconds of a batch of four windows, both ways, from a warm page cache."""
    dataset = world_task(config, data).train_set

    def ours() -> None:
        collate([dataset[(0, i)] for i in range(LOADED_WINDOWS)])

    def plain() -> None:
        torch.stack([npz_of(data, data.train[i].rows) for i in range(LOADED_WINDOWS)])

    return {"ours_s": median_s(ours, runs), "plain_s": median_s(plain, runs)}


def median_s(
    work: Callable[[], None], runs: int, clock: Callable[[], float] = time.process_time
) -> float:
    """Median seconds after one warm-up."""
    work()
    seconds = []
    for _ in range(runs):
        started = clock()
        work()
        seconds.append(clock() - started)
    return statistics.median(seconds)


# Stages


def world_task(config: Config, data: TrainData, tokens: Path | None = None) -> WorldTask:
    device = torch.device("cuda" if torch.cuda.is_available() and tokens is not None else "cpu")
    model = WorldModel(config, data.grid).to(device)
    task = WorldTask(model, data, config, device, 0, Ranks(), tokens)
    task.phases()[0].prepare()  # counts the priors
    return task


def stepper_of(task: Any, config: Config, device: torch.device, batch: int) -> Stepper:
    optimizer = build_optimizer(task.module, config.optimizer, config.optimizer.lr)
    precision = autocast_type(True, device)
    return Stepper(task, optimizer, config.grad_clip, device, precision, batch)


def unfused(
    logits: Tensor, target: Tensor, config: LossConfig, known: Tensor | None = None
) -> OccupancyLoss:
    """The composite as it is usually written: each operation keeps its result."""
    assert known is None, "the procedural city is known everywhere"
    x, t = logits.float().flatten(1), target.flatten(1).float()
    p, entropy = x.sigmoid(), functional.binary_cross_entropy_with_logits(x, t, reduction="none")
    alpha = config.focal_alpha * t + (1 - config.focal_alpha) * (1 - t)
    focal = (alpha * (1 - torch.exp(-entropy)) ** config.focal_gamma * entropy).mean()
    overlap, both = 2 * (p * t).sum(1) + DICE_SMOOTHING, p.sum(1) + t.sum(1) + DICE_SMOOTHING
    dice = (1 - overlap / both).mean()
    share, rate = p.mean(1), t.mean(1)
    mean = torch.log((share + MEAN_EPSILON) / (rate + MEAN_EPSILON)).square().mean()
    total = config.focal_weight * focal + config.dice_weight * dice + config.mean_weight * mean
    return OccupancyLoss(
        total, focal.detach(), dice.detach(), mean.detach(), share.mean().detach(),
        p.detach().min(), p.detach().max(), (p.detach() > 0.5).float().mean(), rate.mean(),
    )  # fmt: skip


def measure_stage(
    config: Config, data: TrainData, options: argparse.Namespace, stage: int, *, plain: bool
) -> dict[str, Any]:
    """Seconds of a step, the loader's share, peak memory, the loss and where the time goes."""
    seed_everything(0)
    if stage == 1:
        model = Tokenizer(config.tokenizer, data.grid.shape)
        task: Any = TokenizerTask(model, data, config, torch.device("cpu"), 0, Ranks())
        count = options.frames
    else:
        task = world_task(config, data)
        task.codes.folder = None if plain else options.data / "tokens"
        count = options.windows
    host = torch.device("cpu")
    at_once = count if plain else first_microbatch(host, count, data.grid.num_cells)
    stepper = stepper_of(task, config, host, at_once)
    batch = next(iter(task.batches(0, 0)))
    load = _plain_loader(task, data, batch, stage) if plain else _our_loader(task)
    task.module.train()
    loads, steps, losses = [], [], []
    for step in range(options.steps + 1):  # the first one warms up, and fills the token cache
        started = time.process_time()
        load()
        loaded = time.process_time()
        result = stepper(batch, step, count)
        loads.append(loaded - started)
        steps.append(time.process_time() - loaded)
        losses.append(float(result.numbers["train/loss"]))
    load_s, step_s = statistics.median(loads[1:]), statistics.median(steps[1:])
    found: dict[str, Any] = {
        "seconds": load_s + step_s,
        "loader_share": load_s / (load_s + step_s),
        "peak_gb": peak_gb(),
        "loss": losses[0],
    }
    if options.part.endswith("_ours"):
        found["profile"] = profile(lambda: stepper(batch, 9, count))
    return found


def _our_loader(task: Any) -> Callable[[], None]:
    return lambda: next(iter(task.batches(0, 0)))


def _plain_loader(task: Any, data: TrainData, batch: Any, stage: int) -> Callable[[], None]:
    """Make a task plain; loads the npz files of its batch."""
    conv_blocks.checkpointed = token_transformer.checkpointed = lambda work, x: work(x)
    terms = task.loss_terms

    def whole_loss(batch: Any, step: int) -> Iterator[LossTerm]:
        """One graph of all terms."""
        yield LossTerm("whole", LossReport.of(terms(batch, step)).total)

    task.loss_terms = whole_loss
    if stage == 1:
        rows = data.train_rows[batch.index.numpy()]
    else:
        rows = np.concatenate([data.train[i].rows for i in batch.index.tolist()])
    held: list[Tensor] = []

    def load() -> None:
        held[:] = [npz_of(data, rows)]

    def voxels(bits: Tensor, _: Any) -> Tensor:
        return held[0].view(*bits.shape[:-1], *data.grid.shape)

    if stage == 1:
        tokenizer_task.occupancy_loss = unfused
        tokenizer_task.unpack_bits = voxels
    else:
        world_loss.occupancy_loss = unfused
        task.module.transformer.next_logits = partial(_next_of_all, task.module.transformer)
        task.module.reader.voxels = voxels
        task.codes = None
    return load


def _next_of_all(
    model: token_transformer.TokenTransformer, new: Tensor, held: list[Tensor]
) -> Tensor:
    """The roll-out as it is written in the paper: the whole sequence again for each frame."""
    held[:] = [torch.cat([*held, new], dim=1)]
    pose = held[0].new_zeros(*held[0].shape[:3])
    logits: Tensor = model(held[0], pose)[0]
    return logits[:, -1]


def profile(work: Callable[[], Any]) -> list[dict[str, Any]]:
    """The five operations with the largest own time, as shares of all."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    with record(activities=[ProfilerActivity.CPU]) as seen:
        work()
    rows = seen.key_averages()
    whole = sum(row.self_cpu_time_total for row in rows)
    rows.sort(key=lambda row: -row.self_cpu_time_total)
    return [
        {"name": row.key, "share": round(row.self_cpu_time_total / whole, 3), "calls": row.count}
        for row in rows[:5]
    ]


def peak_gb() -> float:
    """Largest resident memory of this process so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise RuntimeError("this kernel does not tell the peak memory")


# GPU


def measure_gpu(config: Config, data: TrainData, options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory by batch until one does not fit; rate and MFU of the largest that does."""
    from torch.utils.flop_counter import FlopCounterMode

    device, found = torch.device("cuda"), dict[str, Any]()
    peaks: dict[int, float] = {}
    for size in GPU_BATCHES:
        sized = replace(config, data=replace(config.data, samples_per_gpu=size))
        task = world_task(sized, data, options.data / "tokens")
        stepper, batch = stepper_of(task, sized, device, size), next(iter(task.batches(0, 0)))
        if batch_size(batch) < size:
            break
        task.module.train()
        torch.cuda.reset_peak_memory_stats()
        stepper(batch, 0, size)
        if stepper.microbatch < size:
            break
        peaks[size] = round(torch.cuda.max_memory_allocated() / 1e9, 2)

        def work(stepper: Stepper = stepper, batch: Any = batch, size: int = size) -> None:
            stepper(batch, 1, size)
            torch.cuda.synchronize()

        seconds = median_s(work, options.steps, time.perf_counter)
        with FlopCounterMode(display=False) as counter:
            work()
        peak = PEAK_FLOPS.get(torch.cuda.get_device_capability())
        mfu = None if peak is None else round(counter.get_total_flops() / seconds / peak, 4)
        found = {"windows_per_s": round(size / seconds, 3), "mfu": mfu}
        del task, stepper, batch
        torch.cuda.empty_cache()
    return {"peak_gb_by_batch": peaks, **found, "gpu": torch.cuda.get_device_name()}


# One run


def measure_part(options: argparse.Namespace) -> dict[str, Any]:
    """One part, in a process of its own."""
    config = config_of(options)
    data = open_data(config, lambda: None)
    if options.part == "gpu":
        return measure_gpu(config, data, options)
    if options.part == "loader":
        return measure_loader(config, data)
    stage, kind = options.part.split("_")
    if kind == "saving":
        model = replace(config.model, checkpoint_activations=True)
        config = replace(config, model=model)
    return measure_stage(config, data, options, int(stage[-1]), plain=kind == "plain")


def run_part(part: str, options: argparse.Namespace, data: Path) -> dict[str, Any]:
    words = [
        sys.executable, __file__, "--part", part, "--data", str(data), "--config", options.config,
        "--steps", str(options.steps), "--windows", str(options.windows),
        "--frames", str(options.frames),
    ]  # fmt: skip
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All parts, and their ratios."""
    with tempfile.TemporaryDirectory(prefix="vlwm-bench-") as folder:
        data = Path(folder) / "city"
        open_data(config_of(argparse.Namespace(**{**vars(options), "data": data})), lambda: None)
        parts = PARTS + (("gpu",) if torch.cuda.is_available() else ())
        found = {part: run_part(part, options, data) for part in parts}
    gpu = found.pop("gpu", {})
    return {
        "loader_ratio": round(found["loader"]["plain_s"] / found["loader"]["ours_s"], 2),
        "stage1_ratio": _times(found, "stage1", "ours"),
        "stage2_ratio": _times(found, "stage2", "ours"),
        "memory_ratio": _memory(found, "stage2", "ours"),
        "stage1_memory_ratio": _memory(found, "stage1", "ours"),
        "saving": {
            "stage2_ratio": _times(found, "stage2", "saving"),
            "memory_ratio": _memory(found, "stage2", "saving"),
        },
        **gpu,
        "parts": found,
    }


def _times(found: dict[str, Any], stage: str, kind: str) -> float:
    """How many times faster than plain."""
    seconds = found[f"{stage}_plain"]["seconds"] / found[f"{stage}_{kind}"]["seconds"]
    return round(seconds, 3)


def _memory(found: dict[str, Any], stage: str, kind: str) -> float:
    """Peak memory over the plain one's."""
    peak = found[f"{stage}_{kind}"]["peak_gb"] / found[f"{stage}_plain"]["peak_gb"]
    return round(peak, 3)


def show(found: dict[str, Any]) -> None:
    for name in found:
        if name.endswith("_ratio"):
            print(f"{name:20s} {found[name]:8.2f}")
    print(f"{'saving':14s} {found['saving']}")
    for name, part in found["parts"].items():
        told = ", ".join(f"{k} {v:.4g}" for k, v in part.items() if isinstance(v, float))
        print(f"{name:14s} {told}")
        for row in part.get("profile", ()):
            print(f"{'':16s}{row['share']:6.1%}  {row['name']} ({row['calls']} calls)")
    for name in ("gpu", "peak_gb_by_batch", "windows_per_s", "mfu"):
        if name in found:
            print(f"{name:18s} {found[name]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2, help="timed steps after one warm-up")
    parser.add_argument("--windows", type=int, default=1, help="windows in a step of stage 2")
    parser.add_argument("--frames", type=int, default=2, help="frames in a step of stage 1")
    parser.add_argument("--config", default="finetune_tokyo", help="preset that says the size")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--part", choices=(*PARTS, "gpu"), help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(measure_part(options)))
        return
    found = measure(options)
    print(json.dumps(found)) if options.json else show(found)


if __name__ == "__main__":
    main()
