"""Put pictures on a terminal and write only the lines that changed.

A dashboard of 40 lines that is redrawn whole sends 17 kB/s over SSH; most lines stay the same from
one picture to the next. `Painter` remembers what each line shows and rewrites the others. Two
modes: on the whole screen (`monitor`: the alternate screen, given back at the end), and in line
(`train`: below what was printed before, so that the last picture stays in the scrollback).

Where the terminal knows synchronised output (DEC mode 2026) it shows a picture at once; other
terminals ignore the two sequences.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rich.cells import cell_len

_SYNC_ON, _SYNC_OFF = "\x1b[?2026h", "\x1b[?2026l"
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_ALTERNATE_ON, _ALTERNATE_OFF = "\x1b[?1049h", "\x1b[?1049l"
_CLEAR_SCREEN, _CLEAR_BELOW, _CLEAR_LINE_END = "\x1b[2J\x1b[H", "\x1b[J", "\x1b[K"
_RESET = "\x1b[0m"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Painter:
    """Shows a picture (a list of lines with ANSI colours) and later ones by their differences.

    Args:
        write: takes text for the terminal.
        whole_screen: use the alternate screen; else draw in line.
        synchronised: send the sequences of synchronised output.
    """

    def __init__(
        self, write: Callable[[str], object], *, whole_screen: bool, synchronised: bool = True
    ) -> None:
        self._write = write
        self._whole = whole_screen
        self._sync = (_SYNC_ON, _SYNC_OFF) if synchronised else ("", "")
        self._shown: list[str] = []
        self._size: tuple[int, int] | None = None
        self.bytes_written = 0

    def open(self) -> None:
        """Take the screen (whole-screen mode) and hide the cursor."""
        self._send((_ALTERNATE_ON + _CLEAR_SCREEN if self._whole else "") + _HIDE)

    def close(self) -> None:
        """Give the screen back; in line, leave the last picture and go below it."""
        self._send((_ALTERNATE_OFF if self._whole else "") + _RESET + _SHOW)
        self._shown = []

    def paint(self, lines: Sequence[str], size: tuple[int, int]) -> None:
        """Show a picture on a terminal of `size` (columns, lines).

        In line, the picture must have fewer lines than the terminal: what scrolled out of it can
        not be changed any more.
        """
        if self._whole:
            text = self._on_screen(list(lines[: size[1]]), size)
        else:
            text = self._in_line(list(lines[: max(1, size[1] - 1)]), size)
        if text:
            self._send(self._sync[0] + text + self._sync[1])

    def above(self, text: str) -> None:
        """Print text that stays, above the picture (in-line mode)."""
        picture, self._shown = self._shown, []
        whole = text if text.endswith("\n") else text + "\n"
        body = "".join(f"{line}{_RESET}{_CLEAR_LINE_END}\r\n" for line in picture)
        printed = whole.replace("\r\n", "\n").replace("\n", f"{_CLEAR_LINE_END}\r\n")
        self._send(
            self._sync[0] + _up(len(picture)) + _CLEAR_BELOW + printed + body + self._sync[1]
        )
        self._shown = picture

    def _on_screen(self, lines: list[str], size: tuple[int, int]) -> str:
        parts = []
        if size != self._size:
            parts.append(_CLEAR_SCREEN)
            self._shown, self._size = [], size
        for row, line in enumerate(lines):
            if row >= len(self._shown) or self._shown[row] != line:
                # behind a full line the cursor waits on the last column: clearing would take it
                clear = _CLEAR_LINE_END if _width(line) < size[0] else ""
                parts.append(f"\x1b[{row + 1};1H{line}{_RESET}{clear}")
        if len(lines) < len(self._shown):
            parts.append(f"\x1b[{len(lines) + 1};1H{_CLEAR_BELOW}")
        self._shown = lines
        return "".join(parts)

    def _in_line(self, lines: list[str], size: tuple[int, int]) -> str:
        resized = self._size is not None and size != self._size
        self._size = size
        if resized:  # the terminal has re-wrapped the old lines: start on a clear screen
            self._shown = []
            return _CLEAR_SCREEN + self._whole_picture(lines)
        if len(lines) != len(self._shown):
            return _up(len(self._shown)) + _CLEAR_BELOW + self._whole_picture(lines)
        # the cursor is below the last line; go up to each changed line and back
        parts = []
        for row, line in enumerate(lines):
            if self._shown[row] != line:
                distance = len(lines) - row
                parts.append(f"{_up(distance)}{line}{_RESET}{_CLEAR_LINE_END}\x1b[{distance}B\r")
        self._shown = lines
        return "".join(parts)

    def _whole_picture(self, lines: list[str]) -> str:
        self._shown = lines
        return "".join(f"{line}{_RESET}{_CLEAR_LINE_END}\r\n" for line in lines)

    def _send(self, text: str) -> None:
        self.bytes_written += len(text.encode("utf-8", "replace"))
        self._write(text)


def _width(line: str) -> int:
    """Return the columns of a line without its colours."""
    return cell_len(_COLOUR.sub("", line))


def _up(lines: int) -> str:
    """Go up to the beginning of the line `lines` above."""
    return f"\x1b[{lines}A\r" if lines else "\r"
