"""Stage 1 on weights that were loaded in part: what was loaded is not thrown away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vlwm.core.config.load import load_config
from vlwm.core.model.tokenizer.vqvae import Tokenizer
from vlwm.core.training.loop.optimizer import build_optimizer
from vlwm.core.training.loop.stepper import Stepper
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.startup.train_data import open_data
from vlwm.core.training.tasks.tokenizer_task import TokenizerTask

FRESH = ("encoder.conv_in.weight", "class_embeds.weight")


def moved_by_steps(tiny: Any, data: Path, steps: int, warmup: int) -> tuple[set[str], Any]:
    """Names of the tensors that change over some steps, and the task."""
    sets = (*tiny.overrides, f"data_root={str(data)!r}", f"tokenizer.warmup_fresh_iters={warmup}")
    config = load_config("test_local", sets)
    torch.manual_seed(0)
    opened = open_data(config, lambda: None)
    model = Tokenizer(config.tokenizer, opened.grid.shape)
    task = TokenizerTask(model, opened, config, torch.device("cpu"), 0, Ranks(), FRESH)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = build_optimizer(model, config.optimizer, 1e-3)
    stepper = Stepper(task, optimizer, config.grad_clip, torch.device("cpu"), None, 8)
    batch = next(iter(task.batches(0, 0)))
    for step in range(steps):
        stepper(batch, step, len(batch.index))
    after = model.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}, task


def test_the_warm_up_moves_what_is_fresh_and_nothing_else(tiny: Any, tiny_data: Path) -> None:
    """Codes follow moving means, not gradients: they have to stand still as well."""
    moved, _ = moved_by_steps(tiny, tiny_data, steps=2, warmup=2)
    assert moved == set(FRESH)


def test_then_all_moves_and_the_codes_go_on_from_those_loaded(tiny: Any, tiny_data: Path) -> None:
    moved, task = moved_by_steps(tiny, tiny_data, steps=1, warmup=0)
    assert moved > set(FRESH) and any(name.startswith("decoder.") for name in moved)
    assert task.codebook.started and task.codebook.revived == 0
    codes = task.module.vqvae.embedding.weight
    torch.manual_seed(0)
    loaded = Tokenizer(task.config.tokenizer, task.shape).vqvae.embedding.weight
    kept = task.config.tokenizer.ema_decay
    unused = task.codebook.counts < kept + 1e-6  # nobody chose them in this step
    assert bool(unused.any())
    torch.testing.assert_close(codes[unused], loaded[unused], rtol=1e-3, atol=1e-6)
