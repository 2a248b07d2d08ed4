"""Pre-train the networks of the memory branch on single windows before stage 2.

The fusion is small and shared by all layers and places, so it needs many optimizer steps rather
than many cells per step: a layer of one future frame holds ten thousand examples already
(docs/decisions.md). A full step of stage 2 is expensive, so the fusion is first trained alone;
afterwards it trains jointly with the rest. The completion of an observed past follows in the same
way.
"""

from __future__ import annotations

from collections.abc import Iterator

from vlwm.core.config.schema import Config
from vlwm.core.data.batch import Batch
from vlwm.core.data.datasets import WindowDataset
from vlwm.core.model.loss_report import LossTerm
from vlwm.core.model.memory.observed_fusion import ObservedBranch
from vlwm.core.model.world_loss import WorldLoss
from vlwm.core.training.loop.data_loader import epoch_batches
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.tasks.pretraining import PretrainingPhase
from vlwm.core.vocabulary import Phase


class WindowPretraining(PretrainingPhase):
    """Trains a part of the memory branch on the windows of the train split, one a step.

    Args:
        objective: of the model, a part of which is changed in place.
        windows: the train split.
        config: steps, seed.
        workers: loader processes.
    """

    def __init__(
        self, objective: WorldLoss, windows: WindowDataset, config: Config, workers: int
    ) -> None:
        self.objective = objective
        self.windows = windows
        self.seed = config.seed + 1  # another order than stage 2
        self.workers = workers

    def prepare(self) -> None:
        """Put the model into training mode: which frame is drawn depends on the step then."""
        self.objective.model.train()

    def batches(self, first: int) -> Iterator[Batch]:
        """Yield the windows of the steps from `first` on, one by one, in the order of epochs."""
        while first < self.steps:
            # more steps than windows: the next epoch has another order
            epoch, done = divmod(first, len(self.windows))
            most = min(len(self.windows), self.steps - epoch * len(self.windows))
            place = (epoch, done)
            # one window per step, in one process: all processes take the same steps
            yield from epoch_batches(self.windows, 1, self.seed, place, Ranks(), self.workers, most)
            first += most - done


class FusionPretraining(WindowPretraining):
    """Trains the fusion for `data.fusion_steps` steps of one window."""

    name = Phase.FUSION
    prefix = "memory.fusion."
    lr = 1e-2

    def __init__(
        self, objective: WorldLoss, windows: WindowDataset, config: Config, workers: int
    ) -> None:
        super().__init__(objective, windows, config, workers)
        self.module = objective.model.memory.fusion
        self.steps = config.data.fusion_steps if len(windows) else 0

    def describe(self) -> str:
        """Return what is done, for the log."""
        return f"fusion from single windows, {self.steps} steps"

    def loss_terms(self, batch: Batch, step: int) -> Iterator[LossTerm]:
        """Yield the fusion's loss on one future frame of the window."""
        yield self.objective.fusion_term(batch, step)


class CompletionPretraining(WindowPretraining):
    """Trains the completion of an observed past for `data.completion_steps` steps of one window."""

    name = Phase.COMPLETION
    prefix = "memory.completion."
    lr = 2e-3

    def __init__(
        self, objective: WorldLoss, windows: WindowDataset, config: Config, workers: int
    ) -> None:
        super().__init__(objective, windows, config, workers)
        memory = objective.model.memory
        assert isinstance(memory, ObservedBranch) and memory.completion is not None
        self.module = memory.completion
        self.steps = config.data.completion_steps if len(windows) else 0

    def describe(self) -> str:
        """Return what is done, for the log."""
        return f"completion of the unseen from single windows, {self.steps} steps"

    def loss_terms(self, batch: Batch, step: int) -> Iterator[LossTerm]:
        """Yield the loss of the completed map on one future frame of the window."""
        yield self.objective.completion_term(batch, step)
