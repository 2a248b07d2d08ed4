"""`vlwm setup`: a checklist of this machine, its fixes, and what training would choose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vlwm.commands.options import setup as opt

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from vlwm.core.cloud.check import Check
    from vlwm.core.cloud.checklist import Findings
    from vlwm.core.monitoring.formatting import Glyphs

_NOT_FIT = 3
_PIPE_WIDTH = 200
_ANSWER_S = 30.0
_WORDS = {"ok": "ok", "warn": "warn", "fail": "FAIL"}
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def setup(
    data_dir: opt.DataDir = Path("data"),
    work_dir: opt.WorkDir = Path("checkpoints"),
    offline: opt.Offline = False,
    fix: opt.Fix = False,
    yes: opt.Yes = False,
    dry_run: opt.DryRun = False,
    json_: opt.Json = False,
    ascii_: opt.Ascii = False,
    root: opt.Root = Path("/"),
) -> None:
    """Check this machine: provider, GPU, torch, memory, disk, persistent storage.

    Exits with 3 if the machine is not ready.

    Examples:

      [cyan]vlwm setup[/]

      [cyan]vlwm setup --fix --yes[/]

      [cyan]vlwm setup --json --offline[/]
    """
    from vlwm.commands.shared.output import emit_json, note
    from vlwm.core.cloud.checklist import Question, look
    from vlwm.core.errors import UsageError
    from vlwm.core.hardware.machine import Machine

    if json_ and fix and not (yes or dry_run):
        raise UsageError("--json cannot ask", remedy="add --yes, or --dry-run")
    machine = Machine(root.resolve()) if root != Path("/") else Machine()
    question = Question(machine, data_dir, work_dir, offline, probe=not dry_run)
    if not json_:
        note("checking this machine (a few seconds) ...")
    found = look(question)
    if not json_:
        _show(found, data_dir, plain=ascii_)
    if (fix or dry_run) and _fix(found, yes=yes, dry_run=dry_run):
        before = {check.name: check.status for check in found.checks}
        found = look(question)
        if not json_:
            _show_changed(found, before, plain=ascii_)
    if json_:
        emit_json(found.to_dict())
    if not found.fit:
        raise typer.Exit(_NOT_FIT)


def _fix(found: Findings, *, yes: bool, dry_run: bool) -> bool:
    """Run the repairs that are wanted; return whether any was run."""
    import shlex

    from vlwm.commands.shared.output import note

    repairable = [check for check in found.checks if check.status != "ok" and check.repair]
    if not repairable:
        note("Nothing to fix automatically")
    ran = False
    for check in repairable:
        words = " && ".join(shlex.join(command) for command in check.repair)
        if dry_run:
            note(f"--fix would run: {words}")
        elif yes or _agreed(f"{check.name}: {check.detail}. Run {words}?"):
            _run(check)
            ran = True
    return ran


def _agreed(question: str) -> bool:
    """Ask on the terminal; return False without one, or without an answer in 30 s."""
    import select
    import sys

    from vlwm.commands.shared.output import note

    if not sys.stdin.isatty():
        note(f"{question} no (nobody is here to answer; --yes does not ask)")
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    ready, _, _ = select.select([sys.stdin], [], [], _ANSWER_S)
    if not ready:
        note(f"no answer in {_ANSWER_S:.0f} s: no")
        return False
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _run(check: Check) -> None:
    """Run the commands of one repair until one fails; their output goes to stderr."""
    import shlex
    import subprocess
    import sys

    from vlwm.commands.shared.output import note

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


def _glyphs(plain: bool) -> Glyphs:
    from vlwm.core.monitoring.formatting import ASCII, terminal_glyphs

    return ASCII if plain else terminal_glyphs()


def _show(found: Findings, data_dir: Path, *, plain: bool) -> None:
    """Print the checklist, its summary, and what follows from it."""
    from vlwm.commands.shared.output import console

    out, glyphs = console(), _glyphs(plain)
    if not out.is_terminal:
        out.width = _PIPE_WIDTH
    rows = [row for check in found.checks for row in _check_rows(check, glyphs)]
    out.print(_head(found, glyphs), soft_wrap=True)
    out.print(_aligned(rows))
    out.print(_summary(found))
    out.print(_aligned(_advice_rows(found)))
    # a command that is to be typed is never wrapped or cut
    out.print(f"next: {_next(found, data_dir)}", markup=False, soft_wrap=True)


def _show_changed(found: Findings, before: dict[str, str], *, plain: bool) -> None:
    """Print the checks that a fix has changed."""
    from vlwm.commands.shared.output import console

    glyphs = _glyphs(plain)
    changed = [c for c in found.checks if before.get(c.name) != c.status]
    rows = [row for check in changed for row in _check_rows(check, glyphs)]
    console().print(_aligned(rows))
    console().print(_summary(found))


def _summary(found: Findings) -> str:
    """Return how many checks passed, in words."""
    count = {s: sum(c.status == s for c in found.checks) for s in ("ok", "warn", "fail")}
    warnings = f"{count['warn']} warning{'' if count['warn'] == 1 else 's'}"
    return f"{count['ok']} ok, {warnings}, {count['fail']} failed"


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
        text.append(f"  detected from {provider.signal}", style="not bold grey62")
    return text


def _check_rows(check: Check, glyphs: Glyphs) -> list[tuple[Text, str, Text]]:
    from rich.text import Text

    from vlwm.core.monitoring.formatting import clean

    marks = {"ok": glyphs.good, "warn": glyphs.warn, "fail": glyphs.bad}
    mark = (_WORDS if glyphs.ascii_only else marks)[check.status]
    words = Text(clean(check.detail, glyphs))
    if check.fix is not None and check.status != "ok":
        words.append(f"\n{glyphs.arrow} ", style="grey62")
        words.append(clean(check.fix, glyphs), style="cyan")
    return [(Text(mark, style=f"bold {_COLOURS[check.status]}"), check.name, words)]


def _advice_rows(found: Findings) -> list[tuple[Text, str, Text]]:
    from rich.text import Text

    board = found.board
    look_at = [board.command, board.url]
    look_at += [f"On your own computer, first run: {board.tunnel}"] if board.tunnel else []
    look_at += [board.note] if board.note else []
    rows = [
        ("", ""),
        ("train", f"{_choice(found)}\n{found.advice.why}"),
        ("tensorboard", "\n".join(look_at)),
    ]
    return [(Text(), name, Text(words)) for name, words in rows]


def _choice(found: Findings) -> str:
    """Return what training would choose by itself."""
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


def _next(found: Findings, data_dir: Path) -> str:
    """Return the command to type next; it works in any folder."""
    import shlex

    if not found.fit:
        return "fix the items marked as failed, then run vlwm setup again"
    if found.advice.device == "cpu":
        return found.advice.command
    place, ids = "", ""
    if found.work_dir != Path("checkpoints"):
        place = f" --work-dir {shlex.quote(str(found.work_dir.absolute()))}"
    if found.advice.gpus > 1:
        ids = f" --gpu-ids {','.join(map(str, range(found.advice.gpus)))}"
    if data_dir == Path("data"):
        return f"vlwm download && vlwm prepare && vlwm train --auto{ids}{place}"
    data = data_dir.absolute()
    raw, made = (shlex.quote(str(data / name)) for name in ("plateau/meshes/obj", "tokyo"))
    return (
        f"vlwm download --data-dir {shlex.quote(str(data))} && vlwm prepare --input {raw} "
        f"--output {made} && vlwm train --auto --data {made}{ids}{place}"
    )
