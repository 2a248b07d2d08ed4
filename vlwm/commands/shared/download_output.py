"""Print datasets, their totals and progress for `vlwm download`."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlwm.commands.shared.output import console, emit_json, note
from vlwm.core.fetch.catalogue import command_for
from vlwm.core.files import free_bytes
from vlwm.core.text import safe_text, span, time_of_day

if TYPE_CHECKING:
    from vlwm.core.fetch.catalogue import Entry
    from vlwm.core.fetch.download import Download, Fetched, OnProgress

_TOKYO = "plateau/meshes/obj"
"""where a plain `vlwm download` puts Tokyo, and a plain `vlwm prepare` looks for it"""
_NAMED = 3


def show_entries(
    job: Download, entries: Sequence[Entry], rest: Sequence[Entry], json_: bool, kind: str
) -> None:
    wanted = [e for e in entries if not job.is_there(e)]
    missing = sum(e.size or 0 for e in wanted)
    if json_:
        emit_json({
            "mode": kind,
            "entries": [entry_row(job, e) for e in entries],
            "left_out": [entry_row(job, e) for e in rest],
            "missing_bytes": missing,
            "unknown_sizes": sum(e.size is None for e in wanted),
            "free_bytes": free_bytes(job.data_dir),
        })  # fmt: skip
        return
    for entry in entries:
        _print_entry(job, entry)
    _say_totals(job, wanted)
    say_rest(rest, job.data_dir)


def _print_entry(job: Download, entry: Entry) -> None:
    """Print an entry in three lines that fit 80 columns, and can be copied."""
    print(f"{entry.name}  ({entry.group})  {_size(entry)}{_state(job, entry)}")
    print(f"    {safe_text(entry.path(job.data_dir))}")
    print(f"    licence: {entry.licence}")


def entry_row(job: Download, entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "group": entry.group,
        "bytes": entry.size,
        "licence": entry.licence,
        "path": str(entry.path(job.data_dir)),
        "there": job.is_there(entry),
        "how": entry.how,
    }


def _say_totals(job: Download, wanted: Sequence[Entry]) -> None:
    missing = sum(e.size or 0 for e in wanted)
    unknown = sum(e.size is None for e in wanted)
    free = free_bytes(job.data_dir) / 1e9
    if not wanted:
        print(f"Nothing to download; {free:.1f} GB are free in {job.data_dir}.")
        return
    about = "at least" if unknown else "about"
    minutes = max(1, round(missing / 50e6 / 60))
    more = f" ({unknown} of unknown size)" if unknown else ""
    print(
        f"To download: {about} {missing / 1e9:.1f} GB{more}, {about} {minutes} min at 50 MB/s; "
        f"{free:.1f} GB are free in {job.data_dir}."
    )


def say_rest(rest: Sequence[Entry], data_dir: Path) -> None:
    """List what --all leaves out: size, licence and the command that downloads it."""
    if not rest:
        return
    known = sum(e.size or 0 for e in rest)
    size = f"at least {known / 1e9:.1f} GB" if known else "sizes unknown"
    place = "" if data_dir == Path("data") else f" --data-dir {shlex.quote(_whole(data_dir))}"
    print(f"Not downloaded by --all ({size}):")
    for entry in rest:
        print(f"  {entry.name}: {_size(entry)}; licence: {entry.licence}")
        print(f"    {command_for(entry)}{place}")
        if entry.how:
            print(f"    first {entry.how.split(', and run')[0]}")


def after_download(results: Sequence[Fetched], data_dir: Path) -> str | None:
    """Return what to type once something was downloaded; None where there is nothing to type."""
    data = Path(_whole(data_dir))
    groups = {result.entry.group for result in results}
    if "plateau" in groups or ("models" in groups and (data / _TOKYO).is_dir()):
        return _prepare_cities([r for r in results if r.entry.group == "plateau"], data)
    for name in ("nuscenes", "uavscenes", "tartanair", "midair"):
        if name in groups:
            return _prepare_set(name, data)
    if "models" in groups:
        return shlex.join(["vlwm", "download", "--plateau", "--data-dir", str(data)])
    return None


def _prepare_cities(results: Sequence[Fetched], data: Path) -> str:
    """Return the command for downloaded cities; the shortest where the configs look for them."""
    places = [Path(_whole(r.path)) for r in results]
    if data.name == "data" and all(p.is_relative_to(data / _TOKYO) for p in places):
        return f"cd {shlex.quote(str(data.parent))} && vlwm prepare"
    given = [str(p.parent if p.name == "tileset.json" else p) for p in places]
    words = ["vlwm", "prepare"]
    for path in given or [str(data / _TOKYO)]:
        words += ["--input", path]
    entries = [r.entry for r in results]
    names = [e.ward or "tokyo" for e in entries[:_NAMED]] or ["tokyo"]
    kinds = [e.format for e in entries[:1] if e.format is not None]
    return shlex.join([*words, "--output", str(data / "_".join([*dict.fromkeys(names), *kinds]))])


def _prepare_set(name: str, data: Path) -> str:
    """Return the command that turns a recorded data set into sessions."""
    config = f"finetune_{name}" if name in ("nuscenes", "uavscenes") else "finetune_6dof"
    return shlex.join(
        ["vlwm", "prepare", "--dataset", name, "--input", str(data / name),
         "--output", str(data / f"{name}_sessions"), "--config", config]
    )  # fmt: skip


def _whole(path: str | Path) -> str:
    return str(Path(path).absolute())


def _size(entry: Entry) -> str:
    if entry.size is None:
        return "size unknown"
    text = f"{entry.size / 1e9:.1f} GB" if entry.size >= 1e9 else f"{entry.size / 1e6:.1f} MB"
    return text if entry.bytes is not None else f"about {text}"


def _state(job: Download, entry: Entry) -> str:
    if job.is_there(entry):
        return "  downloaded"
    return "  requires registration" if entry.url is None else ""


_Report = tuple["OnProgress", "Callable[[str], None]"]


@contextmanager
def progress(entries: Sequence[Entry]) -> Iterator[_Report]:
    """Yield a bar for each file on a terminal, else plain lines; and a way to print past it."""
    if sys.stderr.isatty():
        with _bars(entries) as report:
            yield report
    else:
        yield LineProgress(), note


@contextmanager
def _bars(entries: Sequence[Entry]) -> Iterator[_Report]:
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console(stderr=True), transient=True) as live:
        whole = sum(e.size or 0 for e in entries) or None
        together = live.add_task("all", total=whole) if len(entries) > 1 else None
        tasks: dict[str, bars.TaskID] = {}
        there: dict[str, int] = {}

        def report(entry: Entry, done: int, total: int | None) -> None:
            if entry.name not in tasks:
                tasks[entry.name] = live.add_task(entry.name, total=total)
            live.update(tasks[entry.name], completed=done, total=total)
            there[entry.name] = done
            if together is not None:
                live.update(together, completed=sum(there.values()))

        def say(text: str) -> None:
            live.console.print(text, markup=False, soft_wrap=True)

        yield report, say


class LineProgress:
    """One line every few seconds, for logs and pipes."""

    def __init__(self, every_s: float = 10.0) -> None:
        self.every_s = every_s
        self.last = 0.0
        self.begun: dict[str, tuple[float, int]] = {}

    def __call__(self, entry: Entry, done: int, total: int | None) -> None:
        now = time.monotonic()
        # bytes that an earlier process kept do not count towards the rate
        began, first = self.begun.setdefault(entry.name, (now, done))
        if now - self.last < self.every_s:
            return
        self.last = now
        share = f" of {total / 1e6:.0f}" if total else ""
        pace = _pace(done - first, now - began, total, done)
        note(f"{entry.name}: {done / 1e6:.0f}{share} MB{pace}")


def _pace(fetched: int, seconds: float, total: int | None, done: int) -> str:
    """Return rate, time left and its end; nothing where there is none yet."""
    if fetched <= 0 or seconds <= 0.0:
        return ""
    rate = fetched / seconds
    if not total or done >= total:
        return f", {rate / 1e6:.2g} MB/s"
    left_s = (total - done) / rate
    ends = time_of_day(time.time() + left_s, "%a %H:%M")
    return f", {rate / 1e6:.2g} MB/s, {span(left_s)} left, ends {ends}"
