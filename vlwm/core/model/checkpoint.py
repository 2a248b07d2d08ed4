"""Write and read checkpoints: tensors and plain Python in one file, complete or refused.

A checkpoint is torch's zip format, read with `weights_only=True`, so that loading one never runs
code. Every record of the zip carries a CRC-32; torch itself does not compare it on reading, so
`load_checkpoint` does: a flipped bit is found before a tensor is made of it.

The keys are the fields of `checkpoint_content.CheckpointContent`, and "format" and "version".
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlwm.core.config.load import config_from_dict
from vlwm.core.errors import CheckpointError, ConfigError
from vlwm.core.files import atomic_path
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.checkpoint_upgrade import upgraded
from vlwm.core.run_folder import RunFolder
from vlwm.core.vocabulary import Stage

if TYPE_CHECKING:
    from vlwm.core.model.world_model import WorldModel

FORMAT = "vlwm-checkpoint"
VERSION = 3
_RESUME = "take another checkpoint of the run, or start the run again"
_PLAIN = (str, int, float, bool, bytes, type(None))


def save_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint under a temporary name, read its sums back, then give it its name.

    Raises:
        MachineError: the disk is full, over quota or read-only; an older file stays as it was.
        TypeError: `content` holds something that is neither a tensor nor plain Python.
    """
    whole = {**content, "format": FORMAT, "version": VERSION}
    _require_plain(whole, "checkpoint")
    with atomic_path(path) as temporary:
        try:
            with open(temporary, "wb") as handle:
                torch.save(whole, handle)
        except RuntimeError as error:  # torch's writer hides the OSError of a full disk
            cause = error.__context__
            raise cause if isinstance(cause, OSError) else error from error
        # read back before the rename: an older whole file is never replaced by a damaged one
        _check_sums(temporary)


def _require_plain(value: object, where: str) -> None:
    """Refuse values that `weights_only=True` would not read back."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _require_plain(key, f"a key of {where}")
            _require_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            _require_plain(item, f"{where}[{number}]")
    elif type(value) not in _PLAIN and not isinstance(value, Tensor):
        raise TypeError(f"{where} is a {type(value).__name__}, not a tensor or a plain value")


def load_checkpoint(
    path: str | Path, *, expect_grid: VoxelGrid | None = None, stage: Stage | None = None
) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in the file is ever executed.

    Args:
        path: the file.
        expect_grid: the grid it must have been trained on.
        stage: the stage that it must be of.

    Raises:
        CheckpointError: missing, truncated, damaged, foreign, of another grid or stage.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError("there is no checkpoint", where=path, remedy="check the path")
    # sums first: torch may crash on a damaged record before it can report it
    _check_sums(path)
    content = _read(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            "this is not a checkpoint of vlwm",
            where=path,
            remedy="OccWorld's released weights go into the config as load_from",
        )
    if content["version"] > VERSION:
        raise CheckpointError(
            f"the checkpoint has format {content['version']}, newer than this vlwm",
            where=path,
            remedy="install a newer vlwm",
        )
    _check_stage(path, content, stage)
    _check_grid(path, content, expect_grid)
    return upgraded(content)


def peek_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return a checkpoint's content with empty tensors, or None where that fails.

    For plain values that are wanted before the checkpoint itself is loaded and checked. The file is
    never mapped into memory: one that is cut short meanwhile would end the process by a signal.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="meta", weights_only=True)
    except Exception:  # noqa: BLE001 - a damaged file can raise anything; loading it names the cause
        return None
    whole = isinstance(content, dict) and content.get("format") == FORMAT
    return dict(content) if whole else None


def _check_sums(path: Path) -> None:
    """Compare the CRC-32 of every record, which torch's reader does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (
        zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError,
    ) as error:  # fmt: skip
        raise _damaged(path, "it is cut short or was never a checkpoint") from error
    except PermissionError as error:
        raise CheckpointError(
            "the checkpoint cannot be read: permission denied",
            where=path,
            remedy="see with ls -l who may read it; chmod or sudo chown changes that",
        ) from error
    except OSError as error:
        raise _damaged(path, f"it cannot be read, {error.strerror or error}") from error
    if damaged is not None:
        raise _damaged(path, f"the record {damaged} has changed since it was written")


def _damaged(path: Path, how: str) -> CheckpointError:
    return CheckpointError(f"the checkpoint is damaged, {how}", where=path, remedy=_RESUME)


def _read(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged files make torch guess aloud
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "the file holds more than tensors and plain values, so it was not loaded",
            where=path,
            remedy="use a checkpoint written by vlwm",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, OSError,
            AttributeError, AssertionError, UnicodeDecodeError) as error:  # fmt: skip
        raise _damaged(path, "its parts do not fit together") from error


def _check_stage(path: Path, content: dict[str, Any], stage: Stage | None) -> None:
    if stage is not None and content["stage"] != stage:
        raise CheckpointError(
            f"the checkpoint is of the {content['stage']} stage, not of the {stage} stage",
            where=path,
            remedy="tokenizer checkpoints are in the folder tokenizer/ of a run",
        )


def _check_grid(path: Path, content: dict[str, Any], expected: VoxelGrid | None) -> None:
    if expected is None:
        return
    grid = grid_of(content)
    if grid != expected:
        raise CheckpointError(
            f"the checkpoint was trained on a grid of {_words(grid)}, not {_words(expected)}",
            where=path,
            remedy="use the config it was trained with",
        )


def _words(grid: VoxelGrid) -> str:
    cells = "×".join(map(str, grid.shape))
    sizes = "×".join(f"{size:g}" for size in grid.cell_m)
    return f"{cells} cells of {sizes} m"


def grid_of(content: Mapping[str, Any]) -> VoxelGrid:
    """Return the grid that a loaded checkpoint was trained on."""
    config = content["config"]
    return VoxelGrid.from_range(config["point_cloud_range"], config["voxel_size"])


def load_weights(module: nn.Module, state: Mapping[str, Tensor], where: str | Path) -> None:
    """Copy weights into a module that must match them name by name and shape by shape.

    Raises:
        CheckpointError: the weights are another model's; the first difference is named.
    """
    # compared before anything is copied: a refused file leaves the module as it was
    own = module.state_dict()
    for name in own.keys() | state.keys():
        if name not in state or name not in own:
            here = "the model" if name in own else "the checkpoint"
            raise _foreign(f"only {here} has {name}", where)
        if state[name].shape != own[name].shape:
            shapes = f"{tuple(state[name].shape)} against {tuple(own[name].shape)}"
            raise _foreign(f"{name} has shape {shapes}", where)
    module.load_state_dict(state)


def _foreign(difference: str, where: str | Path) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint is of another model, {difference}",
        where=where,
        remedy="use the config it was trained with",
    )


@dataclass(frozen=True)
class FoundCheckpoint:
    """The newest readable checkpoint, and the sentences about newer ones that were refused."""

    path: Path
    content: dict[str, Any]
    refused: tuple[str, ...] = field(default=())


def newest_valid(
    folder: str | Path,
    *,
    expect_grid: VoxelGrid | None = None,
    wanted: Callable[[dict[str, Any]], bool] | None = None,
) -> FoundCheckpoint | None:
    """Return the newest readable checkpoint of a run folder: last.pth, then others by date.

    Args:
        folder: the run folder.
        expect_grid: the grid it must have been trained on.
        wanted: predicate on a content; the newest one that passes is preferred to newer ones that
            do not. If none passes, the newest is returned.

    Returns:
        None if there is no checkpoint.

    Raises:
        CheckpointError: there are checkpoints, and none of them can be read.
    """
    run = RunFolder(Path(folder))
    paths = sorted(
        run.checkpoints(), key=lambda p: (p == run.last, p.stat().st_mtime_ns), reverse=True
    )
    refused: list[str] = []
    newest: FoundCheckpoint | None = None
    for path in paths:
        try:
            found = FoundCheckpoint(
                path, load_checkpoint(path, expect_grid=expect_grid), tuple(refused)
            )
        except CheckpointError as error:
            refused.append(str(error))
            continue
        if wanted is None or wanted(found.content):
            return found
        newest = newest or found
    if newest is not None:
        return newest
    if refused:
        raise CheckpointError(
            f"no checkpoint can be read; {refused[0]}",
            where=folder,
            remedy="use another --work-dir, or --no-resume to start a new run here (old one kept)",
        )
    return None


def load_world_model(
    path: str | Path, device: str | torch.device = "cpu"
) -> tuple[WorldModel, dict[str, Any]]:
    """Return a trained world model in evaluation mode, and its checkpoint.

    The decision threshold is in `content["threshold"]`.

    Raises:
        CheckpointError: damaged, foreign, or a tokenizer's checkpoint.
    """
    from vlwm.core.model.world_model import WorldModel

    content = load_checkpoint(path, stage=Stage.WORLD)
    try:
        config = config_from_dict(content["config"], where=str(path))
    except ConfigError as error:
        raise CheckpointError(
            f"its config cannot be used, {error.what}",
            where=path,
            remedy="use the version of vlwm that wrote it, or train it again",
        ) from error
    model = WorldModel(config, grid_of(content))
    load_weights(model, content["model"], path)
    return model.to(device).eval(), content
