"""Turn the meter into a metric line, health signs and a line of the log file."""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Mapping

import torch

from vlwm.core.config.schema import Config
from vlwm.core.files import free_bytes
from vlwm.core.run_folder import RunFolder
from vlwm.core.run_status import HealthSign
from vlwm.core.training.loop.progress import Clock
from vlwm.core.training.loop.train_state import RunState
from vlwm.core.training.telemetry.health import examine
from vlwm.core.training.telemetry.metric_log import MetricLog
from vlwm.core.training.telemetry.status_writer import StatusWriter

log = logging.getLogger("vlwm.training")

_SHOWN = ("pred/mean", "target/mean", "lr", "grad_norm")
_SHOWN_VAL = (
    "val/iou", "val/iou_baseline", "val/iou_memory_baseline", "val/round_trip_iou", "val/threshold",
)  # fmt: skip


class Reporter:
    """Writes the metric lines of one stage."""

    def __init__(
        self,
        state: RunState,
        config: Config,
        folder: RunFolder,
        metrics: MetricLog,
        status: StatusWriter,
        clock: Clock,
    ) -> None:
        self.state = state
        self.config = config
        self.folder = folder
        self.metrics = metrics
        self.status = status
        self.clock = clock

    def step_line(self, *, first_epoch: bool) -> None:
        """Write a line of metrics over the steps since the last one; waits for the device once."""
        at, task = self.state.at, self.state.task
        # the one place in a stage where the host waits for the device
        numbers = self.state.meter.read()
        per_s, loader_share = self.clock.rates()
        bad = self.state.watch.bad_steps()
        numbers |= task.numbers() | {
            "lr": self._lr(),
            f"{task.unit}_per_s": per_s,
            "loader_share": loader_share,
            "memory_gb": memory_gb(self.state.stepper.device),
            "skipped_steps": float(len(bad)),
        }
        # named in the log, so that the samples can be looked up
        if bad:
            log.warning("skipped, not finite: steps %s", ", ".join(map(str, bad)))
        findings = self._examine(numbers, first_epoch)
        numbers |= {f"health/{finding.name}": 1.0 for finding in findings}
        self.metrics.write("train", at.epoch, at.step, numbers)
        self._say(numbers, f"{per_s:.1f} {task.unit}/s", "train/loss", _SHOWN)

    def validation(self, numbers: dict[str, float]) -> None:
        """Write a line of metrics after a validation."""
        at = self.state.at
        numbers["epoch/lr"] = self._lr()
        self.metrics.write("val", at.epoch, at.step, numbers)
        self._say(numbers, "validation", "epoch/val_loss", _SHOWN_VAL)

    def _lr(self) -> float:
        return float(self.state.stepper.optimizer.param_groups[0]["lr"])

    def _examine(self, numbers: Mapping[str, float], first_epoch: bool) -> list[HealthSign]:
        watch, at = self.state.watch, self.state.at
        record = {**numbers, "disk_free_gb": free_bytes(self.folder.path) / 1e9}
        if watch.running_loss is not None:
            record |= {"running_loss": watch.running_loss, "young": float(watch.young)}
        # after the record was made: a spike is compared with the losses before it
        watch.note_loss(numbers.get("train/loss"))
        found = examine(record, self.config.health, first_epoch=first_epoch, step=at.step)
        # a sign that was there at the last line is not logged again
        known = {old["name"] for old in self.status.values["health"]}
        for finding in found:
            if finding.name not in known:
                log.warning("%s: %s; %s", finding.name, finding.message, finding.remedy)
        self.status.update(health=[f.to_dict() for f in found], skipped_steps=watch.skipped)
        return found

    def _say(
        self, numbers: Mapping[str, float], head: str, loss: str, shown: tuple[str, ...]
    ) -> None:
        at = self.state.at
        words = [f"{name} {numbers[name]:.4g}" for name in (loss, *shown) if name in numbers]
        stage = self.state.task.stage
        log.info(
            "%s epoch %d step %d: %s, %s", stage, at.epoch + 1, at.step, ", ".join(words), head
        )


def memory_gb(device: torch.device) -> float:
    """Return the largest memory use so far, GB: of the GPU, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    # ru_maxrss is in bytes on macOS and in kilobytes on Linux
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
