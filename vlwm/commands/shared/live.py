"""Show the live view while `vlwm train` runs, or plain lines where no picture can be drawn."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlwm.core.hardware.machine import Machine


def draws_live(live: bool | None, json_: bool) -> bool:
    """Return whether stderr gets the live view.

    Args:
        live: --live or --no-live; None decides by the terminal.
        json_: stdout is read by a machine.
    """
    lead = os.environ.get("RANK", "0") == "0"
    terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    wanted = (sys.stdout.isatty() and not json_) if live is None else live
    return wanted and terminal and lead


def run_links(work_dir: Path, machine: Machine | None = None) -> dict[str, str]:
    """Return where TensorBoard of a run can be seen, and what to type for it on this provider."""
    from vlwm.core.cloud.provider import detect
    from vlwm.core.cloud.tensorboard import board_of
    from vlwm.core.hardware.machine import Machine

    machine = machine or Machine()
    board = board_of(shlex.quote(str(work_dir.absolute())), machine, detect(machine))
    links = {"TensorBoard": board.url, "TensorBoard: type on this machine": board.command}
    if board.tunnel is not None:
        links["TensorBoard: type on your own computer first"] = board.tunnel
    if board.note is not None:
        links["TensorBoard: note"] = board.note
    return links


@contextmanager
def live_view(work_dir: Path, *, drawn: bool) -> Iterator[None]:
    """Show training on stderr: the live view and warnings above it, or the log's lines."""
    if not drawn:
        with _log_on_stderr(logging.INFO):
            yield
        return
    from vlwm.core.monitoring.formatting import terminal_glyphs
    from vlwm.core.monitoring.screens.live import LiveView
    from vlwm.core.run_folder import RunFolder

    view = LiveView(RunFolder(work_dir), sys.stderr, terminal_glyphs())
    with view, _log_on_stderr(logging.WARNING):
        yield


@contextmanager
def _log_on_stderr(level: int) -> Iterator[None]:
    """Show the log's lines from `level` on; errors are printed by the command line itself."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)
    handler.addFilter(lambda record: record.levelno < logging.ERROR)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("vlwm")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
