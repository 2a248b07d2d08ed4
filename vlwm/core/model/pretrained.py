"""Load initial weights: our own checkpoints, or OccWorld's released `latest.pth`.

A tensor is taken where name and shape agree, and every tensor is accounted for: loaded, fresh (in
the model, not in the file) and left over (in the file, not in the model). A part of OccWorld that
is missing as a whole is an error, never a warning: its users lost days to files without a
tokenizer.
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlwm.core.errors import CheckpointError
from vlwm.core.files import explain_os_error
from vlwm.core.model.checkpoint import FORMAT, load_checkpoint
from vlwm.core.model.checkpoint_upgrade import names_of_today
from vlwm.core.vocabulary import Stage

_TOKENIZER = "vae."
_PARTS = {
    Stage.TOKENIZER: ("encoder.", "decoder.", "vqvae."),
    Stage.WORLD: ("vae.encoder.", "vae.decoder.", "vae.vqvae.", "transformer."),
}


@dataclass(frozen=True)
class LoadedWeights:
    """Match of the tensors of a model with those of a file.

    Attributes:
        taken: names of the model that have the file's values.
        fresh: names of the model that begin fresh.
        left_over: names of the file that the model has no place for.
    """

    taken: tuple[str, ...]
    fresh: tuple[str, ...]
    left_over: tuple[str, ...] = ()

    @property
    def none(self) -> bool:
        """True if every tensor of the model is fresh."""
        return not self.taken

    @property
    def covers_all(self) -> bool:
        """True if no tensor of the model is fresh."""
        return not self.fresh

    def covers(self, prefix: str) -> bool:
        """Return True if no tensor under a prefix is fresh."""
        return not any(name.startswith(prefix) for name in self.fresh)

    def touches(self, prefix: str) -> bool:
        """Return True if any tensor under a prefix has the file's values."""
        return any(name.startswith(prefix) for name in self.taken)

    def table(self) -> list[str]:
        """Return a table with a line for each part of the model: loaded, fresh, left over."""
        parts = sorted({_part(n) for n in (*self.taken, *self.fresh, *self.left_over)})
        width = max(map(len, (*parts, "part")))
        rows = [f"{'part':{width}}  loaded  fresh  left over"]
        for part in parts:
            counts = [
                sum(_part(name) == part for name in names)
                for names in (self.taken, self.fresh, self.left_over)
            ]
            rows.append(f"{part:{width}}  {counts[0]:6d}  {counts[1]:5d}  {counts[2]:9d}")
        return rows


def _part(name: str) -> str:
    """Return the first word of a name; of a tokenizer in a world model two, `vae.encoder`."""
    words = name.split(".")
    return ".".join(words[:2]) if words[0] == "vae" else words[0]


def take_weights(model: nn.Module, path: Path, stage: Stage) -> LoadedWeights:
    """Copy the tensors of a file that fit into a model, by name and shape.

    Args:
        model: a `Tokenizer` for stage "tokenizer", a `WorldModel` for "world"; changed in place.

    Raises:
        CheckpointError: the file is damaged or foreign, or a part is missing from it as a whole.
    """
    state, whole = read_weights(path)
    state = _named_as(state, stage)
    own = model.state_dict()
    # a tokenizer's file need not have a transformer
    parts = _PARTS[stage] if whole else [p for p in _PARTS[stage] if p != "transformer."]
    for part in parts:
        if any(n.startswith(part) for n in own) and not any(n.startswith(part) for n in state):
            raise CheckpointError(
                f"the weights hold nothing of {part.rstrip('.')}",
                where=path,
                remedy="give the weights of a whole model, or leave load_from out: --from-scratch",
            )
    # by name and shape: OccWorld's time embeddings have another length than ours
    fits = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    model.load_state_dict(fits, strict=False)
    return LoadedWeights(
        tuple(fits),
        tuple(name for name in own if name not in fits),
        tuple(name for name in state if name not in fits),
    )


def read_weights(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Return the tensors of a file by name, and True if it is of a whole model.

    Our own checkpoints, OccWorld's (`state_dict` inside), and bare state dicts; a `module.` that a
    distributed run put in front is taken off. Nothing in the file is ever executed.

    Raises:
        CheckpointError: it cannot be read, or holds no tensors by name.
    """
    content = _content(path)
    if content.get("format") == FORMAT:
        return load_checkpoint(path)["model"], content["stage"] == Stage.WORLD
    # OccWorld keeps its weights one level down; a bare state dict is its own level
    inside = content.get("state_dict", content)
    tensors = {}
    if isinstance(inside, dict):
        tensors = {
            str(k).removeprefix("module."): v for k, v in inside.items() if isinstance(v, Tensor)
        }
    if not tensors:
        raise CheckpointError(
            "the file holds no weights by name",
            where=path,
            remedy="load_from takes OccWorld's latest.pth or a checkpoint of vlwm",
        )
    return names_of_today(tensors), True


def _content(path: Path) -> dict[str, Any]:
    """Return the content of the file; older files, which are not archives, are read too."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise explain_os_error(error, path) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "the weights hold more than tensors and plain values, so they were not loaded",
            where=path,
            remedy="keep the state_dict alone and save that",
        ) from error
    except (
        zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError, KeyError, IndexError,
        TypeError, OSError, AttributeError, AssertionError, UnicodeDecodeError,
    ) as error:  # fmt: skip
        raise CheckpointError(
            "the weights cannot be read, the file is damaged or of another kind",
            where=path,
            remedy="fetch them again: vlwm download --models",
        ) from error
    return content if isinstance(content, dict) else {}


def _named_as(state: dict[str, Tensor], stage: Stage) -> dict[str, Tensor]:
    """Return names as the stage's model has them: in the world model the tokenizer is `vae.`."""
    whole = any(name.startswith(_TOKENIZER) for name in state)
    if stage == Stage.TOKENIZER and whole:
        prefix = _TOKENIZER
        return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    if stage == Stage.WORLD and not whole:
        return {f"{_TOKENIZER}{name}": value for name, value in state.items()}
    return state
