"""Whatever is painted, the terminal shows the last picture and everything printed above it."""

from __future__ import annotations

import pyte
from hypothesis import given, settings
from hypothesis import strategies as st

from vlwm.core.monitoring.terminal.painter import Painter

COLUMNS, LINES = 20, 10
PICTURES = st.lists(
    st.lists(st.text("ab 漢", max_size=8), min_size=1, max_size=LINES - 2), min_size=1, max_size=6
)


class Terminal:
    """An emulated terminal and a painter that writes to it."""

    def __init__(self, *, whole_screen: bool) -> None:
        self.screen = pyte.HistoryScreen(COLUMNS, LINES, history=500)
        self.stream = pyte.Stream(self.screen)
        self.painter = Painter(self.stream.feed, whole_screen=whole_screen, synchronised=False)
        self.painter.open()

    def paint(self, lines: list[str]) -> None:
        self.painter.paint(lines, (COLUMNS, LINES))

    def text(self) -> list[str]:
        rows = [*self.screen.history.top, *(self.screen.buffer[y] for y in range(LINES))]
        lines = ["".join(row[x].data for x in range(COLUMNS)).rstrip() for row in rows]
        while lines and not lines[-1]:
            lines.pop()
        return lines


def shown(lines: list[str]) -> list[str]:
    text = [line.rstrip() for line in lines]
    while text and not text[-1]:
        text.pop()
    return text


@settings(max_examples=60, deadline=None)
@given(PICTURES)
def test_the_whole_screen_shows_the_last_picture(pictures: list[list[str]]) -> None:
    terminal = Terminal(whole_screen=True)
    for picture in pictures:
        terminal.paint(picture)
    assert terminal.text() == shown(pictures[-1])


@settings(max_examples=60, deadline=None)
@given(PICTURES, st.integers(0, 5))
def test_in_line_the_last_picture_is_below_what_was_printed(
    pictures: list[list[str]], every: int
) -> None:
    terminal = Terminal(whole_screen=False)
    printed: list[str] = []
    for number, picture in enumerate(pictures):
        terminal.paint(picture)
        if every and number % every == 0:
            printed.append(f"said {number}")
            terminal.painter.above(printed[-1])
    terminal.painter.close()
    assert terminal.text() == shown([*printed, *pictures[-1]])


def test_only_changed_lines_are_written() -> None:
    terminal = Terminal(whole_screen=True)
    lines = [f"line {n} of ten" for n in range(LINES)]
    terminal.paint(lines)
    whole = terminal.painter.bytes_written
    terminal.paint(lines)
    assert terminal.painter.bytes_written == whole
    terminal.paint([*lines[:3], "changed", *lines[4:]])
    assert terminal.painter.bytes_written - whole < 40


def test_the_last_column_of_a_full_line_is_not_cleared() -> None:
    sent: list[str] = []
    painter = Painter(sent.append, whole_screen=True, synchronised=False)
    painter.paint(["\x1b[1m" + "x" * COLUMNS + "\x1b[0m", "漢" * (COLUMNS // 2), "y"], (COLUMNS, 3))
    full, wide, short = "".join(sent).split("H")[-3:]  # each begins by placing the cursor
    assert "\x1b[K" not in full and "\x1b[K" not in wide and "\x1b[K" in short


def test_another_size_begins_on_a_clear_screen() -> None:
    terminal = Terminal(whole_screen=False)
    terminal.paint(["one", "two"])
    terminal.painter.paint(["three"], (COLUMNS - 1, LINES))
    assert terminal.text() == ["three"]
