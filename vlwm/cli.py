"""The `vlwm` command: registers the commands and turns known errors into sentences.

Nothing heavy is imported here or at the top of a command's module: `vlwm --help` starts neither
torch nor NumPy, and `help_screen` renders the help. Errors of the library are `VlwmError`s and end
as one sentence with their exit code; anything else is a bug and names the file of its traceback.
"""

from __future__ import annotations

import atexit
import io
import os
import re
import signal
import sys
from typing import Annotated

import typer

from vlwm import help_screen
from vlwm.commands.download import download
from vlwm.commands.eval import evaluate
from vlwm.commands.export import export
from vlwm.commands.monitor import monitor
from vlwm.commands.prepare import prepare
from vlwm.commands.setup import setup
from vlwm.commands.train import train
from vlwm.core.errors import DataError, VlwmError, nearest
from vlwm.core.files import explain_os_error
from vlwm.core.monitoring.formatting import terminal_glyphs
from vlwm.core.signals import INTERRUPTED, STOPPED, Stoppable, StopRequested, exit_code, say
from vlwm.core.text import safe_text
from vlwm.version import __version__

app = typer.Typer(
    name="vlwm",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Workflow: setup, download, prepare, train, eval, export; vlwm monitor watches a run. "
    "Exit codes: 0 done, 1 failed, 2 usage, 3 machine, 4 data, 75 stopped and resumable.",
)


def _print_version(value: bool) -> None:
    if value:
        print(f"vlwm {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")
    ] = False,
) -> None:
    """Train and evaluate 3-D occupancy forecasting models on PLATEAU city data."""


app.command("setup", rich_help_panel="Machine")(setup)
app.command("download", rich_help_panel="Machine")(download)
app.command("prepare", rich_help_panel="Pipeline")(prepare)
app.command("train", rich_help_panel="Pipeline")(train)
app.command("eval", rich_help_panel="Pipeline")(evaluate)
app.command("export", rich_help_panel="Pipeline")(export)
app.command("monitor", rich_help_panel="Watching")(monitor)


def main() -> None:
    """Run the console script."""
    debug = "--debug" in sys.argv
    sys.argv[1:] = [a for a in sys.argv[1:] if a != "--debug"]
    _replace_what_cannot_be_shown()
    with Stoppable() as stop:
        if sys.argv[1:2] == ["monitor"]:  # it has the whole screen, and leaves at once
            stop.answer = None
        code = _run(stop, debug)
        stopped = stop.received is not None or code in (STOPPED, INTERRUPTED)
        if stopped:
            stop.leave_with(code)
    _leave(code, at_once=stopped)


def _run(stop: Stoppable, debug: bool) -> int:
    """Run the command that was typed, say how it ended, and return its exit code."""
    try:
        if {"-h", "--help"} & set(sys.argv[1:]) or not sys.argv[1:]:
            help_screen.import_renderer()
        if not help_screen.answer(app, sys.argv[1:]):
            left = typer.main.get_command(app).main(standalone_mode=False)
            if left == INTERRUPTED and stop.received is not None:
                raise KeyboardInterrupt
            return left if isinstance(left, int) else 0
    except SystemExit as left:
        if (
            stop.received is not None and left.code == INTERRUPTED
        ):  # Typer turns KeyboardInterrupt into an exit
            stop.yield_to_the_end()
            say(_how_it_stopped(stop.received))
            return exit_code(stop.received)
        return left.code if isinstance(left.code, int) else 0 if left.code is None else 1
    except VlwmError as error:
        if debug:
            _print_traceback()
        say(f"vlwm: {safe_text(error, _LONGEST_SENTENCE)}")
        return error.exit_code
    except (KeyboardInterrupt, StopRequested):
        stop.yield_to_the_end()
        say(_how_it_stopped(stop.received))
        return exit_code(stop.received)
    except BrokenPipeError:
        return 1
    except OSError as error:
        if stop.received is not None:  # the terminal is gone, and a word to it failed
            return exit_code(stop.received)
        return _say_os_error(error, debug)
    except Exception as error:  # noqa: BLE001 - the one place where a bug is met
        if hasattr(error, "format_message"):  # of Typer: a wrong command line
            say(f"vlwm: {_wrong_usage(error)}")
            return int(getattr(error, "exit_code", 2))
        if type(error).__name__ == "Abort":
            return INTERRUPTED
        _report_bug(error, debug)
        return 1
    return 0


def _say_os_error(error: OSError, debug: bool) -> int:
    """Name the file that the system refused; without a name it is a bug."""
    if isinstance(error, FileNotFoundError) and not _has_a_folder():
        say("vlwm: the folder that this shell is in no longer exists: cd to another one")
        return DataError.exit_code
    if not isinstance(error.filename, str | os.PathLike):
        _report_bug(error, debug)
        return 1
    if debug:
        _print_traceback()
    explained = explain_os_error(error, os.fspath(error.filename))
    say(f"vlwm: {explained}")
    return explained.exit_code


def _has_a_folder() -> bool:
    """Return False where the working folder was deleted under the shell."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True


_PLAIN_WORDS = (
    (r"Input should be a valid integer.*", "not a whole number"),
    (r"Input should be a valid number.*", "not a number"),
    (r"Input should be greater than or equal to (\S+).*", r"must be at least \1"),
    (r"Input should be less than or equal to (\S+).*", r"must be at most \1"),
    (r"'(.*)' is not a valid int(eger)?.*", r'"\1" is not a whole number'),
    (r"'(.*)' is not a valid float.*", r'"\1" is not a number'),
)


def _wrong_usage(error: Exception) -> str:
    """Return a mistake on the command line as one sentence, with the nearest right word."""
    commands = {command.name for command in app.registered_commands}
    help_of = " ".join(["vlwm", *[word for word in sys.argv[1:2] if word in commands], "--help"])
    name, near = getattr(error, "option_name", None), getattr(error, "possibilities", None)
    if type(error).__name__ == "NoSuchOption" and name is not None:
        close = nearest(name, near or ()) or (sorted(near)[0] if near else None)
        hint = f"did you mean {close}?" if close else f"see {help_of}"
        return f"no such option {safe_text(name, 60)}: {hint}"
    text = str(getattr(error, "format_message")()).strip().rstrip(".")  # noqa: B009 - by name
    for pattern, plain in _PLAIN_WORDS:
        text = re.sub(pattern, plain, text, flags=re.S)
    text = re.sub(r"^Invalid value for '?([^':]+)'?: ", r"\1: ", text)
    return f"{safe_text(text[:1].lower() + text[1:])} (see {help_of})"


_LONGEST_SENTENCE = 4000
_KEPT = {
    "prepare": "frames that are done are kept; run the same command again to resume",
    "download": "what has arrived is kept; run the same command again to resume",
    "eval": "no scores were written; run the same command again",
    "monitor": "the run itself continues",
}


def _how_it_stopped(number: int | None) -> str:
    """Return the sentence that a stopped command ends with."""
    how = "interrupted"
    if number is not None and number != signal.SIGINT:
        how = f"stopped by {signal.Signals(number).name}"
    kept = next((text for name, text in _KEPT.items() if name in sys.argv[1:2]), None)
    return f"vlwm: {how}" if kept is None else f"vlwm: {how}: {kept}"


def _replace_what_cannot_be_shown() -> None:
    """Let stdout and stderr write ? or \\u... for what their encoding lacks, instead of failing."""
    plain = terminal_glyphs().ascii_only
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
            if plain and stream.isatty():  # Python takes C for UTF-8; screen and tmux do not
                stream.reconfigure(encoding="ascii", errors=errors)


def _leave(code: int, *, at_once: bool) -> None:
    """End with a code that a closed pipe or terminal cannot change.

    Args:
        at_once: without the interpreter's own end, in which a further signal would change the code.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if at_once:
        atexit._run_exitfuncs()
        os._exit(code)
    sys.exit(code)


def _print_traceback() -> None:
    import traceback

    traceback.print_exc()


def _report_bug(error: Exception, debug: bool) -> None:
    import tempfile
    import traceback

    if debug:
        _print_traceback()
        return
    try:  # a new file that only this user can read; a link in its place is not followed
        handle, log = tempfile.mkstemp(prefix="vlwm-error-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(traceback.format_exc())
        where = f"traceback in {log}; --debug shows it here"
    except OSError:
        where = "--debug shows the traceback"
    say(f"vlwm: this is a bug in vlwm, {type(error).__name__}: {safe_text(error)} ({where})")
