"""Train the tokenizer on single frames under all eight symmetries of the plane (stage 1).

The loss is the occupancy composite of the round trip plus the quantizer's own. The codebook
follows its moving means after each step that was not skipped, once per global batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlwm.core.config.schema import Config
from vlwm.core.data.batch import FrameBatch, apply_symmetry
from vlwm.core.data.datasets import FrameDataset, layers_of_task
from vlwm.core.evaluation.calibration.histogram import ProbabilityHistogram
from vlwm.core.model.bit_packing import unpack_bits
from vlwm.core.model.checkpoint_content import CheckpointContent
from vlwm.core.model.loss_report import LossTerm
from vlwm.core.model.losses import occupancy_loss
from vlwm.core.model.semantic import cells_with_class, class_loss, occupancy_logit
from vlwm.core.model.tokenizer.quantizer import CodebookHealth
from vlwm.core.model.tokenizer.vqvae import Tokenizer
from vlwm.core.training.loop.data_loader import epoch_batches, share_of
from vlwm.core.training.loop.task import Pause, validate_all
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.startup.train_data import TrainData
from vlwm.core.vocabulary import Stage

_CODES = "vqvae.embedding.weight"


class TokenizerTask:
    """Trains a `Tokenizer`.

    Args:
        model: on its device.
        data: frames of the train and validation splits.
        config: size, batch, symmetries, seed.
        device: where batches go.
        workers: loader processes.
        ranks: the processes that share each batch.
        fresh: names of parameters that no weights covered; for `warmup_fresh_iters` steps only
            they move. Empty where all are fresh.
    """

    stage = Stage.TOKENIZER
    unit = "frames"

    def __init__(
        self,
        model: Tokenizer,
        data: TrainData,
        config: Config,
        device: torch.device,
        workers: int,
        ranks: Ranks,
        fresh: tuple[str, ...] = (),
    ) -> None:
        self.module = model
        self.config, self.device, self.workers, self.ranks = config, device, workers, ranks
        self.data, self.shape = data, data.grid.shape
        self.free_class = config.tokenizer.num_classes - 1
        layers = layers_of_task(data.store, semantic=config.semantic)
        # quarter turns need a square plane
        square = self.shape[0] == self.shape[1] and config.data.symmetries
        self.train_set = FrameDataset(
            data.store, data.train_rows, symmetries=8 if square else 1, seed=config.seed,
            layers=layers,
        )  # fmt: skip
        self.val_set = FrameDataset(data.store, data.val_rows, layers=layers)
        size = config.tokenizer
        self.codebook = CodebookHealth(model.vqvae, size.ema_decay, size.revive_below, config.seed)
        self.fresh = fresh
        self.alone = False  # whether only what is fresh moves
        if fresh and _CODES not in fresh:
            self.codebook.adopt()
        self.threshold: float | None = None
        self._trained = [n for n, p in model.named_parameters() if p.requires_grad]
        self._outputs: list[tuple[Tensor, Tensor]] = []

    def samples(self) -> int:
        """Return the frames of an epoch."""
        whole = self.data.samples_of(Stage.TOKENIZER)
        return min(whole, self.config.tokenizer.epoch_samples or whole)

    def batches(self, epoch: int, first_sample: int) -> Iterable[FrameBatch]:
        """Return the frames of one epoch in its own order."""
        return epoch_batches(
            self.train_set,
            self.config.tokenizer.samples_per_gpu * self.ranks.batch_shares,
            self.config.seed,
            (epoch, first_sample),
            self.ranks,
            self.workers,
            self.config.tokenizer.epoch_samples,
            self.data.frame_weights,
        )

    def begin_step(self, step: int) -> None:
        """Choose what is trained in this step, and forget what a failed try left."""
        self._outputs = []
        if self.fresh:
            self.alone = step < self.config.tokenizer.warmup_fresh_iters
            # in the warm-up only fresh parameters move: they must not disturb the loaded ones
            parameters = dict(self.module.named_parameters())
            for name in self._trained:
                parameters[name].requires_grad_(not self.alone or name in self.fresh)

    def loss_terms(self, batch: FrameBatch, step: int) -> Iterator[LossTerm]:
        """Yield one term: the composite of the round trip and the quantizer's share a graph."""
        truth = apply_symmetry(unpack_bits(batch.bits, self.shape), batch.symmetry)
        z = self.module.encode(self._cells(batch, truth))  # (N, C, h, w)
        quantized = self.module.quantize(z)
        if self.module.training:
            # kept for `end_step`: the codebook follows the global batch, not a microbatch
            flat = z.detach().movedim(1, -1).reshape(-1, z.shape[1])
            self._outputs.append((flat, quantized.indices.reshape(-1)))
        logits = self.module.decode(quantized.z_q)
        known = _known(batch, self.shape)
        more: dict[str, Tensor] = {}
        if self.config.semantic:
            more["loss/class"] = class_loss(
                logits[..., :-1], self._labels(batch), self.free_class, known
            )
            logits = occupancy_logit(logits)
        occupancy = occupancy_loss(logits, truth, self.config.loss, known)
        total = occupancy.total + self.config.tokenizer.vq_weight * quantized.vq_loss
        if more:
            total = total + self.config.loss.class_weight * more["loss/class"]
        numbers = {
            "loss/occupancy": occupancy.total,
            "loss/focal": occupancy.focal,
            "loss/dice": occupancy.dice,
            "loss/mean": occupancy.mean,
            "loss/vq": quantized.vq_loss,
            **occupancy.statistics(),
            **more,
        }
        yield LossTerm("round_trip", total, numbers=numbers)

    def _labels(self, batch: FrameBatch) -> Tensor:
        """Return the classes uint8 (N, X, Y, Z) of a batch, turned as its voxels are."""
        assert batch.classes is not None
        return apply_symmetry(batch.classes, batch.symmetry)

    def _cells(self, batch: FrameBatch, voxels: Tensor) -> Tensor:
        """Return what the tokenizer reads: voxels, or classes where there is the task."""
        if not self.config.semantic:
            return voxels
        return cells_with_class(voxels, self._labels(batch), self.free_class)

    def exchange(self) -> None:
        """Gather encoder outputs and codes of the global batch, in the same order everywhere."""
        width = self.codebook.sums.shape[1]
        nothing = (torch.empty(0, width, device=self.device),
                   torch.empty(0, dtype=torch.int64, device=self.device))  # fmt: skip
        # outputs (M, C) and codes (M,) of this process, of all microbatches
        flat, indices = (torch.cat(part) for part in zip(nothing, *self._outputs, strict=True))
        self._outputs = [(self.ranks.gather_rows(flat.float()), self.ranks.gather_rows(indices))]

    def end_step(self, bad: Tensor) -> None:
        """Update the codebook once per global batch; loaded codes stay as they are in a warm-up."""
        outputs, self._outputs = self._outputs, []
        if not bool(bad) and not (self.alone and _CODES not in self.fresh):
            self.codebook.update(*outputs[0])

    def validate(self, pause: Pause, size: int) -> dict[str, float]:
        """Return loss and round-trip IoU over the validation frames."""
        histogram = ProbabilityHistogram()
        sums = np.zeros(2)  # loss over frames, frames

        def score(batch: FrameBatch) -> None:
            batch = batch.to(self.device)
            truth = unpack_bits(batch.bits, self.shape)
            quantized = self.module.quantize(self.module.encode(self._cells(batch, truth)))
            logits = self.module.decode_occupancy(quantized.z_q)
            known = _known(batch, self.shape)
            loss = occupancy_loss(logits, truth, self.config.loss, known).total
            loss = loss + self.config.tokenizer.vq_weight * quantized.vq_loss
            # (N, X, Y, Z); cells of unknown truth are left out below
            probability = torch.sigmoid(logits.float())
            if known is not None:
                probability, truth = probability[known > 0], truth[known > 0]
            histogram.add(probability, truth)
            sums[:] += float(loss) * len(logits), len(logits)

        validate_all(share_of(self.val_set, size, self.ranks), score, pause)
        self.ranks.sum_array(sums)
        self.ranks.sum_array(histogram.counts)
        self.threshold, iou = histogram.best_threshold()
        numbers = {"epoch/val_loss": float(sums[0] / sums[1]), "val/threshold": self.threshold}
        return numbers if iou is None else {**numbers, "val/iou": iou}

    def merit(self, numbers: dict[str, float]) -> float:
        """Return the round trip's IoU: it still rises when the loss on unseen blocks does."""
        return numbers.get("val/iou", -math.inf)  # frames without any count have no IoU

    def numbers(self) -> dict[str, float]:
        """Return the use of the codebook."""
        return {**self.codebook.numbers(), "codebook/size": float(len(self.codebook.counts))}

    def state(self) -> dict[str, Any]:
        """Return codebook statistics, threshold, and names of parameters that began fresh."""
        return {
            "codebook": self.codebook.state_dict(),
            "threshold": self.threshold,
            "fresh": list(self.fresh),
        }

    def load_state(self, content: CheckpointContent) -> None:
        """Take back what `state` gave."""
        assert content.codebook is not None  # every checkpoint of stage 1 has one
        self.codebook.load_state_dict(content.codebook)
        self.threshold = content.threshold
        self.fresh = tuple(content.fresh or ())

    def save_memory(self) -> bool:
        """Return False: a single frame is small, there is nothing to trade."""
        return False


def _known(batch: FrameBatch, shape: tuple[int, int, int]) -> Tensor | None:
    """Return uint8 (N, X, Y, Z), the cells whose truth is known; None: all of them."""
    if batch.known is None:
        return None
    return apply_symmetry(unpack_bits(batch.known, shape), batch.symmetry)
