"""Check the health of a run: named checks on each log line, with threshold and remedy.

    collapse     mean prediction below a tenth of the target's, or the occupancy loss at 1e-4
    saturation   mean prediction above ten times the target's
    nan          steps whose loss or gradients were not finite; they are skipped and counted
    spike        the loss far above its running mean
    dead_codes   much of the codebook unused
    empty_targets  nothing occupied in the targets
    starving     the step waits for the loader
    disk         little space left on the run folder's disk
(a stalled heartbeat is detected by the reader of status.json)

Bad steps in a row, or spikes that persist, mean that the run has diverged; the trainer then returns
to the last good checkpoint at a lower rate, and gives up after `max_rollbacks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vlwm.core.config.schema import HealthConfig
from vlwm.core.run_status import HealthSign

Record = Mapping[str, float]

_LINES_FOR_A_MEAN = 5
"""log lines until the running mean is trusted"""
_EARLY_FACTOR = 10.0
"""spike_factor is multiplied by this until `_LINES_FOR_A_MEAN` lines exist"""
_SMALL = 0.1
"""loss below which ratios mean little: the occupancy composite settles at 0.1 to 0.5"""


@dataclass(frozen=True)
class Check:
    """A named look at a record; `look` gives the message when it is not well."""

    name: str
    remedy: str
    look: Callable[[Record, HealthConfig, bool], str | None]


def _collapse(r: Record, c: HealthConfig, first_epoch: bool) -> str | None:
    predicted, target = r.get("pred/mean"), r.get("target/mean")
    if predicted is not None and target and predicted < c.collapse_ratio * target:
        return f"mean prediction {predicted:.2g} is far below the target's {target:.2g}"
    loss = r.get("loss/occupancy")
    if first_epoch and loss is not None and loss < c.collapse_loss:
        return f"occupancy loss fell to {loss:.1g} within the first epoch"
    return None


def _saturation(r: Record, c: HealthConfig, _: bool) -> str | None:
    predicted, target = r.get("pred/mean"), r.get("target/mean")
    if predicted is not None and target and predicted > c.saturation_ratio * target:
        return f"mean prediction {predicted:.2g} is far above the target's {target:.2g}"
    return None


def _skipped(r: Record, _c: HealthConfig, _: bool) -> str | None:
    count = int(r.get("skipped_steps", 0))
    return f"{count} of the last steps were not finite and were skipped" if count else None


def is_spike(
    loss: float, running_mean: float | None, config: HealthConfig, *, young: bool = False
) -> bool:
    """Return True if the loss exceeds the running mean by the spike factor.

    `young` relaxes the factor while the mean has few samples.

    A likelihood can pass through zero, where a multiple of the mean is meaningless: the distance to
    the mean is compared with the mean's size, or with `_SMALL` where that is less.
    """
    if running_mean is None:
        return False
    times = config.spike_factor * (_EARLY_FACTOR if young else 1.0)
    return loss - running_mean > (times - 1.0) * max(abs(running_mean), _SMALL)


def _spike(r: Record, c: HealthConfig, _: bool) -> str | None:
    loss, mean = r.get("train/loss"), r.get("running_loss")
    if loss is not None and is_spike(loss, mean, c, young=bool(r.get("young"))):
        return f"loss {loss:.3g} is far above its running mean {mean:.3g}"
    return None


def _dead_codes(r: Record, c: HealthConfig, first_epoch: bool) -> str | None:
    used, size = r.get("codebook/used"), r.get("codebook/size")
    if first_epoch or used is None or not size or 1.0 - used / size <= c.dead_code_share:
        return None
    return f"only {used:.0f} of {size:.0f} codes are in use"


def _empty_targets(r: Record, _c: HealthConfig, _: bool) -> str | None:
    return "the targets hold no occupied cell" if r.get("target/mean") == 0.0 else None


def _starving(r: Record, c: HealthConfig, _: bool) -> str | None:
    share = r.get("loader_share", 0.0)
    return (
        f"{share:.0%} of the time goes into waiting for data"
        if (share > c.starving_share)
        else None
    )


def _disk(r: Record, c: HealthConfig, _: bool) -> str | None:
    free = r.get("disk_free_gb")
    if free is None or free >= c.disk_free_gb:
        return None
    return f"{free:.1f} GB are free on the run folder's disk"


CHECKS = (
    Check("collapse", "check that mean-matching is on (loss.mean_weight), lower --lr to 5e-5",
          _collapse),
    Check("saturation", "lower --lr; check loss.focal_alpha and loss.mean_weight", _saturation),
    Check("nan", "lower --lr to 1e-5; check the data for corruption", _skipped),
    Check("spike", "lower --lr, or clip harder (grad_clip.max_norm)", _spike),
    Check("dead_codes", "lower tokenizer.lr, or use a smaller tokenizer.codebook_size",
          _dead_codes),
    Check("empty_targets", "check data generation; verify point_cloud_range", _empty_targets),
    Check("starving", "raise --workers, or move the data to a faster disk", _starving),
    Check("disk", "free some space, or set checkpoint_config.max_keep_ckpts", _disk),
)  # fmt: skip


def examine(
    record: Record, config: HealthConfig, *, first_epoch: bool, step: int
) -> list[HealthSign]:
    """Return the signs that the checks find in one log record."""
    found = []
    for check in CHECKS:
        message = check.look(record, config, first_epoch)
        if message is not None:
            found.append(HealthSign(check.name, "warn", message, check.remedy, step))
    return found


@dataclass
class Watch:
    """Counts bad steps and spikes; its state is part of a checkpoint."""

    config: HealthConfig
    skipped: int = 0
    """skipped steps so far"""
    in_a_row: int = 0
    """bad steps since the last good one"""
    longest: int = 0
    """longest such row since the last log line"""
    spikes: int = 0
    """log lines in a row that were spikes"""
    running_loss: float | None = None
    """exponential mean of the losses logged so far"""
    lines: int = 0
    """log lines in that mean"""
    unreported: list[int] = field(default_factory=list)
    """bad steps since the last log line, by number"""
    _pending: list[tuple[int, Tensor]] = field(default_factory=list)

    def note(self, step: int, fault: Tensor) -> None:
        """Keep a step's flag on the device, without waiting for it."""
        self._pending.append((step, fault))

    def _settle(self) -> None:
        """Read the flags noted so far (one wait for the device)."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        for (step, _), bad in zip(pending, torch.stack([f for _, f in pending]).tolist(),
                                  strict=True):  # fmt: skip
            # rows are counted over log lines: a run of bad steps may begin before one
            self.in_a_row = self.in_a_row + 1 if bad else 0
            self.longest = max(self.longest, self.in_a_row)
            self.skipped += int(bad)
            if bad:
                self.unreported.append(step)

    def bad_steps(self) -> list[int]:
        """Return bad steps since the last call, by number."""
        self._settle()
        steps, self.unreported = self.unreported, []
        return steps

    def note_loss(self, loss: float | None) -> None:
        """Update the running mean of the logged loss; a spike does not change it."""
        if loss is None:
            return
        if is_spike(loss, self.running_loss, self.config, young=self.young):
            self.spikes += 1
            return
        self.spikes = 0
        self.lines += 1
        # a plain mean at first, an exponential one of ten lines later
        before = loss if self.running_loss is None else self.running_loss
        self.running_loss = before + (loss - before) * max(0.1, 1.0 / self.lines)

    @property
    def young(self) -> bool:
        """True while the running mean is over few lines."""
        return self.lines < _LINES_FOR_A_MEAN

    def calm_down(self, skipped: int) -> None:
        """Reset the rows after a roll-back, and set the count of all skipped steps."""
        self.skipped, self.in_a_row, self.longest, self.spikes = skipped, 0, 0, 0
        self.unreported = []

    def diverged(self) -> str | None:
        """Return why the run should go back, or None; called once per log line."""
        self._settle()
        longest, self.longest = self.longest, self.in_a_row
        limit = self.config.bad_steps
        if longest >= limit:
            return f"{longest} steps in a row were not finite"
        if self.spikes >= limit:
            return f"the loss stayed above {self.config.spike_factor:g} times its mean"
        return None

    def calm(self) -> bool:
        """Return True if a checkpoint taken now is a good one to return to."""
        self._settle()
        return was_calm(self.state())

    def state(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        self._settle()
        names = ("skipped", "in_a_row", "longest", "spikes", "running_loss", "lines", "unreported")
        return {name: getattr(self, name) for name in names}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self._pending = []
        for name, value in state.items():
            setattr(self, name, list(value) if name == "unreported" else value)


def was_calm(state: Mapping[str, Any]) -> bool:
    """Return True if a checkpoint with this state of the watch is good to return to."""
    return state["in_a_row"] == 0 and state["spikes"] == 0
