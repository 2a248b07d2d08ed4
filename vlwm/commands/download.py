"""`vlwm download`: city models, weights and other data sets, resumable and verified."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vlwm.core.fetch.catalogue import Entry
    from vlwm.core.fetch.download import Download, OnProgress


_WHAT, _PART, _FROM, _HOW = "What to fetch", "Only a part of it", "From where", "How to run"


def download(
    store: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]", help="A store of vlwm prepare --store: brought to --data-dir/NAME."
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Everything that stands behind no form.", rich_help_panel=_WHAT),
    ] = False,
    plateau: Annotated[
        bool, typer.Option("--plateau", help="PLATEAU city models.", rich_help_panel=_WHAT)
    ] = False,
    models: Annotated[
        bool, typer.Option("--models", help="OccWorld's weights.", rich_help_panel=_WHAT)
    ] = False,
    nuscenes: Annotated[
        bool,
        typer.Option(
            "--nuscenes", help="nuScenes mini; trainval with --links.", rich_help_panel=_WHAT
        ),
    ] = False,
    uavscenes: Annotated[
        bool, typer.Option("--uavscenes", help="UAVScenes.", rich_help_panel=_WHAT)
    ] = False,
    tartanair: Annotated[
        bool, typer.Option("--tartanair", help="TartanAir.", rich_help_panel=_WHAT)
    ] = False,
    midair: Annotated[
        bool, typer.Option("--midair", help="Mid-Air, with --links.", rich_help_panel=_WHAT)
    ] = False,
    ward: Annotated[
        list[str] | None,
        typer.Option(
            "--ward",
            metavar="CODE",
            help="Only these wards or cities, such as 13101.",
            rich_help_panel=_PART,
        ),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="FORMAT", help="obj, citygml or 3dtiles.", rich_help_panel=_PART
        ),
    ] = None,
    scene: Annotated[
        list[str] | None,
        typer.Option(
            "--scene", metavar="NAME", help="Only these of UAVScenes.", rich_help_panel=_PART
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env", metavar="NAME", help="Only these of TartanAir.", rich_help_panel=_PART
        ),
    ] = None,
    links: Annotated[
        Path | None,
        typer.Option(
            "--links",
            metavar="FILE",
            help="What a form gave you: a list of addresses or files, or an archive.",
            rich_help_panel=_FROM,
        ),
    ] = None,
    catalog: Annotated[
        Path | None,
        typer.Option(
            "--catalog", help="Another catalogue of the same form.", rich_help_panel=_FROM
        ),
    ] = None,
    data_dir: Annotated[
        Path, typer.Option("--data-dir", help="Folder of all data.", rich_help_panel=_HOW)
    ] = Path("data"),
    list_: Annotated[
        bool,
        typer.Option(
            "--list",
            help="What there is: size, licence, place; fetch nothing.",
            rich_help_panel=_HOW,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Bytes, disk and time; fetch nothing.", rich_help_panel=_HOW
        ),
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=_HOW)
    ] = False,
) -> None:
    """Fetch data and weights; run it again after an interruption and it goes on.

    Without an option: Tokyo PLATEAU OBJ into data/plateau/meshes/obj and OccWorld's weights into
    pretrained/occworld/latest.pth.

    Examples: [cyan]vlwm download --list[/], [cyan]vlwm download --plateau --ward 13101 --format
    citygml[/], [cyan]vlwm download --all --data-dir /workspace/data[/]
    """
    from vlwm.core.fetch.catalogue import GROUPS, Selection, read_catalogue, select
    from vlwm.core.fetch.download import Download

    if store is not None:
        _bring_store(store, data_dir, json_)
        return
    entries = read_catalogue(catalog)
    flags = (plateau or bool(ward), models, nuscenes, uavscenes, tartanair, midair)
    groups = tuple(name for name, flag in zip(GROUPS, flags, strict=True) if flag)
    wanted = Selection(everything, groups, tuple(ward or ()), _format(format_))
    job = Download(data_dir, only=_only(scene, env))
    chosen = entries if list_ and not groups else select(entries, wanted)
    if wanted.wards and wanted.format in ("citygml", "3dtiles"):
        chosen = _wards(chosen, wanted, data_dir)
    if links is not None:
        chosen = _linked(chosen, links)
    if list_ or dry_run:
        _show(job, chosen, json_, "list" if list_ else "dry_run")
        return
    _fetch(job, chosen, json_)


def _bring_store(url: str, data_dir: Path, json_: bool) -> None:
    """Bring a store home, and print the command that trains on it."""
    from vlwm.commands._data import fetch_store
    from vlwm.commands._output import emit_json
    from vlwm.core.store.objects import open_store

    open_store(url)
    folder = fetch_store(url, data_dir / url.rstrip("/").rsplit("/", 1)[-1])
    if json_:
        emit_json({"store": url, "folder": str(folder)})
        return
    print(f"{url} is in {folder}")
    print(f"next: vlwm train --data {folder}")


def _format(text: str | None) -> str | None:
    from vlwm.core.errors import UsageError, nearest
    from vlwm.core.fetch.catalogue import FORMATS

    if text is None or text in FORMATS:
        return text
    close = nearest(text, FORMATS)
    remedy = f"did you mean {close}?" if close else f"use {', '.join(FORMATS)}"
    raise UsageError(f"--format {text} is unknown", remedy=remedy)


def _only(scene: list[str] | None, env: list[str] | None) -> tuple[str, ...]:
    names = [*(scene or ()), *(env or ())]
    return tuple(f"*{name}*" for name in names) or ("*",)


def _wards(chosen: Sequence[Entry], wanted: Any, data_dir: Path) -> list[Entry]:
    import os

    from vlwm.commands._output import note
    from vlwm.core.errors import DataError
    from vlwm.core.fetch.catalogue import PLATEAU_API, ask_plateau, plateau_entries

    api = os.environ.get("VLWM_PLATEAU_API", PLATEAU_API)
    try:
        answer = ask_plateau(data_dir / ".plateau-catalogue.json", api)
    except DataError as error:
        note(f"{error}; the built-in list is used")
        return list(chosen)
    found, missing = plateau_entries(wanted.wards, wanted.format, answer)
    if missing:
        raise DataError(
            f"PLATEAU's catalogue has no {wanted.format} for {', '.join(missing)}",
            remedy="use five-digit codes such as 13101 (Chiyoda), or another --format",
        )
    return found


def _linked(chosen: Sequence[Entry], links: Path) -> list[Entry]:
    from vlwm.core.errors import UsageError
    from vlwm.core.fetch.download import entries_of_links

    by_hand = [e for e in chosen if e.how]
    if not by_hand:
        raise UsageError("--links belongs to a data set behind a form", remedy="add --midair")
    return entries_of_links(by_hand[0], links)


def _show(job: Download, entries: Sequence[Entry], json_: bool, kind: str) -> None:
    from vlwm.commands._output import emit_json, print_table
    from vlwm.core.files import free_bytes

    missing = sum(e.size or 0 for e in entries if not job.is_there(e))
    if json_:
        rows = [_row(job, e) for e in entries]
        free = free_bytes(job.data_dir)
        emit_json({"mode": kind, "entries": rows, "missing_bytes": missing, "free_bytes": free})
        return
    cells = [
        [e.name, e.group, _size(e), e.licence, str(e.path(job.data_dir)), _state(job, e)]
        for e in entries
    ]
    print_table("Catalogue", ["name", "group", "size", "licence", "where", "there"], cells)
    _say_totals(job, missing)


def _row(job: Download, entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "group": entry.group,
        "bytes": entry.size,
        "licence": entry.licence,
        "path": str(entry.path(job.data_dir)),
        "there": job.is_there(entry),
    }


def _say_totals(job: Download, missing: int) -> None:
    from vlwm.commands._output import console
    from vlwm.core.files import free_bytes

    free = free_bytes(job.data_dir) / 1e9
    minutes = missing / 50e6 / 60
    console().print(
        f"To fetch: about {missing / 1e9:.1f} GB, {minutes:.0f} minutes at 50 MB/s; "
        f"{free:.1f} GB are free in {job.data_dir}."
    )


def _size(entry: Entry) -> str:
    if entry.size is None:
        return "?"
    text = f"{entry.size / 1e9:.1f} GB" if entry.size >= 1e9 else f"{entry.size / 1e6:.1f} MB"
    return text if entry.bytes is not None else f"~{text}"


def _state(job: Download, entry: Entry) -> str:
    return "yes" if job.is_there(entry) else "form" if entry.url is None else "no"


def _fetch(job: Download, entries: Sequence[Entry], json_: bool) -> None:
    from vlwm.commands._output import emit_json, note
    from vlwm.core.errors import DataError
    from vlwm.core.fetch.download import to_json

    automatic = [e for e in entries if e.url is not None]
    by_hand = [e for e in entries if e.url is None and not job.is_there(e)]
    if by_hand and not automatic:
        job.fetch(by_hand[0])
    job.check_room(automatic)
    results, failures = [], []
    with _progress(automatic) as report:
        job.progress = report
        for entry in automatic:
            try:
                results.append(job.fetch(entry))
            except DataError as error:
                failures.append(error)
                note(f"✘ {entry.name}: {error}")
    for entry in by_hand:
        note(f"▲ {entry.name} stands behind a form: {entry.how}")
    if json_:
        emit_json({"fetched": [to_json(r) for r in results], "failed": [str(e) for e in failures]})
    for result in results if not json_ else ():
        state = "was there" if result.was_there else f"{result.bytes / 1e6:.1f} MB"
        print(f"✔ {result.entry.name}  {state}  {result.path}")
    if failures:
        raise failures[0]
    note("next: vlwm prepare") if results and not json_ else None


@contextmanager
def _progress(entries: Sequence[Entry]) -> Iterator[OnProgress]:
    """A bar for each file on a terminal; plain lines at a steady pace elsewhere."""
    if sys.stderr.isatty():
        with _bars(entries) as report:
            yield report
    else:
        yield _Lines()


@contextmanager
def _bars(entries: Sequence[Entry]) -> Iterator[OnProgress]:
    from rich import progress as bars

    from vlwm.commands._output import console

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console(stderr=True)) as live:
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

        yield report


class _Lines:
    """One line every few seconds, for logs and pipes."""

    def __init__(self, every_s: float = 10.0) -> None:
        self.every_s = every_s
        self.last = 0.0

    def __call__(self, entry: Entry, done: int, total: int | None) -> None:
        import time

        from vlwm.commands._output import note

        if time.monotonic() - self.last >= self.every_s:
            self.last = time.monotonic()
            share = f" of {total / 1e6:.0f}" if total else ""
            note(f"{entry.name}: {done / 1e6:.0f}{share} MB")
