"""Hold what all stages of a run share: folder, device, status, log file, W&B, signal flag."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from vlwm.core.config.schema import Config
from vlwm.core.errors import StoppedError, VlwmError
from vlwm.core.hardware.host import usable_workers
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.options import TrainOptions, from_here
from vlwm.core.training.runtime.distributed import PeerLost, Ranks
from vlwm.core.training.runtime.multi_gpu_launch import refuse_missing_gpus
from vlwm.core.training.runtime.stop_signal import StopRequested, StopSignal
from vlwm.core.training.startup.planned_work import amounts_before, planned_work
from vlwm.core.training.telemetry.expected_paces import PaceMemory, expected_paces, pace_file
from vlwm.core.training.telemetry.metric_log import Sink, close_log_file, open_log_file
from vlwm.core.training.telemetry.run_plan import RunPlan
from vlwm.core.training.telemetry.status_writer import StatusWriter
from vlwm.core.training.telemetry.wandb_sink import WandbSink
from vlwm.core.vocabulary import Phase, Stage

log = logging.getLogger("vlwm.training")


@dataclass(frozen=True, eq=False)
class Run:
    """One run of `train`."""

    config: Config
    options: TrainOptions
    folder: RunFolder
    device: torch.device
    status: StatusWriter
    stop: StopSignal
    sinks: tuple[Sink, ...]
    ranks: Ranks

    def tick(self, **fields: object) -> None:
        """Write the status between pieces of long work, and leave when a signal has come."""
        self.status.beat(**fields)
        if self.stop:
            raise StopRequested

    def leave(self) -> None:
        """End the process from another thread after a signal, where nothing would be lost."""
        error = self.stop.error(self.options.command)
        self.status.update(state="stopped", exit_code=error.exit_code)
        log.warning("%s", error)
        # from another thread: sys.exit would only end that thread
        os._exit(error.exit_code)

    def workers(self) -> int:
        """Return loader processes: those of the config, no more than the cores that are granted."""
        return min(self.config.data.workers_per_gpu, usable_workers())


@contextmanager
def open_run_context(
    config: Config, options: TrainOptions, device: torch.device, stop: StopSignal, ranks: Ranks
) -> Iterator[Run]:
    """Open a run's files, and write into status.json how it ended.

    Raises:
        VlwmError: what ended the run; a signal as StoppedError or InterruptedRunError.
    """
    folder = RunFolder(options.work_dir).create()
    status = StatusWriter(
        folder, writes=ranks.lead, plan=plan_of(config, options, device, ranks),
        device=describe(device), config=config.name, work_dir=str(folder.path),
        processes=ranks.size, command=options.command, cwd=os.getcwd(),
        price_per_h=options.price_per_h, spent_s=_spent_s(folder),
    )  # fmt: skip
    # only the lead writes files; every process answers signals
    handler = open_log_file(folder.path) if ranks.lead else None
    wandb = WandbSink(folder, options.wandb, config) if options.wandb and ranks.lead else None
    sinks = () if wandb is None else (wandb,)
    links = {**(wandb.links if wandb is not None else {}), **options.links}
    ended: dict[str, object] = {"state": "failed", "exit_code": 1}
    # what a second signal does: the status tells how the run ended
    stop.last_act = lambda code: _write_last_status(status, code)
    stop.last_words = f"{stop.last_words}: resume with: {options.command}"
    try:
        resume = f"{from_here()}{options.command}"
        status.update(phase=Phase.START, next=resume, links=links)
        yield Run(config, options, folder, device, status, stop, sinks, ranks)
        if status.plan is not None and ranks.lead:
            status.plan.remember()
        ended = {"state": "done", "phase": Phase.DONE, "exit_code": 0, "eta_s": 0.0,
                 "next": options.after(folder.path)}  # fmt: skip
    except StopRequested:
        error = stop.error(options.command)
        ended = {"state": "stopped", "exit_code": error.exit_code}
        raise error from None
    except PeerLost as lost:
        status.writes = True  # the lost one may be the lead
        ended = {"state": "stopped", "exit_code": StoppedError.exit_code, "message": str(lost)}
        raise StoppedError(lost.what, remedy=f"resume with: {options.command}") from lost
    except VlwmError as error:
        ended = {"state": "failed", "exit_code": error.exit_code, "message": str(error)}
        log.error("%s", error)
        raise
    finally:
        stop.last_act = None
        if wandb is not None:
            wandb.close(failed=ended["exit_code"] != 0)
        # also after an error: the dashboard must not show a dead run as running
        status.update(**ended)
        if handler is not None:
            close_log_file(handler)


def plan_of(
    config: Config,
    options: TrainOptions,
    device: torch.device,
    ranks: Ranks,
    memory: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RunPlan | None:
    """Return the parts that this run will have; None where it only evaluates.

    Args:
        memory: file of the paces of earlier runs; None takes the user's.
        clock: seconds.
    """
    if options.eval_only:
        return None
    parts = [Phase.PREPARE]
    if options.trains(Stage.TOKENIZER):
        parts.append(Phase.TOKENIZER)
    if options.trains(Stage.WORLD):
        warm_ups = [Phase.FUSION] if config.model.use_memory else []
        if warm_ups and config.data.observed and config.model.completion_channels:
            warm_ups.append(Phase.COMPLETION)
        parts += [Phase.MOTION, *warm_ups, Phase.WORLD, Phase.EVAL]
    batches: dict[str, int] = {
        Stage.TOKENIZER: config.tokenizer.samples_per_gpu,
        Stage.WORLD: config.data.samples_per_gpu,
    }
    # what a pace holds for
    sizes = (*batches.values(), ranks.size)
    shape = (config.point_cloud_range, config.voxel_size, config.data.horizons, sizes)
    key = f"{config.name} {shape} {describe(device)}"
    plan = RunPlan(
        tuple(parts),
        expected_paces(config.name, batches),
        PaceMemory(memory or pace_file(), key),
        absolute=device.type == "cpu",
        clock=clock,
    )
    plan.expect(*planned_work(config, ranks.batch_shares, amounts_before(config)))
    return plan


def _spent_s(folder: RunFolder) -> float:
    """Return the seconds of earlier processes of the run in this folder."""
    try:
        before = folder.read_status() or {}
        spent = float(before.get("spent_s") or 0.0)
        return spent + max(0.0, float(before["heartbeat"]) - float(before["started"]))
    except (VlwmError, KeyError, TypeError, ValueError, AttributeError):
        return 0.0


def _write_last_status(status: StatusWriter, code: int) -> None:
    """Write how a second signal ended the run; the disk may be what it waits for."""
    with suppress(OSError, VlwmError):
        status.update(state="stopped", exit_code=code)


def choose_device(gpu_id: int | None) -> torch.device:
    """Return the requested GPU, else the first one, else the CPU.

    Raises:
        MachineError: the requested GPU does not exist.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    # GPU 0 is the default of launchers, also on a machine without one
    if gpu_id is not None and (gpu_id > 0 or count > 0):
        refuse_missing_gpus([gpu_id])
    return torch.device(f"cuda:{gpu_id or 0}") if count else torch.device("cpu")


def describe(device: torch.device) -> str:
    """Return the device in words, for people."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
