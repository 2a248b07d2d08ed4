"""`vlwm download`: city models, weights and other datasets, resumable and verified."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlwm.commands.options import download as opt

if TYPE_CHECKING:
    from vlwm.core.fetch.catalogue import Entry, Selection
    from vlwm.core.fetch.download import Download, Fetched


_SPARE_BYTES = 1 << 30
"""left free on the disk by --all"""


def download(
    store: opt.Store = None,
    everything: opt.Everything = False,
    plateau: opt.Plateau = False,
    models: opt.Models = False,
    nuscenes: opt.Nuscenes = False,
    uavscenes: opt.Uavscenes = False,
    tartanair: opt.Tartanair = False,
    midair: opt.Midair = False,
    ward: opt.Ward = None,
    format_: opt.Format = None,
    scene: opt.Scene = None,
    env: opt.Env = None,
    links: opt.Links = None,
    catalog: opt.Catalog = None,
    data_dir: opt.DataDir = Path("data"),
    list_: opt.List = False,
    dry_run: opt.DryRun = False,
    json_: opt.Json = False,
) -> None:
    """Download datasets and weights. Run the same command again to resume.

    Without an option: Tokyo PLATEAU OBJ into data/plateau/meshes/obj and OccWorld's weights into
    pretrained/occworld/latest.pth.

    Examples:

      [cyan]vlwm download[/]

      [cyan]vlwm download --list[/]

      [cyan]vlwm download --plateau --ward 13101 --format citygml[/]

      [cyan]vlwm download --all --data-dir /workspace/data[/]
    """
    from vlwm.commands.shared.download_output import show_entries
    from vlwm.core.fetch.catalogue import GROUPS, Selection, divide, read_catalogue
    from vlwm.core.fetch.download import Download
    from vlwm.core.files import free_bytes

    if store is not None:
        _bring_store(store, data_dir, json_)
        return
    entries = read_catalogue(catalog)
    flags = (plateau or bool(ward), models, nuscenes, uavscenes, tartanair, midair)
    groups = tuple(name for name, flag in zip(GROUPS, flags, strict=True) if flag)
    wanted = Selection(everything, groups, tuple(ward or ()), _format(format_))
    job = Download(data_dir, only=_only(scene, env))
    chosen = _chosen(entries, wanted, data_dir, listed=list_)
    rest: list[Entry] = []
    if everything and not (list_ and not dry_run):
        usable = free_bytes(data_dir) - _SPARE_BYTES
        chosen, rest = divide(chosen, usable, job.is_there)
        rest += [e for e in entries if e.optional]
    if links is not None:
        chosen = _linked(chosen, links)
    if list_ or dry_run:
        show_entries(job, chosen, rest, json_, "list" if list_ else "dry_run")
        return
    _fetch_or_tell(job, chosen, rest, json_)


def _chosen(
    entries: Sequence[Entry], wanted: Selection, data_dir: Path, *, listed: bool
) -> Sequence[Entry]:
    """Return the entries that the options name; all of them for a list without options."""
    from vlwm.core.fetch.catalogue import select

    if wanted.wards and wanted.format in ("citygml", "3dtiles"):
        return _wards(entries, wanted, data_dir)
    return entries if listed and not wanted.groups else select(entries, wanted)


def _fetch_or_tell(
    job: Download, chosen: Sequence[Entry], rest: Sequence[Entry], json_: bool
) -> None:
    """Download; after Ctrl+C, tell how much of unfinished files is kept."""
    from vlwm.commands.shared.output import note

    try:
        _fetch(job, chosen, rest, json_)
    except KeyboardInterrupt:
        unfinished = sum(p.stat().st_size for p in _parts(job, chosen))
        if unfinished:
            note(f"{unfinished / 1e6:.1f} MB of unfinished files are kept")
        raise


def _parts(job: Download, entries: Sequence[Entry]) -> list[Path]:
    """Return the unfinished files of some entries."""
    paths = [entry.path(job.data_dir) for entry in entries]
    parts = [path.with_name(f"{path.name}.part") for path in paths]
    return [part for part in parts if part.is_file()]


def _bring_store(url: str, data_dir: Path, json_: bool) -> None:
    """Bring a store home, and print the command that trains on it."""
    from vlwm.commands.shared.data import fetch_store
    from vlwm.commands.shared.output import emit_json
    from vlwm.commands.shared.prepare_output import config_of, train_command
    from vlwm.core.store.objects import open_store

    open_store(url)
    folder = fetch_store(url, data_dir / url.rstrip("/").rsplit("/", 1)[-1])
    if json_:
        emit_json({"store": url, "folder": str(folder)})
        return
    print(f"{url} is in {folder}")
    print(f"next: {train_command(folder, config_of(folder))}")


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


def _wards(entries: Sequence[Entry], wanted: Selection, data_dir: Path) -> list[Entry]:
    """Return the entries of the wards that were asked for, and of no other.

    Raises:
        DataError: neither PLATEAU nor the built-in list has these wards.
    """
    import os

    from vlwm.commands.shared.output import note
    from vlwm.core.errors import DataError, UsageError
    from vlwm.core.fetch.catalogue import select
    from vlwm.core.fetch.plateau import PLATEAU_API, ask_plateau, plateau_entries
    from vlwm.core.fetch.reach import refuse_without_network

    api = os.environ.get("VLWM_PLATEAU_API", PLATEAU_API)
    kind = wanted.format or "obj"
    try:
        refuse_without_network([api], note)
        answer = ask_plateau(data_dir / ".plateau-catalogue.json", api)
    except DataError as error:
        try:
            built_in = select(entries, wanted)
        except UsageError:
            raise error from None
        if {e.ward for e in built_in} != set(wanted.wards):
            raise
        note(f"{error.what}; the built-in entries of these wards are used")
        return built_in
    found, missing = plateau_entries(wanted.wards, kind, answer)
    if missing:
        raise DataError(
            f"PLATEAU's catalogue has no {kind} for {', '.join(missing)}",
            remedy="use five-digit codes such as 13101 (Chiyoda), or another --format",
        )
    return found


def _linked(chosen: Sequence[Entry], links: Path) -> list[Entry]:
    from vlwm.core.errors import UsageError
    from vlwm.core.fetch.links import entries_of_links

    by_hand = [e for e in chosen if e.how]
    if not by_hand:
        raise UsageError("--links is for datasets that require registration", remedy="add --midair")
    return entries_of_links(by_hand[0], links)


def _fetch(job: Download, entries: Sequence[Entry], rest: Sequence[Entry], json_: bool) -> None:
    from vlwm.commands.shared.download_output import after_download, entry_row, progress, say_rest
    from vlwm.commands.shared.output import emit_json, mark, note
    from vlwm.core.errors import DataError, VlwmError
    from vlwm.core.fetch.download import to_json
    from vlwm.core.fetch.reach import refuse_without_network

    automatic = [e for e in entries if e.url is not None]
    by_hand = [e for e in entries if e.url is None and not job.is_there(e)]
    if by_hand and not automatic:
        job.fetch(by_hand[0])
    missing = [e for e in automatic if not job.is_there(e)]
    refuse_without_network([str(e.url) for e in missing], note)
    job.check_room(automatic)
    results: list[Fetched] = []
    failures: list[VlwmError] = []
    with progress(automatic) as (report, say):
        job.progress, job.notice = report, say
        for entry in automatic:
            try:
                results.append(job.fetch(entry))
            except DataError as error:
                failures.append(error)
                if len(automatic) > 1:
                    say(f"{mark('bad')} {entry.name}: {error}")
    for entry in by_hand:
        note(f"{mark('warn')} {entry.name} requires registration: {entry.how}")
    if json_:
        emit_json({
            "fetched": [to_json(r) for r in results],
            "failed": [str(e) for e in failures],
            "left_out": [entry_row(job, e) for e in rest],
        })  # fmt: skip
    for result in results if not json_ else ():
        state = "already downloaded" if result.was_there else f"{result.bytes / 1e6:.1f} MB"
        print(f"{mark('good')} {result.entry.name}  {state}  {result.path}")
    if not json_:
        say_rest(rest, job.data_dir)
    if failures:
        if len(automatic) == 1:
            raise failures[0]
        raise DataError(
            f"{len(failures)} of {len(automatic)} downloads failed",
            where=", ".join(e.where or "" for e in failures),
            remedy=f"the first: {failures[0]}",
        )
    following = None if json_ else after_download(results, job.data_dir)
    note(f"next: {following}") if following else None
