"""What a stage begins with: the weights that the config names, where there are any."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from vlwm.core.config import Config
from vlwm.core.errors import DataError
from vlwm.core.model.checkpoint import load_checkpoint
from vlwm.core.training.options import TrainOptions

log = logging.getLogger("vlwm.training")


@dataclass(frozen=True)
class Given:
    """Which tensors of a model were given weights, and which begin fresh."""

    taken: tuple[str, ...]
    fresh: tuple[str, ...]

    @property
    def none(self) -> bool:
        """Whether all begin fresh."""
        return not self.taken

    @property
    def covers_all(self) -> bool:
        """Whether none begins fresh."""
        return not self.fresh

    def covers(self, prefix: str) -> bool:
        """Whether no tensor under a prefix begins fresh."""
        return not any(name.startswith(prefix) for name in self.fresh)


def refuse_missing_weights(config: Config, options: TrainOptions) -> None:
    """Weights that the config names must be there, or be given up on purpose.

    Raises:
        DataError: they are not, naming both remedies.
    """
    path = config.load_from
    if path is None or options.from_scratch or options.eval_only or Path(path).exists():
        return
    raise DataError(
        "the pretrained weights that the config names are not there",
        where=path,
        remedy="fetch them with `vlwm download --models`, or do without them: --from-scratch",
    )


def initial_weights(config: Config, options: TrainOptions, model: nn.Module, stage: str) -> Given:
    """Copy into a model what fits of the weights that the config names, by name and shape.

    Args:
        model: a `Tokenizer` for stage "tokenizer", a `WorldModel` for "world"; changed in place.

    Raises:
        CheckpointError: the file is damaged or foreign.
    """
    own = model.state_dict()
    if config.load_from is None or options.from_scratch or not Path(config.load_from).exists():
        return Given((), tuple(own))
    found = _fitting_prefix(_read(Path(config.load_from)), stage)
    fits = {k: v for k, v in found.items() if k in own and v.shape == own[k].shape}
    model.load_state_dict(fits, strict=False)
    given = Given(tuple(fits), tuple(name for name in own if name not in fits))
    log.info(
        "%s: %d of %d tensors from %s%s", stage, len(fits), len(own), config.load_from,
        f"; fresh: {', '.join(given.fresh[:6])}{' …' if len(given.fresh) > 6 else ''}"
        if given.fresh else "",
    )  # fmt: skip
    return given


def _fitting_prefix(state: dict[str, Tensor], stage: str) -> dict[str, Tensor]:
    """Names as the stage's model has them: the world model keeps its tokenizer under `vae.`."""
    whole = any(name.startswith("vae.") for name in state)
    if stage == "tokenizer" and whole:
        return {n.removeprefix("vae."): v for n, v in state.items() if n.startswith("vae.")}
    if stage == "world" and not whole:
        return {f"vae.{name}": value for name, value in state.items()}
    return state


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint."""
    return load_checkpoint(path)["model"]
