"""Forecast from observations without learning: log-odds fusion, and four ways to fill the unknown.

    tri_state            evidence of all past frames added up as log-odds; unknown is not occupied
    tri_state_prior      unknown cells from the column prior
    tri_state_edges      and seen surfaces continued a few cells into the unknown
    tri_state_walls      and seen walls extruded between ground and the roof height seen near them
    tri_state_ground     and the ground plane through the seen ground, in place of the prior's

Each exists in both tracks: under the strongest motion without learning by these names, under the
true motion with the prefix `true_pose_`. Evidence is read at the nearest cell of each frame. The
sum is that of OctoMap (Hornung et al., Autonomous Robots 2013) while it stays inside OctoMap's
clamping bounds, which four frames of evidence do.

Axes: F past and H future frames, X, Y, Z cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vlwm.core.evaluation.baselines.motions import MotionBaseline
from vlwm.core.evaluation.baselines.warps import PastFrames, predicted_ego
from vlwm.core.evaluation.zones import SeenPast
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.memory.warp import ego_memory

VARIANTS = (
    "tri_state",
    "tri_state_prior",
    "tri_state_edges",
    "tri_state_walls",
    "tri_state_ground",
)
PREDICTED = VARIANTS
PLANNED = tuple(f"true_pose_{name}" for name in VARIANTS)
METHODS = PREDICTED + PLANNED
"""names as in scores.json"""

_PLANE_TOLERANCES = (1.5, 1.0, 0.7, 0.7)
"""cells, one per round: seen ground farther from the plane than this is something else"""
_ABOVE = 0.1
"""weight of a column whose lowest cell is above the plane: the foot of an object there may be
hidden, but nothing is below the ground"""


@dataclass(frozen=True)
class TriStateParameters:
    """Parameters chosen on validation.

    Attributes:
        hit, miss: log-odds that one frame's evidence adds and takes.
        threshold: log-odds above which a cell is occupied, one per horizon; the last one holds for
            later horizons.
        reach: cells by which surfaces continue into the unknown.
        radius: cells in the plane within which a wall's roof height is looked for.
    """

    hit: float = 0.85
    miss: float = 0.4
    threshold: tuple[float, ...] = (0.0,)
    reach: int = 2
    radius: int = 1

    def threshold_at(self, horizon: int) -> float:
        """Return the threshold of future frame `horizon`."""
        return self.threshold[min(horizon, len(self.threshold) - 1)]

    def content(self) -> dict[str, Any]:
        """Return the parameters as plain values."""
        return {
            "hit": self.hit,
            "miss": self.miss,
            "threshold": list(self.threshold),
            "reach": self.reach,
            "radius": self.radius,
        }

    @classmethod
    def of(cls, values: dict[str, Any]) -> TriStateParameters:
        """Return what `content` wrote."""
        return cls(**{**values, "threshold": tuple(values["threshold"])})


@dataclass(frozen=True)
class Evidence:
    """Evidence of the past frames about the cells of one future frame.

    Attributes:
        occupied, free: uint8 (X, Y, Z), past frames that saw the cell so.
    """

    occupied: Tensor
    free: Tensor

    @property
    def unknown(self) -> Tensor:
        """bool (X, Y, Z): no frame saw the cell."""
        return (self.occupied + self.free) == 0

    def log_odds(self, hit: float, miss: float) -> Tensor:
        """Return float32 (X, Y, Z), 0 where unknown."""
        return hit * self.occupied.float() - miss * self.free.float()


class Filling:
    """Fills the unknown around the occupied cells of one frame; each part is made once.

    Args:
        occupied, unknown: bool (X, Y, Z).
        grid: of the frame.
    """

    def __init__(self, occupied: Tensor, unknown: Tensor, grid: VoxelGrid) -> None:
        self.occupied, self.unknown, self.grid = occupied, unknown, grid
        self._continued: dict[int, Tensor] = {}
        self._extruded: dict[int, Tensor] = {}

    @cached_property
    def ground(self) -> Tensor:
        """int64 (X, Y), layer of the ground."""
        return ground_height(self.occupied, self.grid)

    def continued(self, reach: int) -> Tensor:
        """Return bool (X, Y, Z), see the function of this name."""
        if reach not in self._continued:
            self._continued[reach] = continued(self.occupied, self.unknown, reach)
        return self._continued[reach]

    def extruded(self, radius: int) -> Tensor:
        """Return bool (X, Y, Z), see the function of this name."""
        if radius not in self._extruded:
            found = extruded(self.occupied, self.unknown, self.ground, radius)
            self._extruded[radius] = found
        return self._extruded[radius]


Fillings = dict[tuple[float, float, float], Filling]
"""fillings of one frame's evidence by hit, miss and threshold"""


def evidence_of(seen: SeenPast, future_ego: np.ndarray, grid: VoxelGrid) -> Iterator[Evidence]:
    """Yield the evidence on each future frame.

    Args:
        future_ego: float64 (H, 4), in the frame of `seen.ego`.
    """
    device = seen.occupied.device
    past_ego = torch.as_tensor(seen.ego, device=device)[None]
    for target in future_ego:
        target_ego = torch.as_tensor(target, device=device)[None, None]
        hits = ego_memory(seen.occupied[None], past_ego, target_ego, grid)
        misses = ego_memory(seen.free[None], past_ego, target_ego, grid)
        yield Evidence(hits.occupied[0, 0], misses.occupied[0, 0])


@dataclass(frozen=True)
class TriState:
    """Every variant with its parameters.

    Attributes:
        layers: bool (Z,), layers that the column prior calls occupied.
        grid: the grid of all frames.
        parameters: of each variant; what a variant does not use is ignored.
        merits: method without learning -> sum of IoU and structure IoU over the horizons, on
            validation; empty without validation windows.
        motion_name, motion: the motion of the predicted track; None: constant twist, unfitted.
    """

    layers: np.ndarray
    grid: VoxelGrid
    parameters: dict[str, TriStateParameters] = field(default_factory=dict)
    merits: dict[str, float] = field(default_factory=dict)
    motion_name: str = "constant_twist"
    motion: MotionBaseline | None = None

    def predicted_ego(self, past: PastFrames, dt_s: float, horizons_s: np.ndarray) -> np.ndarray:
        """Return future ego frames float64 (H, 4) of a window by the motion."""
        if self.motion is None:
            return predicted_ego(past.ego, dt_s, horizons_s)
        moved: np.ndarray = self.motion.expected(past.motion(dt_s))[0]
        return moved

    def of(self, variant: str) -> TriStateParameters:
        """Return the parameters of a variant."""
        return self.parameters.get(variant, TriStateParameters())

    def planes(self, evidence: Evidence, horizon: int, prefix: str = "") -> dict[str, Tensor]:
        """Return uint8 (X, Y, Z) of every variant, by name with `prefix` in front."""
        fillings: Fillings = {}
        return {
            prefix + name: self.plane(name, evidence, horizon, fillings).to(torch.uint8)
            for name in VARIANTS
        }

    def free(self, evidence: Evidence, planes: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return bool (X, Y, Z) of cells that each variant calls free.

        Bare fusion leaves the unknown unknown, which is not free; the others fill it, and call
        free what they fill with nothing.
        """
        unknown = evidence.unknown
        return {
            name: (plane == 0) & ~unknown if name.endswith("tri_state") else plane == 0
            for name, plane in planes.items()
        }

    def plane(
        self, variant: str, evidence: Evidence, horizon: int, fillings: Fillings | None = None
    ) -> Tensor:
        """Return the cells that a variant calls occupied, bool (X, Y, Z).

        Args:
            fillings: what other variants made of this evidence; this one's is added.
        """
        values = self.of(variant)
        threshold = values.threshold_at(horizon)
        known = {} if fillings is None else fillings
        key = (values.hit, values.miss, threshold)
        if key not in known:
            unknown = evidence.unknown
            occupied = (evidence.log_odds(values.hit, values.miss) > threshold) & ~unknown
            known[key] = Filling(occupied, unknown, self.grid)
        filling = known[key]
        filled, unknown = filling.occupied, filling.unknown
        if variant == "tri_state":
            return filled
        if variant in ("tri_state_edges", "tri_state_walls", "tri_state_ground"):
            filled = filled | filling.continued(values.reach)
        if variant in ("tri_state_walls", "tri_state_ground"):
            filled = filled | filling.extruded(values.radius)
        if variant == "tri_state_ground":
            heights = torch.arange(unknown.shape[2], device=unknown.device)
            return filled | (unknown & (heights == filling.ground[..., None]))
        layers = torch.as_tensor(self.layers, dtype=torch.bool, device=unknown.device)
        return filled | (unknown & layers)


def continued(occupied: Tensor, unknown: Tensor, reach: int) -> Tensor:
    """Return unknown cells that continue a straight run of two occupied ones, bool (X, Y, Z).

    Runs go along both axes of the plane and both diagonals, in one height layer.

    Args:
        occupied, unknown: bool (X, Y, Z).
        reach: longest continuation, cells.
    """
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    continued = torch.zeros_like(occupied)
    for step in steps:
        run = occupied
        for _ in range(reach):
            # A cell continues the run if the two cells behind it are in it.
            more = _shifted(run, step) & _shifted(run, (2 * step[0], 2 * step[1])) & unknown
            run = run | more
            continued |= more
    return continued


def _shifted(cells: Tensor, step: tuple[int, int]) -> Tensor:
    """Return bool (X, Y, Z) moved by whole cells in the plane; what comes in is empty."""
    out = torch.zeros_like(cells)
    (i, j), (x, y) = step, cells.shape[:2]
    to_x, to_y = slice(max(0, i), x + min(0, i)), slice(max(0, j), y + min(0, j))
    of_x, of_y = slice(max(0, -i), x - max(0, i)), slice(max(0, -j), y - max(0, j))
    out[to_x, to_y] = cells[of_x, of_y]
    return out


def extruded(occupied: Tensor, unknown: Tensor, ground: Tensor, radius: int) -> Tensor:
    """Return unknown cells of seen walls between the ground and the roof seen near them.

    Args:
        occupied, unknown: bool (X, Y, Z).
        ground: int64 (X, Y), layer of the ground.
        radius: cells in the plane within which the highest seen cell is the roof.
    """
    layers = occupied.shape[2]
    heights = torch.arange(layers, device=occupied.device)
    above = occupied & (heights > ground[..., None])
    top = torch.where(above, heights, -1).amax(dim=2)  # (X, Y), -1 without a wall
    size = 2 * radius + 1
    roof = functional.max_pool2d(top[None].float(), size, stride=1, padding=radius)[0].long()
    wall = (top >= 0)[..., None]
    between = (heights > ground[..., None]) & (heights <= roof[..., None])
    return unknown & wall & between


def ground_height(occupied: Tensor, grid: VoxelGrid) -> Tensor:
    """Return the layer int64 (X, Y) of a plane through the lowest occupied cells seen.

    Least squares over the columns in which something is seen, repeated without those that are off
    the plane, and with little weight for those above it; the first plane is level at the vehicle's
    terrain.
    """
    x, y, z = occupied.shape
    device = occupied.device
    level = float(grid.ground_slice)
    column = occupied.any(dim=2)
    lowest = occupied.to(torch.uint8).argmax(dim=2).double()  # (X, Y), first occupied layer
    i, j = (torch.arange(n, device=device, dtype=torch.float64) - n / 2 for n in (x, y))
    ones = torch.ones(x, y, device=device, dtype=torch.float64)
    terms = torch.stack([i[:, None].expand(x, y), j[None].expand(x, y), ones], dim=-1)
    plane = torch.tensor([0.0, 0.0, level], dtype=torch.float64, device=device)
    for tolerance in _PLANE_TOLERANCES:
        off = lowest - terms @ plane  # (X, Y), cells above the plane
        near = column & (off.abs() <= tolerance)
        if int(near.sum()) < 8:
            break
        weight = torch.where(off[near] > 0.5, _ABOVE, 1.0).sqrt()  # (N,)
        a, b = terms[near] * weight[:, None], lowest[near] * weight  # (N, 3), (N,)
        # A little weight on a level plane keeps a narrow view from tilting it at will.
        normal = a.T @ a + torch.diag(torch.tensor([1e3, 1e3, 0.0], dtype=torch.float64)).to(device)
        plane = torch.linalg.solve(normal, a.T @ b)
    return torch.round(terms @ plane).long().clamp(0, z - 1)
