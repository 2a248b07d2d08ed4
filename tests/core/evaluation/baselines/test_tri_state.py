"""Tri-state fusion adds log-odds as OctoMap does; what is filled is unknown before."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.core.evaluation.observed_windows import GRID, random_past, straight_ego, street
from tests.measures import center_of
from vlwm.core.evaluation.baselines.tri_state import (
    METHODS,
    VARIANTS,
    Evidence,
    TriState,
    TriStateParameters,
    continued,
    evidence_of,
    extruded,
    ground_height,
)
from vlwm.core.evaluation.baselines.tri_state_fit import (
    RADII,
    RATIOS,
    REACHES,
    THRESHOLDS,
    ValidationWindow,
    fit_tri_state,
)
from vlwm.core.evaluation.metrics import structure_mask
from vlwm.core.evaluation.zones import SeenPast
from vlwm.core.geometry.carve import carve
from vlwm.core.geometry.grid import VoxelGrid

LAYERS = np.arange(8) == GRID.ground_slice


def test_log_odds_are_those_of_octomap_on_the_same_scans() -> None:
    """pyoctomap wraps the OctoMap library: its own ray walk, its own update and clamping."""
    pyoctomap = pytest.importorskip("pyoctomap", reason="pip install pyoctomap")
    grid = VoxelGrid((-10.0, -10.0, -4.0), (0.5, 0.5, 0.5), (40, 40, 16))
    tree = pyoctomap.OcTree(0.5)
    rng, ego = np.random.default_rng(2), straight_ego(4, 0.5)  # whole cells: one raster for both
    planes = []
    for frame in ego:
        origin = np.array([frame[0] + 0.13, 0.21, 0.17])
        points = origin + rng.normal(0, 1, (300, 3)) * [4.0, 4.0, 1.2]
        tree.insertPointCloud(points, origin, -1.0, False, False)
        planes.append(carve(grid, frame, origin, points, np.ones(300, bool)))
    occupied, free = (torch.from_numpy(np.stack(v)) for v in zip(*planes, strict=True))
    seen = SeenPast(occupied, free, ego, ego)
    evidence = next(evidence_of(seen, ego[-1:], grid))
    hit, miss = tree.getProbHitLog(), tree.getProbMissLog()
    ours = evidence.log_odds(hit, -miss).numpy()
    unknown = evidence.unknown.numpy()
    inside = np.argwhere(np.ones(grid.shape))
    centres = center_of(grid, inside) + np.array([ego[-1, 0], 0.0, 0.0])
    nodes = [tree.search(tuple(c)) for c in centres]
    theirs = np.array([np.nan if n is None else n.getLogOdds() for n in nodes]).reshape(grid.shape)
    # Cells that an earlier frame's grid does not reach are left to the grids.
    margin = (slice(2, -2), slice(2, -2), slice(2, -2))
    same = np.isnan(theirs[margin]) == unknown[margin]
    assert same.mean() > 0.999 and (~unknown).sum() > 500
    both = ~np.isnan(theirs[margin]) & ~unknown[margin]
    close = np.abs(theirs[margin][both] - ours[margin][both]) < 1e-5
    assert close.mean() > 0.995


def test_bare_fusion_leaves_the_unknown_unknown_and_not_free() -> None:
    evidence = next(evidence_of(random_past(1), straight_ego()[-1:], GRID))
    methods = TriState(LAYERS, GRID)
    planes = methods.planes(evidence, 0)
    free = methods.free(evidence, planes)
    assert not (planes["tri_state"].bool() & evidence.unknown).any()
    assert not (free["tri_state"] & evidence.unknown).any()
    filled = planes["tri_state_prior"].bool() & ~planes["tri_state"].bool()
    assert filled.any() and (filled <= evidence.unknown).all()


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_filling_changes_unknown_cells_alone(variant: str) -> None:
    evidence = next(evidence_of(random_past(1), straight_ego()[-1:], GRID))
    methods = TriState(LAYERS, GRID)
    changed = methods.plane(variant, evidence, 0) ^ methods.plane("tri_state", evidence, 0)
    assert (changed <= evidence.unknown).all()


def test_a_street_is_completed_by_edges_walls_and_ground() -> None:
    truth, seen = (torch.from_numpy(v).bool() for v in street())
    unknown = ~seen
    ground = ground_height(seen, GRID)
    assert (ground == GRID.ground_slice).all()
    walls = extruded(seen, unknown, ground, 1)
    assert walls.any() and (walls <= truth).all()  # the gap between ground and roof
    edges = continued(seen, unknown, 4)
    assert (edges & truth).sum() > 40
    evidence = Evidence(seen.to(torch.uint8), torch.zeros_like(seen, dtype=torch.uint8))
    values = dict.fromkeys(VARIANTS, TriStateParameters(reach=4))
    methods = TriState(LAYERS, GRID, values)
    iou = {}
    for name in VARIANTS:
        plane = methods.plane(name, evidence, 0)
        iou[name] = float((plane & truth).sum() / (plane | truth).sum())
    assert iou["tri_state"] < iou["tri_state_prior"] < iou["tri_state_walls"]
    assert iou["tri_state_ground"] > 0.9


def test_the_ground_plane_follows_a_slope() -> None:
    seen = torch.zeros(GRID.shape, dtype=torch.bool)
    for i in range(16):
        seen[i, :, 1 + i // 8] = True
    ground = ground_height(seen, GRID)
    assert (ground[0] == 1).all() and (ground[15] == 2).all()


def test_walls_whose_foot_is_hidden_do_not_lift_the_ground() -> None:
    seen = torch.zeros(GRID.shape, dtype=torch.bool)
    seen[4:10, 4:10, GRID.ground_slice] = True
    seen[10:, :, GRID.ground_slice + 1] = True  # more columns than the ground has
    assert (ground_height(seen, GRID) == GRID.ground_slice).all()


def test_validation_chooses_odds_that_suit_the_data() -> None:
    """Where every seen-occupied cell is wrong once, two hits against one miss must be asked for."""
    truth = torch.zeros((1, *GRID.shape), dtype=torch.uint8)
    truth[0, 4:8, 4:8, 2] = 1
    occupied = truth.repeat(3, 1, 1, 1)
    occupied[0, 10:14, 10:14, 3] = 1  # clutter, seen once
    free = torch.zeros_like(occupied)
    free[1:, 10:14, 10:14, 3] = 1
    seen = SeenPast(occupied, free, np.zeros((3, 4)), np.zeros((3, 4)))
    window = ValidationWindow(seen, truth, np.zeros((1, 4)))
    fitted = fit_tri_state([window], np.zeros(8, bool), GRID, 3, 1)
    evidence = next(evidence_of(seen, np.zeros((1, 4)), GRID))
    plane = fitted.plane("tri_state", evidence, 0)
    assert torch.equal(plane, truth[0] > 0)
    assert TriStateParameters.of(fitted.of("tri_state").content()) == fitted.of("tri_state")


@pytest.mark.parametrize("seed", range(3))
def test_no_other_parameters_have_a_higher_sum_of_iou_and_structure_iou(seed: int) -> None:
    """Against every choice tried by itself; the truth is a ground and a few houses."""
    rng = np.random.default_rng(seed)
    truth = torch.zeros((2, *GRID.shape), dtype=torch.uint8)
    truth[..., GRID.ground_slice] = 1
    truth[:, 4:9, 5:12, GRID.ground_slice : GRID.ground_slice + 3] = 1
    # hits below the ground are false and no structure; without them a lower threshold is better
    share = torch.where(truth[0] > 0, 0.5, 0.02)
    share[..., GRID.ground_slice] = 1.0
    share[..., : GRID.ground_slice] = 0.4
    noise = torch.from_numpy(rng.random((2, 3, *GRID.shape)))
    occupied = (noise[0] < share).to(torch.uint8)
    free = ((noise[1] < 0.5) & (occupied == 0)).to(torch.uint8)
    ego = straight_ego(3)
    seen, future = SeenPast(occupied, free, ego, ego), ego[-1:].repeat(2, axis=0)
    layers = np.arange(GRID.shape[2]) == GRID.ground_slice
    found = fit_tri_state([ValidationWindow(seen, truth, future)], layers, GRID, 3, 2)
    evidence = list(evidence_of(seen, future, GRID))

    def merit(variant: str, parameters: TriStateParameters, h: int) -> float:
        plane = TriState(layers, GRID, {variant: parameters}).plane(variant, evidence[h], h)
        total = 0.0
        for part in (torch.ones_like(plane), structure_mask(truth[h]) > 0):
            true = truth[h] > 0
            total += float((plane & true & part).sum() / ((plane | true) & part).sum())
        return total

    for variant in ("tri_state", "tri_state_prior"):
        chosen = found.of(variant)
        # the odds hold for all horizons, the threshold for one
        best = sum(merit(variant, chosen, h) for h in range(2))
        for ratio in RATIOS:
            tried = [
                max(
                    merit(variant, replace(chosen, miss=chosen.hit * ratio, threshold=(t,)), h)
                    for t in THRESHOLDS
                )
                for h in range(2)
            ]
            assert best >= sum(tried) - 1e-9
    bare = found.of("tri_state_prior")
    for variant, radii in (("tri_state_edges", (1,)), ("tri_state_walls", RADII)):
        chosen = found.of(variant)
        for reach, radius in itertools.product(REACHES, radii):
            other = replace(bare, reach=reach, radius=radius)
            assert merit(variant, chosen, 0) >= merit(variant, other, 0) - 1e-9


def test_names_are_those_of_both_tracks() -> None:
    assert len(METHODS) == len(set(METHODS)) == 2 * len(VARIANTS)
