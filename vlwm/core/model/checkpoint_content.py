"""Define what a checkpoint holds; docs/data_format.md has the table, generated from here.

All values are tensors and plain Python (`checkpoint.save_checkpoint` refuses others), and every
field is a key of the file. Fields that only one stage has are missing in the files of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CheckpointContent:
    """One checkpoint; "format" and "version" are added when it is written."""

    stage: str
    """"tokenizer" or "world" """
    epoch: int
    """epochs finished"""
    step: int
    """optimizer steps finished"""
    best: float | None
    """the best validation so far, higher is better; null before the first"""
    model: dict[str, Tensor]
    """state dict of the network"""
    optimizer: dict[str, Any]
    """state dict of AdamW, parameters by number"""
    scheduler: dict[str, Any]
    """lr_factor and rollbacks: all that the learning rate depends on, apart from the step"""
    scaler: dict[str, Any]
    """state dict of the fp16 loss scaler; empty in other precisions"""
    sampler: dict[str, int]
    """sample: samples of the epoch that are done; microbatch: samples in a backward pass;
    processes: those that the run began with; a global batch is samples_per_gpu times them"""
    rng: dict[str, Any]
    """states of the random generators of Python, NumPy and torch"""
    meter: dict[str, Tensor]
    """sums since the last log line"""
    health: dict[str, Any]
    """state of the health checks: running mean of the loss, skipped steps"""
    config: dict[str, Any]
    """the whole config, by key"""
    threshold: float | None
    """the best single decision threshold; null before the first validation"""
    metrics_offset: int = 0
    """bytes of metrics.jsonl when it was written: a resume thresholds the file there"""
    seed: int | None = None
    """of the run"""
    data_hash: str | None = None
    """of frames, poses and sums of the data"""
    attribution: str = ""
    """of the training data, with its licence: it travels with the weights"""
    unknown_cells: bool = False
    """frames of the training data say which of their cells are known"""
    initial_weights: str | None = None
    """file that the weights of both stages began from, "" where they began fresh; null in older
    checkpoints, which leave only the config's load_from to go by"""
    versions: dict[str, Any] | None = None
    """vlwm, git, python, torch, numpy, cuda"""
    fresh: list[str] | None = None
    """names of parameters that began without loaded weights"""
    codebook: dict[str, Any] | None = None
    """stage 1: moving means of the codes"""
    thresholds: dict[str, dict[str, Any]] | None = None
    """stage 2: thresholds of each track: threshold, and per horizon ground and above"""
    baselines: dict[str, Any] | None = None
    """stage 2: the baselines as they were fitted before the first validation"""
    baseline_iou: dict[str, float] | float | None = None
    """stage 2: validation IoU of the baselines, the same in every epoch; a number is older"""
    best_motion: dict[str, Tensor] | None = None
    """stage 2: state of the motion head at its best validation, and its energy_score in metres"""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> CheckpointContent:
        """Return a loaded checkpoint's content; unknown keys are left out.

        Raises:
            KeyError: a key that every checkpoint has is missing.
        """
        needed = {f.name: content[f.name] for f in fields(cls) if f.default is MISSING}
        rest = {f.name: content.get(f.name, f.default) for f in fields(cls) if f.name not in needed}
        return cls(**needed, **rest)

    def to_dict(self) -> dict[str, Any]:
        """Return it as the file holds it; optional fields that are None are left out."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        optional = {f.name for f in fields(self) if f.default is not MISSING}
        return {k: v for k, v in values.items() if v is not None or k not in optional}
