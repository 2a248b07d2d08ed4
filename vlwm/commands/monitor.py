"""`vlwm monitor`: follow a run from a second terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vlwm.commands.options import monitor as opt

if TYPE_CHECKING:
    from vlwm.core.monitoring.formatting import Glyphs
    from vlwm.core.monitoring.screens.alerts import Alerts
    from vlwm.core.run_folder import RunFolder
    from vlwm.core.store.object_store import ObjectStore

_FETCH_S = 10.0
"""seconds between two looks at a backup"""
_NAMES = 5
"""missing sessions that a line names"""


def monitor(
    runs: opt.Runs = None,
    once: opt.Once = False,
    json_: opt.Json = False,
    interval: opt.Interval = None,
    wait: opt.Wait = False,
    alert_cmd: opt.AlertCmd = None,
    ascii_: opt.Ascii = False,
) -> None:
    """Watch a run: progress, loss, forecasts, speed, GPU, checkpoints, health.

    Reads the run folder only, so it works over plain SSH during or after training. Press ? for
    help and q to quit; the run continues. Without a terminal it prints a line every 10 seconds.

    Examples: [cyan]vlwm monitor ./test_out[/], [cyan]vlwm monitor --once[/],
    [cyan]vlwm monitor --json | jq .metrics[/]
    """
    from vlwm.core.monitoring.formatting import ASCII, terminal_glyphs
    from vlwm.core.store.backup_signs import is_backup
    from vlwm.core.store.objects import is_url, open_store

    glyphs = ASCII if ascii_ else terminal_glyphs()
    if runs and is_url(runs[0]):
        store = open_store(runs[0])
        if not is_backup(store):
            _follow_store(store, once, json_, interval or 10.0)
        else:
            with _signs_of(store) as folder:
                if json_ or once:
                    _show_once(folder, json_, glyphs)
                else:
                    _follow([folder], glyphs, interval, _alerts(alert_cmd), choose=True)
        return
    folders = _find([Path(run) for run in runs or []], wait)
    if json_ or once:
        _show_once(folders[0], json_, glyphs)
    else:
        _follow(folders, glyphs, interval, _alerts(alert_cmd), choose=bool(runs))


@contextmanager
def _signs_of(store: ObjectStore) -> Iterator[RunFolder]:
    """Yield a folder that shows what a backup knows of its run, fetched again and again."""
    import tempfile
    import threading
    from contextlib import suppress

    from vlwm.core.errors import VlwmError
    from vlwm.core.run_folder import RunFolder
    from vlwm.core.store.backup_signs import SignsReader

    with tempfile.TemporaryDirectory(prefix="vlwm-monitor-") as place:
        reader, stop = SignsReader(store, Path(place)), threading.Event()
        reader.fetch()

        def keep_up() -> None:
            while not stop.wait(_FETCH_S):
                with suppress(VlwmError, OSError):  # an old status shows that nothing arrives
                    reader.fetch()

        thread = threading.Thread(target=keep_up, daemon=True)
        thread.start()
        try:
            yield RunFolder(Path(place))
        finally:
            stop.set()
            thread.join(timeout=5.0)


def _follow_store(store: ObjectStore, once: bool, json_: bool, interval: float) -> None:
    """Print a line about a store at a steady pace until it is finished."""
    import time
    from dataclasses import asdict

    from vlwm.commands.shared.output import emit_json
    from vlwm.core.store.progress import store_progress

    while True:
        now = store_progress(store, time.time())
        if json_:
            emit_json(asdict(now))
        else:
            rate = "" if now.per_hour is None else f", {now.per_hour:.1f} an hour"
            left = "" if now.remaining_s is None else f", {now.remaining_s / 60:.0f} min left"
            few = _missing_names(now.missing) if once or len(now.missing) <= _NAMES else ""
            done = ", finished" if now.finished else rate + left
            print(
                f"{now.city}: {now.present} of {now.sessions} sessions, "
                f"{now.size / 1e6:.1f} MB{done}{few}",
                flush=True,
            )
        if once or json_ or now.finished:
            return
        time.sleep(interval)


def _missing_names(missing: list[str]) -> str:
    """Return the first names of missing sessions as a part of a sentence."""
    if not missing:
        return ""
    more = len(missing) - _NAMES
    rest = f" and {more} more (--json names all)" if more > 0 else ""
    return f", missing: {', '.join(missing[:_NAMES])}{rest}"


def _find(paths: list[Path], wait: bool) -> list[RunFolder]:
    """Return the runs to show, waiting for the first one if asked.

    Raises:
        DataError: no run is there.
    """
    import time

    from vlwm.commands.shared.output import note
    from vlwm.core.errors import DataError
    from vlwm.core.monitoring.screens.find import find_runs

    noted = False
    while not (folders := find_runs(paths)):
        place = paths[0] if paths else Path("checkpoints")
        if not wait:
            what = "contains no run" if place.is_dir() else "does not exist"
            raise DataError(
                f"the run folder {what}",
                where=place,
                remedy=f"give the --work-dir of vlwm train, or wait: vlwm monitor {place} --wait",
            )
        if not noted:
            note(f"waiting for a run in {place} (Ctrl-C exits)")
            noted = True
        time.sleep(0.5)
    return folders


def _alerts(command: str | None) -> Alerts | None:
    from vlwm.core.monitoring.screens.alerts import Alerts

    return None if command is None else Alerts(command)


def _show_once(folder: RunFolder, json_: bool, glyphs: Glyphs) -> None:
    from vlwm.commands.shared.output import console, emit_json
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


def _follow(
    folders: list[RunFolder],
    glyphs: Glyphs,
    interval: float | None,
    alerts: Alerts | None,
    *,
    choose: bool,
) -> None:
    from vlwm.commands.shared.output import console
    from vlwm.core.monitoring import dashboard

    out = console()
    if out.is_terminal and not out.is_dumb_terminal:
        period_s = interval or dashboard.SCREEN_PERIOD_S
        dashboard.watch(folders, out, glyphs, period_s, alerts, choose=choose)
    else:
        dashboard.follow_in_lines(
            folders[0],
            lambda text: print(text, flush=True),
            interval or dashboard.LINES_PERIOD_S,
            alerts,
        )
