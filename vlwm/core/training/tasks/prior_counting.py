"""Count on the train split what to expect where no past frame reaches: the first phase of stage 2.

Two counts: how often each height layer is occupied (the column prior), and what is beyond the edge
of the past frames (`memory.extrapolation`). Both take seconds, so they are made again whenever a
run starts stage 2, and no weights replace them: they are of the data.
"""

from __future__ import annotations

import torch

from vlwm.core.data.batch import collate
from vlwm.core.data.datasets import WindowDataset
from vlwm.core.evaluation.column_prior import evenly
from vlwm.core.model.world_model import WorldModel
from vlwm.core.training.startup.train_data import TrainData
from vlwm.core.training.tasks.pretraining import PretrainingPhase
from vlwm.core.vocabulary import Phase

_WINDOWS = 128
"""of the train split that are counted beyond their edge"""


class PriorCounting(PretrainingPhase):
    """Counts; without steps.

    Args:
        model: changed in place.
        data: whose train split is counted.
        windows: the train split.
        device: of the model.
    """

    name = Phase.PRIOR

    def __init__(
        self, model: WorldModel, data: TrainData, windows: WindowDataset, device: torch.device
    ) -> None:
        self.module: WorldModel = model
        self.data = data
        self.windows = windows
        self.device = device

    def prepare(self) -> None:
        """Count."""
        self.module.set_prior(self.data.column)
        if not self.module.config.model.use_memory:
            return
        for index in evenly(len(self.windows), _WINDOWS):
            self.module.count_unseen(collate([self.windows[0, index]]).to(self.device))
