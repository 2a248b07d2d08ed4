"""Advise what to train with on this machine: batch, precision, hours, by the guide's tables.

The VRAM table is read in GiB, as cards are sold: an A100 of 40 GB has 40 GiB, and 0.95 of what is
free there is below the table's 40 for a batch of four, so it takes three. `vlwm train` measures
by itself and may do better; the tables come first because they cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlwm.core.hardware.gpu import Gpu
from vlwm.core.hardware.host import Host

GIB = 1 << 30
VRAM_TABLE = ((1, 13.0), (2, 22.0), (3, 32.0), (4, 40.0), (8, 70.0))
"""(batch, GiB) of the training guide"""
FULL_GRID_CELLS = 4_500_000
"""a grid with at least these cells counts as the table's, which has 200 × 200 × 121"""
USABLE_SHARE = 0.95
"""of the free VRAM that may be filled"""
HOURS_TABLE = (
    ("A100 80GB", 80.0, 8.0),
    ("A100 40GB", 40.0, 12.0),
    ("RTX 4090", 24.0, 20.0),
    ("RTX 3090", 24.0, 24.0),
    ("RTX 3080", 10.0, 48.0),
)
"""(card, GiB, hours for 50 epochs on one of them) of the training guide"""

_WINDOW_BYTES = 10 * 605_000  # ten frames of 200 x 200 x 121 bits
_PREFETCH = 2
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Advice:
    """Recommended settings for training."""

    device: str
    """"cuda" or "cpu" """
    gpu: str | None
    """name of the GPU"""
    gpus: int
    """GPUs that are here"""
    batch_size: int | None
    """windows a step and GPU; None leaves the config's"""
    precision: str
    """"bf16", "fp16" (with a scaler) or "float32" """
    checkpoint_activations: bool
    """recompute activations, because no row of the table fits"""
    needs_gib: float | None
    """the table's entry for the batch"""
    free_gib: float | None
    """free VRAM"""
    workers: int
    """loader processes"""
    hours: float | None
    """for 50 epochs on one GPU, by the guide's table"""
    hours_from: str | None
    """row of the guide's table the hours come from"""
    why: str
    """one sentence"""

    @property
    def command(self) -> str:
        """The training command with these choices as flags."""
        if self.device == "cpu":
            return "vlwm train --config test_local --work-dir ./test_out"
        words = ["vlwm train", f"--batch-size {self.batch_size}", f"--workers {self.workers}"]
        if self.checkpoint_activations:
            words.append("--set model.checkpoint_activations=True")
        return " ".join(words)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return {**vars(self), "command": self.command}


def advise(gpus: tuple[Gpu, ...], host: Host) -> Advice:
    """Return what fits on the first of the GPUs, or on the CPU where there is none."""
    if not gpus:
        return Advice(
            "cpu", None, 0, None, "float32", False, None, None, loader_workers(host, 1, 1), None,
            None, "no GPU can be used: train on the CPU, with --config test_local or tokyo_small",
        )  # fmt: skip
    gpu = gpus[0]
    free = None if gpu.memory_free_bytes is None else gpu.memory_free_bytes / GIB
    batch, entry = largest_batch(free)
    precision = "bf16" if gpu.capability is not None and gpu.capability >= (8, 0) else "fp16"
    row, hours = guide_hours(gpu)
    return Advice(
        device="cuda",
        gpu=gpu.name,
        gpus=len(gpus),
        batch_size=batch,
        precision=precision,
        checkpoint_activations=entry is None,
        needs_gib=entry,
        free_gib=None if free is None else round(free, 2),
        workers=loader_workers(host, batch, len(gpus)),
        hours=hours,
        hours_from=row,
        why=_why(free, batch, entry),
    )


def largest_batch(free_gib: float | None) -> tuple[int, float | None]:
    """Return the largest batch whose table entry is at most 0.95 of free VRAM, and the entry.

    Where none fits, or the free VRAM is unknown: a batch of one and None.
    """
    fits = [row for row in VRAM_TABLE if row[1] <= USABLE_SHARE * (free_gib or 0.0)]
    return fits[-1] if fits else (1, None)


def _why(free: float | None, batch: int, entry: float | None) -> str:
    if free is None:
        return "the free VRAM is unknown: a batch of 1 with AMP and activation checkpointing"
    room = f"{USABLE_SHARE:.0%} of {free:.1f} GiB free VRAM"
    if entry is None:
        return (
            f"{room} is below the table's {VRAM_TABLE[0][1]:.0f} GiB for a batch of 1: "
            "1 with AMP and activation checkpointing"
        )
    return f"{room} holds the table's {entry:.0f} GiB for a batch of {batch}"


def guide_hours(gpu: Gpu) -> tuple[str | None, float | None]:
    """Return the guide's row for a card and its hours: by name, else by memory."""
    name = (gpu.name or "").upper().replace("-", " ")
    gib = (gpu.memory_total_bytes or 0) / GIB
    for row, row_gib, hours in HOURS_TABLE:
        words = row.removesuffix(" 80GB").removesuffix(" 40GB").split()
        if not gpu.mig and all(word in name.split() for word in words) and gib > 0.9 * row_gib:
            return row, hours
    if gib == 0:
        return None, None
    size = max((row[1] for row in HOURS_TABLE if row[1] <= gib / 0.93), default=HOURS_TABLE[-1][1])
    row, _, hours = [row for row in HOURS_TABLE if row[1] == size][-1]  # on a tie the slower
    return f"nearest row: {row}", hours


def loader_workers(host: Host, batch: int | None, gpus: int) -> int:
    """Return loader processes for each GPU: at most 8, within the CPU quota and /dev/shm."""
    cpus = host.usable_cpus
    fit = _MOST_WORKERS if cpus is None else int(cpus) // max(gpus, 1) - 1
    if host.shm_bytes is not None:
        each = _PREFETCH * (batch or 1) * _WINDOW_BYTES * max(gpus, 1)
        fit = min(fit, int(0.8 * host.shm_bytes) // each)
    return max(0, min(_MOST_WORKERS, fit))
