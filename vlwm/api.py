"""Use a trained model from Python.

    import vlwm

    model = vlwm.load("checkpoints")
    forecast = model.forecast(occupancy, poses)

`vlwm.load` opens a run folder, a checkpoint, an exported folder or a repository on the Hub.
Importing this module imports NumPy; torch is imported by `load`.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlwm.core.errors import VlwmError
from vlwm.core.export.forecast import Forecast
from vlwm.core.geometry.grid import VoxelGrid

if TYPE_CHECKING:
    from vlwm.core.export.hub import Upload
    from vlwm.core.export.trained_model import TrainedModel

__all__ = ["Forecast", "Model", "VlwmError", "VoxelGrid", "load"]


def load(
    source: str | PathLike[str], *, revision: str | None = None, device: str | None = None
) -> Model:
    """Open a trained model.

    Args:
        source: a run folder (its best.pth, else last.pth), a checkpoint file, a folder that
            `vlwm export` wrote, or user/name on the Hub.
        revision: branch, tag or commit on the Hub; the newest by default.
        device: such as 'cpu' or 'cuda:0'; by default the first GPU, else the CPU.

    Raises:
        vlwm.VlwmError: the model is missing or damaged, or the device is missing.

    Example:
        >>> model = vlwm.load(run)
        >>> model
        Model(4 past and 6 future frames 0.5 s apart, 16×16×8 cells of 1×1×2 m)
    """
    from vlwm.core.export.source import open_source

    return Model(open_source(source, revision, device))


class Model:
    """A trained world model; made by `vlwm.load`.

    Attributes:
        grid: the cells of a frame, in the ego frame: x ahead, y left, z up from the terrain.
    """

    def __init__(self, trained: TrainedModel) -> None:
        self._trained = trained
        self.grid: VoxelGrid = trained.grid

    @property
    def history(self) -> int:
        """Return the number of past frames that a forecast reads."""
        return self._trained.config.history_frames

    @property
    def horizons_s(self) -> NDArray[np.float64]:
        """Return the seconds (H,) of the future frames after the last past one."""
        return self._trained.horizons_s

    @property
    def attribution(self) -> str:
        """Return the sources of the training data, as their licences ask to be named."""
        return self._trained.provenance.attribution

    @property
    def device(self) -> str:
        """Return the device that computes."""
        return str(self._trained.model.residual_weight.device)

    def to(self, device: str) -> Model:
        """Move the model to a device and return it.

        Raises:
            vlwm.VlwmError: the device is missing.
        """
        from vlwm.core.export.trained_model import chosen_device

        self._trained.model.to(chosen_device(device))
        return self

    def forecast(
        self,
        occupancy: ArrayLike,
        poses: ArrayLike,
        *,
        plan: ArrayLike | None = None,
        ground_z: ArrayLike | None = None,
        known: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        device: str | None = None,
        quaternion: str | None = None,
        velocity_frame: str | None = None,
    ) -> Forecast:
        """Forecast the occupancy around a vehicle from its last frames.

        Args:
            occupancy: (P, X, Y, Z) of 0 and 1, oldest frame first, each in its own ego frame;
                (B, P, X, Y, Z) for a batch.
            poses: (P, 13) or (B, P, 13): x y z, qx qy qz qw, vx vy vz, wx wy wz in one world
                frame; m, m/s, rad/s.
            plan: (H, 13) or (B, H, 13), the poses to be flown; each future frame is then given
                around the plan in place of the predicted motion.
            ground_z: terrain height under the vehicle, world frame, metres: a number, (P,), or
                (P + H,) with a plan. Default 0; the last height is held where the plan has none.
            known: like `occupancy`, 1 where a cell was observed; default: everywhere.
            classes: like `occupancy`, the class of each cell, for a model of classes.
            device: move the model there first.
            quaternion: 'xyzw' or 'wxyz'. By default 'xyzw', with an error where that looks wrong.
            velocity_frame: 'world' or 'body'. By default 'world', with an error where that looks
                wrong.

        Raises:
            vlwm.VlwmError: an array does not fit; the sentence names it and the fix.

        Example:
            >>> forecast = vlwm.load(run).forecast(occupancy, poses)
            >>> forecast.probability.shape
            (6, 16, 16, 8)
            >>> forecast.horizons_s.tolist()
            [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
        """
        from vlwm.core.export.inputs import Conventions, check_inputs

        if device is not None:
            self.to(device)
        config = self._trained.config
        inputs = check_inputs(
            occupancy,
            poses,
            self.grid,
            (config.history_frames, config.future_frames),
            config.frame_dt_s,
            plan=plan,
            ground_z=ground_z,
            known=known,
            classes=classes,
            conventions=Conventions(quaternion, velocity_frame),
        )
        return self._trained.forecast(inputs)

    def export(self, folder: str | PathLike[str], *, licence: str | None = None) -> list[Path]:
        """Write weights, config, thresholds, scores, picture and model card; returns the files.

        Args:
            folder: a new folder, or one that an export wrote before.
            licence: of the weights, where data or initial weights do not name theirs.

        Raises:
            vlwm.VlwmError: the model was never evaluated, or its licence is unknown.
        """
        from vlwm.core.export.exported_folder import export_folder

        return export_folder(self._trained, Path(folder), licence=licence)

    def push_to_hub(
        self, repo: str, *, private: bool = True, dry_run: bool = False, licence: str | None = None
    ) -> Upload:
        """Export the model and upload it to the Hub in one commit.

        Args:
            repo: user/name; created where it is missing.
            private: of a repository that is created.
            dry_run: return files and sizes without uploading.
            licence: see `export`.

        Raises:
            vlwm.VlwmError: nobody is logged in, the Hub does not answer, or as in `export`.
        """
        from vlwm.core.export.source import push_model

        return push_model(self._trained, repo, private=private, dry_run=dry_run, licence=licence)

    def __repr__(self) -> str:
        """Return the frames and cells of the model."""
        config = self._trained.config
        cells = "×".join(map(str, self.grid.shape))
        sizes = "×".join(f"{size:g}" for size in self.grid.cell_m)
        return (
            f"Model({config.history_frames} past and {config.future_frames} future frames "
            f"{config.frame_dt_s:g} s apart, {cells} cells of {sizes} m)"
        )
