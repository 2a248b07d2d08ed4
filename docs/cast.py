"""Record a real terminal session, and draw it as an animated SVG for the README.

    python docs/cast.py record --size 84x25 train.cast \\
        vlwm train --config test_local --work-dir ./test_out --epochs 2
    python docs/cast.py draw train.cast docs/images/train.svg --frames 12

A recording is an asciicast (version 2): what the program wrote, with times. Drawing plays it on an
emulated terminal and takes pictures at even times, and the last one. Nothing is drawn by hand.
"""

from __future__ import annotations

import argparse
import codecs
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path

import pyte

_CELL = (8.4, 18.0)  # width and height of a character, pixels
_EDGE = 14.0
_SECONDS = 1.6  # that a picture is shown
_BACK, _FORE = "#12151c", "#d6dae2"
_COLOURS = {
    "default": _FORE, "black": "#4a5160", "red": "#f2777a", "green": "#8fcf7f",
    "brown": "#e8c266", "blue": "#7aa6da", "magenta": "#c397d8", "cyan": "#6fc7d4",
    "white": _FORE, "brightblack": "#7b8496",
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """What the terminal showed at a time."""

    at_s: float
    rows: tuple[tuple[pyte.screens.Char, ...], ...]


def record(command: list[str], path: Path, columns: int, rows: int) -> int:
    """Run a command in a terminal of its own; write what it shows to `path`, return its code."""
    lead, follow = pty.openpty()
    fcntl.ioctl(follow, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environ = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "COLUMNS": str(columns)}
    begun = time.monotonic()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    process = subprocess.Popen(command, stdin=follow, stdout=follow, stderr=follow, env=environ)
    os.close(follow)
    with open(path, "w", encoding="utf-8") as file:
        head = {"version": 2, "width": columns, "height": rows, "title": " ".join(command)}
        file.write(json.dumps(head) + "\n")
        while True:
            ready, _, _ = select.select([lead], [], [], 0.2)
            if not ready and process.poll() is not None:
                break
            try:
                data = os.read(lead, 65536) if ready else b""
            except OSError:  # the program has closed the terminal
                break
            text = decoder.decode(data)
            if text:
                line = [round(time.monotonic() - begun, 3), "o", text]
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    os.close(lead)
    return process.wait()


def pictures(path: Path, frames: int) -> tuple[str, list[Picture]]:
    """Play a recording; return its title, and pictures at even times and at the end."""
    with open(path, encoding="utf-8") as file:
        head, *events = [json.loads(line) for line in file]
    screen = pyte.Screen(head["width"], head["height"])
    stream = pyte.Stream(screen)
    first_s, whole_s = events[0][0], events[-1][0]
    wanted = [first_s + (whole_s - first_s) * (n + 0.5) / frames for n in range(frames)]
    found: list[Picture] = []
    for at_s, _, text in events:
        while wanted and at_s > wanted[0]:
            found.append(_picture(screen, wanted.pop(0)))
        # pyte knows no synchronised output
        stream.feed(text.replace("\x1b[?2026h", "").replace("\x1b[?2026l", ""))
    return head["title"], [*found, _picture(screen, whole_s)]


def _picture(screen: pyte.Screen, at_s: float) -> Picture:
    rows = [
        tuple(screen.buffer[row][column] for column in range(screen.columns))
        for row in range(screen.lines)
    ]
    return Picture(at_s, tuple(rows))


def draw(title: str, shown: list[Picture]) -> str:
    """Return an SVG that shows the pictures in turn; without animation, the last one."""
    width = _CELL[0] * len(shown[0].rows[0]) + 2 * _EDGE
    height = _CELL[1] * (len(shown[0].rows) + 1) + 2 * _EDGE
    turn_s = _SECONDS * len(shown)
    share = 100.0 / len(shown)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" role="img" aria-label="{escape(title)}">',
        "<style>text{font:14px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;"
        "white-space:pre}"
        f".f{{visibility:hidden;animation:f {turn_s:.1f}s step-end infinite}}"
        f"@keyframes f{{0%{{visibility:visible}}{share:.2f}%{{visibility:hidden}}}}</style>",
        # the last picture is the background, which also shows where nothing moves
        _group(title, shown[-1], width, height, ""),
    ]
    for number, picture in enumerate(shown[:-1]):
        hidden = f' class="f" style="animation-delay:{number * _SECONDS:.1f}s"'
        parts.append(_group(title, picture, width, height, hidden))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _group(title: str, picture: Picture, width: float, height: float, attributes: str) -> str:
    minutes, seconds = divmod(round(picture.at_s), 60)
    lines = [
        f"<g{attributes}>",
        f'<rect width="{width:.0f}" height="{height:.0f}" rx="8" fill="{_BACK}"/>',
        _text(0, 0, f"$ {title}", _COLOURS["green"], False),
        _text(len(picture.rows[0]) - 5, 0, f"{minutes:2d}:{seconds:02d}", "#7b8496", False),
    ]
    for row, cells in enumerate(picture.rows, 1):
        column = 0
        for style, run in groupby(cells, key=lambda c: (c.fg, c.bg, c.bold, c.reverse)):
            text = "".join(cell.data for cell in run)
            lines += _run(column, row, text, style)
            column += len(text)
    return "\n".join([*lines, "</g>"])


def _run(column: int, row: int, text: str, style: tuple[str, str, bool, bool]) -> list[str]:
    """Characters of one style."""
    fore, back = _colour(style[0], _FORE), _colour(style[1], _BACK)
    if style[3]:
        fore, back = back, fore
    found = []
    if back != _BACK:
        x, y = _EDGE + column * _CELL[0], _EDGE + row * _CELL[1]
        size = f'width="{len(text) * _CELL[0]:.1f}" height="{_CELL[1]:.0f}"'
        found.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{back}"/>')
    if text.strip():
        start = len(text) - len(text.lstrip(" "))
        found.append(_text(column + start, row, text.strip(" "), fore, style[2]))
    return found


def _text(column: int, row: int, text: str, colour: str, bold: bool) -> str:
    x, y = _EDGE + column * _CELL[0], _EDGE + (row + 0.75) * _CELL[1]
    # whatever font the reader has, each character keeps its column
    length = f'textLength="{len(text) * _CELL[0]:.1f}"'
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" {length} fill="{colour}"{weight}>{escape(text)}</text>'


def _colour(name: str, otherwise: str) -> str:
    if name == "default":
        return otherwise
    return _COLOURS.get(name, f"#{name}" if len(name) == 6 else otherwise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    what = parser.add_subparsers(dest="what", required=True)
    recording = what.add_parser("record")
    recording.add_argument("cast", type=Path)
    recording.add_argument("--size", default="84x25")
    recording.add_argument("command", nargs=argparse.REMAINDER)
    drawing = what.add_parser("draw")
    drawing.add_argument("cast", type=Path)
    drawing.add_argument("svg", type=Path)
    drawing.add_argument("--frames", type=int, default=12)
    options = parser.parse_args()
    if options.what == "record":
        columns, rows = (int(n) for n in options.size.split("x"))
        words = [word for word in options.command if word != "--"]
        sys.exit(record(words, options.cast, columns, rows))
    options.svg.write_text(draw(*pictures(options.cast, options.frames)), encoding="utf-8")
    print(f"{options.svg}: {options.svg.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
