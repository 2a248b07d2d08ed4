"""Scores of classes: exact counts, classes that do not occur, and the field's protocol."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlwm.core.evaluation.classes import ClassTally
from vlwm.core.evaluation.scores.class_table import class_tables
from vlwm.core.vocabulary import UNLABELLED

FREE = 17
SHAPE = (9, 8, 7)
HORIZONS = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0])


def frames(seed: int, classes: int = FREE) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, classes, SHAPE)
    return torch.from_numpy(np.where(rng.random(SHAPE) < 0.6, FREE, cells).astype(np.uint8))


def published(outputs: torch.Tensor, targets: torch.Tensor) -> tuple[float, float]:
    """OccWorld's arithmetic, literally: mean over 17 classes, and IoU of what is not free."""
    ious = []
    for c in range(FREE):
        seen, found = (targets == c).sum(), (outputs == c).sum()
        both = ((targets == c) & (outputs == c)).sum()
        ious.append(1.0 if seen == 0 else float(both / (seen + found - both)))
    a, b = outputs != FREE, targets != FREE
    return float(np.mean(ious)), float((a & b).sum() / (a | b).sum())


def tally_of(found: torch.Tensor, truth: torch.Tensor) -> ClassTally:
    tally = ClassTally(("copy_last",), len(HORIZONS), FREE)
    for h in range(len(HORIZONS)):
        tally.add(h, {"copy_last": found}, truth, None)
    return tally


def test_the_fields_numbers_are_those_of_its_own_arithmetic() -> None:
    found, truth = frames(0), frames(1, classes=9)  # classes 9 … 16 are forecast and not true
    block = tally_of(found, truth).summary(HORIZONS)
    miou, iou = published(found, truth)
    assert block["field_horizons_s"] == [1.0, 2.0, 3.0]
    assert block["field"]["copy_last"]["miou"] == pytest.approx([miou] * 4)
    assert block["field"]["copy_last"]["iou"] == pytest.approx([iou] * 4)


def test_a_class_that_does_not_occur_is_left_out_and_counted() -> None:
    truth = frames(2, classes=5)
    block = tally_of(truth, truth).summary(HORIZONS)
    own = block["methods"]["copy_last"]
    assert own["miou"] == [1.0] * 6 and own["classes_left_out"] == [12] * 6
    assert own["iou"]["truck"] == [None] * 6 and own["iou"]["car"] == [1.0] * 6
    empty = torch.full(SHAPE, FREE, dtype=torch.uint8)
    nothing = tally_of(empty, empty).summary(HORIZONS)["methods"]["copy_last"]
    assert nothing["miou"] == [None] * 6


def test_unlabelled_and_unknown_cells_count_nowhere() -> None:
    found, truth = frames(3), frames(4)
    known = torch.from_numpy(np.random.default_rng(5).random(SHAPE) < 0.5)
    masked = torch.where(known, truth, UNLABELLED)
    one, other = (ClassTally(("copy_last",), 1, FREE) for _ in range(2))
    one.add(0, {"copy_last": found}, truth, known)
    other.add(0, {"copy_last": found}, masked, None)
    np.testing.assert_array_equal(one.counts, other.counts)
    assert one.counts[0, 0, -1].tolist() == [
        int(((found != FREE) & (truth != FREE) & known).sum()),
        int(((found != FREE) & known).sum()),
        int(((truth != FREE) & known).sum()),
    ]


def test_the_tables_name_both_protocols_and_each_class() -> None:
    found, truth = frames(6), frames(7, classes=9)
    sheet = {"classes": tally_of(found, truth).summary(HORIZONS), "horizons_s": list(HORIZONS)}
    means, each = class_tables(sheet)
    text = "\n".join([" ".join(row) for row in means.rows] + list(means.sentences))
    assert "FIELD'S PROTOCOL" in text and "copy_last" in text and "Of 17 classes, 0, 0, 0" in text
    assert [row[0] for row in each.rows][:2] == ["others", "barrier"] and len(each.rows) == 17
    assert class_tables({"horizons_s": []}) == []
