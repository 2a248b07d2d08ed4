"""The guide's tables: batch, precision, hours, workers."""

from __future__ import annotations

import pytest

from vlwm.core.hardware.advice import advise, guide_hours, largest_batch, loader_workers
from vlwm.core.hardware.gpu import Gpu
from vlwm.core.hardware.host import Host

MIB, GIB = 1 << 20, 1 << 30


def host(cpus: float = 16, shm_gib: float | None = 16) -> Host:
    shm = None if shm_gib is None else int(shm_gib * GIB)
    return Host(64, cpus, 64 * GIB, None, None, shm, None, False)


def card(name: str, total_mib: int, free_mib: int | None, sm: tuple[int, int] = (8, 0)) -> Gpu:
    free = None if free_mib is None else free_mib * MIB
    return Gpu(0, name, memory_total_bytes=total_mib * MIB, memory_free_bytes=free, capability=sm)


@pytest.mark.parametrize(
    ("gpu", "batch", "precision", "checkpointing", "hours"),
    [
        (card("NVIDIA A100-SXM4-80GB", 81920, 80994), 8, "bf16", False, 8.0),
        (card("NVIDIA A100 80GB PCIe", 81920, 80994), 8, "bf16", False, 8.0),
        (card("NVIDIA A100-SXM4-40GB", 40960, 40326), 3, "bf16", False, 12.0),
        (card("NVIDIA GeForce RTX 4090", 24564, 24101, (8, 9)), 2, "bf16", False, 20.0),
        (card("NVIDIA GeForce RTX 4090", 24564, 22600, (8, 9)), 1, "bf16", False, 20.0),
        (card("NVIDIA GeForce RTX 3090", 24576, 24233, (8, 6)), 2, "bf16", False, 24.0),
        (card("NVIDIA GeForce RTX 3090", 24576, 22700, (8, 6)), 1, "bf16", False, 24.0),
        (card("NVIDIA GeForce RTX 3080", 10240, 9996, (8, 6)), 1, "bf16", True, 48.0),
        (card("Tesla T4", 15360, 15095, (7, 5)), 1, "fp16", False, 48.0),
        (card("NVIDIA H100 80GB HBM3", 81559, 81008, (9, 0)), 8, "bf16", False, 8.0),
        (card("NVIDIA L4", 23034, 22500, (8, 9)), 1, "bf16", False, 24.0),
        (card("NVIDIA A100-SXM4-80GB", 81920, None), 1, "bf16", True, 8.0),
    ],
)
def test_the_guides_table(
    gpu: Gpu, batch: int, precision: str, checkpointing: bool, hours: float
) -> None:
    advice = advise((gpu,), host())
    assert (advice.batch_size, advice.precision) == (batch, precision)
    assert (advice.checkpoint_activations, advice.hours) == (checkpointing, hours)


def test_without_a_gpu_it_is_the_cpu() -> None:
    advice = advise((), host(2))
    assert (advice.device, advice.batch_size, advice.precision) == ("cpu", None, "float32")
    assert advice.hours is None and "test_local" in advice.why


def test_every_row_of_the_table_fits_exactly_where_it_says() -> None:
    for batch, gib in ((1, 13.0), (2, 22.0), (3, 32.0), (4, 40.0), (8, 70.0)):
        assert largest_batch(gib / 0.95 + 1e-9) == (batch, gib)
        assert largest_batch(gib / 0.95 - 1e-3)[0] == max(batch - 1 if batch < 8 else 4, 1)
    assert largest_batch(12.0) == largest_batch(None) == (1, None)


def test_rows_that_are_only_near_say_so() -> None:
    assert guide_hours(card("NVIDIA H100 80GB HBM3", 81559, 0)) == ("nearest row: A100 80GB", 8.0)
    assert guide_hours(card("NVIDIA GeForce RTX 3090", 24576, 0)) == ("RTX 3090", 24.0)
    assert guide_hours(Gpu(0, "NVIDIA GB10")) == (None, None)
    part = Gpu(0, "NVIDIA A100 MIG 3g.20gb", memory_total_bytes=20 * GIB, mig=True)
    assert guide_hours(part) == ("nearest row: RTX 3080", 48.0)


def test_workers_keep_within_quota_and_shared_memory() -> None:
    assert loader_workers(host(46), 8, 1) == 8
    assert loader_workers(host(3.5), 2, 1) == 2
    assert loader_workers(host(16), 2, 4) == 3
    assert loader_workers(host(1), 1, 1) == 0
    assert loader_workers(host(16, 1 / 16), 3, 1) == 1  # docker's 64 MB
    assert loader_workers(host(16, None), 3, 1) == 8
