"""One process that replaces several makes their steps, to the bit where two are added."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from pathlib import Path

import pytest
import torch

from tests.core.training.toy import ToyBatch, ToyTask, config
from vlwm.core.data.sampler import EpochSampler, share_cuts
from vlwm.core.model.checkpoint import save_checkpoint
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.loop.optimizer import build_optimizer
from vlwm.core.training.loop.stepper import Stepper
from vlwm.core.training.options import TrainOptions
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.startup.resume import processes_of_run

SAMPLES = 7


def stepper_of(ranks: Ranks, microbatch: int = 2) -> Stepper:
    torch.manual_seed(3)
    task = ToyTask()
    task.module.eval()  # no dropout: pieces are compared, not draws
    optimizer = build_optimizer(task.module, config().optimizer, 0.01)
    return Stepper(
        task, optimizer, config().grad_clip, torch.device("cpu"), None, microbatch, ranks
    )


def batch() -> ToyBatch:
    x = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(5))
    return ToyBatch(x, torch.arange(SAMPLES))


def grads(stepper: Stepper, part: ToyBatch) -> list[torch.Tensor]:
    numbers, full = stepper._accumulate(part, 0, SAMPLES)
    assert numbers and not full
    return [p.grad.clone() for p in stepper.parameters if p.grad is not None]


@pytest.mark.parametrize("processes", [2, 4])
def test_gradients_are_the_sum_of_those_of_the_processes(processes: int) -> None:
    cuts, whole = share_cuts(SAMPLES, processes), batch()
    apart = [
        grads(stepper_of(Ranks()), ToyBatch(whole.x[a:b], whole.index[a:b]))
        for a, b in itertools.pairwise(cuts)
    ]
    total = [sum(parts[1:], parts[0]) for parts in zip(*apart, strict=True)]
    together = grads(stepper_of(Ranks(begun_with=processes)), whole)
    plain = grads(stepper_of(Ranks()), whole)
    assert len(together) == len(total) == 4
    for one, other in zip(together, total, strict=True):
        assert torch.equal(one, other)
    # without pieces the microbatches are others, so the sums differ in their last bits
    assert any(not torch.equal(a, b) for a, b in zip(plain, total, strict=True))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_order_and_batch_do_not_depend_on_the_processes(size: int) -> None:
    shares = [
        list(EpochSampler(22, 8, seed=1, epoch=2, rank=r, world_size=size)) for r in range(size)
    ]
    joined = [functools.reduce(operator.iadd, parts, []) for parts in zip(*shares, strict=True)]
    assert joined == list(EpochSampler(22, 8, seed=1, epoch=2))


def test_pieces_are_those_of_the_processes_replaced() -> None:
    cases = {(1, 0): 1, (1, 4): 4, (2, 4): 2, (4, 4): 1, (4, 2): 1, (3, 4): 1}
    for (size, begun_with), pieces in cases.items():
        ranks = Ranks(size=size, begun_with=begun_with)
        assert ranks.pieces == pieces and ranks.batch_shares == (begun_with or size)
    assert Ranks(size=1, begun_with=4).largest_piece(10) == 3


def test_a_run_remembers_its_processes(tmp_path: Path) -> None:
    cfg, options = config(), TrainOptions(tmp_path)
    folder = RunFolder(tmp_path)
    assert processes_of_run(folder, cfg, options) == 0
    content = {"stage": "opening", "config": cfg.to_dict(), "sampler": {"processes": 2}}
    save_checkpoint(folder.opening, content)
    assert processes_of_run(folder, cfg, options) == 2
    folder.last.write_bytes(b"damaged")
    assert processes_of_run(folder, cfg, options) == 2
    save_checkpoint(folder.last, {**content, "sampler": {"sample": 0, "microbatch": 1}})
    assert processes_of_run(folder, cfg, options) == 2  # a checkpoint of an older version
    # another batch is a choice for the processes of now
    data = dataclasses.replace(cfg.data, samples_per_gpu=cfg.data.samples_per_gpu + 1)
    assert processes_of_run(folder, dataclasses.replace(cfg, data=data), options) == 0
    assert processes_of_run(folder, cfg, TrainOptions(tmp_path, new_run=True)) == 0
