"""A sign of ill health reaches every place where one may look, and leaves when it is over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.core.training import toy
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.telemetry.metric_log import MetricLog

NUMBERS = {
    "collapse": {"pred/mean": 0.0005, "target/mean": 0.009},
    "saturation": {"pred/mean": 0.2, "target/mean": 0.009},
    "empty_targets": {"pred/mean": 0.01, "target/mean": 0.0},
    "dead_codes": {"codebook/used": 40.0, "codebook/size": 512.0},
}
"""what the task says of itself from the second epoch on, until its last one"""


@pytest.mark.parametrize("sign", NUMBERS)
def test_a_sign_is_in_log_metrics_tensorboard_status_and_sinks(
    tmp_path: Path, sign: str, caplog: pytest.LogCaptureFixture
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    class Ill(toy.ToyTask):
        def numbers(self) -> dict[str, float]:
            well = {"pred/mean": 0.011, "target/mean": 0.009}
            return {**super().numbers(), **well, **(NUMBERS[sign] if 6 <= self.step < 12 else {})}

    class Taker:
        def __init__(self) -> None:
            self.taken: list[dict[str, Any]] = []

        def write(self, record: Any) -> None:
            self.taken.append(dict(record))
            if record["kind"] == "train" and f"health/{sign}" in record:
                status = RunFolder(tmp_path).read_status()
                assert status is not None
                shown.extend(s for s in status["health"] if s["name"] == sign)

    torch.manual_seed(0)
    shown: list[dict[str, Any]] = []
    trainer = toy.build(tmp_path, toy.config(), Ill())
    sink = Taker()
    trainer.metrics.sinks = (sink,)
    assert isinstance(trainer.metrics, MetricLog)
    trainer.begin()
    trainer.fit()
    trainer.metrics.close()
    key, steps = f"health/{sign}", list(range(7, 13))
    records, _ = RunFolder(tmp_path).read_metrics()
    assert [r["step"] for r in records if key in r] == steps
    assert [r["step"] for r in sink.taken if key in r] == steps
    board = EventAccumulator(str(tmp_path / "logs"))
    board.Reload()
    assert [point.step for point in board.Scalars(key)] == steps
    assert len(shown) == 6 and all(s["remedy"] and s["message"] for s in shown)
    assert caplog.text.count(f"{sign}: ") == 1  # told once, while it lasts
    status = RunFolder(tmp_path).read_status()
    assert status is not None and status["health"] == []
