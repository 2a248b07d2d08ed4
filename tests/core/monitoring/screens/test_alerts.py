"""An operator's command runs once for each event, with the event in its environment."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests import fake_run
from vlwm.core.monitoring.reader import RunReader
from vlwm.core.monitoring.screens.alerts import Alerts

SIGN = {"name": "nan", "level": "fail", "message": "the loss is NaN", "remedy": "lower --lr"}


@pytest.fixture
def heard(tmp_path: Path) -> Path:
    return tmp_path / "heard"


def lines(path: Path, count: int) -> list[str]:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        found = path.read_text().splitlines() if path.exists() else []
        if len(found) >= count:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{count} alerts never came")


def test_each_event_once(tmp_path: Path, heard: Path) -> None:
    folder = fake_run.write_run(tmp_path / "run", steps=20)
    reader = RunReader(folder)
    alerts = Alerts(f'echo "$VLWM_EVENT $VLWM_MESSAGE" >> {heard}')
    alerts.look(reader.read())
    folder.write_status(fake_run.status(folder, health=[SIGN]))
    for _ in range(3):
        alerts.look(reader.read())
    assert lines(heard, 1)[0].startswith("nan ") and "lower --lr" in lines(heard, 1)[0]
    folder.write_status(fake_run.status(folder, state="failed", exit_code=1))
    for _ in range(3):
        alerts.look(reader.read())
    assert [line.split()[0] for line in lines(heard, 2)] == ["nan", "failed"]


def test_a_run_that_had_ended_before_is_no_news(tmp_path: Path, heard: Path) -> None:
    folder = fake_run.write_run(tmp_path / "run", steps=20, state="done", phase="done")
    alerts = Alerts(f"echo x >> {heard}")
    alerts.look(RunReader(folder).read())
    time.sleep(0.2)
    assert not heard.exists()
