"""What stands at the edge of what was seen says what lies beyond it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.measures import center_of
from vlwm.core.geometry.frames import from_ego, to_ego
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.extrapolation import DISTANCES, STATES, Extrapolation, unseen_columns

GRID = VoxelGrid.from_range((-5, -6, -1, 5, 6, 3), (1.0, 1.0, 0.5))
CLASSES = len(DISTANCES) + 1


def state_of(line: list[np.ndarray], z: int) -> int:
    """The state of an edge's cell, `line[0][z]`; the rest of the line leads inward."""
    column = line[0]
    below, above = int(column[:z].any()), int(column[z + 1 :].any())
    if not column[z]:
        return 2 * (2 * below + above) + int(any(c[z] for c in line[1:]))
    run = 0
    for cells in line[1:]:
        if not cells[z]:
            break
        run += 1
    return 8 + 4 * (2 * below + above) + (0 if run == 0 else 1 if run == 1 else 2 if run < 4 else 3)


def literal(past: np.ndarray, past_ego: np.ndarray, target: np.ndarray) -> dict:
    """Codes (Z,) by unseen column, one at a time."""
    x, y, z = GRID.shape
    found = {}
    for column in np.ndindex(x, y):
        world = from_ego(center_of(GRID, np.array([*column, 0])), target)
        places, offs = [], []
        for ego in past_ego:
            there = (to_ego(world, ego)[:2] - GRID.lower_m[:2]) / GRID.cell_m[:2]
            over = np.maximum(0, np.maximum(-there, there - (x, y)))
            inside = all(0 <= p < n for p, n in zip(there, (x, y), strict=True))
            places.append((there, over, inside))
            offs.append(np.hypot(*over))
        if any(inside for _, _, inside in places):
            continue
        nearest = max(p for p, off in enumerate(offs) if off <= min(offs) + 1e-12)
        there, over, _ = places[nearest]
        i, j = (int(np.clip(np.floor(p), 0, n - 1)) for p, n in zip(there, (x, y), strict=True))
        cells = past[nearest]
        if over[0] >= over[1]:
            line = [cells[i + k * (1 if there[0] < 0 else -1), j] for k in range(5)]
        else:
            line = [cells[i, j + k * (1 if there[1] < 0 else -1)] for k in range(5)]
        lift = int(np.floor(0.5 + (target[2] - past_ego[nearest][2]) / GRID.cell_m[2]))
        near = int(np.searchsorted(DISTANCES, offs[nearest]))
        layers = np.clip(np.arange(z) + lift, 0, z - 1)
        found[column] = [state_of(line, k) * CLASSES + near for k in layers]
    return found


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_literal_lookup(seed: int) -> None:
    rng = np.random.default_rng(seed)
    past = (rng.random((2, 3, *GRID.shape)) < 0.4).astype(np.uint8)
    past_ego, target = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 4))
    target[:, :2] *= 5
    unseen = unseen_columns(*(torch.from_numpy(v) for v in (past, past_ego, target)), GRID)
    assert len(unseen.frame) > 10
    for b in range(2):
        expected = literal(past[b], past_ego[b], target[b])
        rows = (unseen.frame == b).nonzero()[:, 0].tolist()
        found = {(int(unseen.x[r]), int(unseen.y[r])): unseen.code[r].tolist() for r in rows}
        assert found == expected


def ahead(past: torch.Tensor, metres: float) -> tuple[torch.Tensor, ...]:
    ego = torch.zeros(1, 4)
    ego[0, 0] = metres
    return past[None, None], torch.zeros(1, 1, 4), ego


def test_a_roof_goes_on_and_a_wall_along_the_edge_does_not() -> None:
    """Counted on one drive, foreseen on another."""
    roof, wall = torch.zeros(2, *GRID.shape, dtype=torch.uint8)
    roof[:, :, 0] = wall[:, :, 0] = 1
    roof[4:, 3:8, 5] = 1
    wall[-1, 3:8, 1:6] = 1
    beyond = Extrapolation()
    for past in (roof, wall):
        truth = torch.zeros_like(past)
        truth[:, :, 0] = 1
        if past is roof:
            truth[:, 3:8, 5] = 1
        for _ in range(20):
            beyond.count(unseen_columns(*ahead(past, 4.0), GRID), truth[None])
    column = torch.full((GRID.shape[2],), -3.0)
    logits = []
    for past in (roof, wall):
        unseen = unseen_columns(*ahead(past.roll(1, dims=1), 4.0), GRID)
        frame = torch.full((1, GRID.shape[2], *GRID.shape[:2]), -9.0)
        unseen.put(frame, beyond(unseen, column))
        logits.append(frame[0].permute(1, 2, 0))
        assert bool((frame[0, :, :6] == -9.0).all())  # seen: not touched
    assert bool((logits[0][6:, 4:9, 5] > 1.0).all())
    assert bool((logits[1][6:, 4:9, 5] < -3.0).all())
    assert bool((torch.stack(logits)[:, 6:, :, 0] > 0.0).all())  # the ground


def test_without_counts_it_is_the_column_prior() -> None:
    past = torch.ones(GRID.shape, dtype=torch.uint8)
    unseen = unseen_columns(*ahead(past, 3.0), GRID)
    column = torch.linspace(-4, 3, GRID.shape[2])
    torch.testing.assert_close(Extrapolation()(unseen, column), column.expand(len(unseen.x), -1))
    assert int(unseen.code.max()) < STATES * CLASSES


def test_where_everything_is_seen_there_is_nothing_to_guess() -> None:
    past = torch.ones(GRID.shape, dtype=torch.uint8)
    unseen = unseen_columns(*ahead(past, 0.0), GRID)
    assert unseen.code.shape == (0, GRID.shape[2])
    frame = torch.zeros(1, GRID.shape[2], *GRID.shape[:2])
    unseen.put(frame, Extrapolation()(unseen, torch.zeros(GRID.shape[2])))
    assert not frame.any()
