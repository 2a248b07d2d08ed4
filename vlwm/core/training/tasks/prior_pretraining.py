"""Tell the model what to expect where no past frame reaches: the first phase of stage 2.

Two statistics of the train split: how often each height layer is occupied (the column prior, which
`PackedStore.column_prior` counts), and what is beyond the edge of the past frames, counted here
(`memory.extrapolation`). Both take seconds, so they are made again whenever a run starts stage 2,
and no weights replace them: they are of the data.
"""

from __future__ import annotations

import torch

from vlwm.core.data.batch import Batch, collate
from vlwm.core.data.datasets import WindowDataset
from vlwm.core.evaluation.column_prior import evenly
from vlwm.core.model.forward import ego_of_past
from vlwm.core.model.world_model import WorldModel
from vlwm.core.training.startup.train_data import TrainData
from vlwm.core.training.tasks.pretraining import PretrainingPhase
from vlwm.core.vocabulary import Phase

_WINDOWS = 128
"""of the train split that are counted beyond their edge"""


class PriorPretraining(PretrainingPhase):
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
        # epoch 0: windows as they were driven or mirrored, the same in each run
        for index in evenly(len(self.windows), _WINDOWS):
            count_unseen(self.module, collate([self.windows[0, index]]).to(self.device))


@torch.no_grad()
def count_unseen(model: WorldModel, batch: Batch) -> None:
    """Count what is where the past frames of train windows do not reach.

    Every second future frame is enough: neighbours share most of their columns.
    """
    history, reader = model.history, model.reader
    voxels = reader.voxels(batch.bits, batch.symmetry)  # (B, P + H, X, Y, Z)
    past_ego = ego_of_past(batch.past(history))
    known = None
    if batch.known is not None:
        known = reader.voxels(batch.known, batch.symmetry)[:, history:]
    # 1, 2 and 3 s ahead
    horizons = range(1, model.future, 2)
    model.memory.count_unseen(
        voxels[:, :history], past_ego, voxels[:, history:], batch.plan(history).ego, horizons, known
    )
