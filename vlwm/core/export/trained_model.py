"""Open a trained model from a run folder, a checkpoint or an exported folder, and run it.

The only place where the public interface meets `WorldModel` and the thresholds of evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlwm.core.config.load import config_from_dict
from vlwm.core.config.schema import Config
from vlwm.core.data.batch import Past, Plan
from vlwm.core.errors import DataError, MachineError, UsageError
from vlwm.core.evaluation.calibration.thresholds import Thresholds
from vlwm.core.evaluation.load import find_checkpoint, thresholds_of
from vlwm.core.evaluation.model_forecasts import TrackThresholds
from vlwm.core.export.forecast import Forecast
from vlwm.core.export.inputs import ForecastInput
from vlwm.core.files import read_json
from vlwm.core.geometry.frames import (
    anchor_poses,
    compose_ego,
    ego_of,
    poses_from_ego,
)
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.bit_packing import pack_bits
from vlwm.core.model.checkpoint import load_world_model
from vlwm.core.model.world_model import WorldModel
from vlwm.core.run_folder import RunFolder


@dataclass(frozen=True)
class Provenance:
    """The origin of a trained model, as far as its files tell it.

    Attributes:
        attribution: sources of the training data, as their licences ask for.
        procedural: True for a city made by `vlwm prepare`, False for a real one; None: unknown.
        data_hash: of the training data; None in checkpoints without it.
        load_from: file that the weights began from; None where training began fresh.
        epoch: epoch of the checkpoint; None where it is not stored.
        versions: versions of vlwm, Python, torch and NumPy that trained it.
        source: the file it was read from.
        splits: content of splits.json where an exported folder brings it.
        unknown_cells: the training data say which cells are known, so the model may know too.
    """

    attribution: str = ""
    procedural: bool | None = None
    data_hash: str | None = None
    load_from: str | None = None
    epoch: int | None = None
    versions: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    splits: Mapping[str, Any] | None = None
    unknown_cells: bool = False


@dataclass(frozen=True)
class TrainedModel:
    """A world model in evaluation mode with its thresholds.

    Attributes:
        model: on its device.
        config: that it was trained with.
        thresholds: thresholds of each track, chosen on validation.
        provenance: where it comes from.
    """

    model: WorldModel
    config: Config
    thresholds: TrackThresholds
    provenance: Provenance

    @property
    def grid(self) -> VoxelGrid:
        """Return the cells of a frame."""
        return self.model.grid

    @property
    def horizons_s(self) -> np.ndarray:
        """Return the seconds (H,) of the future frames after the last past one."""
        return self.config.frame_dt_s * np.arange(1, self.config.future_frames + 1)

    def track_thresholds(self, *, planned: bool) -> Thresholds:
        """Return the thresholds of a track."""
        return self.thresholds.model_plan if planned else self.thresholds.model

    @torch.inference_mode()
    def forecast(self, inputs: ForecastInput) -> Forecast:
        """Forecast checked arrays.

        Raises:
            UsageError: cells are unknown and the model was trained on complete frames.
            MachineError: the memory of the device does not hold the windows.
        """
        if not self.config.data.observed and not self.provenance.unknown_cells:
            _refuse_unknown(inputs)
        past, plan = self._tensors(inputs)
        try:
            found = self.model.forecast(past, plan)
        except torch.OutOfMemoryError as error:
            raise MachineError(
                f"the memory of {past.bits.device} does not hold {len(past.bits)} windows",
                remedy="give fewer windows at once, or device='cpu'",
            ) from error
        probability = torch.sigmoid(found.logits)  # (B, H, X, Y, Z)
        thresholds = self.track_thresholds(planned=plan is not None)
        occupied = torch.stack(
            [torch.stack([thresholds.occupied(p, h) for h, p in enumerate(w)]) for w in probability]
        )
        # The model works in the ego frame of the last past pose; callers know their world frame.
        anchor = ego_of(inputs.poses[:, -1], inputs.ground_z[:, -1])[:, None]  # (B, 1, 4)
        ego = found.ego if plan is None else plan.ego
        answer = Forecast(
            probability=probability.float().cpu().numpy(),
            occupied=occupied.bool().cpu().numpy(),
            poses=poses_from_ego(_host(found.poses), anchor),
            ego=compose_ego(anchor, _host(ego)),
            sigma=np.exp(_host(found.log_sigma)),
            horizons_s=self.horizons_s,
            grid=self.grid,
            planned=plan is not None,
            attribution=self.provenance.attribution,
            classes=self._classes(found.classes, occupied),
        )
        return answer if inputs.batched else answer[0]

    def _tensors(self, inputs: ForecastInput) -> tuple[Past, Plan | None]:
        """Return what the model reads, in the ego frame of the last past pose, on its device."""
        device = next(self.model.parameters()).device
        past, last = inputs.poses.shape[1], inputs.poses.shape[1] - 1
        every, heights = inputs.poses, inputs.ground_z
        if inputs.plan is not None:
            every = np.concatenate([every, inputs.plan], axis=1)
            heights = np.concatenate([heights, inputs.plan_ground_z], axis=1)
        poses, ground = anchor_poses(every, heights, last)
        seen = self._seen(inputs)
        known = Past(
            bits=seen.get("seen_occupied", self._packed(inputs.occupancy)),
            poses=torch.from_numpy(poses[:, :past].astype(np.float32)),
            ground_z=torch.from_numpy(ground[:, :past].astype(np.float32)),
            symmetry=torch.zeros(len(poses), dtype=torch.int64),
            classes=None if inputs.classes is None else torch.from_numpy(inputs.classes),
            **seen,
        ).to(device)
        if inputs.plan is None:
            return known, None
        ego = ego_of(poses[:, past:], ground[:, past:]).astype(np.float32)
        flown = poses[:, past:].astype(np.float32)
        return known, Plan(torch.from_numpy(ego), torch.from_numpy(flown)).to(device)

    def _classes(
        self, likeliest: torch.Tensor | None, occupied: torch.Tensor
    ) -> NDArray[np.uint8] | None:
        """Return classes uint8 (B, H, X, Y, Z), free where not occupied; None without classes."""
        if likeliest is None:
            return None
        free = torch.full_like(likeliest, self.model.free_class)
        return torch.where(occupied > 0, likeliest, free).cpu().numpy()

    def _packed(self, cells: np.ndarray) -> torch.Tensor:
        """Return bits uint8 (B, P, packed_bytes) of frames (B, P, X, Y, Z)."""
        return pack_bits(torch.from_numpy(cells))

    def _seen(self, inputs: ForecastInput) -> dict[str, torch.Tensor]:
        """Return the layers of an observed past, or the known cells of a true one."""
        if not self.config.data.observed:
            return {} if inputs.known is None else {"known": self._packed(inputs.known)}
        occupied, known = inputs.occupancy.astype(bool), inputs.known
        seen = np.ones_like(occupied) if known is None else known.astype(bool)
        return {
            "seen_occupied": self._packed(occupied & seen),
            "seen_free": self._packed(seen & ~occupied),
        }


def _host(value: torch.Tensor) -> np.ndarray:
    return np.asarray(value.double().cpu().numpy())


def _refuse_unknown(inputs: ForecastInput) -> None:
    """Raise where cells are unknown: this model reads what is not occupied as free."""
    if inputs.known is not None and not inputs.known.all():
        share = 1.0 - float(inputs.known.mean())
        raise UsageError(
            f"{share:.0%} of the past cells are unknown, and this model was trained on complete "
            "frames and would read them as free",
            remedy="complete the frames, or take a model that was trained on observed frames",
        )


def open_checkpoint(path: Path, device: str | torch.device | None = None) -> TrainedModel:
    """Open a run folder (best.pth, else last.pth) or a checkpoint file.

    Raises:
        CheckpointError: missing, damaged, or a tokenizer's.
        MachineError: the device is missing.
    """
    checkpoint = find_checkpoint(path)
    model, content = load_world_model(checkpoint, chosen_device(device))
    config = config_from_dict(content["config"], where=str(checkpoint))
    attribution, procedural = attribution_of(checkpoint.parent, config)
    attribution = content.get("attribution") or attribution  # of all sources and initial weights
    provenance = Provenance(
        attribution=attribution,
        procedural=procedural,
        data_hash=content.get("data_hash"),
        load_from=content.get("initial_weights", config.load_from) or None,
        epoch=content.get("epoch"),
        versions=content.get("versions") or {},
        source=str(checkpoint),
        unknown_cells=bool(content.get("unknown_cells")),
    )
    return TrainedModel(model, config, thresholds_of(content), provenance)


def chosen_device(device: str | torch.device | None) -> torch.device:
    """Return the device that was asked for, else the first GPU, else the CPU.

    Raises:
        MachineError: the device is unknown or missing.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise MachineError(
            f"the device {str(device)!r} is not available",
            remedy="give device='cpu', or 'cuda' on a machine where vlwm setup finds a GPU",
        ) from error
    return found


def attribution_of(folder: Path, config: Config) -> tuple[str, bool | None]:
    """Return the attribution of a run's training data and if the city was procedural.

    Read from the run's scores.json, else from the first session of its data folder; ("", None)
    where neither exists.
    """
    scores = RunFolder(folder).scores_json
    if scores.is_file():
        sheet = read_json(scores)
        if isinstance(sheet, dict) and "attribution" in sheet:
            return str(sheet["attribution"] or ""), bool(sheet.get("procedural"))
    for meta in sorted(Path(config.data_root).glob("*/session.json")):
        try:
            session = read_json(meta)
        except (DataError, json.JSONDecodeError):
            continue
        return str(session.get("attribution") or ""), bool(session.get("procedural"))
    return "", None
