"""Zones are disjoint, cover the frame, and follow from the past alone."""

from __future__ import annotations

import numpy as np
import torch

from tests.core.evaluation.observed_windows import GRID, random_past
from vlwm.core.evaluation.zones import OBSERVED_ZONES, zones_of


def test_zones_are_disjoint_and_cover_the_frame() -> None:
    seen = random_past(3)
    future = np.array([[2.0, 0.5, 0.0, 0.3], [9.0, 2.0, 0.5, 0.9]])
    for zones in zones_of(seen, future, GRID):
        masks = torch.stack(list(zones.named().values())).int()
        assert list(zones.named()) == list(OBSERVED_ZONES)
        assert (masks.sum(0) == 1).all()
        assert all(mask.any() for mask in masks)


def test_a_cell_is_observed_where_a_frame_knew_it_at_the_same_place() -> None:
    seen = random_past(4)
    zones = next(zones_of(seen, seen.true_ego[-1:], GRID))
    assert (zones.observed >= (seen.known[-1] > 0)).all()  # the last frame is not moved
    assert not zones.new.any()


def test_true_poses_place_the_zones_not_believed_ones() -> None:
    seen = random_past(5)
    other = type(seen)(seen.occupied, seen.free, seen.ego + 1.0, seen.true_ego)
    future = np.array([[2.0, 0.5, 0.0, 0.3]])
    a, b = (next(zones_of(s, future, GRID)) for s in (seen, other))
    assert torch.equal(a.observed, b.observed) and torch.equal(a.new, b.new)
