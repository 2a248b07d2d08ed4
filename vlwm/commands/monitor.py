"""`vlwm monitor`: follow a run from a second terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vlwm.core.monitoring.formatting import Glyphs
    from vlwm.core.run_folder import RunFolder


def monitor(
    run: Annotated[Path, typer.Argument(help="Run folder (--work-dir of vlwm train).")] = Path(
        "checkpoints"
    ),
    once: Annotated[bool, typer.Option("--once", help="Print one picture and leave.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object and leave.")] = False,
    interval: Annotated[
        float | None,
        typer.Option(
            help="Seconds between pictures. [1; 10 where no terminal is]", min=0.1, max=3600.0
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait where no run is in the folder yet.")
    ] = False,
    ascii_: Annotated[
        bool, typer.Option("--ascii", help="Plain characters. [where the locale is not UTF-8]")
    ] = False,
) -> None:
    """Watch a run: phase, loss, prediction, speed, GPU, checkpoints, health.

    Reads the run folder alone, so it works over plain SSH beside or after the training process;
    q leaves and the run goes on. Without a terminal it prints a line now and then.

    Examples: [cyan]vlwm monitor ./test_out[/], [cyan]vlwm monitor --once[/],
    [cyan]vlwm monitor --json | jq .metrics[/]
    """
    from vlwm.core.monitoring.formatting import ASCII, terminal_glyphs
    from vlwm.core.run_folder import RunFolder

    folder = RunFolder(run)
    _require_run(folder, wait)
    if json_ or once:
        _show_once(folder, json_, ASCII if ascii_ else terminal_glyphs())
    else:
        _follow(folder, ASCII if ascii_ else terminal_glyphs(), interval)


def _require_run(folder: RunFolder, wait: bool) -> None:
    """Raises DataError where no run is there, or waits for one."""
    import time

    from vlwm.commands._output import note
    from vlwm.core.errors import DataError

    told = False
    while not _holds_traces(folder):
        if not wait:
            what = "holds no run" if folder.path.is_dir() else "is not there"
            raise DataError(
                f"the run folder {what}",
                where=folder.path,
                remedy=f"give the --work-dir of vlwm train, or wait: vlwm monitor {folder.path} "
                "--wait",
            )
        if not told:
            note(f"waiting for a run in {folder.path} (Ctrl-C leaves)")
            told = True
        time.sleep(0.5)


def _holds_traces(folder: RunFolder) -> bool:
    places = (folder, folder.tokenizer)
    files = [f for p in places for f in (p.status_json, p.metrics_jsonl)]
    return any(file.exists() for file in files) or folder.holds_a_run()


def _show_once(folder: RunFolder, json_: bool, glyphs: Glyphs) -> None:
    from vlwm.commands._output import console, emit_json
    from vlwm.core.monitoring.export import to_dict
    from vlwm.core.monitoring.layout import frame
    from vlwm.core.monitoring.sampler import take_snapshot

    snapshot = take_snapshot(folder)
    if json_:
        emit_json(to_dict(snapshot))
        return
    out = console()
    width, height = out.size
    out.print(frame(snapshot, width, height - 1 if out.is_terminal else height, glyphs, keys=False))


def _follow(folder: RunFolder, glyphs: Glyphs, interval: float | None) -> None:
    from vlwm.commands._output import console
    from vlwm.core.monitoring import dashboard

    out = console()
    if out.is_terminal and not out.is_dumb_terminal:
        dashboard.watch(folder, out, glyphs, interval or dashboard.SCREEN_PERIOD_S)
    else:
        dashboard.follow_in_lines(
            folder, lambda text: print(text, flush=True), interval or dashboard.LINES_PERIOD_S
        )
