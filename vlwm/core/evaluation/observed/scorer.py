"""Score one window of an observed past: tri-state baselines, zones, the way ahead.

Made once per window; answers frame by frame, in order, so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from vlwm.core.evaluation.baselines.tri_state import TriState, evidence_of
from vlwm.core.evaluation.observed.manoeuvres import paths_ahead, swept_cells
from vlwm.core.evaluation.zones import Zones, zones_of

if TYPE_CHECKING:
    from vlwm.core.evaluation.eval_windows import EvalWindow

NEAR_M = 2.0
"""surfaces within this distance of a candidate's body are near the way"""


@dataclass(frozen=True)
class ObservedFrame:
    """Additions of an observed past to one future frame.

    Attributes:
        planes: uint8 (X, Y, Z), occupied, by tri-state method.
        free: bool (X, Y, Z), called free, by tri-state method.
        zones: by the past alone.
        near, way: uint8 (X, Y, Z), candidate manoeuvres that come near each cell and sweep it.
    """

    planes: dict[str, Tensor]
    free: dict[str, Tensor]
    zones: Zones
    near: Tensor
    way: Tensor


def observed_frames(
    window: EvalWindow, predicted_ego: np.ndarray, methods: TriState
) -> Iterator[ObservedFrame]:
    """Yield what an observed past adds to each future frame of a window.

    Args:
        window: with an observed past.
        predicted_ego: float64 (H, 4), future ego frames by the methods' motion.
        methods: the tri-state baselines.
    """
    seen, grid = window.seen, methods.grid
    assert seen is not None
    device = seen.occupied.device
    paths = paths_ahead(window.last_pose, float(window.past.ego[-1, 2]))
    frames = zip(
        zones_of(seen, window.future_ego, grid),
        evidence_of(seen, predicted_ego, grid),
        evidence_of(seen, window.future_ego, grid),
        window.future_ego,
        strict=True,
    )
    for h, (zones, predicted, planned, ego) in enumerate(frames):
        planes, free = dict[str, Tensor](), dict[str, Tensor]()
        for prefix, evidence in (("", predicted), ("true_pose_", planned)):
            occupied = methods.planes(evidence, h, prefix)
            planes |= occupied
            free |= methods.free(evidence, occupied)
        near = swept_cells(paths, ego, grid, NEAR_M).to(device)
        way = swept_cells(paths, ego, grid).to(device)
        yield ObservedFrame(planes, free, zones, near, way)
