"""`vlwm setup`: a checklist of this machine, what mends it, and what training would choose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from vlwm.core.cloud.check import Check
    from vlwm.core.cloud.checklist import Findings
    from vlwm.core.monitoring.formatting import Glyphs

_LOOK, _MEND, _OUT = "What to look at", "Mending", "Results"
_NOT_FIT = 3
_PIPE_WIDTH = 200
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def setup(
    data_dir: Annotated[
        Path, typer.Option(help="Folder that data would go to.", rich_help_panel=_LOOK)
    ] = Path("data"),
    work_dir: Annotated[
        Path, typer.Option(help="Run folder of vlwm train.", rich_help_panel=_LOOK)
    ] = Path("checkpoints"),
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Ask no host on the network.", rich_help_panel=_LOOK),
    ] = False,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix", help="Mend what can be mended; asks before each.", rich_help_panel=_MEND
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="With --fix: do not ask.", rich_help_panel=_MEND)
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Write nothing; say what --fix would run.", rich_help_panel=_MEND
        ),
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=_OUT)
    ] = False,
    root: Annotated[
        Path, typer.Option("--root", hidden=True, help="Folder that stands for /.")
    ] = Path("/"),
) -> None:
    """Check this machine: provider, GPU, torch, memory, disk, what lasts; ends with 3 if not fit.

    Examples: [cyan]vlwm setup[/], [cyan]vlwm setup --fix --yes[/], [cyan]vlwm setup --json
    --offline[/]
    """
    from vlwm.commands._output import emit_json
    from vlwm.core.cloud.checklist import Question, look
    from vlwm.core.errors import UsageError
    from vlwm.core.hardware.machine import Machine

    if json_ and fix and not (yes or dry_run):
        raise UsageError("--json cannot ask", remedy="add --yes, or --dry-run")
    machine = Machine(root.resolve()) if root != Path("/") else Machine()
    question = Question(machine, data_dir, work_dir, offline, probe=not dry_run)
    found = look(question)
    if not json_:
        _show(found)
    if (fix or dry_run) and _mend(found, yes=yes, dry_run=dry_run):
        found = look(question)
        if not json_:
            _show(found)
    if json_:
        emit_json(found.to_dict())
    if not found.fit:
        raise typer.Exit(_NOT_FIT)


def _mend(found: Findings, *, yes: bool, dry_run: bool) -> bool:
    """Run the repairs that are wanted; whether any was run."""
    import shlex

    from vlwm.commands._output import note

    repairable = [check for check in found.checks if check.status != "ok" and check.repair]
    if not repairable:
        note("there is nothing that --fix can mend by itself")
    ran = False
    for check in repairable:
        words = " && ".join(shlex.join(command) for command in check.repair)
        if dry_run:
            note(f"--fix would run: {words}")
        elif yes or typer.confirm(f"{check.name}: {check.detail}. Run {words}?", err=True):
            _run(check)
            ran = True
    return ran


def _run(check: Check) -> None:
    """Run the commands of one repair until one fails; their output goes to stderr."""
    import shlex
    import subprocess
    import sys

    from vlwm.commands._output import note

    for command in check.repair:
        note(f"$ {shlex.join(command)}")
        try:
            code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
        except OSError as error:
            note(f"{check.name}: {command[0]} cannot be run: {error.strerror}")
            return
        if code:
            note(f"{check.name}: {command[0]} ended with exit code {code}")
            return


def _show(found: Findings) -> None:
    """The checklist and what follows from it."""
    from vlwm.commands._output import console
    from vlwm.core.monitoring.formatting import terminal_glyphs

    out, glyphs = console(), terminal_glyphs()
    if not out.is_terminal:
        out.width = _PIPE_WIDTH
    rows = [row for check in found.checks for row in _check_rows(check, glyphs)]
    out.print(_head(found, glyphs))
    out.print(_aligned([*rows, *_advice_rows(found)]))


def _aligned(rows: list[tuple[Text, str, Text]]) -> Table:
    """Mark, name and words in columns; long words wrap under themselves."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for mark, name, words in rows:
        table.add_row(mark, Text(name, style="bold"), words)
    return table


def _head(found: Findings, glyphs: Glyphs) -> Text:
    from rich.text import Text

    provider = found.provider
    words = [provider.title]
    words += [provider.instance] if provider.instance else []
    words += ["SkyPilot"] if provider.skypilot else []
    text = Text(f" {glyphs.dot} ".join(words), style="bold cyan")
    if provider.signal:
        text.append(f"  told by {provider.signal} ({provider.source})", style="not bold grey62")
    return text


def _check_rows(check: Check, glyphs: Glyphs) -> list[tuple[Text, str, Text]]:
    from rich.text import Text

    from vlwm.core.monitoring.formatting import clean

    mark = {"ok": glyphs.good, "warn": glyphs.warn, "fail": glyphs.bad}[check.status]
    words = Text(clean(check.detail, glyphs))
    if check.fix is not None and check.status != "ok":
        words.append(f"\n{glyphs.arrow} ", style="grey62")
        words.append(clean(check.fix, glyphs), style="cyan")
    return [(Text(mark, style=f"bold {_COLOURS[check.status]}"), check.name, words)]


def _advice_rows(found: Findings) -> list[tuple[Text, str, Text]]:
    from rich.text import Text

    board = found.board
    look_at = [board.command, board.url]
    look_at += [f"first, at home: {board.tunnel}"] if board.tunnel else []
    look_at += [board.note] if board.note else []
    rows = [
        ("", ""),
        ("train", f"{_choice(found)}\n{found.advice.why}"),
        ("tensorboard", "\n".join(look_at)),
        ("next", _next(found)),
    ]
    return [(Text(), name, Text(words)) for name, words in rows]


def _choice(found: Findings) -> str:
    """What training would choose by itself."""
    advice = found.advice
    workers = f"{advice.workers} loader worker{'' if advice.workers == 1 else 's'}"
    if advice.device == "cpu":
        return f"on the CPU, float32, {workers}"
    words = [f"batch {advice.batch_size}", advice.precision, workers]
    if advice.checkpoint_activations:
        words.insert(1, "activation checkpointing")
    if advice.hours is not None:
        words.append(f"about {advice.hours:.0f} h for 50 epochs ({advice.hours_from})")
    if advice.gpus > 1:
        words.append(f"on the first of {advice.gpus} GPUs")
    return ", ".join(words)


def _next(found: Findings) -> str:
    if not found.fit:
        return "mend what is marked as failed, then vlwm setup again"
    if found.advice.device == "cpu":
        return found.advice.command
    place = "" if found.work_dir == Path("checkpoints") else f" --work-dir {found.work_dir}"
    return f"vlwm download && vlwm prepare && {found.advice.command}{place}"
