"""One of several processes that train the toy task together: `python -m …toy_ranks FOLDER`.

Memory runs out once, in one process alone, at a step or in a validation; the run next to it has
the smaller microbatch from that step on, in all processes. Each process keeps what it ended with.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.core.training.toy import ToyBatch, ToyTask, build, config
from vlwm.core.training.runtime.distributed import Ranks, join_ranks
from vlwm.core.training.runtime.rng import seed_everything

CASES = (("step", 1, 8), ("validate", 0, 2))
"""(phase, process, how many times the phase has begun there when its memory runs out)"""


class Shared(ToyTask):
    """The toy task, of which each process has its share of every batch."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(size=21, batch=4)  # an epoch's last batch leaves one process without any
        self.ranks = ranks
        self.short: tuple[str, int] | None = None
        self.begun = {"step": 0, "validate": 0}
        self.hook = self._count

    def _count(self, phase: str) -> None:
        if phase == "step" and not self.module.training:
            return
        self.begun[phase] += 1
        if self.short == (phase, self.begun[phase]):
            self.short = None
            raise torch.OutOfMemoryError("injected in one process")

    def batches(self, epoch: int, first_sample: int) -> Iterator[ToyBatch | None]:
        for batch in super().batches(epoch, first_sample):
            if epoch == 999:  # every process validates all of it
                yield batch
                continue
            share = -(-len(batch.x) // self.ranks.size)
            here = slice(share * self.ranks.rank, share * (self.ranks.rank + 1))
            part = ToyBatch(batch.x[here], batch.index[here])
            yield part if len(part.x) else None


def run(folder: Path, ranks: Ranks, short: tuple[str, int] | None, shrink_at: int | None) -> Any:
    """Train; what this process ended with, and the step at which the microbatch shrank."""
    seed_everything(1)
    task = Shared(ranks)
    task.short = short
    for value in task.module.state_dict().values():
        value += ranks.rank  # as if each had computed it by itself
    ranks.follow_lead(task.module)
    trainer = build(folder, config(epochs=2), task, microbatch=2, ranks=ranks)
    stepper, shrunk = trainer.state.stepper, []
    plain_begin, plain_shrink = task.begin_step, stepper.shrink

    def begin_step(step: int) -> None:
        if shrink_at is not None and step >= shrink_at:
            stepper.microbatch = 1
        plain_begin(step)

    def shrink(samples: int) -> None:
        shrunk.append(trainer.state.at.step)
        plain_shrink(samples)

    task.begin_step, stepper.shrink = begin_step, shrink
    trainer.begin()
    trainer.fit()
    content = {k: v for k, v in trainer.state.content().items() if k in ("model", "optimizer")}
    trainer.metrics.close()
    return {**content, "microbatch": stepper.microbatch, "shrunk": shrunk}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with join_ranks() as ranks:
        for phase, rank, count in CASES:
            here = folder / phase
            short = (phase, count) if ranks.rank == rank else None
            met = run(here / "short", ranks, short, None)
            planned = run(here / "planned", ranks, None, met["shrunk"][0])
            torch.save({"short": met, "planned": planned}, folder / f"{phase}_{ranks.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
