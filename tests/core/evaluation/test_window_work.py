"""Counts of some windows at a time add up to the counts of all."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch

from tests.core.evaluation.test_window_scorer import GRID, FakeModel, make_batch, make_scorer
from vlwm.core.data.batch import Batch
from vlwm.core.evaluation.accumulators import Tally
from vlwm.core.evaluation.calibration.histogram import ProbabilityHistogram
from vlwm.core.evaluation.classes import ClassTally
from vlwm.core.evaluation.observed.tally import ObservedTally
from vlwm.core.evaluation.zones import Zones

FREE = 3


def row(batch: Batch, index: int) -> Batch:
    return Batch(
        batch.bits[index : index + 1], batch.poses[index : index + 1],
        batch.ground_z[index : index + 1], index=batch.index[index : index + 1],
        symmetry=batch.symmetry[index : index + 1],
    )  # fmt: skip


def add_window(tally: Tally, batch: Batch, index: int) -> None:
    """Count a window; its observed zones and classes are noise."""
    observed, classes = tally.observed, tally.classes
    assert observed is not None and classes is not None
    tally.observed = tally.classes = None  # the fake model has none
    make_scorer(FakeModel()).add(row(batch, index), [f"cluster{index % 2}"], tally)
    tally.observed, tally.classes = observed, classes
    rng = np.random.default_rng(index)

    def noise(most: int, kind: type = np.uint8) -> torch.Tensor:
        return torch.from_numpy(rng.integers(0, most, GRID.shape).astype(kind))

    truth, zone = noise(2), noise(3)
    planes = {method: noise(2) for method in tally.methods}
    observed.add(
        index % 2, index % tally.horizons, planes, {}, truth,
        Zones(*(zone == k for k in range(3))), noise(3), noise(2),
        torch.from_numpy(rng.random(GRID.shape, dtype=np.float32)),
    )  # fmt: skip
    classes.add(index % tally.horizons, {"copy_last": noise(FREE + 1)}, noise(FREE + 1), None)


def empty() -> Tally:
    tally = make_scorer(FakeModel()).new_tally()
    tally.observed = ObservedTally(tally.methods, tally.horizons)
    tally.classes = ClassTally(("copy_last",), tally.horizons, FREE)
    return tally


def same(one: Any, other: Any, where: str = "tally") -> None:
    """Compare every field, however deep, and the order of every dictionary."""
    if is_dataclass(one) and not isinstance(one, type):
        for field in fields(one):
            same(getattr(one, field.name), getattr(other, field.name), f"{where}.{field.name}")
    elif isinstance(one, ProbabilityHistogram):
        same(one.counts, other.counts, where)
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            same(one[key], other[key], f"{where}[{key}]")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for k, (a, b) in enumerate(zip(one, other, strict=True)):
            same(a, b, f"{where}[{k}]")
    else:
        np.testing.assert_array_equal(one, other, where)


def test_parts_add_up_to_the_whole() -> None:
    """Fault: a field of a tally that `merge` forgets."""
    batch = make_batch(4)
    whole, merged = empty(), empty()
    for index in range(4):
        add_window(whole, batch, index)
    for part in ((0,), (1, 2), (3,)):
        some = empty()
        for index in part:
            add_window(some, batch, index)
        merged.merge(some)
    same(whole, merged)
    assert whole.total.windows == 4 and whole.poses and whole.state.errors
    assert whole.observed is not None and whole.observed.probabilities
