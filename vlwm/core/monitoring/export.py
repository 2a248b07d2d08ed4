"""A Snapshot for machines: one plain object for `--json`, one plain line for pipes."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

from vlwm.core.monitoring.diagnosis import PHASE_WORDS, STAGE_WORDS, next_step, state_of, worries
from vlwm.core.monitoring.formatting import ASCII, clean, short
from vlwm.core.monitoring.snapshot import MachineSample, Snapshot
from vlwm.core.run_status import finite as number
from vlwm.core.text import span


def to_dict(snapshot: Snapshot) -> dict[str, Any]:
    """Return plain values; numbers that are not finite become None."""
    status = dataclasses.asdict(snapshot.status)
    return _plain(
        {
            "run": str(snapshot.path),
            "time": snapshot.now,
            "liveness": snapshot.liveness,
            "heartbeat_age_s": snapshot.heartbeat_age_s,
            **{k: v for k, v in status.items() if k != "health"},
            "running_epoch": snapshot.status.running_epoch,
            "eta_s": snapshot.eta_s,
            "next": next_step(snapshot),
            "metrics": dict(snapshot.stage.last or {}),
            "validation": dict(snapshot.stage.last_val or {}),
            "health": [dataclasses.asdict(sign) for sign in worries(snapshot)],
            "checkpoints": [dataclasses.asdict(file) for file in snapshot.checkpoints],
            "machine": None if snapshot.machine is None else _machine(snapshot.machine),
        }
    )


def _machine(sample: MachineSample) -> dict[str, Any]:
    host, disk = sample.host, sample.disk
    return {
        "host": sample.host_name,
        "gpus": [dataclasses.asdict(gpu) for gpu in sample.gpus.gpus],
        "no_gpu_reason": sample.gpus.reason,
        "driver": sample.gpus.driver,
        "cpu_share": sample.cpu_share,
        "cpus": None if host is None else host.usable_cpus,
        "ram_used_bytes": None if host is None else host.ram_used_bytes,
        "ram_bytes": None if host is None else host.usable_ram_bytes,
        "disk_free_bytes": None if disk is None else disk.free_bytes,
        "disk_total_bytes": None if disk is None else disk.total_bytes,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_line(snapshot: Snapshot) -> str:
    """Return one line for a log: time, state, place, the numbers that matter."""
    status, stage = snapshot.status, snapshot.stage
    words = [time.strftime("%H:%M:%S", time.localtime(snapshot.now))]
    words.append(state_of(snapshot, ASCII).word)
    if status.phase:
        doing = PHASE_WORDS.get(status.phase, clean(status.phase))
        words.append(f"{STAGE_WORDS.get(status.stage or '', '')} {doing}".strip())
    if status.epochs:
        words.append(f"epoch {status.running_epoch}/{status.epochs}")
    if status.steps:
        words.append(f"step {status.step}/{status.steps}")
    for label, name in (("loss", "train/loss"), ("pred", "pred/mean"), ("target", "target/mean")):
        value = number(stage.last, name)
        if value is not None:
            words.append(f"{label} {short(value)}")
    if snapshot.throughput is not None:
        words.append("{0} {2}/s".format(short(snapshot.throughput[0]), *snapshot.throughput))
    if snapshot.eta_s is not None:
        words.append(f"ETA {span(snapshot.eta_s)}")
    words += [f"{sign.name}: {clean(sign.message)}" for sign in worries(snapshot)]
    return "  ".join(words)
