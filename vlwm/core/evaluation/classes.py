"""Score forecasts of classes: IoU of each class, their mean, and the field's protocol.

Counts are int64 and pooled over windows before a ratio is taken. A class that occurs neither in the
truth nor in a forecast has no IoU: it is left out of the mean and counted. The field's protocol
(OccWorld, arXiv 2311.16038) takes the IoU of a class that the truth lacks as 1, and states the
mean over classes and the IoU of all occupied cells at 1, 2 and 3 s; `field` repeats it.

Axes: M methods, H horizons, C classes without free space, X, Y, Z cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlwm.core.evaluation.metrics import HIT, PREDICTED, TRUE, none_for_nan, ratio
from vlwm.core.vocabulary import UNLABELLED, class_name

METHODS = ("copy_last", "constant_velocity_warp")
"""forecasts of classes without learning: the last frame as it is, and moved by constant motion"""
FIELD_S = (1.0, 2.0, 3.0)
"""horizons of published tables, seconds"""


@dataclass
class ClassTally:
    """Counts of classes over the windows of a split.

    Attributes:
        methods: names, M.
        horizons: H.
        free: the class of free space; those below it are the C classes.
        counts: int64 (M, H, C + 1, 3): hit, predicted and true cells of each class; the last row is
            of all occupied cells, whatever their class.
    """

    methods: tuple[str, ...]
    horizons: int
    free: int
    counts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.methods), self.horizons, self.free + 1, 3), np.int64)

    def add(
        self, horizon: int, planes: Mapping[str, Tensor], truth: Tensor, known: Tensor | None
    ) -> None:
        """Count one future frame.

        Args:
            planes: uint8 (X, Y, Z) by method.
            truth: uint8 (X, Y, Z); cells without a label count nowhere.
            known: bool (X, Y, Z), cells whose truth is known; None: all of them.
        """
        counted = truth != UNLABELLED
        if known is not None:
            counted = counted & known
        true = truth[counted].long()  # (K,)
        size = self.free + 1
        for row, method in enumerate(self.methods):
            predicted = planes[method][counted].long()
            code = true * size + predicted
            table = torch.bincount(code, minlength=size * size).view(size, size).cpu().numpy()
            counts = self.counts[row, horizon]
            counts[:-1, HIT] += np.diagonal(table)[:-1]
            counts[:-1, PREDICTED] += table.sum(axis=0)[:-1]
            counts[:-1, TRUE] += table.sum(axis=1)[:-1]
            counts[-1, HIT] += table[:-1, :-1].sum()
            counts[-1, PREDICTED] += table[:, :-1].sum()
            counts[-1, TRUE] += table[:-1].sum()

    def merge(self, other: ClassTally) -> None:
        """Add the counts of other windows, of the same methods and classes."""
        self.counts += other.counts

    def summary(self, horizons_s: np.ndarray) -> dict[str, Any]:
        """Return the block `classes` of scores.json."""
        names = [class_name(c, self.free + 1) for c in range(self.free)]
        methods = {m: self._of(k, names) for k, m in enumerate(self.methods)}
        marks = [i for i, s in enumerate(horizons_s) if s in FIELD_S]
        return {
            "names": names,
            "methods": methods,
            "field": {m: self._field(k, marks) for k, m in enumerate(self.methods)},
            "field_horizons_s": [float(horizons_s[i]) for i in marks],
        }

    def _of(self, row: int, names: list[str]) -> dict[str, Any]:
        """Return mean IoU, IoU of each class, and the classes left out, per horizon."""
        iou = _iou(self.counts[row, :, :-1])  # (H, C), NaN where a class does not occur
        left = np.isnan(iou)
        mean = ratio(np.where(left, 0.0, iou).sum(axis=1), (~left).sum(axis=1))
        return {
            "miou": none_for_nan(mean),
            "iou_occupied": none_for_nan(_iou(self.counts[row, :, -1])),
            "iou": {name: none_for_nan(iou[:, c]) for c, name in enumerate(names)},
            "classes_left_out": left.sum(axis=1).tolist(),
        }

    def _field(self, row: int, marks: list[int]) -> dict[str, list[float | None]]:
        """Return mIoU and IoU at 1, 2, 3 s and their means, as published tables have them."""
        counts = self.counts[row, marks]  # (3, C + 1, 3)
        iou = np.where(counts[..., TRUE] == 0, 1.0, _iou(counts))
        scores = {"miou": iou[:, :-1].mean(axis=1), "iou": iou[:, -1]}
        return {
            key: none_for_nan(np.append(values, values.mean() if len(values) else np.nan))
            for key, values in scores.items()
        }


def _iou(counts: np.ndarray) -> np.ndarray:
    union = counts[..., PREDICTED] + counts[..., TRUE] - counts[..., HIT]
    return ratio(counts[..., HIT], union)
