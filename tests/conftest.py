"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

pytest_plugins = ["tests.http_site"]

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # one core each
    os.environ["OMP_NUM_THREADS"] = "1"


def _heed_signals() -> None:
    """Undo what a background job or nohup leaves ignored: the tests send these signals."""
    for number, action in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
        (signal.SIGQUIT, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, action)


_heed_signals()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seeds",
        default=None,
        metavar="FROM:TO",
        help="run this slice of the seeds of a fuzz test",
    )


@pytest.fixture
def seeds_of(request: pytest.FixtureRequest) -> Callable[[int], range]:
    """The seeds of a fuzz test of so many runs; the slice that --seeds names of a long one."""
    asked: str | None = request.config.getoption("--seeds")

    def chosen(many: int) -> range:
        if asked is None or many < 100:
            return range(many)
        start, _, stop = asked.partition(":")
        return range(int(start or 0), min(int(stop or many), many))

    return chosen


_SHARED = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real public data beside the repository; tests that need it skip where it is absent."""
    if not _SHARED.is_dir():
        pytest.skip("needs the real sample data in ../shared/data, which is not there")
    return _SHARED
