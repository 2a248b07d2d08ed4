"""Draw every page of the dashboard on real terminals, check the pictures, and keep them to look at.

    python benchmarks/captures.py --out DIR [--sizes 40x12 80x24] [--only screen/C tmux/none]

The terminal in front is pyte, which knows UTF-8; `vlwm monitor` runs in it directly, inside tmux
or inside screen, and `train`'s live view and what `eval` prints too, under every locale and TERM
below. For each place and size it presses the keys of every page and writes what a person would see
to DIR/PLACE/SIZE.txt.

Checked on each picture: plain characters where the locale is not UTF-8; every framed line whole
(nothing torn); the command to type complete, whichever lines it takes.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyte

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests import fake_run
from vlwm.core.run_folder import RunFolder

ROOT = Path(__file__).parents[1]

SIZES = (
    "40x12", "60x16", "60x20", "80x24", "80x50", "100x30", "120x32", "120x40", "160x45",
    "160x60", "200x50", "200x60",
)  # fmt: skip
PAGES = {
    "main": "",
    "help": "?",
    "log": "l",
    "zoom": "z",
    "runs": "r",
    "compare": "c",
    "links": "w",
}
NEXT = "vlwm train --config finetune_tokyo --work-dir '/data/my runs/tokyo 1' --epochs 30 --resume"
AFTER = "vlwm eval /data/runs/tokyo --video /data/runs/tokyo/forecast.webm"
EVALUATED = {
    "split": "test", "n_windows": 40, "n_clusters": 31, "too_few_clusters": False,
    "procedural": False,
    "horizons_s": [0.5, 1.0, 1.5, 2.0, 2.5, 3.0], "differences": {},
    "zones": {"all": {"frames_without_occupied_cells": []}},
    "attribution": "3D都市モデル（Project PLATEAU）（国土交通省）, CC BY 4.0",
    "scores": {
        name: {key: [value - 0.02 * h for h in range(6)]
               for key in ("iou", "iou_structure", "iou_seen", "iou_new", "precision", "recall",
                           "mean_ratio")}
        for name, value in (("model", 0.6), ("memory_baseline", 0.5), ("model_plan", 0.7),
                            ("true_pose_memory", 0.65))
    },
    "intervals": {
        name: {"iou": [[0.4, 0.7]] * 6}
        for name in ("model", "memory_baseline", "model_plan", "true_pose_memory")
    },
}  # fmt: skip
"""a score sheet as `vlwm eval` prints it"""
SCORES = {
    "horizons_s": [0.5, 1.0, 1.5, 2.0, 2.5, 3.0],
    "baseline": {"predicted": "planes_analogs"},
    "scores": {
        "model": {"iou": [0.930, 0.857, 0.786, 0.728, 0.683, 0.641]},
        "planes_analogs": {"iou": [0.941, 0.868, 0.780, 0.717, 0.670, 0.625]},
    },
}
LATIN = "en_US.ISO-8859-1"
LOCALES = {
    "utf8": {"LANG": "C.UTF-8"},
    "C": {"LC_ALL": "C"},
    "POSIX": {"LANG": "POSIX"},
    "latin1": {"LANG": LATIN},
    "none": {},
    "missing": {"LANG": "xx_XX.UTF-8"},
}


@dataclass(frozen=True)
class Place:
    """Where the dashboard runs.

    Attributes:
        inside: "", "tmux" or "screen".
        locale: a name of `LOCALES`.
        term: TERM of the terminal in front.
        ascii: whether plain characters are asked of it.
        program: "monitor", "train" or "eval".
    """

    inside: str
    locale: str
    term: str
    ascii: bool
    program: str = "monitor"

    @property
    def name(self) -> str:
        """Name of its folder."""
        words = [self.program, self.inside or "direct", self.locale, self.term]
        return "-".join(words)


PLACES = (
    Place("", "utf8", "xterm-256color", False),
    Place("", "utf8", "linux", False),
    Place("", "none", "xterm-256color", False),
    Place("", "C", "xterm-256color", True),
    Place("", "latin1", "xterm", True),
    Place("", "utf8", "vt100", True),
    *(
        Place(inside, locale, "screen-256color", locale != "utf8", program)
        for program in ("monitor", "train", "eval")
        for inside in ("tmux", "screen")
        for locale in LOCALES
    ),
    Place("", "utf8", "xterm-256color", False, "train"),
    Place("", "none", "linux", False, "train"),
)

LIVE = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from vlwm.commands.shared.live import live_view
with live_view(Path({run!r}), drawn=True):
    print("a line that was printed")
    time.sleep(600)
"""

EVAL = """
import json, sys, time
sys.path.insert(0, {root!r})
from vlwm import cli
from vlwm.commands.eval import _print
from vlwm.commands.shared.output import note
cli._replace_what_cannot_be_shown()
note("scoring {run} on 40 windows of split test, cpu")
note("12 of 40 windows, about 31 s left")
_print(json.load(open({run!r} + "/../sheet.json")))
note("written: {run}/scores.json")
time.sleep(600)
"""
"""what `vlwm eval` prints, without its windows"""


@dataclass
class Window:
    """A terminal of a size with a program in it."""

    lead: int
    process: subprocess.Popen[bytes]
    screen: pyte.Screen
    stream: pyte.ByteStream
    sent: bytearray = field(default_factory=bytearray)

    def wait(self, seconds: float) -> list[str]:
        """Read until nothing has come for `seconds`; return the lines of the screen."""
        until, latest = time.monotonic() + seconds, time.monotonic() + 3 * seconds
        while time.monotonic() < min(until, latest):
            ready, _, _ = select.select([self.lead], [], [], 0.05)
            if not ready:
                continue
            try:
                data = os.read(self.lead, 65536)
            except OSError:
                break
            self.sent += data
            self.stream.feed(data)
            until = time.monotonic() + seconds
        return [line.rstrip() for line in self.screen.display]

    def press(self, keys: str) -> None:
        """Send keys."""
        os.write(self.lead, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Change the size, as a person drags a window."""
        self.screen.resize(rows, columns)
        fcntl.ioctl(self.lead, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        with contextlib.suppress(OSError):
            self.process.send_signal(28)  # SIGWINCH


@contextlib.contextmanager
def window(
    command: list[str], environ: dict[str, str], columns: int, rows: int
) -> Iterator[Window]:
    """Start a program in a terminal of its own."""
    lead, follow = pty.openpty()
    fcntl.ioctl(follow, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        command, stdin=follow, stdout=follow, stderr=follow, env=environ, cwd=ROOT,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(follow)
    screen = pyte.Screen(columns, rows)
    try:
        yield Window(lead, process, screen, pyte.ByteStream(screen))
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3)
        process.kill()
        os.close(lead)


@contextlib.contextmanager
def ended(place: Place, command: list[str], environ: dict[str, str]) -> Iterator[None]:
    """End the session of tmux or screen afterwards: it would outlive its terminal."""
    try:
        yield
    finally:
        ending: list[str] = []
        if place.inside == "tmux":
            ending = [*command[:3], "kill-server"]  # tmux -S SOCKET
        elif place.inside == "screen":
            ending = ["screen", "-S", command[4], "-X", "quit"]
        if ending:
            subprocess.run(ending, env=environ, check=False, capture_output=True, timeout=10)


def write_runs(folder: Path) -> list[Path]:
    """Write three runs: one that trains, one that was killed with a warning, one that ended."""
    plan = [
        {"name": "prepare", "label": "prepare data", "state": "done", "share": 1, "seconds": 40},
        {"name": "tokenizer", "label": "stage 1: tokenizer", "state": "done", "share": 1,
         "seconds": 3000},
        {"name": "motion", "label": "warm-up: motion", "state": "done", "share": 1, "seconds": 30},
        {"name": "fusion", "label": "warm-up: fusion", "state": "done", "share": 1, "seconds": 60},
        {"name": "world", "label": "stage 2: world model", "state": "now", "share": 0.24,
         "seconds": 15_000},
        {"name": "eval", "label": "test", "state": "todo", "share": 0, "seconds": 120},
    ]  # fmt: skip
    links = {"W&B": "https://wandb.ai/somebody/occworld-tokyo/runs/3x8k2m1p"}
    known = {"plan": plan, "links": links, "eta_run_s": 19_980.0, "price_per_h": 0.63}
    good = fake_run.write_run(folder / "good", steps=1200, **known)
    sign = {
        "name": "grad_spike", "level": "warn", "step": 1100,
        "message": "gradient norm 41 is 12 times its mean",
        "remedy": "lower --lr if it comes again",
    }  # fmt: skip
    bad = fake_run.write_run(folder / "killed", steps=1200, **known, health=[sign], next=NEXT)
    bad.write_status(
        {**(bad.read_status() or {}), "pid": 2**22 - 1, "heartbeat": time.time() - 300}
    )
    for run in (good, bad):
        lines = [f"09:{n % 60:02d}:07 epoch 11 step {n}: loss 1.4{n % 10}" for n in range(80)]
        lines[-3] = "09:59:07 WARNING gradient norm 41 is 12 times its mean – see docs/training.md"
        (run.path / "train_20261129_090000.log").write_text("\n".join(lines) + "\n")
    done = {"state": "done", "phase": "done", "step": 31, "steps": 31, "exit_code": 0}
    ended = fake_run.write_run(folder / "ended", steps=1200, **known)
    ended.write_status({**(ended.read_status() or {}), **done, "next": AFTER})
    ended.scores_json.write_text(json.dumps(SCORES))
    ended.report_html.write_text("a report")
    return [good.path, bad.path, ended.path]


def locale_environment(folder: Path) -> dict[str, str]:
    """Generate the Latin-1 locale into a folder; return the variable that names it."""
    place = folder / "locales"
    place.mkdir()
    made = subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(place / LATIN)], capture_output=True
    )
    if made.returncode > 1 or not (place / LATIN).exists():
        print("the Latin-1 locale could not be generated: it counts as a missing one")
    return {"LOCPATH": str(place)}


def commands(place: Place, run: list[Path], folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command line and the environment of a place."""
    environ = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "TERM": place.term,
        "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **LOCALES[place.locale],
    }  # fmt: skip
    if place.locale == "latin1":
        environ |= (
            locale_environment(folder)
            if not (folder / "locales").exists()
            else {"LOCPATH": str(folder / "locales")}
        )
    if place.program == "monitor":
        words = [sys.executable, "-m", "vlwm", "monitor", *map(str, run), "--interval", "0.5"]
    else:
        text = LIVE if place.program == "train" else EVAL
        words = [sys.executable, "-c", text.format(root=str(ROOT), run=str(run[0]))]
    if place.inside == "tmux":
        (folder / "tmux.conf").write_text("set -g status off\n")
        words = ["tmux", "-S", str(folder / f"{time.time_ns()}"), "-f", str(folder / "tmux.conf"),
                 "new-session", *words]  # fmt: skip
    elif place.inside == "screen":
        (folder / "screenrc").write_text("startup_message off\nterm screen-256color\n")
        sockets = folder / "sockets"
        sockets.mkdir(mode=0o700, exist_ok=True)
        environ["SCREENDIR"] = str(sockets)
        words = ["screen", "-c", str(folder / "screenrc"), "-S", f"s{time.time_ns()}", *words]
    return words, environ


def faults(place: Place, page: str, lines: list[str], sent: bytes) -> list[str]:
    """Return what is wrong with a picture."""
    text = "\n".join(lines)
    found = []
    if place.ascii and not text.isascii():
        found.append(f"characters that are not plain: {sorted(set(re.findall('[^ -~]', text)))}")
    lacking = place.ascii and place.program == "eval"  # Japanese of an attribution becomes ?
    if "\ufffd" in text or ("???" in text and not lacking):
        found.append("broken characters")
    for line in lines:
        framed = line[:1] in "|│" and line[:1]
        if framed and line[-1:] not in "|│":
            found.append(f"torn line: {line}")
    if place.program == "eval" and "0.550 " not in text + " ":  # of the last row
        found.append("no table of scores")
    wanted = {"killed": NEXT, "ended": AFTER}.get(page)
    if wanted is not None:
        typed = text.partition("next: ")[2].split("? help")[0].replace("\\\n", "")
        try:
            whole = shlex.split(typed) == shlex.split(wanted)
        except ValueError:
            whole = False
        if not whole:
            found.append("the command to type is not whole")
    if place.program == "train" and sum(line.startswith("vlwm /") for line in lines) > 1:
        found.append("two pictures")
    return found


def capture(place: Place, sizes: list[str], runs: list[Path], folder: Path, out: Path) -> list[str]:
    """Capture every page of a place at every size; return what is wrong, with where."""
    found = []
    command, environ = commands(place, runs, folder)
    columns, rows = (int(n) for n in sizes[0].split("x"))
    with window(command, environ, columns, rows) as terminal, ended(place, command, environ):
        _settle(terminal, "written:" if place.program == "eval" else "")
        for size in sizes:
            columns, rows = (int(n) for n in size.split("x"))
            terminal.resize(columns, rows)
            terminal.wait(0.8)
            if place.program == "train":  # it looks at the size when it draws, every two seconds
                time.sleep(2.5)
                terminal.wait(0.8)
            pictures = _pages(terminal, place)
            text = "".join(
                f"===== {place.name} {size} {page}\n" + "\n".join(lines) + "\n"
                for page, lines in pictures.items()
            )
            (out / place.name).mkdir(exist_ok=True)
            (out / place.name / f"{size}.txt").write_text(text)
            for page, lines in pictures.items():
                sent = bytes(terminal.sent)
                found += [
                    f"{place.name} {size} {page}: {fault}"
                    for fault in faults(place, page, lines, sent)
                ]
    return found


def _settle(terminal: Window, word: str) -> None:
    """Wait until the first picture is there, and `word` in it."""
    until = time.monotonic() + 180
    while time.monotonic() < until:
        text = "".join(terminal.wait(0.7))
        if text and word in text:
            return
    raise SystemExit("no picture came within 3 minutes")


def _pages(terminal: Window, place: Place) -> dict[str, list[str]]:
    """Return the pages that the program has."""
    if place.program != "monitor":
        return {"live" if place.program == "train" else "table": terminal.wait(0.8)}
    pictures = {}
    terminal.press("1")
    for page, key in PAGES.items():
        terminal.press(key)
        pictures[page] = terminal.wait(0.4)
        if key:
            terminal.press(key if page != "zoom" else "\x1b")
            terminal.wait(0.3)
    for key, name in (("2", "killed"), ("3", "ended")):
        terminal.press(key)
        terminal.wait(0.6)
        pictures[name] = terminal.wait(0.6)
    terminal.press("1")
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", nargs="+", help="the default: three for each place, all in turn")
    parser.add_argument("--only", nargs="+", default=[], help="parts of a place's name")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="vc"))
    runs = write_runs(folder)
    (runs[0].parent / "sheet.json").write_text(json.dumps(EVALUATED))
    found: list[str] = []
    for number, place in enumerate(PLACES):
        if options.only and not any(part in place.name for part in options.only):
            continue
        if place.inside and shutil.which(place.inside) is None:
            print(f"{place.name}: {place.inside} is not installed")
            continue
        RunFolder(runs[0]).write_status(
            {**(RunFolder(runs[0]).read_status() or {}), "heartbeat": time.time() + 600}
        )
        own = [SIZES[(2 * number + n) % len(SIZES)] for n in (0, 1)]
        sizes = options.sizes or list(dict.fromkeys(["80x24", *own]))
        # what was printed is not drawn again at another size: each has a window of its own
        windows = [[size] for size in sizes] if place.program == "eval" else [sizes]
        wrong = [f for some in windows for f in capture(place, some, runs, folder, options.out)]
        print(f"{place.name}: {' '.join(sizes)}: {len(wrong)} faults", flush=True)
        found += wrong
    shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(found))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
